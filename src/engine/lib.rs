//! fuseline-engine
