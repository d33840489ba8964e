//! fuseline-query
