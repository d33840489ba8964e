//! Curves of a training run.

use super::row_type;

row_type! {
    /// A figure at a step of a training run.
    TRACE = Trace {
        /// The optimiser update, from one.
        step: i64,
        /// `loss`, `learning_rate`, `grad_norm`, `rewards/margins`, …
        name: String,
        /// The figure.
        value: f64,
    }
}
