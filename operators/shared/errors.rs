//! Errors of the crates below, sorted by who can act on them.

use fuseline_contract::{Cause, StageError};
use fuseline_lm::Audience as LmAudience;
use fuseline_weights::Audience;

/// An error of the language-model crate.
pub fn lm(error: fuseline_lm::error::Error) -> StageError {
    let cause = match error.audience() {
        LmAudience::Input => Cause::Input,
        LmAudience::Environment => Cause::Environment,
        LmAudience::Bug => Cause::Bug,
    };
    StageError { cause, message: error.to_string(), hint: None }
}

/// An error of the weights crate.
pub fn weights(error: fuseline_weights::Error) -> StageError {
    let cause = match error.audience() {
        Audience::Input => Cause::Input,
        Audience::Environment => Cause::Environment,
        Audience::Bug => Cause::Bug,
    };
    StageError { cause, message: error.to_string(), hint: None }
}
