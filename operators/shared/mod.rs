//! What several operators need; not operators themselves.

pub mod answers;
pub mod chat;
pub mod endpoint;
pub mod errors;
pub mod failed;
pub mod hub;
pub mod rows;
pub mod train;
pub mod training;
