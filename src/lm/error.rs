//! What can go wrong with a language model, as values: the folder, the field, the tensor,
//! the shapes.
//!
//! It must not know pipelines or stages; the operator that calls adds those.

use std::path::PathBuf;

use fuseline_torch::tch::TchError;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can act on an error; the caller turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The user's files or parameters are wrong.
    Input,
    /// Disk, memory or device failed.
    Environment,
    /// An invariant of ours does not hold.
    Bug,
}

/// What can go wrong with a language model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("failed to write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not JSON.
    #[error("{} is not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// `model_type` names no family that we have.
    #[error("model_type {found:?} in config.json is not a known family; known are {known}")]
    UnknownFamily {
        /// What stands there.
        found: String,
        /// The known ones, joined by commas.
        known: String,
    },
    /// A field of the configuration is absent.
    #[error("config.json has no field {field:?}; expected {expected}")]
    MissingField {
        /// The field.
        field: String,
        /// What should stand there.
        expected: String,
    },
    /// A field of the configuration holds something that we cannot follow.
    #[error("config.json has {field} = {found}; expected {expected}")]
    Field {
        /// The field.
        field: String,
        /// Its value as JSON.
        found: String,
        /// What is understood.
        expected: String,
    },
    /// A fresh model is asked for with a size that its family cannot have.
    #[error(
        "a model of family {family} has {what} = {has} where the other sizes are as given, not {wanted}; ask for {has}"
    )]
    NewModel {
        /// The family.
        family: &'static str,
        /// The size.
        what: &'static str,
        /// What was asked for.
        wanted: i64,
        /// What follows from the other sizes.
        has: i64,
    },
    /// A tensor that the configuration asks for is absent.
    #[error(
        "{} has no tensor {name:?}, which its config.json asks for ({present} tensors are there)",
        folder.display()
    )]
    MissingTensor {
        /// The model's folder.
        folder: PathBuf,
        /// The tensor's published name.
        name: String,
        /// How many tensors the folder holds.
        present: usize,
    },
    /// A tensor that the configuration does not ask for is there.
    #[error(
        "{} holds a tensor {name:?} that its config.json does not ask for; check model_type and the bias fields",
        folder.display()
    )]
    ExtraTensor {
        /// The model's folder.
        folder: PathBuf,
        /// The tensor's published name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name:?} has shape {found:?}; config.json asks for {expected:?}")]
    Shape {
        /// The tensor's published name.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that follows from the configuration.
        expected: Vec<i64>,
    },
    /// A tensor's number format cannot be computed with.
    #[error("tensor {name:?} is stored as {found}; expected one of F32, F16, BF16, F64")]
    Dtype {
        /// The tensor's published name.
        name: String,
        /// The number format.
        found: String,
    },
    /// The weights could not be read or written.
    #[error(transparent)]
    Weights(#[from] fuseline_weights::Error),
    /// A token id lies outside the model's vocabulary.
    #[error("token id {id} is outside the model's vocabulary of {vocab_size}; the tokenizer does not fit the model")]
    TokenOutOfRange {
        /// The id.
        id: i64,
        /// The model's vocabulary size.
        vocab_size: i64,
    },
    /// A prompt without a token.
    #[error("the prompt has no tokens; a model needs at least one, such as the begin token")]
    EmptyPrompt,
    /// A cache's slot has no room for what should be put into it.
    #[error("slot {slot} of the cache would hold {needed} tokens; it has room for {max_len}")]
    CacheFull {
        /// The slot.
        slot: usize,
        /// How many tokens should be in it.
        needed: usize,
        /// How many a slot can hold.
        max_len: usize,
    },
    /// One text alone takes more memory for keys and values than there may be.
    #[error(
        "{what} needs {} MiB for the keys and values of its {tokens} tokens, answer included; {} MiB are allowed: lower max_tokens, shorten it, or allow more",
        needed_bytes.div_ceil(1 << 20), cache_bytes >> 20
    )]
    CacheTooSmall {
        /// Which text.
        what: String,
        /// Its tokens, those of the answer included.
        tokens: usize,
        /// What it takes.
        needed_bytes: u64,
        /// What there may be.
        cache_bytes: u64,
    },
    /// Threads could not be started.
    #[error("failed to start {n} threads: {problem}")]
    Threads {
        /// How many.
        n: usize,
        /// What the system said.
        problem: String,
    },
    /// libtorch failed.
    #[error("{doing}: {source}")]
    Torch {
        /// What was being done.
        doing: String,
        /// What libtorch said.
        source: TchError,
    },
    /// A tokenizer's file cannot be used.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tokenizer cannot be trained so.
    #[error("failed to train a tokenizer: {problem}")]
    TrainTokenizer {
        /// Which parameter or text, and what it should be.
        problem: String,
    },
    /// A chat template is not valid, or asks for what there is not.
    #[error("the chat template failed: {problem}")]
    Template {
        /// What and where.
        problem: String,
    },
    /// A chat template refuses the messages.
    #[error("the chat template refuses these messages: {message}")]
    TemplateRefused {
        /// In its own words.
        message: String,
    },
    /// Generation or scoring was asked for what cannot be.
    #[error("{problem}")]
    Generation {
        /// What, and what it should be.
        problem: String,
    },
    /// A text has more tokens than the model has positions.
    #[error("{what} has {tokens} tokens, but the model has {limit} positions; shorten it")]
    TooLong {
        /// Which text.
        what: String,
        /// Its tokens.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// A number that should be finite is not.
    #[error("{what} are not finite numbers; the model's weights are damaged or overflow in this number format")]
    NotFinite {
        /// Which numbers.
        what: String,
    },
    /// Settings of a training are out of range.
    #[error("{problems}")]
    TrainingSettings {
        /// Each names its field, the value and what is expected; one a line.
        problems: String,
    },
    /// A row of training data holds what it may not.
    #[error("training row {row}: {problem}")]
    TrainingRow {
        /// Its place in the data.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// No row is left to train on.
    #[error("there is nothing to train on: {why}")]
    NothingToTrain {
        /// Why.
        why: String,
    },
    /// A training has run away.
    #[error("the {what} is {value} at step {step}; lower learning_rate, which is {learning_rate}")]
    Diverged {
        /// The update, from 1.
        step: u64,
        /// The loss or the norm of the gradient.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The peak learning rate of the settings.
        learning_rate: f64,
    },
}

impl Error {
    /// Says who can act on it.
    pub fn audience(&self) -> Audience {
        match self {
            Error::Write { .. } | Error::Torch { .. } | Error::Threads { .. } => Audience::Environment,
            Error::Weights(error) => match error.audience() {
                fuseline_weights::Audience::Input => Audience::Input,
                fuseline_weights::Audience::Environment => Audience::Environment,
                fuseline_weights::Audience::Bug => Audience::Bug,
            },
            Error::CacheFull { .. } => Audience::Bug,
            _ => Audience::Input,
        }
    }
}
