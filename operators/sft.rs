//! `sft`: supervised fine-tuning on given answers.

use fuseline_contract::rows::{self, Example, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Part, Ports, Problems, Run, StageError, Traits};
use fuseline_lm::objectives::{self, Reduction, SftRow, settings};
use fuseline_lm::train;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::train as shared;
use crate::shared::training;

/// Parameters of `sft`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Over what the loss is a mean.
    #[serde(default)]
    pub reduction: Reduction,
    /// The trainer.
    pub train: train::Config,
}

/// See [`Operator::MANUAL`].
pub struct Sft;

impl Operator for Sft {
    const NAME: &'static str = "sft";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = shared::PARTS;
    const EXECUTION: &'static [&'static str] = shared::EXECUTION;
    const TRAITS: Traits = shared::TRAITS;
    const MANUAL: &'static str = "\
Fine-tunes a model on given answers.

The loss is the negative log-likelihood of `completion` with its end token
after `messages`, rendered with the model's own chat template; prompts carry no
loss. A row's `weight` scales its loss. Full-parameter, float32, AdamW.";
    const EXAMPLE: &'static str = "op: sft\ninputs: {model: target, examples: pairs.examples}\n\
        with: {train: {learning_rate: 1.0e-3, epochs: 3, batch_size: 64}}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        shared::ports(Input::one("examples", Kind::Rows(&rows::EXAMPLE), "the answers to learn"), false)
    }

    fn check(config: &Config, problems: &mut Problems) {
        let objective = objectives::Sft { reduction: config.reduction };
        shared::check(&config.train, settings::check_sft(&objective), problems);
    }
}

impl Execute for Sft {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let examples = Example::read(&run.table("examples")?)?;
        if examples.is_empty() {
            return Err(StageError::input("the table bound to \"examples\" has no rows"));
        }
        let objective = objectives::Sft { reduction: config.reduction };
        training::run(run, &config.train, &objective, |encoder| {
            let row = |example: &Example| {
                let (prompt, answer) = encoder.answered(&example.messages, &example.completion)?;
                Ok(SftRow::answer(&prompt, &answer, example.weight.unwrap_or(1.0)))
            };
            examples.iter().map(row).collect()
        })
    }
}
