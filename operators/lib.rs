//! fuseline-operators
