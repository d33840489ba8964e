//! fuseline-lm
