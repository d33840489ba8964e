//! fuseline-metrics
