//! Which files of a model folder belong to the model besides its weights, and which tensors have a row for each
//! token. Must not know how the weights are stored.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// The file that describes the architecture.
pub const CONFIG_FILE: &str = "config.json";

const COMPANIONS: [&str; 15] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    CONFIG_FILE,
    "generation_config.json",
    "LICENSE",
    "merges.txt",
    "NOTICE",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Endings of further files that a tokenizer or a custom architecture needs.
const COMPANION_ENDINGS: [&str; 3] = [".jinja", ".py", ".tiktoken"];

/// Endings of tensor names with one row for each token: input embeddings and output heads of the known families
/// (llama, qwen, gemma, mistral, phi: `embed_tokens`, `lm_head`; GPT-2 and mpt: `wte`; t5: `shared`; bert:
/// `word_embeddings`; internlm2: `tok_embeddings`, `output`).
const TOKEN_ROWS: [&str; 7] = [
    "embed_tokens.weight",
    "lm_head.weight",
    "wte.weight",
    "shared.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "output.weight",
];

/// Says whether a tensor has one row for each token of the vocabulary, going by its name.
pub fn has_token_rows(tensor: &str) -> bool {
    TOKEN_ROWS.iter().any(|ending| {
        tensor.strip_suffix(ending).is_some_and(|stem| {
            // internlm2's head is named `output.weight` alone; inner layers of others end so, too.
            stem.is_empty() || (stem.ends_with('.') && *ending != "output.weight")
        })
    })
}

/// Lists the files of a model folder that go along with a derived model: configuration, tokenizer, chat template,
/// generation settings, custom code, licence; sorted. Model cards, logs and training states stay behind.
///
/// # Errors
/// The folder cannot be read.
pub fn companions(folder: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let known =
            COMPANIONS.contains(&name.as_str()) || COMPANION_ENDINGS.iter().any(|ending| name.ends_with(ending));
        if known && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_listed_and_others_left() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "config.json", "README.md", "model.safetensors", "modeling_x.py", "optimizer.pt"]
        {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(companions(dir.path()).unwrap(), ["config.json", "modeling_x.py", "tokenizer.json"]);
    }

    #[test]
    fn token_rows_go_by_name() {
        for name in ["model.embed_tokens.weight", "lm_head.weight", "transformer.wte.weight", "output.weight"] {
            assert!(has_token_rows(name), "{name}");
        }
        for name in ["model.layers.0.mlp.up_proj.weight", "encoder.layer.0.output.weight", "model.norm.weight"] {
            assert!(!has_token_rows(name), "{name}");
        }
    }
}
