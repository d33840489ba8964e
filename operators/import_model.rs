//! `import_model`: a model folder from outside the store.

use std::path::{Path, PathBuf};

use fuseline_contract::{
    Execute, ExternalFile, Kind, Operator, Output, Place, Ports, Problems, Run, StageError, Traits,
};
use fuseline_remote::hub;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::Encoder;
use crate::shared::hub as files;

/// Parameters of `import_model`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A Hugging Face model folder: `config.json`, `*.safetensors`, `tokenizer.json`; or such a model on the Hub: `hf://ORG/NAME@REVISION`.
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
content, not its path, decides whether later stages rerun.

Of `hf://ORG/NAME@REVISION` the weights in safetensors, the configuration, the
tokenizer and the templates are fetched into the Hub's own cache; a download that
was cut goes on where it ended. REVISION is a branch, a tag or, best, a commit: a
branch is looked up when the stage runs, the commit is told and recorded, and the
stage's result holds until it is forced. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN
and HF_HUB_OFFLINE mean what they mean to the Hub's own library.";
    const EXAMPLE: &'static str = "op: import_model\nwith: {from: models/target}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports { inputs: vec![], outputs: vec![Output::new("model", Kind::Model, "the model")] }
    }

    fn check(config: &Config, problems: &mut Problems) {
        if let Some(text) = files::name(&config.from)
            && let Some(name) = files::check(text, hub::Kind::Model, "from", problems)
        {
            problems.require(name.path.is_empty(), "from", || "names a file; expected a model".into());
        }
    }

    fn files(config: &Config) -> Vec<ExternalFile> {
        let folder = files::name(&config.from).is_none();
        folder.then(|| ExternalFile::new("from", &config.from)).into_iter().collect()
    }

    fn environment(config: &Config) -> Vec<String> {
        files::name(&config.from).map(|_| files::environment()).unwrap_or_default()
    }
}

impl Execute for ImportModel {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        if let Some(name) = files::name(&config.from) {
            let (folder, names) = files::fetch(name, run, &wanted)?;
            Encoder::check(&folder)?;
            let files: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
            return run.copy_to_model("model", &files);
        }
        let from = run.file("from")?;
        Encoder::check(&from)?;
        copy(&from, run)
    }
}

/// The files of a repository that a model is loaded from.
fn wanted(paths: &[&str]) -> Result<Vec<String>, StageError> {
    let own: Vec<&str> = paths.iter().copied().filter(|path| !path.contains('/')).collect();
    let weights = |path: &&str| path.ends_with(".safetensors");
    // Some publishers add the same weights under names of their own.
    let usual = own.iter().any(|path| path.starts_with("model") && weights(path));
    let is_wanted = |path: &&str| match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("safetensors") => !usual || path.starts_with("model"),
        Some("json" | "jinja" | "model" | "txt") => true,
        _ => path.to_ascii_lowercase().starts_with("license"),
    };
    if !own.iter().any(weights) {
        return Err(StageError::input("the repository has no weights in safetensors")
            .hint("convert them, save_pretrained(FOLDER, safe_serialization=True), and import the folder"));
    }
    Ok(own.into_iter().filter(is_wanted).map(str::to_owned).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_repository_only_what_a_model_is_loaded_from_is_fetched() {
        let paths = [
            ".gitattributes",
            "README.md",
            "LICENSE",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "merges.txt",
            "onnx/model.onnx",
            "original/params.json",
            "x.gguf",
        ];
        let chosen = wanted(&paths).expect("there are weights");
        assert_eq!(
            chosen,
            [
                "LICENSE",
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer.model",
                "chat_template.jinja",
                "merges.txt",
            ]
        );
        assert_eq!(wanted(&["weights.safetensors"]).expect("of another name"), ["weights.safetensors"]);
        assert!(wanted(&["pytorch_model.bin"]).is_err());
    }
}
