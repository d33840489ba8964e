//! An operator's work, apart from its declaration, so that an executable that
//! only plans does not link the libraries that the work needs.

use crate::error::StageError;
use crate::operator::{Operator, decode};
use crate::run::Run;

/// An operator with its work.
pub trait Execute: Operator {
    /// Does the work.
    fn run(config: &Self::Config, run: &dyn Run) -> Result<(), StageError>;
}

/// The work of an operator that takes models which answer elsewhere. It runs on a
/// thread where every model that is bound is an endpoint, and links no library for weights.
pub trait Ask: Operator {
    /// Does the work.
    fn ask(config: &Self::Config, run: &dyn Run) -> Result<(), StageError>;
}

/// An operator's work, erased; only executables that do the work refer to it.
#[derive(Clone, Copy)]
pub struct Runner {
    /// The operator.
    pub name: &'static str,
    run: fn(&serde_json::Value, &dyn Run) -> Result<(), StageError>,
}

impl Runner {
    /// Erases an operator's type.
    pub const fn of<T: Execute>() -> Self {
        Self { name: T::NAME, run: execute::<T> }
    }

    /// Erases the type of an operator that asks endpoints.
    pub const fn asking<T: Ask>() -> Self {
        Self { name: T::NAME, run: ask::<T> }
    }

    /// Runs a stage with parameters as [`crate::Entry::resolve`] gave them.
    pub fn run(&self, params: &serde_json::Value, run: &dyn Run) -> Result<(), StageError> {
        (self.run)(params, run)
    }
}

fn execute<T: Execute>(params: &serde_json::Value, run: &dyn Run) -> Result<(), StageError> {
    T::run(&resolved::<T>(params)?, run)
}

fn ask<T: Ask>(params: &serde_json::Value, run: &dyn Run) -> Result<(), StageError> {
    T::ask(&resolved::<T>(params)?, run)
}

fn resolved<T: Operator>(params: &serde_json::Value) -> Result<T::Config, StageError> {
    decode::<T>(params).map_err(|problems| {
        let first = problems.0.first().map(|p| format!("{}: {}", p.path.join("."), p.message)).unwrap_or_default();
        StageError::bug(format!("resolved parameters of {} do not decode: {first}", T::NAME))
    })
}
