//! Everything that can be reported while a pipeline runs; the one channel
//! upward. The progress display, the JSON stream and the ledger consume it.
//!
//! `run --json` prints an event a line. [`json_schema`] says what such a line may be, in the words of this file's
//! comments, so they are written for a reader of that schema.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::id::StageId;

/// How far a stage is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; zero where unknown.
    pub total: u64,
    /// What is counted: `rows`, `steps`, `tensors`.
    pub unit: String,
    /// The figure that matters, such as `loss 0.41`; empty where there is none.
    pub figure: String,
}

/// Rows that a stage's operator remembers one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RowCounts {
    /// Rows that were computed before, by whatever stage.
    pub reused: u64,
    /// Rows that were computed now.
    pub fresh: u64,
}

/// What a stage consumed that is counted or paid for by amount. Rows that were remembered cost nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Usage {
    /// Tokens that models read: prompts, texts to score, rows to train on.
    pub tokens_in: u64,
    /// Tokens that models generated.
    pub tokens_out: u64,
    /// What it cost in US dollars, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_usd: Option<f64>,
}

impl Usage {
    /// Tokens that were read.
    pub fn read(tokens: usize) -> Self {
        Self { tokens_in: tokens as u64, ..Self::default() }
    }

    /// Whether nothing was consumed.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// So many times as much, whole tokens rounded up.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let tokens = |count: u64| (count as f64 * factor).ceil() as u64;
        Self {
            tokens_in: tokens(self.tokens_in),
            tokens_out: tokens(self.tokens_out),
            price_usd: self.price_usd.map(|price| price * factor),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.tokens_in += more.tokens_in;
        self.tokens_out += more.tokens_out;
        self.price_usd = match (self.price_usd, more.price_usd) {
            (None, price) | (price, None) => price,
            (Some(price), Some(more)) => Some(price + more),
        };
    }
}

/// How an instance ended in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Its result was in the store.
    Hit,
    /// It ran.
    Ran,
    /// It failed.
    Failed(StageError),
    /// Something it needs failed, or the run stopped before it.
    Skipped,
}

/// One thing that happened in a run, as `fuseline run --json` prints it: a line of JSON an event, in the order in which
/// they happened. `run_started` is the first and `run_ended` the last; a run that cannot go on at all has no last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    RunStarted {
        /// The run's id.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// Instances in the plan.
        instances: usize,
    },
    /// An instance began to run; there is none for a hit.
    StageStarted {
        /// The instance.
        stage: StageId,
        /// Its operator.
        operator: String,
        /// The first cause, in words.
        reason: String,
    },
    /// An instance got on. At most twenty a second and instance.
    Progress {
        /// The instance.
        stage: StageId,
        /// How far it is.
        progress: Progress,
    },
    /// An instance has something to say to the user.
    Note {
        /// The instance.
        stage: StageId,
        /// What it says.
        text: String,
    },
    /// Something is not as it should be, and the run goes on.
    Warning {
        /// What it is.
        text: String,
    },
    /// An instance ended.
    StageEnded {
        /// The instance.
        stage: StageId,
        /// How it ended.
        outcome: Outcome,
        /// Wall time in seconds; zero for a hit.
        seconds: f64,
        /// Rows of its first table output, if it has one.
        rows: Option<u64>,
        /// Rows that were remembered and rows that were paid for, if it ran and
        /// its operator remembers rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memo: Option<RowCounts>,
        /// What all attempts consumed, if it ran and its operator tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The run ended.
    RunEnded {
        /// The run's id.
        run: String,
        /// Instances that ran.
        ran: usize,
        /// Instances whose result was there.
        hits: usize,
        /// Instances that failed.
        failed: usize,
        /// Instances left out because of those.
        skipped: usize,
        /// Wall time in seconds.
        seconds: f64,
    },
}

/// The JSON Schema, draft 2020-12, of an event as `run --json` prints it.
pub fn json_schema() -> serde_json::Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Event>().to_value()
}
