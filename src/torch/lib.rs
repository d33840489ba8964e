//! fuseline-torch
