//! Errors of the language-model crate, sorted by who can act on them.

use fuseline_contract::{Cause, StageError};
use fuseline_lm::Audience;

/// An error of the language-model crate.
pub fn lm(error: fuseline_lm::error::Error) -> StageError {
    let cause = match error.audience() {
        Audience::Input => Cause::Input,
        Audience::Environment => Cause::Environment,
        Audience::Bug => Cause::Bug,
    };
    StageError::with_hint_line(cause, &error.to_string())
}
