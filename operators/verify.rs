//! `verify`: answers compared with their references.

use arrow::datatypes::Field;
use fuseline_contract::rows::{self, Cell, Response, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Output, Part, Ports, Problems, Run, StageError, Table};
use fuseline_metrics::verify::Verdict;
use fuseline_metrics::{ifeval, tasks, verify};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod instructions;

/// The method that grades synthetic skills by their own rules.
const TASK: &str = "task";
/// The method that checks the instructions of IFEval's prompts.
const IFEVAL: &str = "ifeval";

/// Parameters of `verify`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How to compare: `exact` (texts), `numeric` (the final number), `task` (the rule of the synthetic skill that `domain` names), or a published grader of mathematics: `gsm8k`, `opencompass`, `fuseeval`, `hendrycks`, `minerva`, `prm800k`, `math_verify`; a published reader of letters: `mmlu_pro`, `mmlu_pro_first`, `simple_evals`, `zero_eval`, `arc_chat`; or `ifeval` (instructions that can be checked).
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
        Part { name: "metrics.ifeval", version: ifeval::VERSION },
    ];
    const MANUAL: &'static str = "\
Compares answers with their references.

Adds `reward` (1 or 0), `correct`, `scorer` (the method) and `extracted`, the
answer that was found in the text, null where there was none. Every row must
have a reference, except with `ifeval`.

The published graders of mathematics judge as the programs do that they are
named for, with their leniencies and faults, so that a paper's figure can be met
and the same answers judged by several of them: `gsm8k` (the last number),
`opencompass`, `hendrycks` (normalised texts), `fuseeval`, `minerva`, `prm800k`,
`math_verify` (texts, numbers and expressions).

For multiple choice the reference is a letter, and so is what is extracted:
`mmlu_pro` (three patterns in turn, as MMLU-Pro's script has them; FuseChat-3.0
reads MMLU, MMLU-redux and GPQA so too), `mmlu_pro_first` (the first of them),
`simple_evals` (`Answer: C`, as OpenAI's scripts read GPQA), `zero_eval` (the
JSON that ZeroEval asks for with MMLU-Redux), `arc_chat` (the whole response, as
lm-eval's arc_challenge_chat). Where a script guesses at random
because it finds no letter, the answer counts as wrong here.

`ifeval` checks the instructions of a prompt, which stand in the columns
`instruction_id_list` (a list of texts such as `length_constraints:number_words`)
and `kwargs` (a list of as many structs, or of JSON objects, or JSON text). It
adds `follow_instruction_list_strict` and `follow_instruction_list_loose`, a
verdict an instruction, and `follow_all_loose`; `correct` is that all are
followed strictly.";
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
        if ![TASK, IFEVAL].contains(&config.method.as_str())
            && let Err(error) = verify::find(&config.method)
        {
            problems.add("method", format!("{error}, {TASK}, {IFEVAL}"));
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
        let (verdicts, more) = if config.method == IFEVAL {
            instructions::judge(&table, &responses)?
        } else {
            let verdicts = responses.iter().map(|response| judge(&config.method, response));
            (verdicts.collect::<Result<Vec<_>, _>>()?, vec![])
        };
        let correct: Vec<Option<bool>> = verdicts.iter().map(|verdict| Some(verdict.correct)).collect();
        let rewards: Vec<f64> = verdicts.iter().map(|verdict| f64::from(u8::from(verdict.correct))).collect();
        let scorers = vec![config.method.clone(); verdicts.len()];
        let extracted: Vec<Option<String>> = verdicts.into_iter().map(|verdict| verdict.extracted).collect();
        let field = |name: &str| rows::SCORED.column(name).expect("a column of scored rows").field();
        let mut columns = vec![
            (field("reward"), f64::build(rewards.iter())),
            (field("correct"), <Option<bool>>::build(correct.iter())),
            (field("scorer"), String::build(scorers.iter())),
            (Field::new("extracted", <Option<String>>::data_type(), true), <Option<String>>::build(extracted.iter())),
        ];
        columns.extend(more);
        run.write("scored", table.beside(&Table::of_columns(columns)?)?)
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
