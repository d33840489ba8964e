//! Where attempts run that need a process of their own. Each executor is handed
//! a specification and gives back an outcome.

pub mod local;
mod memory;
