//! From a pipeline file to artifacts: spec → plan → graph → keys → store →
//! scheduler, workers, ledger.
//!
//! Must not know any operator, any model, SQL, or the terminal.

pub mod attempt;
mod bind;
pub mod care;
pub mod choice;
pub mod decide;
mod definition;
mod device;
pub mod error;
pub mod executor;
mod expand;
pub mod explain;
pub mod footnotes;
pub mod graph;
mod here;
pub mod history;
mod include;
pub mod key;
pub mod ledger;
pub mod lineage;
mod locate;
pub mod lock;
pub mod logs;
pub mod origin;
mod parameters;
pub mod plan;
pub mod problem;
mod publisher;
pub mod reference;
mod repeat;
pub mod rerun;
mod resolve;
pub mod resources;
pub mod run;
pub mod rundiff;
pub mod schedule;
pub mod schema;
mod secrets;
pub mod select;
mod settings;
mod settle;
mod spec;
pub mod store;
mod vars;
pub mod why;
pub mod worker;
mod yaml;

pub use decide::{Decision, decide};
pub use problem::{Problem, Problems};
pub use resolve::{Settings, load, load_text};
pub use schedule::{RunOptions, RunSummary, run};
pub use store::Store;
