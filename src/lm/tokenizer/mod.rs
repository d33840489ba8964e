//! Tokenizers: a model folder's `tokenizer.json` with what `tokenizer_config.json`, `generation_config.json` and
//! `config.json` say about its special tokens; and, in [`train`], the making of new ones.
//!
//! The work is done by the `tokenizers` crate, so a text gets the ids that Hugging Face's fast tokenizers give it.
//! This module must not know models, tensors or chat templates.

mod bpe;
mod train;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

pub use train::{SpecialTokens, TokenizerKind, TrainTokenizer, Trained, train};

/// Tokens which end a turn in the chat formats that are about; a model whose vocabulary has one as a special token
/// stops there even where its configuration names only the end of the text (gemma, phi3 and llama 3 do that).
const END_OF_TURN: [&str; 7] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "</s>"];

/// One special token: its text and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    /// The text, `<s>` say.
    pub content: String,
    /// The id.
    pub id: u32,
}

/// A tokenizer and its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    bos: Option<SpecialToken>,
    eos: Option<SpecialToken>,
    pad: Option<SpecialToken>,
    unk: Option<SpecialToken>,
    stops: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` in a model folder, and its special tokens from `tokenizer_config.json`
    /// (else `special_tokens_map.json`), `generation_config.json` and `config.json`, each of which may be absent.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| Error::Tokenizer { path: path.clone(), problem: error.to_string() })?;
        let config = read_json(&dir.join("tokenizer_config.json"))?;
        let map = read_json(&dir.join("special_tokens_map.json"))?;
        let model = read_json(&dir.join("config.json"))?;
        let generation = read_json(&dir.join("generation_config.json"))?;

        let role = |name: &str| -> Option<SpecialToken> {
            // A written null means that there is none, whatever the model's configuration says (qwen2's `bos_token`).
            if let Some(written) = [&config, &map].iter().find_map(|file| file.get(name)) {
                return special(&inner, &token_text(written)?);
            }
            let id = [&generation, &model]
                .iter()
                .find_map(|file| ids_of(file.get(format!("{name}_id"))?).first().copied())?;
            Some(SpecialToken { content: inner.id_to_token(id)?, id })
        };
        let (bos, eos, pad, unk) = (role("bos_token"), role("eos_token"), role("pad_token"), role("unk_token"));

        let mut stops: BTreeSet<u32> = eos.iter().map(|token| token.id).collect();
        for file in [&generation, &model] {
            stops.extend(file.get("eos_token_id").map(ids_of).unwrap_or_default());
        }
        let added = inner.get_added_tokens_decoder();
        for (id, token) in &added {
            if token.special && END_OF_TURN.contains(&token.content.as_str()) {
                stops.insert(*id);
            }
        }
        Ok(Self { inner, path, bos, eos, pad, unk, stops: stops.into_iter().collect() })
    }

    /// Ids of a text, in which the text of a special token becomes that token.
    ///
    /// `add_special_tokens` lets the tokenizer's own post-processor add its beginning and end; leave it false for a
    /// rendered chat template, which writes them itself.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, add_special_tokens).map_err(|error| self.problem(&error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`Self::encode`] with, per token, the bytes `start..end` of the text that it stands for.
    pub fn encode_offsets(&self, text: &str, add_special_tokens: bool) -> Result<(Vec<u32>, Vec<(usize, usize)>)> {
        let encoding = self.inner.encode(text, add_special_tokens).map_err(|error| self.problem(&error.to_string()))?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// [`Self::encode`] for many texts, on the threads of rayon's pool; the order is kept.
    pub fn encode_batch(&self, texts: &[&str], add_special_tokens: bool) -> Result<Vec<Vec<u32>>> {
        use rayon::prelude::*;
        texts.par_iter().map(|text| self.encode(text, add_special_tokens)).collect()
    }

    /// Text of some ids; `skip_special_tokens` leaves special tokens out. An unknown id is left out.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner.decode(ids, skip_special_tokens).map_err(|error| self.problem(&error.to_string()))
    }

    /// How many ids there are: the highest one plus one, added tokens included.
    pub fn vocab_size(&self) -> usize {
        let highest = self.inner.get_vocab(true).into_values().max();
        highest.map_or(0, |id| id as usize + 1)
    }

    /// The id of a token's text (as the vocabulary writes it).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id (as the vocabulary writes it).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<&SpecialToken> {
        self.bos.as_ref()
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<&SpecialToken> {
        self.eos.as_ref()
    }

    /// The token for padding.
    pub fn pad(&self) -> Option<&SpecialToken> {
        self.pad.as_ref()
    }

    /// The token for what the vocabulary lacks.
    pub fn unk(&self) -> Option<&SpecialToken> {
        self.unk.as_ref()
    }

    /// The ids at which generation stops, ascending: the end of text, `eos_token_id` (one or a list) of
    /// `generation_config.json` and `config.json`, and every special token that is a usual end of a turn.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stops
    }

    /// The file this was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if some id has no row in a model's embedding of `vocab_size` rows: the tokenizer is another model's.
    pub fn check_model(&self, vocab_size: usize) -> Result<()> {
        let found = self.vocab_size();
        if found > vocab_size {
            return Err(self.problem(&format!(
                "it has {found} ids, but the model's embedding has {vocab_size} rows: this is another model's tokenizer; \
                 put the model's own tokenizer.json there"
            )));
        }
        Ok(())
    }

    fn problem(&self, problem: &str) -> Error {
        Error::Tokenizer { path: self.path.clone(), problem: problem.to_string() }
    }
}

fn special(inner: &tokenizers::Tokenizer, text: &str) -> Option<SpecialToken> {
    Some(SpecialToken { content: text.to_string(), id: inner.token_to_id(text)? })
}

/// A token as `tokenizer_config.json` writes it: its text, or an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
    Some(text.to_string())
}

/// An id or a list of ids.
fn ids_of(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

/// A JSON file, or null where there is none.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(source) => {
            return Err(Error::Read { path: path.to_path_buf(), source });
        }
    };
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests;
