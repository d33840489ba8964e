//! What models answered.

use super::{Message, row_type};

row_type! {
    /// An answer of a model to a prompt.
    RESPONSE = Response {
        /// Identity of the prompt.
        prompt_id: String,
        /// The conversation so far, ending with the user.
        messages: Vec<Message>,
        /// The reference answer.
        reference: Option<String>,
        /// The domain or skill.
        domain: Option<String>,
        /// Anything else, as JSON.
        meta: Option<String>,
        /// The label of the model that answered.
        source: String,
        /// Which of the samples for this prompt, from zero.
        sample: i64,
        /// The answer: the final assistant turn as text.
        text: String,
        /// `stop` (ended by itself or at a stop string) or `length` (ran into `max_tokens`).
        finish_reason: Option<String>,
        /// Tokens generated, the end token included.
        n_tokens: Option<i64>,
        /// The seed of this row's draws.
        seed: Option<i64>,
    }
}
