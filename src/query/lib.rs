//! SQL over artifacts and the ledger, and the tables of a paper made from it.
//!
//! The way of the data: files and tables are registered in a [`Session`] under
//! the names that a user knows, a query gives a [`Table`](fuseline_contract::Table),
//! a [`TableSpec`] gives [`Cells`], and [`render`] gives text.
//!
//! This crate must not know what a stage means, nor models, nor where the store
//! lies: paths are given to it.

pub mod cells;
pub mod diff;
pub mod error;
pub mod functions;
mod memory;
mod names;
pub mod order;
pub mod render;
mod scan;
pub mod session;
pub mod spec;
pub mod table;

pub use cells::Cells;
pub use error::{Error, Result};
pub use names::{first_statement, is_blank, tables_of};
pub use order::sql_stage;
pub use session::{Contents, Limits, Part, Rows, Session};
pub use spec::TableSpec;
