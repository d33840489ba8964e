//! From a pipeline file to artifacts: spec → plan → graph → keys → store →
//! scheduler, workers, ledger.
//!
//! Must not know any operator, any model, SQL, or the terminal.

pub mod plan;
