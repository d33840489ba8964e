//! What ends all work with an endpoint or the Hub; what is the fault of one question is
//! told with that question instead (see [`crate::endpoint::Done`]).

use std::path::PathBuf;

/// Who can act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The user: an address, a key, a model's name, a limit.
    Input,
    /// The network or the server; trying again later may help.
    Environment,
}

/// Why an endpoint cannot be asked, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error(
        "{url:?} is no address of an endpoint: {problem}\nhint: it looks like http://localhost:8000/v1 and ends where /chat/completions begins"
    )]
    Url {
        /// As written.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The client could not be made.
    #[error("failed to prepare HTTP: {detail}")]
    Client {
        /// What the library says.
        detail: String,
    },
    /// The server refuses whatever it is asked.
    #[error("{url} refuses all questions: {status}: {said}\nhint: {hint}")]
    Refused {
        /// What was asked.
        url: String,
        /// HTTP's status.
        status: u16,
        /// What the server says of it.
        said: String,
        /// What to do.
        hint: &'static str,
    },
    /// Nobody answers, or nobody sensible.
    #[error(
        "{url} does not answer: {why}, {tries} times\nhint: see that the server runs and is not overloaded; answers that were given are kept"
    )]
    Unavailable {
        /// What was asked.
        url: String,
        /// How the last try ended.
        why: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The server asks for a pause that is too long to wait for.
    #[error(
        "{url} asks to come back in {seconds:.0} s: {said}\nhint: run again then; answers that were given are kept"
    )]
    Later {
        /// What was asked.
        url: String,
        /// The pause.
        seconds: f64,
        /// What the server says of it.
        said: String,
    },
    /// The next question could cost more than is left.
    #[error(
        "the spending limit of ${limit} does not cover the next question: ${spent:.6} is spent, and it may cost ${next:.6}\nhint: raise max_usd; answers that were given are kept and not paid for again"
    )]
    Spent {
        /// US dollars in all.
        limit: f64,
        /// US dollars spent.
        spent: f64,
        /// The most that the question may cost.
        next: f64,
    },
    /// The server counted more tokens than it was allowed.
    #[error(
        "the endpoint counted {counted} tokens where {allowed} were allowed, so the spending limit cannot be held\nhint: see max_tokens_name: some servers count tokens of thought against max_completion_tokens only"
    )]
    Overrun {
        /// Tokens in the bill.
        counted: u64,
        /// Tokens that were thought possible.
        allowed: u64,
    },
    /// A name of the Hub is none.
    #[error(
        "{name:?} is no name on the Hub: {problem}\nhint: write hf://ORG/NAME@REVISION, or hf://datasets/ORG/NAME@REVISION/FILE"
    )]
    HubName {
        /// As written.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no such thing on the Hub.
    #[error("{name} is not on the Hub, or is private\nhint: see the spelling; for what is private, set HF_TOKEN")]
    HubMissing {
        /// What was asked for.
        name: String,
    },
    /// The Hub refuses it to us.
    #[error(
        "the Hub refuses {name}: status {status}\nhint: set HF_TOKEN; for what is gated, accept its terms on its page first"
    )]
    HubRefused {
        /// What was asked for.
        name: String,
        /// HTTP's status.
        status: u16,
    },
    /// It is not in the cache and must not be asked for.
    #[error(
        "{name} is not in {cache}, and HF_HUB_OFFLINE is set\nhint: unset HF_HUB_OFFLINE once, so that it is fetched"
    )]
    HubOffline {
        /// What was asked for.
        name: String,
        /// Where the cache lies.
        cache: PathBuf,
    },
    /// The Hub does not give it.
    #[error("failed to fetch {name}: {why}\nhint: run again; what has come is kept, and the rest is asked for")]
    HubDown {
        /// What was asked for.
        name: String,
        /// How the last try ended.
        why: String,
    },
    /// The cache cannot be written.
    #[error("failed to write {path}: {source}")]
    HubFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Who asked wants no more.
    #[error("stopped")]
    Stopped,
    /// What was spent cannot be noted, so a limit could be passed after a crash.
    #[error("failed to note what was spent in {path}: {source}")]
    Note {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// An error of a library by its innermost cause: what lies around it says the address, which stands elsewhere.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

impl Error {
    /// Who can act.
    pub fn audience(&self) -> Audience {
        match self {
            Self::Url { .. }
            | Self::Refused { .. }
            | Self::Spent { .. }
            | Self::Overrun { .. }
            | Self::HubName { .. }
            | Self::HubMissing { .. }
            | Self::HubRefused { .. }
            | Self::HubOffline { .. } => Audience::Input,
            Self::Client { .. }
            | Self::Unavailable { .. }
            | Self::Later { .. }
            | Self::Note { .. }
            | Self::HubDown { .. }
            | Self::HubFile { .. }
            | Self::Stopped => Audience::Environment,
        }
    }

    /// Whether the same may succeed a little later.
    pub fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::HubDown { .. })
    }
}
