//! Settings of objectives as they are written in a pipeline, and what may be wrong with them. It must not know tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dpo, Moment, Sft, Wrpo, WrpoLoss};

/// Over what the negative log-likelihoods of an update are averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// All trained tokens of the update weigh the same.
    #[default]
    GlobalTokenMean,
    /// Trained tokens weigh the same within each group of so many rows, in the order of the data, and groups weigh
    /// the same: what older trainers did with micro-batches of that size.
    MicrobatchTokenMean {
        /// Rows of a group.
        rows: usize,
    },
    /// Tokens weigh the same within each row, and rows weigh the same.
    PerSequenceMean,
    /// The sum over a row's tokens; rows weigh the same.
    PerSequenceSumMean,
}

/// How alpha goes through training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlphaShape {
    /// From `start` toward `end`, by the same step at every update.
    #[default]
    Linear,
    /// `end` throughout.
    Constant,
}

/// The weight of the sources' answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alpha {
    /// At the first update, in 0..=1; stays 0 where the shape is constant.
    #[serde(default)]
    pub start: f64,
    /// After the last update, in 0..=1: the last update itself has `start + (end − start)·(T−1)/T`.
    pub end: f64,
    /// How it goes from one to the other.
    #[serde(default)]
    pub shape: AlphaShape,
}

impl Default for Alpha {
    /// 0 to 0.1, `training_configs/` of `SLIT-AI/WRPO`.
    fn default() -> Self {
        Self { start: 0.0, end: 0.1, shape: AlphaShape::Linear }
    }
}

impl Alpha {
    /// `start + (end − start)·k/T` with k finished updates of T, `end` beyond.
    pub fn at(&self, moment: Moment) -> f64 {
        match self.shape {
            AlphaShape::Constant => self.end,
            AlphaShape::Linear if moment.update >= moment.total => self.end,
            AlphaShape::Linear => self.start + (self.end - self.start) * moment.update as f64 / moment.total as f64,
        }
    }
}

/// Every problem of the settings, each naming its field.
pub fn check_sft(objective: &Sft) -> Vec<String> {
    match objective.reduction {
        Reduction::MicrobatchTokenMean { rows: 0 } => vec!["reduction.rows is 0; expected at least 1".into()],
        _ => Vec::new(),
    }
}

/// Every problem of the settings, each naming its field.
pub fn check_dpo(objective: &Dpo) -> Vec<String> {
    let mut problems = Vec::new();
    match *objective {
        Dpo::Sigmoid { beta, label_smoothing, .. } => {
            check_positive("beta", beta, &mut problems);
            check_below("label_smoothing", label_smoothing, 0.5, &mut problems);
        }
        Dpo::Ipo { tau, .. } => check_positive("tau", tau, &mut problems),
        Dpo::SimPo { beta, gamma_beta_ratio } => {
            check_positive("beta", beta, &mut problems);
            check_below("gamma_beta_ratio", gamma_beta_ratio, f64::INFINITY, &mut problems);
        }
    }
    problems
}

/// Every problem of the settings, each naming its field.
pub fn check_wrpo(objective: &Wrpo) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in [("alpha.start", objective.alpha.start), ("alpha.end", objective.alpha.end)] {
        if !(0.0..=1.0).contains(&value) {
            problems.push(format!("{name} is {value}; expected 0 to 1"));
        }
    }
    if objective.alpha.shape == AlphaShape::Constant && objective.alpha.start != 0.0 {
        problems.push(format!(
            "alpha.start is {}, but alpha.shape is constant; leave it out, or set shape: linear",
            objective.alpha.start
        ));
    }
    match objective.loss {
        WrpoLoss::Weighted { beta, label_smoothing } | WrpoLoss::TwoPairs { beta, label_smoothing } => {
            check_positive("beta", beta, &mut problems);
            check_below("label_smoothing", label_smoothing, 0.5, &mut problems);
        }
        WrpoLoss::SimPo { beta, gamma_beta_ratio } => {
            check_positive("beta", beta, &mut problems);
            check_below("gamma_beta_ratio", gamma_beta_ratio, f64::INFINITY, &mut problems);
        }
        WrpoLoss::Ipo { tau } => check_positive("tau", tau, &mut problems),
    }
    problems
}

/// Adds to `problems` unless `value` is a finite number above zero.
fn check_positive(name: &str, value: f64, problems: &mut Vec<String>) {
    if !(value.is_finite() && value > 0.0) {
        problems.push(format!("{name} is {value}; expected a number above 0"));
    }
}

/// Adds to `problems` unless `value` lies in `0 <= value < end`.
fn check_below(name: &str, value: f64, end: f64, problems: &mut Vec<String>) {
    if !(0.0..end).contains(&value) {
        problems.push(format!("{name} is {value}; expected at least 0 and below {end}"));
    }
}
