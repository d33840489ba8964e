//! What can go wrong with weights, as values. Must not know who prints it: a message is lower case, names the
//! file or the tensor, and carries its hint on a line of its own.

use std::io;
use std::path::PathBuf;

use crate::dtype::Dtype;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says who can act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The given files or settings are wrong.
    Input,
    /// The machine failed: disk, memory, permissions.
    Environment,
    /// fuseline itself is wrong.
    Bug,
}

/// Everything that reading, writing and merging weights may fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there.
    #[error("no model folder at {folder}\nhint: check the path, or create the model first")]
    NoFolder {
        /// The folder as it was given.
        folder: PathBuf,
    },
    /// The folder has no safetensors weights.
    #[error(
        "no weights in {folder}: expected model.safetensors or model.safetensors.index.json, found {found}\n\
         hint: give a Hugging Face model folder; weights in another format must be saved as safetensors first"
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// The names that are there instead.
        found: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}\nhint: check free disk space and permissions there")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A weight file is not as long as its header says.
    #[error(
        "{path} is {found} bytes long, its header describes {expected}\n\
         hint: the file was cut short or changed; copy or download it again"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header describes.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A weight file has no valid safetensors header.
    #[error("{path} is not a safetensors file: {reason}\nhint: {hint}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with the header.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// An index file cannot be understood.
    #[error("{path} is not an index of weights: {reason}\nhint: copy or download it again")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An index names a shard that is not there.
    #[error("{index} names the shard \"{shard}\", which is not in the folder\nhint: copy or download {shard} again")]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
    },
    /// An index places a tensor in a shard that lacks it.
    #[error(
        "{index} places the tensor \"{tensor}\" in \"{shard}\", which lacks it\n\
         hint: the index and its shards come from different models; copy the whole folder again"
    )]
    NotInShard {
        /// The index file.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard's file name.
        shard: String,
    },
    /// A tensor of that name is not in the folder.
    #[error("no tensor \"{tensor}\" in {folder}{}", nearest_hint(.nearest))]
    NoTensor {
        /// The folder.
        folder: PathBuf,
        /// The tensor asked for.
        tensor: String,
        /// The most similar name that is there.
        nearest: Option<String>,
    },
    /// A tensor of floats was asked for and another type is stored.
    #[error("the tensor \"{tensor}\" in {folder} is {dtype}, expected F64, F32, F16 or BF16")]
    NotFloat {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// The stored type.
        dtype: Dtype,
    },
    /// The bytes of a tensor do not fit its type and shape.
    #[error("the tensor \"{tensor}\" has {found} bytes, its type and shape need {expected}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Bytes that type and shape need.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// Two tensors of one name were to be written.
    #[error("two tensors are named \"{tensor}\"")]
    Duplicate {
        /// The name.
        tensor: String,
    },
    /// The settings of a merge are wrong; one line for each problem.
    #[error("{}", .problems.join("\n"))]
    Settings {
        /// All problems.
        problems: Vec<String>,
    },
    /// Two folders do not hold the same tensors.
    #[error(
        "cannot merge: the tensor \"{tensor}\" is in {with} and not in {without}\n\
         hint: only models of one architecture and size can be merged; tensors that are not in both: {count}"
    )]
    Names {
        /// The first tensor that differs.
        tensor: String,
        /// The folder that has it.
        with: PathBuf,
        /// The folder that lacks it.
        without: PathBuf,
        /// How many tensors are in one folder only.
        count: usize,
    },
    /// A tensor has two shapes.
    #[error(
        "cannot merge: the tensor \"{tensor}\" is {left_shape:?} in {left} and {right_shape:?} in {right}\nhint: {hint}"
    )]
    Shapes {
        /// The tensor.
        tensor: String,
        /// The first folder.
        left: PathBuf,
        /// The shape there.
        left_shape: Vec<usize>,
        /// The second folder.
        right: PathBuf,
        /// The shape there.
        right_shape: Vec<usize>,
        /// What to do.
        hint: &'static str,
    },
    /// A tensor that is not of floats differs between the folders.
    #[error(
        "cannot merge: the {dtype} tensor \"{tensor}\" differs between {left} and {right}, and only floats can be averaged"
    )]
    Integers {
        /// The tensor.
        tensor: String,
        /// Its type in the first folder.
        dtype: Dtype,
        /// The first folder.
        left: PathBuf,
        /// The second folder.
        right: PathBuf,
    },
    /// A method cannot be applied to a tensor.
    #[error("cannot merge the tensor \"{tensor}\": {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// The method's reason.
        reason: String,
    },
    /// A result is infinite or not a number.
    #[error(
        "cannot merge the tensor \"{tensor}\": element {element} of the result is {value} as {dtype}\n\
         hint: an input holds such a value there, or the result is too large for the type; \
         check the inputs, or set dtype: float32"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The flat index of the first such element.
        element: usize,
        /// The value before rounding.
        value: f64,
        /// The type of the result.
        dtype: Dtype,
    },
    /// The result would overwrite an input.
    #[error("the merged model cannot be written to {folder}: it is one of the inputs\nhint: choose another folder")]
    OutputIsInput {
        /// The folder.
        folder: PathBuf,
    },
    /// A configuration file cannot be understood.
    #[error("{path} is not a model configuration: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("the merge was cancelled")]
    Cancelled,
}

impl Error {
    /// Says who can act on this error.
    pub fn audience(&self) -> Audience {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::Cancelled => Audience::Environment,
            Self::Size { .. } | Self::Duplicate { .. } => Audience::Bug,
            _ => Audience::Input,
        }
    }
}

fn nearest_hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("\nhint: the most similar name there is \"{name}\""),
        None => String::new(),
    }
}
