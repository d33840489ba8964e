//! `make_dataset`: problems of synthetic skills with exact answers.

use std::collections::BTreeMap;

use fuseline_contract::rows::{self, Example, Message, Prompt, Row};
use fuseline_contract::{Execute, Kind, Operator, Output, Part, Ports, Problems, Run, StageError, Traits, hash};
use fuseline_metrics::tasks::{self, Split};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `make_dataset`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which problems: every problem is for good either in `train` or in `test`.
    pub split: Split,
    /// How many problems of each skill, by its name.
    pub tasks: BTreeMap<String, usize>,
    /// Problems of each skill to leave out first; two draws of one seed whose ranges do not overlap share none.
    #[serde(default)]
    pub skip: usize,
}

/// See [`Operator::MANUAL`].
pub struct MakeDataset;

impl Operator for MakeDataset {
    const NAME: &'static str = "make_dataset";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "metrics.tasks", version: tasks::VERSION }];
    const TRAITS: Traits = Traits { uses_seed: true, ..Traits::PURE };
    const MANUAL: &'static str = "\
Makes problems of synthetic skills with exact answers.

Skills: addition, compare_numbers, count_letter, lookup, reverse_word,
sort_letters, subtraction. Train and test problems are disjoint whatever the
seed. The rows of all skills are in a shuffled order that depends on the seed;
`domain` is the skill. `prompts` carries the reference answer, `examples` the
worked solution as completion.";
    const EXAMPLE: &'static str = "op: make_dataset\nwith: {split: train, tasks: {addition: 500, reverse_word: 500}}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![],
            outputs: vec![
                Output::new("prompts", Kind::Rows(&rows::PROMPT), "the problems with their answers"),
                Output::new("examples", Kind::Rows(&rows::EXAMPLE), "the problems with worked solutions"),
            ],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(config.tasks.values().any(|n| *n > 0), "tasks", || "asks for no problem".into());
        for name in config.tasks.keys() {
            if let Err(error) = tasks::find(name) {
                problems.add(&format!("tasks.{name}"), error.to_string());
            }
        }
    }
}

impl Execute for MakeDataset {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let mut rows = Vec::new();
        for (name, n) in &config.tasks {
            let input = |error: fuseline_metrics::Error| StageError::input(error.to_string());
            let task = tasks::find(name).map_err(input)?;
            let drawn = tasks::generate_after(task, config.split, config.skip, *n, run.seed()).map_err(input)?;
            rows.extend(drawn.into_iter().map(|problem| (task.name, problem)));
            run.check_cancelled()?;
        }
        let (mut prompts, mut examples) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for (task, problem) in rows {
            let messages = vec![Message::user(problem.prompt)];
            let prompt_id = rows::prompt_id(&messages);
            prompts.push(Prompt {
                prompt_id: prompt_id.clone(),
                messages: messages.clone(),
                reference: Some(problem.answer),
                domain: Some(task.to_owned()),
                meta: None,
            });
            examples.push(Example { prompt_id, messages, completion: problem.solution, weight: None });
        }
        // A hash of seed and row gives every row its place, whatever the other rows.
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_cached_key(|row| {
            hash::derive_seed(run.seed(), "order", &[prompts[*row].prompt_id.clone().into()])
        });
        run.write("prompts", Prompt::table(&prompts)?.take(&order)?)?;
        run.write("examples", Example::table(&examples)?.take(&order)?)
    }
}
