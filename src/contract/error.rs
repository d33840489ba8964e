//! Errors sorted by who can act on them; the exit code follows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who can act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The stage's own work failed: a user's program, too many failed rows.
    Work,
    /// What the user wrote or gave is wrong.
    Input,
    /// Disk, memory, device or network.
    Environment,
    /// We have a bug.
    Bug,
    /// The user interrupted the run.
    Interrupted,
}

impl Cause {
    /// The process exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Work => 1,
            Self::Input => 2,
            Self::Environment => 3,
            Self::Bug => 4,
            Self::Interrupted => 130,
        }
    }
}

/// What kind of failure it was: whether trying again may help follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// What was asked for cannot be done as it is written.
    Config,
    /// The stage's output is not what it promised.
    Contract,
    /// The work itself failed: a panic, a program's exit status.
    Code,
    /// Memory, disk or device did not suffice.
    Resource,
    /// A failure of the moment: a busy server, a lost connection, a preemption.
    Transient,
    /// The user interrupted it.
    Cancelled,
    /// Its process was ended from outside, and nothing says why.
    Lost,
}

impl Class {
    /// Whether the same attempt is tried again without being asked for.
    pub const fn is_tried_again(self) -> bool {
        matches!(self, Self::Transient | Self::Lost)
    }

    /// Its name, as in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Contract => "contract",
            Self::Code => "code",
            Self::Resource => "resource",
            Self::Transient => "transient",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

impl Cause {
    /// The class of most failures of this cause.
    const fn usual_class(self) -> Class {
        match self {
            Self::Work | Self::Bug => Class::Code,
            Self::Input => Class::Config,
            Self::Environment => Class::Resource,
            Self::Interrupted => Class::Cancelled,
        }
    }
}

/// Why a stage failed: one message for a person, and who can act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[schemars(deny_unknown_fields)]
#[error("{message}")]
pub struct StageError {
    /// Who can act.
    pub cause: Cause,
    /// What happened, lower case, with the place.
    pub message: String,
    /// What to type or change, if we know.
    pub hint: Option<String>,
    /// What kind of failure it was.
    pub class: Class,
    /// The last lines of what its process wrote to standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl StageError {
    /// A failure of a cause.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), hint: None, class: cause.usual_class(), log: Vec::new() }
    }

    /// The input is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Cause::Input, message)
    }

    /// The environment failed.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Cause::Environment, message)
    }

    /// We have a bug.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Cause::Bug, message)
    }

    /// The stage's own work failed.
    pub fn work(message: impl Into<String>) -> Self {
        Self::new(Cause::Work, message)
    }

    /// The run was cancelled.
    pub fn interrupted() -> Self {
        Self::new(Cause::Interrupted, "interrupted")
    }

    /// Says of which class it is, if not of its cause's usual one.
    #[must_use]
    pub fn of_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Adds the last lines of a log.
    #[must_use]
    pub fn log(mut self, lines: Vec<String>) -> Self {
        self.log = lines;
        self
    }

    /// Adds what to type or change.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A library's error, whose text may end in a line `hint: …`.
    pub fn with_hint_line(cause: Cause, text: &str) -> Self {
        match text.split_once("\nhint: ") {
            Some((message, hint)) => Self::new(cause, message).hint(hint),
            None => Self::new(cause, text),
        }
    }

    /// An I/O error with what was tried: a missing file is the user's, the rest
    /// the environment's.
    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = format!("failed to {what} {}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::input(message),
            std::io::ErrorKind::StorageFull => {
                Self::environment(message).hint("free some disk space, then run again: finished stages are kept")
            }
            _ => Self::environment(message),
        }
    }
}

impl From<crate::table::TableError> for StageError {
    fn from(error: crate::table::TableError) -> Self {
        Self::input(error.to_string())
    }
}
