//! Questions put to models.

use super::{Message, row_type};
use crate::hash::row_id;

row_type! {
    /// A question put to models.
    PROMPT = Prompt {
        /// Identity of the prompt; derived from the messages where the data has none.
        prompt_id: String,
        /// The conversation so far, `{role, content}` each, ending with the user.
        messages: Vec<Message>,
        /// The reference answer.
        reference: Option<String>,
        /// The domain or skill, by which results are broken down.
        domain: Option<String>,
        /// Anything else, as JSON.
        meta: Option<String>,
    }
}

/// The identity of a prompt that has none of its own: 32 hex digits.
pub fn prompt_id(messages: &[Message]) -> String {
    let parts: Vec<_> = messages.iter().flat_map(|m| [m.role.clone().into(), m.content.clone().into()]).collect();
    row_id(&parts)
}
