//! Weights of language models as files and as numbers: Hugging Face folders of safetensors read lazily
//! ([`folder`]) and written in shards ([`shard`]), and every merging method as arithmetic over them
//! ([`methods`], [`merge`]).
//!
//! Order of the modules (a lower one may not use a higher one):
//! `error, dtype, folder, shard, names, methods, merge`.
//!
//! This crate must not know torch, pipelines or stages: it takes folders and gives folders.

pub mod dtype;
pub mod error;
pub mod folder;
pub mod merge;
pub mod methods;
pub mod names;
pub mod shard;

pub use dtype::{Dtype, Float};
pub use error::{Audience, Error, Result};
pub use folder::{Folder, TensorView};
pub use merge::{Options, Summary, merge};
pub use methods::Method;
pub use shard::{DEFAULT_MAX_SHARD_BYTES, Entry, Tensor, write, write_with};
