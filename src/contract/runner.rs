//! An operator's work, apart from its declaration.
//!
//! An executable that only plans must not link the libraries that the work
//! needs. A linker takes whole objects, a module each; so the work of operators
//! that need a model is implemented by a type in a module of its own, and this
//! module is the only one that refers to it.

use crate::error::StageError;
use crate::operator::{Operator, decode};
use crate::run::Run;

/// The work of an operator.
pub trait Execute: 'static {
    /// Whose work it is.
    type Operator: Operator;

    /// Does the work.
    fn run(config: &<Self::Operator as Operator>::Config, run: &dyn Run) -> Result<(), StageError>;
}

/// An operator's work, erased; only executables that do the work refer to it.
#[derive(Clone, Copy)]
pub struct Runner {
    /// The operator.
    pub name: &'static str,
    run: fn(&serde_json::Value, &dyn Run) -> Result<(), StageError>,
}

impl Runner {
    /// Erases the type of an operator's work.
    pub const fn of<W: Execute>() -> Self {
        Self { name: W::Operator::NAME, run: execute::<W> }
    }

    /// Runs a stage with parameters as [`crate::Entry::resolve`] gave them.
    pub fn run(&self, params: &serde_json::Value, run: &dyn Run) -> Result<(), StageError> {
        (self.run)(params, run)
    }
}

fn execute<W: Execute>(params: &serde_json::Value, run: &dyn Run) -> Result<(), StageError> {
    let config = decode::<W::Operator>(params).map_err(|problems| {
        let first = problems.0.first().map(|p| format!("{}: {}", p.path.join("."), p.message)).unwrap_or_default();
        StageError::bug(format!("resolved parameters of {} do not decode: {first}", W::Operator::NAME))
    })?;
    W::run(&config, run)
}
