//! Rows of supervised fine-tuning.

use super::{Message, row_type};

row_type! {
    /// A conversation and the answer to learn.
    EXAMPLE = Example {
        /// Identity of the prompt.
        prompt_id: String,
        /// The conversation so far, ending with the user.
        messages: Vec<Message>,
        /// The final assistant turn as text.
        completion: String,
        /// The row's weight in the loss; 1 where absent.
        weight: Option<f64>,
    }
}
