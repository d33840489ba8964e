//! Log-probabilities of given texts under a model.

use super::{Message, row_type};
use crate::hash::row_id;
use crate::value::Value;

row_type! {
    /// The log-probability of an answer under a model.
    LOGPROB = LogProb {
        /// Digest of the messages and the text, so that any table with that text joins.
        text_id: String,
        /// The label of the model.
        model: String,
        /// Sum over the answer's tokens, end token included, in nats.
        logp_sum: f64,
        /// How many tokens that sum is over.
        n_tokens: i64,
        /// Per token, in nats.
        logps: Option<Vec<f64>>,
    }
}

/// The identity of an answer to a conversation: 32 hex digits.
pub fn text_id(messages: &[Message], text: &str) -> String {
    let turn = |m: &Message| Value::List(vec![m.role.clone().into(), m.content.clone().into()]);
    row_id(&[Value::List(messages.iter().map(turn).collect()), text.into()])
}
