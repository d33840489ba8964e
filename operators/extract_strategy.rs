//! `extract_strategy`: how worked solutions go about it, without what they find.

mod leak;

use std::collections::HashMap;

use fuseline_contract::rows::{self, Message, Response, Row};
use fuseline_contract::value::Value;
use fuseline_contract::{
    Ask, Execute, Input, Kind, Model, Operator, Output, Part, Place, Ports, Problems, RowFunction, Run, StageError,
    Traits,
};
use fuseline_lm::generate::row_seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::answers::{self, Asked, Draws, Missing, Reply};
use crate::shared::chat::{CHAT, DECODER, NUMERICS};
use crate::shared::failed::{self, Failures, TooLong};

/// Tokens of a rating at most.
const RATING_TOKENS: usize = 256;
/// What a rating is made of.
const CRITERIA: [&str; 4] = ["general", "faithful", "helpful", "clean"];
/// The best of each.
const BEST: u8 = 5;

/// Parameters of `extract_strategy`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Strategies that are drawn for each problem.
    #[serde(default = "five")]
    pub candidates: u32,
    /// Whether the model rates the candidates that leak nothing; else the first of them is chosen.
    #[serde(default = "yes")]
    pub rank: bool,
    /// Logits are divided by it when candidates are drawn; ratings are greedy.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Keeps the fewest tokens that together have this probability, in (0, 1].
    #[serde(default = "top_p")]
    pub top_p: f64,
    /// Tokens of a candidate at most.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// How many replies may be of no use: refused, or not in the form that was asked for. They are left out and listed in the output `failed`; with more of them the stage fails when all others are there.
    #[serde(default)]
    pub max_failed_rows: u64,
}

fn five() -> u32 {
    5
}

fn yes() -> bool {
    true
}

fn temperature() -> f64 {
    0.6
}

fn top_p() -> f64 {
    0.95
}

fn max_tokens() -> usize {
    1024
}

impl Config {
    fn draws(&self) -> Draws {
        Draws { temperature: self.temperature, top_p: self.top_p, max_tokens: self.max_tokens }
    }
}

/// See [`Operator::MANUAL`].
pub struct ExtractStrategy;

impl Operator for ExtractStrategy {
    const NAME: &'static str = "extract_strategy";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.generate", version: 1 }];
    const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: true, numerics: Some(NUMERICS), ..Traits::PURE };
    const MANUAL: &'static str = "\
Has a model say how worked solutions go about it, without what they find.

For every problem, with its worked solution in `text`, the model draws `candidates`
descriptions of three parts: the type of problem, the approach, the steps (arXiv
2606.24064, section 2; the prompts are ours). A candidate leaks, and is out, if it has
the reference as a sequence of words, a number of three or more digits that the
problem lacks, or an equation with numbers on both sides. The others are rated
from 1 to 5 on four criteria, `general`, `faithful`, `helpful` and `clean`; the
highest sum is `chosen`, of equals the shorter text, then the earlier. These rules
are our design, the paper leaves them open.

A row a candidate: `prompt_id`, `candidate`, `problem_type`, `approach`, `steps`, the
four ratings and their sum `total` (null where it was not rated), `leak` (the
reason; null if it leaks nothing) and `chosen`. A problem whose candidates all
leak has no chosen one; the stage says how many those are.";
    const EXAMPLE: &'static str =
        "op: extract_strategy\ninputs: {solutions: solved, model: teacher}\nwith: {candidates: 5}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let strategies = Output::new("strategies", Kind::AnyTable, "a row a candidate, in the order of the problems");
        let failed = failed::output(config.max_failed_rows, TooLong::Error, "prompt_id, candidate, reason");
        let doc = "problems with a worked solution each";
        Ports {
            inputs: vec![
                Input::one("solutions", Kind::Rows(&rows::RESPONSE), doc),
                Input::one("model", Kind::AnyModel, "the model that describes"),
            ],
            outputs: std::iter::once(strategies).chain(failed).collect(),
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(config.candidates >= 1, "candidates", || "must be at least 1".into());
        problems.require(config.candidates == 1 || config.temperature > 0.0, "candidates", || {
            "greedy candidates are all the same: set candidates: 1, or a temperature above 0".into()
        });
        for problem in config.draws().check() {
            let parameter = problem.split_whitespace().next().unwrap_or_default().to_owned();
            problems.add(&parameter, problem);
        }
    }
}

impl Execute for ExtractStrategy {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        work(config, run, answers::of_folder)
    }
}

impl Ask for ExtractStrategy {
    fn ask(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        work(config, run, answers::of_endpoint)
    }
}

/// A description.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Strategy {
    problem_type: String,
    approach: String,
    steps: Vec<String>,
}

impl Strategy {
    fn text(&self) -> String {
        let steps = self.steps.iter().enumerate().map(|(at, step)| format!("{}. {step}", at + 1));
        let steps = steps.collect::<Vec<_>>().join("\n");
        format!("Kind of problem: {}\nApproach: {}\nSteps:\n{steps}", self.problem_type, self.approach)
    }

    /// What is searched for leaks: the numbers of steps are none of its words.
    fn words(&self) -> String {
        format!("{}\n{}\n{}", self.problem_type, self.approach, self.steps.join("\n"))
    }
}

/// A candidate with what became of it.
struct Candidate {
    problem: usize,
    index: u32,
    strategy: Strategy,
    leak: Option<String>,
    rating: Option<[u8; 4]>,
    chosen: bool,
}

fn work(config: &Config, run: &dyn Run, missing: Missing) -> Result<(), StageError> {
    let problems = Response::read(&run.table("solutions")?.conform(&rows::RESPONSE)?)?;
    distinct(&problems)?;
    let model = run.model("model")?;
    let mut failed: Vec<(usize, u32, String)> = Vec::new();
    let asked = questions(config, run.seed(), &problems);
    let (replies, failures) = ask(run, &model, "strategy", &config.draws(), &asked, missing)?;
    let mut candidates = Vec::new();
    for (place, reply) in replies.iter().enumerate() {
        let (problem, index) = (place / config.candidates as usize, (place % config.candidates as usize) as u32);
        let why = || failures.reason(place).unwrap_or_default().to_owned();
        match reply.as_ref().ok_or_else(why).and_then(|reply| strategy(&reply.text)) {
            Err(reason) => failed.push((problem, index, reason)),
            Ok(strategy) => {
                let Response { messages, reference, .. } = &problems[problem];
                let leak = leak::leak(&strategy.words(), &question(messages), reference.as_deref());
                candidates.push(Candidate { problem, index, strategy, leak, rating: None, chosen: false });
            }
        }
    }
    if config.rank {
        let sound: Vec<usize> = (0..candidates.len()).filter(|at| candidates[*at].leak.is_none()).collect();
        let asked: Vec<Asked> = sound.iter().map(|at| rating_question(&candidates[*at], &problems)).collect();
        let draws = Draws { temperature: 0.0, top_p: 1.0, max_tokens: RATING_TOKENS };
        let (replies, failures) = ask(run, &model, "rating", &draws, &asked, missing)?;
        for (place, at) in sound.into_iter().enumerate() {
            let why = || failures.reason(place).unwrap_or_default().to_owned();
            match replies[place].as_ref().ok_or_else(why).and_then(|reply| rating(&reply.text)) {
                Ok(rating) => candidates[at].rating = Some(rating),
                Err(reason) => {
                    failed.push((candidates[at].problem, candidates[at].index, format!("its rating: {reason}")))
                }
            }
        }
    }
    choose(&mut candidates, config.rank);
    tell(run, &problems, &candidates);
    failed.sort_by_key(|(problem, index, _)| (*problem, *index));
    write(config, run, &problems, &candidates, &failed, asked.len())
}

fn ask(
    run: &dyn Run,
    model: &Model,
    purpose: &'static str,
    draws: &Draws,
    asked: &[Asked],
    missing: Missing,
) -> Result<(Vec<Option<Reply>>, Failures), StageError> {
    let decides = draws.decide(model).into_iter().chain([("asks", Value::from(purpose))]);
    answers::replies(run, model, &RowFunction::of::<ExtractStrategy>(decides), draws, asked, missing)
}

/// Every problem must have one solution.
fn distinct(problems: &[Response]) -> Result<(), StageError> {
    if problems.is_empty() {
        return Err(StageError::input("the table bound to \"solutions\" has no rows"));
    }
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for problem in problems {
        *seen.entry(&problem.prompt_id).or_default() += 1;
    }
    match problems.iter().find(|problem| seen[problem.prompt_id.as_str()] > 1) {
        None => Ok(()),
        Some(problem) => Err(StageError::input(format!(
            "prompt {:?} has {} rows in \"solutions\", and one is expected",
            problem.prompt_id,
            seen[problem.prompt_id.as_str()]
        ))
        .hint("choose one with an sql stage: WHERE sample = 0, or the shortest that is correct")),
    }
}

/// What a conversation asks.
fn question(messages: &[Message]) -> String {
    messages.iter().map(|turn| turn.content.as_str()).collect::<Vec<_>>().join("\n\n")
}

fn questions(config: &Config, seed: u64, problems: &[Response]) -> Vec<Asked> {
    let one = |problem: &Response| {
        let text = format!(
            "You see a problem and one worked solution. Describe how such problems are solved so that someone could reuse it \
             elsewhere. Answer in JSON with keys problem_type (one sentence), approach (two or three sentences), steps (a \
             list of three to seven short imperative sentences). Use no numbers, names or intermediate results of this \
             problem and do not state or hint at its answer.\n\n<problem>\n{}\n</problem>\n\n<solution>\n{}\n</solution>",
            question(&problem.messages),
            problem.text
        );
        let messages = vec![Message::user(text)];
        let digest = rows::prompt_id(&messages);
        let draw = |index| Asked { messages: messages.clone(), seed: row_seed(seed, digest.as_bytes(), index), index };
        (0..config.candidates).map(draw).collect::<Vec<_>>()
    };
    problems.iter().flat_map(one).collect()
}

fn rating_question(candidate: &Candidate, problems: &[Response]) -> Asked {
    let problem = &problems[candidate.problem];
    let text = format!(
        "Rate this strategy description from 1 to {BEST} on each of: general (would fit sibling problems), faithful (matches \
         the worked solution), helpful (tells a solver what to do next), clean (reveals no result of this problem). Reply \
         with JSON, four integers: {{\"general\": N, \"faithful\": N, \"helpful\": N, \"clean\": N}}\n\n<problem>\n{}\n\
         </problem>\n\n<solution>\n{}\n</solution>\n\n<strategy>\n{}\n</strategy>",
        question(&problem.messages),
        problem.text,
        candidate.strategy.text()
    );
    Asked { messages: vec![Message::user(text)], seed: 0, index: 0 }
}

/// The JSON object in a reply that may have words around it.
fn object(reply: &str) -> Result<serde_json::Value, String> {
    let (from, to) = (reply.find('{'), reply.rfind('}'));
    let text = from.zip(to).and_then(|(from, to)| reply.get(from..=to)).ok_or("the reply has no JSON")?;
    serde_json::from_str(text).map_err(|error| format!("the reply's JSON is broken: {error}"))
}

fn strategy(reply: &str) -> Result<Strategy, String> {
    let strategy: Strategy =
        serde_json::from_value(object(reply)?).map_err(|error| format!("the reply is no strategy: {error}"))?;
    let empty = |text: &String| text.trim().is_empty();
    if strategy.steps.is_empty() || strategy.steps.iter().chain([&strategy.problem_type, &strategy.approach]).any(empty)
    {
        return Err("the reply is no strategy: a part of it is empty".to_owned());
    }
    Ok(strategy)
}

fn rating(reply: &str) -> Result<[u8; 4], String> {
    let object = object(reply)?;
    let mut rating = [0; 4];
    for (place, name) in CRITERIA.iter().enumerate() {
        let value = object[*name].as_u64().and_then(|value| u8::try_from(value).ok());
        let sound = value.filter(|value| (1..=BEST).contains(value));
        rating[place] = sound.ok_or_else(|| format!("{name} is {}, not a number from 1 to {BEST}", object[*name]))?;
    }
    Ok(rating)
}

/// Chooses one candidate of every problem that has a sound one.
fn choose(candidates: &mut [Candidate], ranked: bool) {
    let mut best: HashMap<usize, usize> = HashMap::new();
    // The highest sum, then the shorter text, then the earlier: the smallest of these.
    let order = |one: &Candidate| {
        let total: u8 = one.rating.map_or(0, |rating| rating.iter().sum());
        let length = if ranked { one.strategy.text().chars().count() } else { 0 };
        (std::cmp::Reverse(total), length, one.index)
    };
    for at in 0..candidates.len() {
        let one = &candidates[at];
        if one.leak.is_some() || (ranked && one.rating.is_none()) {
            continue;
        }
        let found = best.entry(one.problem).or_insert(at);
        if order(one) < order(&candidates[*found]) {
            *found = at;
        }
    }
    best.into_values().for_each(|at| candidates[at].chosen = true);
}

fn tell(run: &dyn Run, problems: &[Response], candidates: &[Candidate]) {
    let chosen = candidates.iter().filter(|one| one.chosen).count();
    let leaking = candidates.iter().filter(|one| one.leak.is_some()).count();
    let none = problems.len() - chosen;
    if none + leaking > 0 {
        run.note(format!(
            "{leaking} of {} candidates leak; {none} of {} problems have no strategy",
            candidates.len(),
            problems.len()
        ));
    }
}

fn write(
    config: &Config,
    run: &dyn Run,
    problems: &[Response],
    candidates: &[Candidate],
    failed: &[(usize, u32, String)],
    n_asked: usize,
) -> Result<(), StageError> {
    let id = |problem: usize| problems[problem].prompt_id.as_str();
    let named: Vec<(&str, &str)> = failed.iter().map(|(problem, _, reason)| (id(*problem), reason.as_str())).collect();
    failed::allow(&named, "prompt", config.max_failed_rows, n_asked)?;
    if config.max_failed_rows > 0 {
        let ids = failed::texts("prompt_id", named.iter().map(|(id, _)| *id).collect())?;
        let indices =
            failed::column("candidate", false, failed.iter().map(|(_, index, _)| i64::from(*index)).collect())?;
        let reasons = failed::texts("reason", named.iter().map(|(_, reason)| *reason).collect())?;
        run.write(failed::OUTPUT, ids.beside(&indices)?.beside(&reasons)?)?;
    }
    let texts = |name: &str, of: &dyn Fn(&Candidate) -> String| {
        failed::column(name, false, candidates.iter().map(of).collect::<Vec<String>>())
    };
    let mut table = texts("prompt_id", &|one| id(one.problem).to_owned())?
        .beside(&failed::column("candidate", false, candidates.iter().map(|one| i64::from(one.index)).collect())?)?
        .beside(&texts("problem_type", &|one| one.strategy.problem_type.clone())?)?
        .beside(&texts("approach", &|one| one.strategy.approach.clone())?)?
        .beside(&failed::column("steps", false, candidates.iter().map(|one| one.strategy.steps.clone()).collect())?)?;
    for (place, name) in CRITERIA.iter().enumerate() {
        let ratings = candidates.iter().map(|one| one.rating.map(|rating| i64::from(rating[place])));
        table = table.beside(&failed::column(name, true, ratings.collect::<Vec<Option<i64>>>())?)?;
    }
    let total = |one: &Candidate| one.rating.map(|rating| rating.iter().map(|value| i64::from(*value)).sum::<i64>());
    table = table
        .beside(&failed::column("total", true, candidates.iter().map(total).collect::<Vec<Option<i64>>>())?)?
        .beside(&failed::column(
            "leak",
            true,
            candidates.iter().map(|one| one.leak.clone()).collect::<Vec<Option<String>>>(),
        )?)?
        .beside(&failed::column("chosen", false, candidates.iter().map(|one| one.chosen).collect::<Vec<bool>>())?)?;
    run.write("strategies", table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(problem: usize, index: u32, approach: &str, leak: bool, rating: Option<[u8; 4]>) -> Candidate {
        let strategy = Strategy { problem_type: "t".into(), approach: approach.into(), steps: vec!["s".into()] };
        Candidate { problem, index, strategy, leak: leak.then(|| "why".into()), rating, chosen: false }
    }

    #[test]
    fn the_best_sum_is_chosen_then_the_shorter_then_the_earlier() {
        let mut all = vec![
            candidate(0, 0, "long text", false, Some([5, 5, 5, 4])),
            candidate(0, 1, "short", false, Some([4, 5, 5, 5])),
            candidate(0, 2, "other", false, Some([4, 5, 5, 5])),
            candidate(0, 3, "a", false, Some([1, 1, 1, 1])),
            candidate(1, 0, "leaks", true, None),
            candidate(1, 1, "not rated", false, None),
            candidate(2, 0, "leaks", true, None),
            candidate(2, 1, "sound", false, Some([1, 1, 1, 1])),
        ];
        choose(&mut all, true);
        let chosen: Vec<usize> = (0..all.len()).filter(|at| all[*at].chosen).collect();
        assert_eq!(chosen, [1, 7]);
        all.iter_mut().for_each(|one| one.chosen = false);
        choose(&mut all, false);
        let first: Vec<usize> = (0..all.len()).filter(|at| all[*at].chosen).collect();
        assert_eq!(first, [0, 5, 7], "without ratings the first that leaks nothing");
    }

    #[test]
    fn replies_are_read_with_words_around_them() {
        let read =
            strategy("Sure!\n```json\n{\"problem_type\": \"a\", \"approach\": \"b\", \"steps\": [\"c\", \"d\"]}\n```");
        let read = read.expect("a strategy");
        assert_eq!(read.text(), "Kind of problem: a\nApproach: b\nSteps:\n1. c\n2. d");
        assert_eq!(strategy("none").expect_err("no JSON"), "the reply has no JSON");
        assert!(strategy("{\"problem_type\": \"a\"}").expect_err("parts lack").contains("missing field"));
        assert!(strategy("{\"problem_type\": \"a\", \"approach\": \" \", \"steps\": [\"x\"]}").is_err());
        assert_eq!(rating("{\"general\": 5, \"faithful\": 4, \"helpful\": 3, \"clean\": 1}"), Ok([5, 4, 3, 1]));
        let said = rating("{\"general\": 6, \"faithful\": 4, \"helpful\": 3, \"clean\": 1}").expect_err("too high");
        assert_eq!(said, "general is 6, not a number from 1 to 5");
    }
}
