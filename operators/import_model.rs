//! `import_model`: a model folder from outside the store.

use std::path::{Path, PathBuf};

use fuseline_contract::{Execute, ExternalFile, Kind, Operator, Output, Place, Ports, Run, StageError, Traits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::Encoder;

/// Parameters of `import_model`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A Hugging Face model folder: `config.json`, `*.safetensors`, `tokenizer.json`.
    pub from: PathBuf,
}

/// See [`Operator::MANUAL`].
pub struct ImportModel;

impl Operator for ImportModel {
    const NAME: &'static str = "import_model";
    const VERSION: u32 = 1;
    const TRAITS: Traits = Traits { place: Place::Worker, ..Traits::PURE };
    const MANUAL: &'static str = "\
Takes a model folder from outside into the store.

Checks it first: the configuration is of a known family, the weights are
complete, the tokenizer has no token beyond the model's vocabulary, and there
is a chat template. Its
content, not its path, decides whether later stages rerun.";
    const EXAMPLE: &'static str = "op: import_model\nwith: {from: models/target}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports { inputs: vec![], outputs: vec![Output::new("model", Kind::Model, "the model")] }
    }

    fn files(config: &Config) -> Vec<ExternalFile> {
        vec![ExternalFile::new("from", &config.from)]
    }
}

impl Execute for ImportModel {
    fn run(_: &Config, run: &dyn Run) -> Result<(), StageError> {
        let from = run.file("from")?;
        Encoder::check(&from)?;
        copy(&from, run)
    }
}

/// Copies the folder's own files; what lies in folders below is no part of a model.
fn copy(from: &Path, run: &dyn Run) -> Result<(), StageError> {
    let failed = |error| StageError::io("read", from, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && !path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b".") {
            files.push(path);
        }
    }
    run.copy_to_model("model", &files)
}
