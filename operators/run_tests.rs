//! `run_tests`: programs in answers, run against tests.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use arrow::array::{Array, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use fuseline_contract::event::Progress;
use fuseline_contract::rows::{self, Cell, Response, Row};
use fuseline_contract::{
    Execute, Input, Kind, Operator, Output, Part, Ports, Problems, Promise, Run, StageError, Table, Traits,
};
use fuseline_metrics::code::{self, Extraction, Tested, Verdict};
use fuseline_metrics::sandbox::{Layer, Limits, Sandbox, SandboxError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod suites;

use suites::{Method, Task};

/// The time that openai/human-eval gives a program (`human_eval/evaluation.py`).
const SECONDS: f64 = 3.0;
/// Memory of a process, in MiB.
const MEMORY_MB: u64 = 2048;

/// Parameters of `run_tests`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the tests are and how a program meets them.
    pub method: Method,
    /// How a program is found in an answer.
    #[serde(default)]
    pub extract: Extraction,
    /// Seconds that a test may take; more than 0.
    #[serde(default = "seconds")]
    pub seconds: f64,
    /// Memory that a process of a program may use, in MiB; at least 64.
    #[serde(default = "memory_mb")]
    pub memory_mb: u64,
    /// The interpreter.
    #[serde(default = "python")]
    pub python: String,
    /// Layers of the sandbox that may be missing where the kernel refuses them.
    #[serde(default)]
    pub without: Vec<Layer>,
}

fn seconds() -> f64 {
    SECONDS
}

fn memory_mb() -> u64 {
    MEMORY_MB
}

fn python() -> String {
    "python3".into()
}

/// See [`Operator::MANUAL`].
pub struct RunTests;

impl Operator for RunTests {
    const NAME: &'static str = "run_tests";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "metrics.code", version: code::VERSION }];
    // A program at its limit of time may pass once and fail once.
    const TRAITS: Traits = Traits { promise: Promise::Sampled, ..Traits::PURE };
    const EXECUTION: &'static [&'static str] = &["without"];
    const MANUAL: &'static str = "\
Runs the programs in answers against tests, shut in.

The tests stand in columns that come along with the answers:
* `method: humaneval`: the texts `prompt` (the code before the answer), `test`
  and `entry_point`.
* `method: mbpp`: `test_list`, a list of texts; `test_imports`, a list of texts
  before the program, and `test_setup_code`, a text after it, where they are there.
* `method: evalplus`: the texts `task_id`, `prompt`, `canonical_solution` and
  `entry_point`; `base_input` and `plus_input`, JSON texts (`load` with `json:
  [base_input, plus_input]`); the number `atol`.
* `method: stdio`: `inputs` and `outputs`, lists of texts.

Adds `reward` (1 or 0), `correct` (every test passed), `scorer`, `extracted` (the
program in the answer), `verdict` (`pass`, or that of the first test that did not:
`wrong_answer`, `failed`, `timeout`), `test_verdicts` (one a test) and `message`.
Several answers to a prompt make pass@k: `pass_at_k(n, c, k)` in SQL.

Programs see no network, no files but the interpreter's, no other process; time,
memory, output, processes and disk are limited. As root they run as a user that
owns nothing. The stage says which layers of this the kernel refuses, and ends
unless `without` names them. The interpreter's version and this machine's speed
are not in the key.";
    const EXAMPLE: &'static str =
        "op: run_tests\ninputs: {responses: sampled}\nwith: {method: humaneval, extract: first_block}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![Input::one("responses", Kind::Rows(&rows::RESPONSE), "the answers, with their tests")],
            outputs: vec![Output::new(
                "scored",
                Kind::Rows(&rows::SCORED),
                "the answers with verdicts, in the same order",
            )],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        if !(config.seconds > 0.0 && config.seconds <= 3600.0) {
            problems.add("seconds", format!("{} is not between 0 and 3600", config.seconds));
        }
        if config.memory_mb < 64 {
            problems.add("memory_mb", format!("{} is less than 64, which an interpreter needs", config.memory_mb));
        }
    }
}

impl Execute for RunTests {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = run.table("responses")?.conform(&rows::RESPONSE)?;
        let responses = Response::read(&table)?;
        if responses.is_empty() {
            return Err(StageError::input("the table bound to \"responses\" has no rows"));
        }
        let tasks = suites::read(config.method, &table, &responses)?;
        let sandbox = open(config, run)?;
        let programs: Vec<String> = responses.iter().map(|response| config.extract.program(&response.text)).collect();
        let tested = all(config, run, &sandbox, &tasks, &programs)?;
        run.write("scored", table.beside(&columns(config, &programs, &tested)?)?)
    }
}

/// The sandbox, if all its layers hold or the pipeline does without the others.
fn open(config: &Config, run: &dyn Run) -> Result<Sandbox, StageError> {
    let sandbox = Sandbox::open(Path::new(&config.python)).map_err(|error| match error {
        SandboxError::Interpreter { .. } => StageError::environment(error.to_string())
            .hint("install python3, or name an interpreter: with: {python: /path/to/python3}"),
        other => StageError::environment(other.to_string()),
    })?;
    if let Some(note) = accepted(&sandbox.missing(), &config.without)? {
        run.note(note);
    }
    Ok(sandbox)
}

/// What is said of layers that are missing, if all of them may be.
fn accepted(missing: &[Layer], without: &[Layer]) -> Result<Option<String>, StageError> {
    let list = missing.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(", ");
    let said = format!("the kernel refuses layers of the sandbox: {list}");
    match missing.iter().all(|layer| without.contains(layer)) {
        true => Ok((!missing.is_empty()).then_some(said)),
        false => Err(StageError::environment(said).hint(format!(
            "run as root or where user namespaces are allowed, or accept it: with: {{without: [{list}]}}"
        ))),
    }
}

/// Runs every program, several at a time; results in their order.
fn all(
    config: &Config,
    run: &dyn Run,
    sandbox: &Sandbox,
    tasks: &[Task],
    programs: &[String],
) -> Result<Vec<Vec<Tested>>, StageError> {
    let limits = Limits { memory_bytes: config.memory_mb << 20, ..Limits::default() };
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let total = tasks.len();
    let mut tested: Vec<Option<Vec<Tested>>> = vec![None; total];
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..run.threads().clamp(1, total) {
            let (sender, limits, next, stop) = (sender.clone(), &limits, &next, &stop);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= total || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let Task { before, after, suite } = &tasks[index];
                    let program = format!("{before}{}{after}", programs[index]);
                    let result = suite.run(sandbox, &program, config.seconds, limits);
                    if sender.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut outcome = Ok(());
        for (done, (index, result)) in results.iter().enumerate() {
            match result {
                Ok(result) => tested[index] = Some(result),
                Err(error) => outcome = Err(StageError::environment(error.to_string())),
            }
            if run.cancelled() {
                outcome = Err(StageError::interrupted());
            }
            if outcome.is_err() {
                stop.store(true, Ordering::Relaxed);
                break;
            }
            let (done, total, unit) = (done as u64 + 1, total as u64, "rows".to_owned());
            run.progress(Progress { done, total, unit, figure: String::new() });
        }
        outcome
    })?;
    tested.into_iter().map(|tested| tested.ok_or_else(|| StageError::bug("a program was not run"))).collect()
}

/// What is added to the answers.
fn columns(config: &Config, programs: &[String], tested: &[Vec<Tested>]) -> Result<Table, StageError> {
    let passed = |tested: &Vec<Tested>| tested.iter().all(|test| test.verdict == Verdict::Pass);
    let correct: Vec<Option<bool>> = tested.iter().map(|tested| Some(passed(tested))).collect();
    let rewards: Vec<f64> = tested.iter().map(|tested| f64::from(u8::from(passed(tested)))).collect();
    let scorers = vec![format!("run_tests/{}", config.method.name()); tested.len()];
    let first = |tested: &Vec<Tested>| tested.iter().find(|test| test.verdict != Verdict::Pass).cloned();
    let firsts: Vec<Option<Tested>> = tested.iter().map(first).collect();
    let verdicts: Vec<String> = firsts
        .iter()
        .map(|first| first.as_ref().map_or(Verdict::Pass, |first| first.verdict).name().to_owned())
        .collect();
    let messages: Vec<Option<String>> =
        firsts.into_iter().map(|first| first.map(|first| first.message).filter(|said| !said.is_empty())).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for tested in tested {
        lists.append_value(tested.iter().map(|test| Some(test.verdict.name())));
    }
    let lists = lists.finish();
    let field = |name: &str| rows::SCORED.column(name).expect("a column of scored rows").field();
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Ok(Table::of_columns(vec![
        (field("reward"), f64::build(rewards.iter())),
        (field("correct"), <Option<bool>>::build(correct.iter())),
        (field("scorer"), String::build(scorers.iter())),
        (text("extracted", true), String::build(programs.iter())),
        (text("verdict", true), String::build(verdicts.iter())),
        (Field::new("test_verdicts", lists.data_type().clone(), true), std::sync::Arc::new(lists)),
        (text("message", true), <Option<String>>::build(messages.iter())),
    ])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_is_refused_ends_the_stage_unless_it_is_named() {
        assert_eq!(accepted(&[], &[]), Ok(None));
        assert_eq!(accepted(&[], &[Layer::User]), Ok(None));
        let error = accepted(&[Layer::Namespaces, Layer::User], &[Layer::User]).expect_err("one is not named");
        assert_eq!(error.message, "the kernel refuses layers of the sandbox: namespaces, user");
        assert!(error.hint.is_some_and(|hint| hint.ends_with("with: {without: [namespaces, user]}")));
        let note = accepted(&[Layer::Filter], &[Layer::User, Layer::Filter]).expect("it is named");
        assert_eq!(note.as_deref(), Some("the kernel refuses layers of the sandbox: filter"));
    }
}
