//! What an operator's author sees, and nothing else.
//!
//! An operator reads tables and models, computes, and writes tables and models.
//! It never learns its stage's name, a store's path, or which machine runs it:
//! all it holds is its typed configuration and a [`run::Run`].
//!
//! To write one:
//! 1. a new file in `operators/` with a configuration struct
//!    (`#[serde(deny_unknown_fields)]`, a doc comment on every field) and a
//!    type that implements [`operator::Operator`] and [`runner::Execute`];
//! 2. its module line and its entry in `operators/lib.rs`.
//!
//! This crate must not know YAML, tensors, SQL, or where files lie.

pub mod error;
pub mod event;
pub mod hash;
pub mod id;
pub mod memo;
pub mod operator;
pub mod port;
pub mod rows;
pub mod run;
pub mod runner;
pub mod secret;
pub mod table;
pub mod value;

pub use error::{Cause, Class, StageError};
pub use event::{Event, Outcome, Progress, RowCounts, Usage};
pub use id::{Digest, Key, StageId};
pub use memo::{Memo, RowFunction, RowKey};
pub use operator::{Entry, ExternalFile, Operator, Part, Place, Problems, Promise, Traits};
pub use port::{Arity, Input, Kind, Output, Ports};
pub use run::{Checkpoints, Model, Run};
pub use runner::{Ask, Execute, Runner};
pub use secret::Secret;
pub use table::Table;
