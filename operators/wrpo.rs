//! `wrpo`: weighted-reward preference optimisation.

use fuseline_contract::rows::{self, Preference, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Part, Ports, Problems, Run, StageError, Traits};
use fuseline_lm::objectives::{self, Alpha, Answer, WrpoLoss, WrpoRow, settings};
use fuseline_lm::train;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::train as shared;
use crate::shared::training::{self, References};

/// SLIT-AI/WRPO `training_configs/`: beta 0.01.
const DEFAULT_BETA: f64 = 0.01;

/// Parameters of `wrpo`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Strength of the pull to the reference, above 0.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The weight of the sources' answer: from 0 to 0.1 in the published configuration.
    #[serde(default)]
    pub alpha: Alpha,
    /// The share of rows taken to be labelled wrongly, in [0, 0.5).
    #[serde(default)]
    pub label_smoothing: f64,
    /// The trainer.
    pub train: train::Config,
}

fn default_beta() -> f64 {
    DEFAULT_BETA
}

impl Config {
    fn objective(&self) -> objectives::Wrpo {
        let loss = WrpoLoss::Weighted { beta: self.beta, label_smoothing: self.label_smoothing };
        objectives::Wrpo { alpha: self.alpha, loss }
    }
}

/// See [`Operator::MANUAL`].
pub struct Wrpo;

impl Operator for Wrpo {
    const NAME: &'static str = "wrpo";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = shared::PARTS;
    const EXECUTION: &'static [&'static str] = shared::EXECUTION;
    const TRAITS: Traits = shared::TRAITS;
    const MANUAL: &'static str = "\
Trains a model on the sources' best answer and its own best and worst.

WRPO (arXiv 2412.03187): L = -log sigma(beta (alpha h(chosen) + (1 - alpha)
h(chosen_target) - h(rejected))) with h the summed log-ratio to the reference;
alpha rises linearly over the run. Pairs come from `build_pairs` with
`method: wrpo`, the reference from a `logprobs` stage over them.";
    const EXAMPLE: &'static str = "op: wrpo\ninputs: {model: tuned, pairs: triples, reference: reference}\n\
        with: {beta: 0.01, alpha: {end: 0.1}, train: {learning_rate: 1.0e-4, batch_size: 32}}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        let doc = "rows with `chosen_target`, of `build_pairs` with method: wrpo";
        shared::ports(Input::one("pairs", Kind::Rows(&rows::PREFERENCE), doc), true)
    }

    fn check(config: &Config, problems: &mut Problems) {
        shared::check(&config.train, settings::check_wrpo(&config.objective()), problems);
    }
}

impl Execute for Wrpo {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let pairs = Preference::read(&run.table("pairs")?)?;
        if pairs.is_empty() {
            return Err(StageError::input("the table bound to \"pairs\" has no rows"));
        }
        let references = References::read(run)?;
        training::run(run, &config.train, &config.objective(), |encoder| {
            let row = |pair: &Preference| {
                let Some(target) = &pair.chosen_target else {
                    return Err(StageError::input(format!("prompt {:?} has no chosen_target", pair.prompt_id))
                        .hint("build the pairs with `build_pairs` and method: wrpo"));
                };
                let answer = |text: &str| -> Result<(Vec<u32>, Answer), StageError> {
                    let (prompt, tokens) = encoder.answered(&pair.messages, text)?;
                    Ok((prompt, references.answer(&pair.messages, text, tokens)?))
                };
                let (prompt, source_chosen) = answer(&pair.chosen)?;
                let (_, target_chosen) = answer(target)?;
                let (_, rejected) = answer(&pair.rejected)?;
                Ok(WrpoRow { prompt, source_chosen, target_chosen, rejected, weight: pair.weight.unwrap_or(1.0) })
            };
            pairs.iter().map(row).collect()
        })
    }
}
