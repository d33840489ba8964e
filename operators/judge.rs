//! `judge`: answers graded or compared by a model.

mod verdict;

use std::collections::HashMap;

use fuseline_contract::rows::{self, Cell, Response, Row};
use fuseline_contract::{
    Ask, Execute, Input, Kind, Operator, Output, Part, Place, Ports, Problems, RowFunction, Run, StageError, Table,
    Traits,
};
use fuseline_lm::generate::row_seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::answers::{self, Asked, Draws, Missing, Reply};
use crate::shared::chat::{CHAT, DECODER, NUMERICS};
use crate::shared::failed::{self, TooLong};
use verdict::Winner;

/// Parameters of `judge`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `single` grades every answer from 1 to 10; `pairwise` compares it with that of `baseline` to the same prompt.
    pub mode: Mode,
    /// What counts, in words that the judge is told.
    #[serde(default)]
    pub criteria: Option<String>,
    /// Whether the judge is shown the reference, where a row has one.
    #[serde(default)]
    pub show_reference: bool,
    /// Of `pairwise`: asks twice, in both orders; who wins only once has tied.
    #[serde(default = "yes")]
    pub swap: bool,
    /// Logits are divided by it; 0 takes the most likely token.
    #[serde(default)]
    pub temperature: f64,
    /// Tokens of a reply at most.
    #[serde(default = "thousand")]
    pub max_tokens: usize,
    /// The judge's label in `scorer`, where no axis gives one.
    #[serde(default)]
    pub label: Option<String>,
    /// How many answers may stay without a verdict: those that the judge cannot be asked about, or to which it gives none. They are left out and listed in the output `failed`; with more of them the stage fails when all others are judged.
    #[serde(default)]
    pub max_failed_rows: u64,
}

/// How answers are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each by itself.
    Single,
    /// Beside another one.
    Pairwise,
}

fn yes() -> bool {
    true
}

fn thousand() -> usize {
    1024
}

impl Config {
    fn draws(&self) -> Draws {
        Draws { temperature: self.temperature, top_p: 1.0, max_tokens: self.max_tokens }
    }
}

/// See [`Operator::MANUAL`].
pub struct Judge;

impl Operator for Judge {
    const NAME: &'static str = "judge";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.generate", version: 1 }];
    const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: true, numerics: Some(NUMERICS), ..Traits::PURE };
    const MANUAL: &'static str = "\
Has a model judge answers: each by itself, or beside another one.

The judge is a model or an `endpoint`. It is asked to give its reasons first and
then a line `Verdict: …`; our prompts are in operators/judge/verdict.rs.

`mode: single`: `reward` is the grade, 1 to 10.

`mode: pairwise`: every answer is compared with the answer of `baseline` to the
same prompt (the same `sample` where that has several). `reward` is 1 for a win, 0 for a
loss, 0.5 for a tie. Judges favour a place, so both orders are asked (`swap`): who
wins in one order only has tied, and `consistent` is false. `against` is the
baseline's `source`.

Both add `verdict` (the grade; `win`, `loss` or `tie`) and `reason`, what the judge
said before it, of both orders with a line `---` between them. `correct` is null.

Every reply is remembered at once, so another reading of it costs nothing. A reply
without a verdict is a failed row (see `max_failed_rows`).";
    const EXAMPLE: &'static str = "op: judge\ninputs: {responses: sampled, baseline: base_answers, model: teacher}\n\
        with: {mode: pairwise, criteria: correctness first, label: teacher}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let mut inputs = vec![Input::one("responses", Kind::Rows(&rows::RESPONSE), "the answers")];
        if config.mode == Mode::Pairwise {
            let doc = "the answers that they are compared with, one a prompt or one a prompt and sample";
            inputs.push(Input::one("baseline", Kind::Rows(&rows::RESPONSE), doc));
        }
        inputs.push(Input::one("model", Kind::AnyModel, "the judge").labelled());
        let scored = Output::new("scored", Kind::Rows(&rows::SCORED), "the answers with verdicts, in the same order");
        let failed = failed::output(config.max_failed_rows, TooLong::Error, "prompt_id, source, sample, reason");
        Ports { inputs, outputs: std::iter::once(scored).chain(failed).collect() }
    }

    fn check(config: &Config, problems: &mut Problems) {
        for problem in config.draws().check() {
            let parameter = problem.split_whitespace().next().unwrap_or_default().to_owned();
            problems.add(&parameter, problem);
        }
        problems.require(config.criteria.as_ref().is_none_or(|text| !text.trim().is_empty()), "criteria", || {
            "is empty; leave it out, or say what counts".into()
        });
        problems.require(config.mode == Mode::Pairwise || config.swap, "swap", || "belongs to mode: pairwise".into());
    }
}

impl Execute for Judge {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        work(config, run, answers::of_folder)
    }
}

impl Ask for Judge {
    fn ask(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        work(config, run, answers::of_endpoint)
    }
}

/// What came of one answer.
struct Judged {
    reward: f64,
    verdict: String,
    reason: String,
    consistent: Option<bool>,
}

fn work(config: &Config, run: &dyn Run, missing: Missing) -> Result<(), StageError> {
    let table = run.table("responses")?.conform(&rows::RESPONSE)?;
    let responses = Response::read(&table)?;
    if responses.is_empty() {
        return Err(StageError::input("the table bound to \"responses\" has no rows"));
    }
    let judge = run.model("model")?;
    let label = judge.label.clone().ok_or_else(|| StageError::bug("the judge has no label"))?;
    let baseline = match config.mode {
        Mode::Single => Vec::new(),
        Mode::Pairwise => Response::read(&run.table("baseline")?.conform(&rows::RESPONSE)?)?,
    };
    let others = match config.mode {
        Mode::Single => Vec::new(),
        Mode::Pairwise => opponents(&responses, &baseline)?,
    };
    let asked = questions(config, run.seed(), &responses, &others);
    let each = asked.len() / responses.len();
    let function = RowFunction::of::<Judge>(config.draws().decide(&judge));
    let (replies, failures) = answers::replies(run, &judge, &function, &config.draws(), &asked, missing)?;

    let (mut kept, mut judged, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (row, response) in responses.iter().enumerate() {
        let places = row * each..(row + 1) * each;
        let given: Result<Vec<&Reply>, String> = places
            .map(|place| replies[place].as_ref().ok_or_else(|| failures.reason(place).unwrap_or_default().to_owned()))
            .collect();
        match given.and_then(|given| read(config.mode, &given)) {
            Ok(one) => {
                kept.push(row);
                judged.push(one);
            }
            Err(reason) => failed.push((response, reason)),
        }
    }
    let named: Vec<(&str, &str)> = failed.iter().map(|(row, why)| (row.prompt_id.as_str(), why.as_str())).collect();
    failed::allow(&named, "prompt", config.max_failed_rows, responses.len())?;
    if config.max_failed_rows > 0 {
        let ids = failed::texts("prompt_id", failed.iter().map(|(row, _)| row.prompt_id.as_str()).collect())?;
        let sources = failed::texts("source", failed.iter().map(|(row, _)| row.source.as_str()).collect())?;
        let samples = failed::column("sample", false, failed.iter().map(|(row, _)| row.sample).collect())?;
        let reasons = failed::texts("reason", failed.iter().map(|(_, why)| why.as_str()).collect())?;
        run.write(failed::OUTPUT, ids.beside(&sources)?.beside(&samples)?.beside(&reasons)?)?;
    }
    let field = |name: &str| rows::SCORED.column(name).expect("a column of scored rows").field();
    let scorers = vec![label; kept.len()];
    let rewards: Vec<f64> = judged.iter().map(|one| one.reward).collect();
    let correct: Vec<Option<bool>> = vec![None; kept.len()];
    let mut columns = Table::of_columns(vec![
        (field("reward"), f64::build(rewards.iter())),
        (field("correct"), <Option<bool>>::build(correct.iter())),
        (field("scorer"), String::build(scorers.iter())),
    ])?;
    columns = columns.beside(&failed::texts("verdict", judged.iter().map(|one| one.verdict.as_str()).collect())?)?;
    columns = columns.beside(&failed::texts("reason", judged.iter().map(|one| one.reason.as_str()).collect())?)?;
    if config.mode == Mode::Pairwise {
        let against = kept.iter().map(|row| others[*row].source.as_str()).collect();
        let consistent = failed::column("consistent", true, judged.iter().map(|one| one.consistent).collect())?;
        columns = columns.beside(&failed::texts("against", against)?)?.beside(&consistent)?;
    }
    run.write("scored", table.take(&kept)?.beside(&columns)?)
}

/// The answer of the baseline that each answer is compared with.
fn opponents<'a>(responses: &[Response], baseline: &'a [Response]) -> Result<Vec<&'a Response>, StageError> {
    let mut of_prompt: HashMap<&str, Vec<&Response>> = HashMap::new();
    for answer in baseline {
        of_prompt.entry(&answer.prompt_id).or_default().push(answer);
    }
    let find = |response: &Response| {
        let here = |what: &str| StageError::input(format!("prompt {:?}: \"baseline\" has {what}", response.prompt_id));
        let found = of_prompt.get(response.prompt_id.as_str()).ok_or_else(|| here("no answer to it"))?;
        match found.as_slice() {
            [one] => Ok(*one),
            several => {
                let mut same = several.iter().filter(|answer| answer.sample == response.sample);
                match (same.next(), same.next()) {
                    (Some(one), None) => Ok(*one),
                    (None, _) => Err(here(&format!("several answers to it and none with sample {}", response.sample))),
                    (Some(_), Some(_)) => Err(here(&format!("several answers to it with sample {}", response.sample))
                        .hint("bind one model's answers: an instance `STAGE[axis=value]`, or an sql stage")),
                }
            }
        }
    };
    responses.iter().map(find).collect()
}

/// What the judge is asked: as much about every answer, one answer after the other.
fn questions(config: &Config, seed: u64, responses: &[Response], others: &[&Response]) -> Vec<Asked> {
    let criteria = config.criteria.as_deref();
    let mut asked = Vec::new();
    for (row, response) in responses.iter().enumerate() {
        let reference = response.reference.as_deref().filter(|_| config.show_reference);
        let texts = match config.mode {
            Mode::Single => vec![verdict::single(&response.messages, reference, &response.text, criteria)],
            Mode::Pairwise => {
                let (own, other) = (response.text.as_str(), others[row].text.as_str());
                let pair = |answers| verdict::pair(&response.messages, reference, answers, criteria);
                let orders = [[own, other], [other, own]];
                orders.into_iter().take(if config.swap { 2 } else { 1 }).map(pair).collect()
            }
        };
        for messages in texts {
            let seed = row_seed(seed, rows::prompt_id(&messages).as_bytes(), 0);
            asked.push(Asked { messages, seed, index: 0 });
        }
    }
    asked
}

/// The verdict in the replies about one answer.
fn read(mode: Mode, replies: &[&Reply]) -> Result<Judged, String> {
    if mode == Mode::Single {
        let (grade, reason) = verdict::grade(&replies[0].text)?;
        return Ok(Judged { reward: f64::from(grade), verdict: grade.to_string(), reason, consistent: None });
    }
    let (mut winners, mut reasons) = (Vec::new(), Vec::new());
    for (order, reply) in replies.iter().enumerate() {
        let (winner, reason) = verdict::winner(&reply.text)?;
        winners.push(if order == 0 { winner } else { winner.swapped() });
        reasons.push(reason);
    }
    let same = winners.iter().all(|winner| *winner == winners[0]);
    let (reward, verdict) = match winners[0] {
        Winner::First if same => (1.0, "win"),
        Winner::Second if same => (0.0, "loss"),
        _ => (0.5, "tie"),
    };
    let consistent = (replies.len() > 1).then_some(same);
    Ok(Judged { reward, verdict: verdict.to_owned(), reason: reasons.join("\n---\n"), consistent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fuseline_contract::rows::Message;

    fn response(prompt: &str, sample: i64, text: &str) -> Response {
        Response {
            prompt_id: prompt.into(),
            messages: vec![Message::user(prompt)],
            reference: Some("right".into()),
            domain: None,
            meta: None,
            source: "owl".into(),
            sample,
            text: text.into(),
            finish_reason: None,
            n_tokens: None,
            seed: None,
        }
    }

    fn config(edit: serde_json::Value) -> Config {
        let mut config = serde_json::json!({"mode": "pairwise"});
        edit.as_object().expect("a map").iter().for_each(|(name, value)| config[name] = value.clone());
        serde_json::from_value(config).expect("parameters")
    }

    fn judged(replies: &[&str]) -> Result<(f64, String, Option<bool>), String> {
        let replies: Vec<Reply> =
            replies.iter().map(|text| Reply { text: (*text).into(), finish_reason: "stop".into() }).collect();
        let replies: Vec<&Reply> = replies.iter().collect();
        read(Mode::Pairwise, &replies).map(|one| (one.reward, one.verdict, one.consistent))
    }

    #[test]
    fn who_wins_in_one_order_only_has_tied() {
        let of = |reward, verdict: &str, consistent| Ok((reward, verdict.to_owned(), consistent));
        // In the second order ours stands second.
        assert_eq!(judged(&["Verdict: A", "Verdict: B"]), of(1.0, "win", Some(true)));
        assert_eq!(judged(&["Verdict: B", "Verdict: A"]), of(0.0, "loss", Some(true)));
        assert_eq!(judged(&["Verdict: A", "Verdict: A"]), of(0.5, "tie", Some(false)));
        assert_eq!(judged(&["Verdict: tie", "Verdict: B"]), of(0.5, "tie", Some(false)));
        assert_eq!(judged(&["Verdict: tie", "Verdict: tie"]), of(0.5, "tie", Some(true)));
        assert_eq!(judged(&["Verdict: A"]), of(1.0, "win", None));
        assert!(judged(&["Verdict: A", "who knows"]).is_err());
    }

    #[test]
    fn both_orders_are_asked_about_every_answer() {
        let responses = [response("p", 0, "mine"), response("q", 0, "ours")];
        let baseline = [response("q", 0, "theirs"), response("p", 3, "yours")];
        let others = opponents(&responses, &baseline).expect("each has one");
        let asked = questions(&config(serde_json::json!({})), 1, &responses, &others);
        let order = |place: usize| {
            let text = &asked[place].messages[1].content;
            (text.find("mine").or(text.find("ours")), text.find("yours").or(text.find("theirs")))
        };
        assert_eq!(asked.len(), 4);
        assert!(order(0).0 < order(0).1 && order(1).0 > order(1).1 && order(2).0 < order(2).1);
        let once = questions(&config(serde_json::json!({"swap": false})), 1, &responses, &others);
        assert_eq!(once, [asked[0].clone(), asked[2].clone()]);
        let shown = questions(&config(serde_json::json!({"show_reference": true})), 1, &responses, &others);
        assert!(!asked[0].messages[1].content.contains("right\n</reference>"));
        assert!(shown[0].messages[1].content.contains("<reference>\nright\n</reference>"));
    }

    #[test]
    fn a_baseline_that_fits_nowhere_or_twice_is_told() {
        let said = |baseline: &[Response], sample| {
            opponents(&[response("p", sample, "x")], baseline).expect_err("no match").to_string()
        };
        assert_eq!(said(&[], 0), "prompt \"p\": \"baseline\" has no answer to it");
        let two = [response("p", 0, "a"), response("p", 1, "b")];
        assert_eq!(said(&two, 2), "prompt \"p\": \"baseline\" has several answers to it and none with sample 2");
        let responses = [response("p", 1, "x")];
        let found = opponents(&responses, &two).expect("the same sample");
        assert_eq!(found[0].text, "b");
        let twice = [response("p", 0, "a"), response("p", 0, "b")];
        assert!(said(&twice, 0).ends_with("several answers to it with sample 0"));
    }
}
