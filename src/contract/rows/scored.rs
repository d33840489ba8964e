//! Answers with a score.

use super::{Message, row_type};

row_type! {
    /// An answer with a score.
    SCORED = Scored {
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
        /// `stop` or `length`.
        finish_reason: Option<String>,
        /// Tokens generated, the end token included.
        n_tokens: Option<i64>,
        /// The seed of this row's draws.
        seed: Option<i64>,
        /// The score; larger is better. A verifier gives 1 or 0.
        reward: f64,
        /// The verdict, where there is one.
        correct: Option<bool>,
        /// What scored.
        scorer: String,
    }
}
