//! Care of a store: what lies in it, whether it is whole, what may go.
//!
//! Nothing here is needed for a pipeline to run, and nothing here decides what
//! runs: a damaged or removed result is a miss, and its stage runs again.

pub mod fsck;
pub mod gc;
mod inventory;
pub mod pins;
pub mod usage;
