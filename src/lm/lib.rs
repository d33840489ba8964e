//! Language models: families and their one decoder, tokenizers and chat templates,
//! checkpoints, generation, log-probabilities, objectives and the trainer.
//!
//! Order of the modules (a lower one may not use a higher one): `error, arch, families,
//! tokenizer, template, parts, cache, decoder, cpu, init, checkpoint, generate, score, objectives,
//! train`.
//!
//! This crate must not know Arrow, YAML, stages or the store: it takes texts, token ids and
//! model folders, and gives the same.

pub mod arch;
pub mod cache;
pub mod checkpoint;
pub mod cpu;
pub mod decoder;
pub mod error;
pub mod families;
pub mod generate;
mod init;
pub mod objectives;
pub mod parts;
pub mod score;
pub mod template;
pub mod tokenizer;
pub mod train;

pub use arch::Architecture;
pub use cache::Cache;
pub use decoder::{Decoder, Mask};
pub use error::{Audience, Error, Result};
pub use families::{NewModel, new_config};
pub use fuseline_torch::set_threads;
pub use fuseline_torch::tch::{Device, Kind};
