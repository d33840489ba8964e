//! fuseline-contract
