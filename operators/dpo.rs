//! `dpo`: preference optimisation on pairs.

use fuseline_contract::rows::{self, Preference, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Part, Ports, Problems, Run, StageError, Traits};
use fuseline_lm::objectives::{self, Answer, Objective, PairRow, settings};
use fuseline_lm::train;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::train as shared;
use crate::shared::training::{self, References};

/// Parameters of `dpo`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which loss.
    #[serde(default)]
    pub loss: Loss,
    /// sigmoid, simpo: strength of the pull to the reference, above 0; about 0.01 to 0.1 for sums, 10 for means over tokens.
    #[serde(default)]
    pub beta: Option<f64>,
    /// ipo: strength of the pull to the reference, above 0.
    #[serde(default)]
    pub tau: Option<f64>,
    /// simpo: the target margin divided by beta, at least 0.
    #[serde(default)]
    pub gamma_beta_ratio: Option<f64>,
    /// sigmoid, ipo: log-ratios are means over tokens instead of sums (LN-DPO of FuseChat-3.0).
    #[serde(default)]
    pub length_normalized: bool,
    /// sigmoid: the share of pairs taken to be labelled wrongly, in [0, 0.5).
    #[serde(default)]
    pub label_smoothing: f64,
    /// The trainer.
    pub train: train::Config,
}

/// A loss on pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// DPO, arXiv 2305.18290, equation 7.
    #[default]
    Sigmoid,
    /// IPO, arXiv 2310.12036, equation 17.
    Ipo,
    /// SimPO, arXiv 2405.14734, equation 6; needs no reference.
    Simpo,
}

impl Config {
    fn objective(&self) -> objectives::Dpo {
        // Missing numbers are NaN here, which `check` refuses by name.
        let beta = self.beta.unwrap_or(f64::NAN);
        match self.loss {
            Loss::Sigmoid => objectives::Dpo::Sigmoid {
                beta,
                length_normalized: self.length_normalized,
                label_smoothing: self.label_smoothing,
                reference_free: false,
            },
            Loss::Ipo => {
                objectives::Dpo::Ipo { tau: self.tau.unwrap_or(f64::NAN), length_normalized: self.length_normalized }
            }
            Loss::Simpo => objectives::Dpo::SimPo { beta, gamma_beta_ratio: self.gamma_beta_ratio.unwrap_or(f64::NAN) },
        }
    }
}

/// See [`Operator::MANUAL`].
pub struct Dpo;

impl Operator for Dpo {
    const NAME: &'static str = "dpo";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = shared::PARTS;
    const EXECUTION: &'static [&'static str] = shared::EXECUTION;
    const TRAITS: Traits = shared::TRAITS;
    const MANUAL: &'static str = "\
Trains a model on preferred and dispreferred answers.

Losses: `sigmoid` (DPO; LN-DPO with `length_normalized`), `ipo`, `simpo`. The
reference's log-probabilities come from a `logprobs` stage over the same pairs,
so that a sweep over beta computes them once; `simpo` takes none. The trace has
rewards, margins and accuracies.";
    const EXAMPLE: &'static str = "op: dpo\ninputs: {model: tuned, pairs: pairs, reference: reference}\n\
        with: {beta: 0.1, train: {learning_rate: 1.0e-4, batch_size: 32}}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let pairs = Input::one("pairs", Kind::Rows(&rows::PREFERENCE), "preferred and dispreferred answers");
        shared::ports(pairs, config.loss != Loss::Simpo)
    }

    fn check(config: &Config, problems: &mut Problems) {
        let loss = config.loss;
        for (name, given, wanted) in [
            ("beta", config.beta.is_some(), loss != Loss::Ipo),
            ("tau", config.tau.is_some(), loss == Loss::Ipo),
            ("gamma_beta_ratio", config.gamma_beta_ratio.is_some(), loss == Loss::Simpo),
        ] {
            problems.require(given || !wanted, name, || format!("is required with this loss: add {name}: …"));
            problems.require(!given || wanted, name, || "has no meaning with this loss; leave it out".into());
        }
        problems.require(!config.length_normalized || loss != Loss::Simpo, "length_normalized", || {
            "simpo is always length-normalised; leave it out".into()
        });
        problems.require(config.label_smoothing == 0.0 || loss == Loss::Sigmoid, "label_smoothing", || {
            "has no meaning with this loss; leave it out".into()
        });
        if problems.0.is_empty() {
            shared::check(&config.train, settings::check_dpo(&config.objective()), problems);
        }
    }
}

impl Execute for Dpo {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let pairs = Preference::read(&run.table("pairs")?)?;
        if pairs.is_empty() {
            return Err(StageError::input("the table bound to \"pairs\" has no rows"));
        }
        let objective = config.objective();
        let references = if objective.needs_reference() { Some(References::read(run)?) } else { None };
        training::run(run, &config.train, &objective, |encoder| {
            let row = |pair: &Preference| {
                let answer = |text: &str| -> Result<(Vec<u32>, Answer), StageError> {
                    let (prompt, tokens) = encoder.answered(&pair.messages, text)?;
                    let answer = match &references {
                        Some(references) => references.answer(&pair.messages, text, tokens)?,
                        None => Answer { tokens, reference: None },
                    };
                    Ok((prompt, answer))
                };
                let ((prompt, chosen), (_, rejected)) = (answer(&pair.chosen)?, answer(&pair.rejected)?);
                Ok(PairRow { prompt, chosen, rejected, weight: pair.weight.unwrap_or(1.0) })
            };
            pairs.iter().map(row).collect()
        })
    }
}
