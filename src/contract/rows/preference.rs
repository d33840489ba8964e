//! Rows of preference optimisation.

use super::{Message, row_type};

row_type! {
    /// A preferred and a dispreferred answer to one prompt.
    PREFERENCE = Preference {
        /// Identity of the prompt.
        prompt_id: String,
        /// The conversation so far, ending with the user.
        messages: Vec<Message>,
        /// The preferred answer.
        chosen: String,
        /// The dispreferred answer.
        rejected: String,
        /// The label of the model that gave `chosen`.
        chosen_source: Option<String>,
        /// The label of the model that gave `rejected`.
        rejected_source: Option<String>,
        /// The score of `chosen`.
        chosen_reward: Option<f64>,
        /// The score of `rejected`.
        rejected_reward: Option<f64>,
        /// The row's weight in the loss; 1 where absent.
        weight: Option<f64>,
        /// WRPO: the target's own preferred answer (`chosen` is then the sources').
        chosen_target: Option<String>,
    }
}
