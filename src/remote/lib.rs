//! Models that live elsewhere: the client of OpenAI-compatible endpoints, and
//! the Hub's files.
//!
//! Knows HTTP, the wire formats, limits and money. Must not know tensors,
//! pipelines, tables or the store.

pub mod endpoint;
pub mod error;
pub mod hub;
pub mod limits;
pub mod prices;
pub mod wire;

pub use endpoint::{Client, Done, Settings, Spent};
pub use error::{Audience, Error};
pub use limits::Limits;
pub use prices::{Prices, Purse};
pub use wire::{Answer, Api, LimitName, Params, Question, Turn};
