//! What `fuseline` tells `fuseline-worker` to do besides stages. Known to both;
//! secrets are not in it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The worker's first argument where a task follows.
pub const WORD: &str = "task";

/// A task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Serve a model over HTTP.
    Serve {
        /// The model's folder.
        folder: PathBuf,
        /// Its name.
        name: String,
        /// Where to listen.
        host: String,
        /// The port.
        port: u16,
        /// The file with the token.
        token_file: Option<PathBuf>,
        /// Tokens of an answer at most.
        max_tokens: usize,
        /// What it takes.
        room: Room,
    },
    /// Talk with a model.
    Chat {
        /// The model's folder.
        folder: PathBuf,
        /// What it is told first.
        system: Option<String>,
        /// How tokens are chosen.
        temperature: f64,
        /// The nucleus.
        top_p: f64,
        /// Tokens of an answer at most.
        max_tokens: usize,
        /// The seed.
        seed: u64,
        /// What it takes.
        room: Room,
    },
}

/// How much an engine takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Room {
    /// Samples that may wait.
    pub queue: usize,
    /// Tokens of a prompt with its answer.
    pub context: usize,
    /// Threads; 0 for all.
    pub threads: usize,
}
