//! A model behind OpenAI's interfaces, and in the terminal: the engine of
//! `fuseline-lm` with a queue before it.
//!
//! Must not know pipelines, tables or the store: it takes a model folder.

pub mod chat;
pub mod engine;
pub mod error;
pub mod http;
pub mod server;
pub mod wire;

pub use engine::Room;
pub use error::{Error, Result};
pub use server::{Server, Settings, Stopper};
