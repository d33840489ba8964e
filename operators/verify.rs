//! `verify`: answers compared with their references.

use arrow::datatypes::Field;
use fuseline_contract::rows::{self, Cell, Response, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Output, Part, Ports, Problems, Run, StageError, Table};
use fuseline_metrics::verify::Verdict;
use fuseline_metrics::{tasks, verify};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The method that grades synthetic skills by their own rules.
const TASK: &str = "task";

/// Parameters of `verify`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How to compare: `exact` (texts), `numeric` (the final number), `task` (the rule of the synthetic skill that `domain` names), or a published grader of mathematics: `gsm8k`, `opencompass`, `fuseeval`, `hendrycks`, `minerva`, `prm800k`, `math_verify`.
    pub method: String,
}

/// See [`Operator::MANUAL`].
pub struct Verify;

impl Operator for Verify {
    const NAME: &'static str = "verify";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[
        Part { name: "metrics.verify", version: verify::VERSION },
        Part { name: "metrics.tasks", version: tasks::VERSION },
    ];
    const MANUAL: &'static str = "\
Compares answers with their references.

Adds `reward` (1 or 0), `correct`, `scorer` (the method) and `extracted`, the
answer that was found in the text, null where there was none. Every row must
have a reference.

The published graders of mathematics judge as the programs do that they are
named for, with their leniencies and faults, so that a paper's figure can be met
and the same answers judged by several of them: `gsm8k` (the last number),
`opencompass`, `hendrycks` (normalised texts), `fuseeval`, `minerva`, `prm800k`,
`math_verify` (texts, numbers and expressions).";
    const EXAMPLE: &'static str = "op: verify\ninputs: {responses: sampled}\nwith: {method: numeric}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![Input::one("responses", Kind::Rows(&rows::RESPONSE), "the answers")],
            outputs: vec![Output::new(
                "scored",
                Kind::Rows(&rows::SCORED),
                "the answers with verdicts, in the same order",
            )],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        if config.method != TASK
            && let Err(error) = verify::find(&config.method)
        {
            problems.add("method", format!("{error}, {TASK}"));
        }
    }
}

impl Execute for Verify {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = run.table("responses")?.conform(&rows::RESPONSE)?;
        let responses = Response::read(&table)?;
        if responses.is_empty() {
            return Err(StageError::input("the table bound to \"responses\" has no rows"));
        }
        let mut verdicts = Vec::with_capacity(responses.len());
        for response in &responses {
            verdicts.push(judge(&config.method, response)?);
        }
        let correct: Vec<Option<bool>> = verdicts.iter().map(|verdict| Some(verdict.correct)).collect();
        let rewards: Vec<f64> = verdicts.iter().map(|verdict| f64::from(u8::from(verdict.correct))).collect();
        let scorers = vec![config.method.clone(); verdicts.len()];
        let extracted: Vec<Option<String>> = verdicts.into_iter().map(|verdict| verdict.extracted).collect();
        let field = |name: &str| rows::SCORED.column(name).expect("a column of scored rows").field();
        let columns = Table::of_columns(vec![
            (field("reward"), f64::build(rewards.iter())),
            (field("correct"), <Option<bool>>::build(correct.iter())),
            (field("scorer"), String::build(scorers.iter())),
            (Field::new("extracted", <Option<String>>::data_type(), true), <Option<String>>::build(extracted.iter())),
        ])?;
        run.write("scored", table.beside(&columns)?)
    }
}

fn judge(method: &str, response: &Response) -> Result<Verdict, StageError> {
    let here = |message: String| StageError::input(format!("prompt {:?}: {message}", response.prompt_id));
    let Some(reference) = &response.reference else {
        return Err(here("there is no reference to compare with".into())
            .hint("fill the column \"reference\", or leave these rows out with an sql stage"));
    };
    if method == TASK {
        let domain = response.domain.as_deref().unwrap_or_default();
        let task = tasks::find(domain).map_err(|error| here(error.to_string()))?;
        return Ok(tasks::verify(task, reference, &response.text));
    }
    let verifier = verify::find(method).map_err(|error| StageError::bug(error.to_string()))?;
    verifier.verify(reference, &response.text).map_err(|error| here(error.to_string()))
}
