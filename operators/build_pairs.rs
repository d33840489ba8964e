//! `build_pairs`: scored answers become rows of SFT and of preference optimisation.

use std::collections::HashMap;

use arrow::datatypes::Field;
use fuseline_contract::rows::{self, Cell, Example, Preference, Row, Scored};
use fuseline_contract::{
    Execute, Input, Kind, Operator, Output, Part as KeyPart, Ports, Problems, Run, StageError, Table, Traits,
};
use fuseline_metrics::selection::{
    self, Candidate, PairSource, Part, Pick, Rule, Settings, Share, Window, divide, select, triple,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `build_pairs`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose rules.
    pub method: Method,
    /// fusechat3: how the two answers of a pair are found.
    #[serde(default)]
    pub rule: Option<Rule>,
    /// fusechat3: the margins that a pair may have; any where absent. The paper has 0.01 to 0.1 for reward scores, none for code.
    #[serde(default)]
    pub window: Option<Window>,
    /// fusechat3: which source's pair a prompt takes when several have one; `best_score` where absent.
    #[serde(default)]
    pub pair_source: Option<PairSource>,
    /// fusechat3 with `rule: score`: the share of prompts that goes to SFT, as `2/5` or `0.4`; the paper's 2/5 where absent.
    #[serde(default)]
    pub sft_share: Option<Share>,
}

/// Whose rules select.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Best and worst answer of one source; the rest of the prompts to SFT.
    Fusechat3,
    /// The sources' best answer beside the target's own best and worst.
    Wrpo,
}

impl Config {
    fn settings(&self) -> Settings {
        Settings {
            rule: self.rule.unwrap_or(Rule::Score),
            window: self.window,
            pair_source: self.pair_source.unwrap_or_default(),
        }
    }
}

/// See [`Operator::MANUAL`].
pub struct BuildPairs;

impl Operator for BuildPairs {
    const NAME: &'static str = "build_pairs";
    const VERSION: u32 = 1;
    const PARTS: &'static [KeyPart] = &[KeyPart { name: "metrics.selection", version: selection::VERSION }];
    const TRAITS: Traits = Traits { uses_seed: true, ..Traits::PURE };
    const MANUAL: &'static str = "\
Builds training rows from scored answers.

`fusechat3` (arXiv 2503.04222, data construction): a pair is the best and the
worst answer of one source, by score, or with `rule: verdict` the best correct
and the worst incorrect one. With `rule: score` the prompts that have a pair
are divided by `sft_share`; with `rule: verdict` a prompt with a pair goes to
`pairs`, one without but with a correct answer to `examples`. An example is the
best answer of all sources.

`wrpo` (arXiv 2412.03187): `chosen` is the best answer of all sources,
`chosen_target` and `rejected` the best and the worst of `own`, the target's
own answers; `examples` has the sources' best for prompts that `own` lacks.

Everything left out stands in `dropped` with its reason.";
    const EXAMPLE: &'static str =
        "op: build_pairs\ninputs: {responses: scored}\nwith: {method: fusechat3, rule: verdict}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let mut inputs = vec![Input::one("responses", Kind::Rows(&rows::SCORED), "scored answers of the sources")];
        if config.method == Method::Wrpo {
            inputs.push(Input::one("own", Kind::Rows(&rows::SCORED), "scored answers of the target itself"));
        }
        Ports {
            inputs,
            outputs: vec![
                Output::new("pairs", Kind::Rows(&rows::PREFERENCE), "rows of preference optimisation"),
                Output::new("examples", Kind::Rows(&rows::EXAMPLE), "rows of SFT"),
                Output::new("dropped", Kind::AnyTable, "prompt_id, domain, source, reason, detail"),
            ],
        }
    }

    fn fill(config: &mut Config) {
        if config.method == Method::Fusechat3 {
            config.pair_source.get_or_insert_default();
            if config.rule == Some(Rule::Score) {
                config.sft_share.get_or_insert(Share::FUSECHAT3_SFT);
            }
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        if config.method == Method::Wrpo {
            for (name, given) in [
                ("rule", config.rule.is_some()),
                ("window", config.window.is_some()),
                ("pair_source", config.pair_source.is_some()),
                ("sft_share", config.sft_share.is_some()),
            ] {
                problems.require(!given, name, || "has no meaning with method: wrpo; leave it out".into());
            }
        } else {
            problems.require(config.rule.is_some(), "rule", || "fusechat3 needs rule: score or rule: verdict".into());
            problems.require(config.sft_share.is_none() || config.rule == Some(Rule::Score), "sft_share", || {
                "with rule: verdict the verdicts divide the prompts; leave it out".into()
            });
        }
        if let Some(window) = config.window {
            problems.require(window.min <= window.max, "window", || {
                format!("min {} lies above max {}", window.min, window.max)
            });
        }
    }
}

impl Execute for BuildPairs {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let answers = Scored::read(&run.table("responses")?)?;
        if answers.is_empty() {
            return Err(StageError::input("the table bound to \"responses\" has no rows"));
        }
        let prompts = group(&answers);
        let made = match config.method {
            Method::Fusechat3 => fusechat3(config, &answers, &prompts, run.seed())?,
            Method::Wrpo => {
                let own = Scored::read(&run.table("own")?)?;
                wrpo(&answers, &prompts, &own)?
            }
        };
        run.note(format!(
            "{} prompts: {} pairs, {} examples, {} prompts left out",
            prompts.len(),
            made.pairs.len(),
            made.examples.len(),
            made.dropped.iter().filter(|row| row.source.is_none()).count()
        ));
        let with_domain = |table: Table, domains: Vec<Option<String>>| -> Result<Table, StageError> {
            let field = Field::new("domain", <Option<String>>::data_type(), true);
            Ok(table.beside(&Table::of_columns(vec![(field, <Option<String>>::build(domains.iter()))])?)?)
        };
        let (pairs, domains): (Vec<Preference>, Vec<_>) = made.pairs.into_iter().unzip();
        run.write("pairs", with_domain(Preference::table(&pairs)?, domains)?)?;
        let (examples, domains): (Vec<Example>, Vec<_>) = made.examples.into_iter().unzip();
        run.write("examples", with_domain(Example::table(&examples)?, domains)?)?;
        run.write("dropped", dropped_table(&made.dropped)?)
    }
}

/// The answers to one prompt: row numbers by source and sample.
struct Group {
    /// A row of the prompt.
    first: usize,
    /// Sources in order of appearance, each with its rows in order.
    sources: Vec<(String, Vec<usize>)>,
}

/// Prompts in order of appearance.
fn group(answers: &[Scored]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut place: HashMap<&str, usize> = HashMap::new();
    for (row, answer) in answers.iter().enumerate() {
        let index = *place.entry(&answer.prompt_id).or_insert_with(|| {
            groups.push(Group { first: row, sources: Vec::new() });
            groups.len() - 1
        });
        let sources = &mut groups[index].sources;
        match sources.iter_mut().find(|(source, _)| *source == answer.source) {
            Some((_, rows)) => rows.push(row),
            None => sources.push((answer.source.clone(), vec![row])),
        }
    }
    // Which source wins a tie must not depend on which row came first.
    for group in &mut groups {
        group.sources.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, rows) in &mut group.sources {
            rows.sort_by_key(|row| answers[*row].sample);
        }
    }
    groups
}

/// A row that was left out, and why.
struct Dropped {
    prompt_id: String,
    domain: Option<String>,
    source: Option<String>,
    reason: &'static str,
    detail: String,
}

#[derive(Default)]
struct Made {
    pairs: Vec<(Preference, Option<String>)>,
    examples: Vec<(Example, Option<String>)>,
    dropped: Vec<Dropped>,
}

fn input(error: fuseline_metrics::Error) -> StageError {
    StageError::input(error.to_string())
}

fn example(answer: &Scored) -> (Example, Option<String>) {
    let row = Example {
        prompt_id: answer.prompt_id.clone(),
        messages: answer.messages.clone(),
        completion: answer.text.clone(),
        weight: None,
    };
    (row, answer.domain.clone())
}

fn preference(chosen: &Scored, rejected: &Scored, target: Option<&Scored>) -> (Preference, Option<String>) {
    let row = Preference {
        prompt_id: chosen.prompt_id.clone(),
        messages: chosen.messages.clone(),
        chosen: chosen.text.clone(),
        rejected: rejected.text.clone(),
        chosen_source: Some(chosen.source.clone()),
        rejected_source: Some(rejected.source.clone()),
        chosen_reward: Some(chosen.reward),
        rejected_reward: Some(rejected.reward),
        weight: None,
        chosen_target: target.map(|target| target.text.clone()),
    };
    (row, chosen.domain.clone())
}

fn left_out(answer: &Scored, source: Option<&str>, reason: &'static str, detail: String) -> Dropped {
    Dropped {
        prompt_id: answer.prompt_id.clone(),
        domain: answer.domain.clone(),
        source: source.map(str::to_owned),
        reason,
        detail,
    }
}

fn fusechat3(config: &Config, answers: &[Scored], prompts: &[Group], seed: u64) -> Result<Made, StageError> {
    let settings = config.settings();
    let mut made = Made::default();
    let mut selections = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let candidate = |row: &usize| Candidate { score: answers[*row].reward, correct: answers[*row].correct };
        let samples: Vec<Vec<Candidate>> =
            prompt.sources.iter().map(|(_, rows)| rows.iter().map(candidate).collect()).collect();
        let selection = select(&samples, &settings)
            .map_err(|error| StageError::input(format!("prompt {:?}: {error}", answers[prompt.first].prompt_id)))?;
        selections.push(selection);
    }
    // Prompts that can serve either part are divided by the hash of their identity.
    let either: Vec<&str> = prompts
        .iter()
        .zip(&selections)
        .filter(|(_, selection)| selection.part == Part::Either)
        .map(|(prompt, _)| answers[prompt.first].prompt_id.as_str())
        .collect();
    let to_sft = divide(&either, config.sft_share.unwrap_or(Share::FUSECHAT3_SFT), seed).map_err(input)?;
    let mut divided = to_sft.into_iter();
    for (prompt, selection) in prompts.iter().zip(selections) {
        let row = |pick: Pick| &answers[prompt.sources[pick.source].1[pick.sample]];
        let first = &answers[prompt.first];
        for ((source, _), pair) in prompt.sources.iter().zip(&selection.sources) {
            if let Err(why) = pair {
                made.dropped.push(left_out(first, Some(source), why.code(), why.to_string()));
            }
        }
        let part = match selection.part {
            Part::Either if divided.next().unwrap_or(false) => Part::Sft,
            Part::Either => Part::Preference,
            part => part,
        };
        match part {
            Part::Sft => made.examples.extend(selection.sft.map(|pick| example(row(pick)))),
            Part::Dropped(why) => made.dropped.push(left_out(first, None, why.code(), why.to_string())),
            Part::Preference | Part::Either => {
                for pair in &selection.pairs {
                    let side = |sample| row(Pick { source: pair.source, sample });
                    made.pairs.push(preference(side(pair.chosen), side(pair.rejected), None));
                }
            }
        }
    }
    Ok(made)
}

fn wrpo(answers: &[Scored], prompts: &[Group], own: &[Scored]) -> Result<Made, StageError> {
    let own_groups: HashMap<&str, Vec<&Scored>> = {
        let mut groups: HashMap<&str, Vec<&Scored>> = HashMap::new();
        for answer in own {
            groups.entry(&answer.prompt_id).or_default().push(answer);
        }
        groups.values_mut().for_each(|rows| rows.sort_by_key(|row| row.sample));
        groups
    };
    let mut made = Made::default();
    for prompt in prompts {
        let first = &answers[prompt.first];
        let here = |error: fuseline_metrics::Error| StageError::input(format!("prompt {:?}: {error}", first.prompt_id));
        let scores: Vec<Vec<f64>> =
            prompt.sources.iter().map(|(_, rows)| rows.iter().map(|row| answers[*row].reward).collect()).collect();
        let own = own_groups.get(first.prompt_id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let own_scores: Vec<f64> = own.iter().map(|answer| answer.reward).collect();
        let own_texts: Vec<&str> = own.iter().map(|answer| answer.text.as_str()).collect();
        let triple = triple(&scores, &own_scores, &own_texts).map_err(here)?;
        let best = triple.of_sources.map(|pick| &answers[prompt.sources[pick.source].1[pick.sample]]);
        match (best, triple.own) {
            (Some(best), _) if own.is_empty() => made.examples.push(example(best)),
            (Some(best), Ok(picked)) => made.pairs.push(preference(best, own[picked.worst], Some(own[picked.best]))),
            (_, Err(why)) => made.dropped.push(left_out(first, None, why.code(), why.to_string())),
            (None, Ok(_)) => return Err(StageError::bug("a triple without an answer of the sources")),
        }
    }
    // Prompts that only the target answered.
    let known: std::collections::HashSet<&str> = prompts.iter().map(|p| answers[p.first].prompt_id.as_str()).collect();
    let mut seen = std::collections::HashSet::new();
    for answer in own {
        if !known.contains(answer.prompt_id.as_str()) && seen.insert(&answer.prompt_id) {
            let why = selection::NoTriple::NoSourceAnswer;
            made.dropped.push(left_out(answer, None, why.code(), why.to_string()));
        }
    }
    Ok(made)
}

fn dropped_table(rows: &[Dropped]) -> Result<Table, StageError> {
    let text =
        |name: &str, values: Vec<String>| (Field::new(name, String::data_type(), false), String::build(values.iter()));
    let optional = |name: &str, values: Vec<Option<String>>| {
        (Field::new(name, String::data_type(), true), <Option<String>>::build(values.iter()))
    };
    Ok(Table::of_columns(vec![
        text("prompt_id", rows.iter().map(|row| row.prompt_id.clone()).collect()),
        optional("domain", rows.iter().map(|row| row.domain.clone()).collect()),
        optional("source", rows.iter().map(|row| row.source.clone()).collect()),
        text("reason", rows.iter().map(|row| row.reason.to_owned()).collect()),
        text("detail", rows.iter().map(|row| row.detail.clone()).collect()),
    ])?)
}
