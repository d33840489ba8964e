//! Generation: many prompts, several samples each, by continuous batching over paged keys and values.
//!
//! A sample depends on its prompt's ids, its seed and the parameters. Its draws come from a counter-based generator
//! over (seed, position), and its logits from [`crate::cpu`], where no text depends on another: what is promised is
//! written at [`generate`]. Must not know rows of tables or stages.

mod engine;
mod room;
mod row;
mod sampler;

use serde::{Deserialize, Serialize};

pub use engine::{Asked, Limits, Usage, generate, generate_queue, generate_with};

/// How tokens are chosen. Repetition penalty, then frequency and presence penalty, as vLLM has them
/// (`vllm/model_executor/layers/utils.py`); then temperature, `top_k`, `top_p`, `min_p`, as Hugging Face.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Tokens of one completion at most, the end token included.
    pub max_tokens: usize,
    /// Logits are divided by it; 0 takes the most likely token (the lowest id among equals).
    pub temperature: f64,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest tokens that together have this probability, in 0..=1; 1 keeps all.
    pub top_p: f64,
    /// Keeps tokens at least this times as likely as the most likely one, in 0..=1; 0 keeps all.
    pub min_p: f64,
    /// Divides positive logits of tokens that occurred in prompt or completion, multiplies negative ones
    /// (arXiv 1909.05858, §4.1); 1 does nothing.
    pub repetition_penalty: f64,
    /// Taken off the logits of tokens that the completion has, once each, in −2..=2 (OpenAI, *API reference*,
    /// `presence_penalty`); 0 does nothing.
    pub presence_penalty: f64,
    /// The same, as often as the completion has them (`frequency_penalty` there).
    pub frequency_penalty: f64,
    /// Texts that end a completion and are cut off it, wherever they lie between tokens.
    pub stop: Vec<String>,
    /// Goes on beyond the model's end tokens.
    pub ignore_eos: bool,
    /// Also gives each chosen token's log-probability, in nats, under the model's own distribution: temperature 1, no
    /// penalty, no filter.
    pub logprobs: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: false,
        }
    }
}

impl Params {
    /// Everything that is wrong with these values, each naming the parameter and what it may be.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let share = |value: f64| (0.0..=1.0).contains(&value);
        demand(self.max_tokens > 0, "max_tokens is 0; it must be at least 1".to_string());
        demand(
            self.temperature >= 0.0 && self.temperature.is_finite(),
            format!("temperature is {}; it must be 0 or more", self.temperature),
        );
        demand(
            share(self.top_p) && self.top_p > 0.0,
            format!("top_p is {}; it must be above 0 and at most 1", self.top_p),
        );
        demand(share(self.min_p), format!("min_p is {}; it must lie in 0..=1", self.min_p));
        demand(
            self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
            format!("repetition_penalty is {}; it must be above 0", self.repetition_penalty),
        );
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            demand((-2.0..=2.0).contains(&value), format!("{name} is {value}; it must lie in -2..=2"));
        }
        demand(
            !self.stop.iter().any(String::is_empty),
            "stop holds an empty text, which would end every completion".to_string(),
        );
        problems
    }
}

/// One sample that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its index among the samples of its prompt.
    pub index: u32,
    /// Its seed, of [`row_seed`] for instance.
    pub seed: u64,
}

/// One prompt and the samples wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The prompt's ids, at least one.
    pub prompt: Vec<u32>,
    /// The samples; the prompt is computed once for all.
    pub samples: Vec<Sample>,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop text.
    Stop,
    /// `max_tokens`, or the model's last position.
    Length,
}

impl FinishReason {
    /// `stop` or `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// One finished sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Index of its request.
    pub request: usize,
    /// [`Sample::index`].
    pub sample: u32,
    /// [`Sample::seed`].
    pub seed: u64,
    /// Every token chosen, the end token and those of a stop text included.
    pub ids: Vec<u32>,
    /// Their text without special tokens, cut before a stop text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Log-probability of each of `ids`, in nats (see [`Params::logprobs`]); empty where not asked for.
    pub logprobs: Vec<f32>,
}

impl Completion {
    /// How many tokens were chosen.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}

/// What the receiver of completions wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The rest as well.
    Continue,
    /// No more; unfinished samples are dropped.
    Stop,
}

/// Seed of one sample: the first eight bytes, little endian, of BLAKE3 in key-derivation mode with the context
/// `fuseline 2026 row seed v1` over `stage_seed` (8 bytes), `sample` (4 bytes), both little endian, and the prompt's
/// digest (any bytes that name the prompt's content).
pub fn row_seed(stage_seed: u64, prompt_digest: &[u8], sample: u32) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("fuseline 2026 row seed v1");
    hasher.update(&stage_seed.to_le_bytes());
    hasher.update(&sample.to_le_bytes());
    hasher.update(prompt_digest);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
pub(crate) mod tests;
