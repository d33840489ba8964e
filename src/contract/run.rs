//! What a running stage may do. An operator holds this and its configuration,
//! nothing else: no store, no stage name, no path it was not given.

use std::path::PathBuf;

use crate::error::StageError;
use crate::event::{Progress, Usage};
use crate::id::Digest;
use crate::memo::{Memo, RowFunction};
use crate::secret::Secret;
use crate::table::Table;

/// A model folder that was bound to a port.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The label under which its results are known.
    pub label: Option<String>,
    /// The folder; read only. An endpoint's says who answers.
    pub path: PathBuf,
    /// The parameters of the stage that made it, if it is an endpoint: how to ask it, which is in no key.
    pub endpoint: Option<serde_json::Value>,
    /// Everything that decides what it does: weights, configuration, tokenizer, template.
    pub content: Digest,
}

/// Where a stage that takes long keeps its state, so that a later attempt at the
/// same work goes on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// A folder that outlives an attempt and is removed when the stage is done.
    /// It may not be there yet.
    pub folder: PathBuf,
    /// What the state must be marked with: work under another name may not go
    /// on from it.
    pub identity: String,
}

/// A running stage.
pub trait Run: Sync {
    /// The stage's seed.
    fn seed(&self) -> u64;

    /// How many threads it may use.
    fn threads(&self) -> usize;

    /// Whether anything is bound to an optional port.
    fn has(&self, port: &str) -> bool;

    /// All that is bound to a table port, gathered in one table: axes that the
    /// stage lacks are columns.
    fn table(&self, port: &str) -> Result<Table, StageError>;

    /// The models bound to a port, in order; never empty but for an optional port.
    fn models(&self, port: &str) -> Result<Vec<Model>, StageError>;

    /// The one model bound to a port.
    fn model(&self, port: &str) -> Result<Model, StageError> {
        let mut models = self.models(port)?;
        models.pop().ok_or_else(|| StageError::bug(format!("no model is bound to port {port:?}")))
    }

    /// A file or folder that the parameter names, resolved against the
    /// pipeline's folder of reference.
    fn file(&self, parameter: &str) -> Result<PathBuf, StageError>;

    /// The value of a secret that stands in the parameters. Nothing that is said
    /// here or written to a log keeps it; a table or a model would.
    fn secret(&self, secret: &Secret) -> Result<String, StageError>;

    /// Writes a table output; once an output.
    fn write(&self, output: &str, table: Table) -> Result<(), StageError>;

    /// The empty folder of a model output, to be filled.
    fn model_folder(&self, output: &str) -> Result<PathBuf, StageError>;

    /// Copies files from outside into the folder of a model output, where they
    /// keep their names. What is known of them need not be read again.
    fn copy_to_model(&self, output: &str, files: &[PathBuf]) -> Result<(), StageError>;

    /// A folder of its own for anything temporary, made when it is first asked for.
    fn scratch(&self) -> Result<PathBuf, StageError>;

    /// Where it keeps its state, if it takes long.
    fn checkpoints(&self) -> Checkpoints;

    /// Says that an earlier attempt had done so many steps, from which this one
    /// goes on.
    fn resumed(&self, step: u64);

    /// The rows of a row function that were computed before, by any stage of
    /// any pipeline. Empty, and forgetting what it is given, where the user
    /// switched it off.
    fn memo(&self, function: &RowFunction) -> Result<Box<dyn Memo + '_>, StageError>;

    /// Says how far it is.
    fn progress(&self, progress: Progress);

    /// Says what it consumed since it last said so; what is said adds up.
    fn used(&self, usage: Usage);

    /// Says what exactly it took from outside, where a parameter names it loosely: `hf://org/name@COMMIT`. It is recorded with the result.
    fn origin(&self, what: String);

    /// Tells the user something: rows dropped and why.
    fn note(&self, text: String);

    /// Whether to stop; ask often, then return [`StageError::interrupted`].
    fn cancelled(&self) -> bool;

    /// Stops here if the run was cancelled.
    fn check_cancelled(&self) -> Result<(), StageError> {
        if self.cancelled() { Err(StageError::interrupted()) } else { Ok(()) }
    }
}
