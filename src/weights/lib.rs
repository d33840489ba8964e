//! fuseline-weights
