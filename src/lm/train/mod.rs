//! The trainer: one loop for every objective. It must not know Arrow, stages or files: rows come in as token ids,
//! reference log-probabilities as numbers, and what comes out is the decoder, changed in place, and a trace.
//!
//! The same rows, seed and settings give the same bits on one machine with one number of threads, also if the training
//! was stopped at any update and went on from its state ([`Checkpoints`]).

mod data;
pub mod lengths;
mod optim;
mod pack;
mod resume;
mod schedule;
mod step;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::objectives::{Moment, Objective};

pub use data::{Dropped, Reason};
pub use lengths::{Limits, Truncate, pack_constant_length};
pub use resume::{CheckpointEvery, Checkpoints};
pub use schedule::{LastUpdate, Schedule, rate_factor};

use data::{Ready, prepare, shuffled};
use optim::{AdamW, AdamWSettings};
use resume::{About, Keeper};

/// Settings of a training that do not depend on its objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Peak learning rate, above 0.
    pub learning_rate: f64,
    /// Passes over the data, above 0; may be a fraction.
    #[serde(default = "one_epoch")]
    pub epochs: f64,
    /// Number of updates; where given, it decides instead of `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Rows of an update.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// What happens to an epoch's last rows that do not fill an update.
    #[serde(default)]
    pub last_update: LastUpdate,
    /// Course of the learning rate after warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Part of the updates in which the learning rate rises from 0, in 0..=1.
    #[serde(default = "default_warmup_ratio")]
    pub warmup_ratio: f64,
    /// Decoupled weight decay of AdamW, at least 0; on matrices, not on biases and norms.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decays of AdamW's two moments, each at least 0 and below 1.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the root of AdamW's second moment, above 0.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// The gradient of all parameters is scaled down to this 2-norm, above 0.
    #[serde(default = "default_max_grad_norm")]
    pub max_grad_norm: f64,
    /// Limit of prompt and answer together, in tokens; the model's positions are another.
    #[serde(default = "default_max_length")]
    pub max_length: usize,
    /// What `truncate: trl_keep_end` leaves of a prompt, in tokens; below `max_length`.
    #[serde(default = "default_max_prompt_length")]
    pub max_prompt_length: usize,
    /// What happens to longer rows.
    #[serde(default)]
    pub truncate: Truncate,
    /// Tokens, filling included, that are computed at once. It decides memory and speed; results depend on it only by
    /// rounding.
    #[serde(default = "default_micro_batch_tokens")]
    pub micro_batch_tokens: usize,
    /// How often the state is kept, so that a killed training goes on from there: `{steps: 50}` or `{seconds: 60}`,
    /// 0 for never. It changes no result.
    #[serde(default)]
    pub checkpoint_every: CheckpointEvery,
}

/// `training_configs/` of `SLIT-AI/WRPO`: one epoch, 128 rows, warm-up 0.1, 2,048 tokens of which 1,800 prompt; AdamW
/// and clipping as `huggingface/transformers` has them by default.
impl Config {
    /// The defaults with a learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            epochs: one_epoch(),
            steps: None,
            batch_size: default_batch_size(),
            last_update: LastUpdate::default(),
            schedule: Schedule::default(),
            warmup_ratio: default_warmup_ratio(),
            weight_decay: 0.0,
            betas: default_betas(),
            eps: default_eps(),
            max_grad_norm: default_max_grad_norm(),
            max_length: default_max_length(),
            max_prompt_length: default_max_prompt_length(),
            truncate: Truncate::default(),
            micro_batch_tokens: default_micro_batch_tokens(),
            checkpoint_every: CheckpointEvery::default(),
        }
    }

    /// Returns every problem of the settings, each naming its field.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, field: &str, value: &dyn std::fmt::Display, expected: &str| {
            if !holds {
                problems.push(format!("{field} is {value}; expected {expected}"));
            }
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        require(positive(self.learning_rate), "learning_rate", &self.learning_rate, "a number above 0");
        require(positive(self.epochs), "epochs", &self.epochs, "a number above 0");
        require(self.steps != Some(0), "steps", &0, "at least 1");
        require(self.batch_size > 0, "batch_size", &self.batch_size, "at least 1");
        require((0.0..=1.0).contains(&self.warmup_ratio), "warmup_ratio", &self.warmup_ratio, "0 to 1");
        let decay = self.weight_decay;
        require(decay.is_finite() && decay >= 0.0, "weight_decay", &decay, "a number of at least 0");
        for (field, beta) in ["betas[0]", "betas[1]"].iter().zip(self.betas) {
            require((0.0..1.0).contains(&beta), field, &beta, "at least 0 and below 1");
        }
        require(positive(self.eps), "eps", &self.eps, "a number above 0");
        require(positive(self.max_grad_norm), "max_grad_norm", &self.max_grad_norm, "a number above 0");
        require(self.max_length > 1, "max_length", &self.max_length, "at least 2");
        if self.truncate == Truncate::TrlKeepEnd {
            let expected = format!("at least 1 and below max_length {}", self.max_length);
            let fits = (1..self.max_length).contains(&self.max_prompt_length);
            require(fits, "max_prompt_length", &self.max_prompt_length, &expected);
        }
        require(self.micro_batch_tokens > 0, "micro_batch_tokens", &self.micro_batch_tokens, "at least 1");
        if let CheckpointEvery::Seconds(seconds) = self.checkpoint_every {
            let sound = self.checkpoint_every.is_sound();
            require(sound, "checkpoint_every", &seconds, "a number of at least 0");
        }
        problems
    }

    /// The limits of a row's length.
    pub fn limits(&self) -> Limits {
        let Self { max_length, max_prompt_length, truncate, .. } = *self;
        Limits { max_length, max_prompt_length, truncate }
    }

    fn total_updates(&self, per_epoch: usize) -> u64 {
        self.steps.unwrap_or_else(|| schedule::total_updates(self.epochs, per_epoch))
    }
}

fn one_epoch() -> f64 {
    1.0
}
fn default_batch_size() -> usize {
    128
}
fn default_warmup_ratio() -> f64 {
    0.1
}
fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn default_eps() -> f64 {
    1e-8
}
fn default_max_grad_norm() -> f64 {
    1.0
}
fn default_max_length() -> usize {
    2048
}
fn default_max_prompt_length() -> usize {
    1800
}
/// On one CPU thread a model of 0.8 million parameters trains at 14,000 tokens a second with 512 or 1,024, at 12,600
/// with 4,096 and at 9,000 with 16,384: activations then leave the processor's caches. An accelerator wants more.
fn default_micro_batch_tokens() -> usize {
    1024
}

/// What is known after an update.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Finished updates, from 1.
    pub step: u64,
    /// Updates of the whole training.
    pub total: u64,
    /// The update's loss, before the weights moved.
    pub loss: f64,
    /// The update's learning rate.
    pub learning_rate: f64,
    /// 2-norm of the update's gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens computed for this update, filling not counted.
    pub tokens: usize,
    /// Tokens computed per second of this update, filling not counted.
    pub tokens_per_second: f64,
    /// What the objective reports: means over the update's rows.
    pub diagnostics: Vec<(&'static str, f64)>,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// With the next update.
    Continue,
    /// Not; the weights stay as they are now.
    Stop,
}

/// One named value of one update.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRow {
    /// Finished updates, from 1.
    pub step: u64,
    /// `loss`, `learning_rate`, `grad_norm`, or a diagnostic of the objective.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: f64,
}

/// What a training did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Every update's values; none of them depends on the time it took.
    pub trace: Vec<TraceRow>,
    /// Rows that were left out, with the reason.
    pub dropped: Vec<Dropped>,
    /// Rows that were trained on.
    pub rows: usize,
    /// Finished updates.
    pub steps: u64,
    /// Whether the caller stopped it.
    pub stopped: bool,
    /// The updates that an earlier training had done, if this one went on from its state.
    pub resumed_at: Option<u64>,
}

/// Trains a decoder in place on `rows` and reports every update to `on_step`.
///
/// An update takes the next `batch_size` rows of an order that depends on the seed, the epoch and the number of usable
/// rows alone. A loss or a gradient that is not finite ends the training with an error and leaves the weights of the
/// update before. Gradients are no longer asked for when it returns.
///
/// With `checkpoints` it goes on from the last state there, if there is one, and gives the same bits as a training
/// that was never stopped; the state is kept as `checkpoint_every` says, and when `on_step` stops it.
pub fn train<O: Objective>(
    decoder: &Decoder,
    rows: Vec<O::Row>,
    objective: &O,
    config: &Config,
    seed: u64,
    checkpoints: Option<&Checkpoints>,
    on_step: &mut dyn FnMut(&StepReport) -> Control,
) -> Result<Summary> {
    let problems = [config.check(), objective.check()].concat();
    if !problems.is_empty() {
        return Err(Error::TrainingSettings { problems: problems.join("\n") });
    }
    let examples = rows.into_iter().map(Into::into).collect();
    let needs_reference = objective.needs_reference();
    let (ready, dropped) = prepare(examples, O::ROLES, needs_reference, &config.limits(), &decoder.arch)?;
    if ready.is_empty() {
        return Err(Error::NothingToTrain { why: why_nothing(&dropped) });
    }
    let per_epoch = schedule::updates_per_epoch(ready.len(), config.batch_size, config.last_update);
    let total = config.total_updates(per_epoch);
    let Config { betas, eps, weight_decay, .. } = *config;
    let mut adam = AdamW::new(decoder, AdamWSettings { betas, eps, weight_decay });
    let n = ready.len();
    let mut summary = Summary { trace: Vec::new(), dropped, rows: n, steps: 0, stopped: false, resumed_at: None };
    let mut keeper = checkpoints.map(|checkpoints| {
        Keeper::new(checkpoints, config.checkpoint_every, About::new(checkpoints, &adam, seed, total, n))
    });
    if let Some(resumed) = keeper.as_mut().map(|keeper| keeper.resume(&mut adam)).transpose()?.flatten() {
        (summary.steps, summary.resumed_at) = (resumed.step, Some(resumed.step));
        summary.trace = resumed.trace;
    }
    let mut order = Vec::new();
    for update in summary.steps..total {
        let place = (update % per_epoch as u64) as usize;
        if place == 0 || order.is_empty() {
            order = shuffled(n, seed, update / per_epoch as u64);
        }
        let own: Vec<&Ready> =
            order.iter().skip(place * config.batch_size).take(config.batch_size).map(|&row| &ready[row]).collect();
        let report = one_update(decoder, &mut adam, &own, objective, Moment { update, total }, config)?;
        summary.steps = report.step;
        summary.trace.extend(trace_of(&report));
        summary.stopped = on_step(&report) == Control::Stop;
        if let Some(keeper) = &mut keeper {
            match summary.stopped {
                true => keeper.keep(report.step, &adam, &summary.trace),
                false => keeper.after(report.step, &adam, &summary.trace),
            }
        }
        if summary.stopped {
            break;
        }
    }
    Ok(summary)
}

fn one_update<O: Objective>(
    decoder: &Decoder,
    adam: &mut AdamW,
    rows: &[&Ready],
    objective: &O,
    moment: Moment,
    config: &Config,
) -> Result<StepReport> {
    let started = Instant::now();
    let loss = step::gradient(decoder, adam, rows, objective, moment, config.micro_batch_tokens);
    let grad_norm = adam.gradient_norm();
    let step = moment.update + 1;
    for (what, value) in [("loss", loss.value), ("gradient norm", grad_norm)] {
        if !value.is_finite() {
            return Err(Error::Diverged { step, what, value, learning_rate: config.learning_rate });
        }
    }
    let factor = rate_factor(config.schedule, config.warmup_ratio, moment.update, moment.total);
    let learning_rate = config.learning_rate * factor;
    // As `torch.nn.utils.clip_grad_norm_` has it.
    adam.update(learning_rate, (config.max_grad_norm / (grad_norm + 1e-6)).min(1.0));
    let tokens: usize = rows.iter().flat_map(|row| &row.sequences).map(|sequence| sequence.inputs.len()).sum();
    Ok(StepReport {
        step,
        total: moment.total,
        loss: loss.value,
        learning_rate,
        grad_norm,
        tokens,
        tokens_per_second: tokens as f64 / started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE),
        diagnostics: loss.diagnostics,
    })
}

fn trace_of(report: &StepReport) -> impl Iterator<Item = TraceRow> {
    let step = report.step;
    let own = [("loss", report.loss), ("learning_rate", report.learning_rate), ("grad_norm", report.grad_norm)];
    own.into_iter().chain(report.diagnostics.clone()).map(move |(name, value)| TraceRow {
        step,
        name: name.into(),
        value,
    })
}

fn why_nothing(dropped: &[Dropped]) -> String {
    match dropped.first() {
        None => "there are no rows".into(),
        Some(first) => {
            format!("all {} rows are left out; the first, row {}: {}", dropped.len(), first.row, first.reason)
        }
    }
}
