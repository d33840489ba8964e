//! What keeps a server from starting or going on.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] fuseline_lm::Error),
    /// The address cannot be listened on.
    #[error(
        "failed to listen on {address}: {source}\nhint: another program may have the port; choose one with --port, or 0 for any"
    )]
    Listen {
        /// Host and port.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The token cannot be read.
    #[error("failed to read the token from {path}: {problem}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A setting is out of range.
    #[error("{problem}")]
    Setting {
        /// What, and what it may be.
        problem: String,
    },
    /// The terminal or a thread failed.
    #[error("failed to {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
