//! Figures about models.

use super::row_type;

row_type! {
    /// A figure about a model on a task.
    METRIC = Metric {
        /// The label of the model.
        model: String,
        /// The task, domain or skill.
        task: String,
        /// What is measured, such as `accuracy` (a fraction) or `nll` (nats per token).
        metric: String,
        /// The figure.
        value: f64,
        /// Its standard error.
        stderr: Option<f64>,
        /// How many rows it is over.
        n: Option<i64>,
        /// The seed of the run it belongs to.
        seed: Option<i64>,
    }
}
