//! Errors sorted by who can act on them; the exit code follows.

use serde::{Deserialize, Serialize};

/// Who can act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// Why a stage failed: one message for a person, and who can act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// Who can act.
    pub cause: Cause,
    /// What happened, lower case, with the place.
    pub message: String,
    /// What to type or change, if we know.
    pub hint: Option<String>,
}

impl StageError {
    fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), hint: None }
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
