//! What several operators need; not operators themselves.

pub mod rows;
