//! Digests of a model folder, from one reading of each file: of its bytes, and
//! of its logical content, which is what keys hold: tensors by name, type, shape
//! and values, whatever the shards, and the other files that loading reads. So
//! no other sharding reruns anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

use fuseline_contract::Digest;
use fuseline_contract::hash::{self, Domain};
use fuseline_contract::value::Value;
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::store::digest::{self, Sink};

/// A file of a model folder that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// The digest of its bytes.
    pub digest: Digest,
    /// What is in it, if it holds weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    /// Where its values lie in the file.
    place: Range<u64>,
    digest: Digest,
}

impl ModelFile {
    /// A file of which nothing is known but its bytes.
    pub(crate) fn plain(digest: Digest) -> Self {
        Self { digest, tensors: Vec::new() }
    }

    /// Reads a file that has a name in its folder.
    pub fn read(name: &str, path: &Path) -> Result<Self> {
        Self::pass(name, path, None)
    }

    /// Reads it on its way to another place, where nothing may be yet.
    pub fn copy(name: &str, from: &Path, to: &Path) -> Result<Self> {
        let mut out = File::create_new(to).at("create", to)?;
        Self::pass(name, from, Some(&mut |piece| out.write_all(piece).at("write", to)))
    }

    fn pass(name: &str, path: &Path, sink: Option<Sink<'_>>) -> Result<Self> {
        let external = |source| Error::External { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(external)?;
        let mut tensors = Vec::new();
        if name.ends_with(".safetensors") {
            tensors = header(path, &mut file)?;
            file.rewind().map_err(external)?;
        }
        let places: Vec<Range<u64>> = tensors.iter().map(|tensor| tensor.place.clone()).collect();
        let passed = digest::read(path, &file, &places, sink)?;
        for (tensor, hash) in tensors.iter_mut().zip(passed.parts) {
            if tensor.place.end > passed.whole.size {
                let detail = "it became shorter while it was read".to_owned();
                return Err(Error::Safetensors { path: path.to_owned(), detail });
            }
            tensor.digest.hash = hash;
        }
        Ok(Self { digest: passed.whole, tensors })
    }
}

/// The tensors of a safetensors file, in the order of their places, not hashed
/// yet: u64 little-endian header length, JSON header of `name → {dtype, shape,
/// data_offsets}`, data.
fn header(path: &Path, file: &mut File) -> Result<Vec<Tensor>> {
    let wrong = |detail: &str| Error::Safetensors { path: path.to_owned(), detail: detail.to_owned() };
    let size = file.metadata().at("read", path)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| wrong("it is shorter than its header"))?;
    let length = u64::from_le_bytes(length);
    let data =
        length.checked_add(8).filter(|data| *data <= size).ok_or_else(|| wrong("it is shorter than its header"))?;
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).at("read", path)?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|error| wrong(&format!("its header is no JSON: {error}")))?;
    let mut tensors = Vec::new();
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let numbers = |value: &serde_json::Value| -> Option<Vec<u64>> {
            value.as_array()?.iter().map(serde_json::Value::as_u64).collect()
        };
        let parsed = (|| {
            let offsets = numbers(&entry["data_offsets"])?;
            let (start, end) = (*offsets.first()?, *offsets.get(1)?);
            (start <= end && data.checked_add(end)? <= size).then_some(())?;
            Some((entry["dtype"].as_str()?.to_owned(), numbers(&entry["shape"])?, data + start..data + end))
        })();
        let Some((dtype, shape, place)) = parsed else {
            return Err(wrong(&format!("the entry of tensor {name:?} leads outside the file")));
        };
        let digest = Digest { hash: [0; 32], size: place.end - place.start };
        tensors.push(Tensor { name, dtype, shape, place, digest });
    }
    tensors.sort_by_key(|tensor| tensor.place.start);
    Ok(tensors)
}

/// The content digest of a model folder, from its files by name. Its size is
/// the bytes of all tensors.
pub fn content<'a>(files: impl IntoIterator<Item = (&'a str, &'a ModelFile)>) -> Result<Digest> {
    let mut tensors: BTreeMap<String, Value> = BTreeMap::new();
    let mut others: BTreeMap<String, Value> = BTreeMap::new();
    let mut size = 0;
    for (name, file) in files {
        if let Some(stem) = name.strip_suffix(".safetensors") {
            for tensor in &file.tensors {
                size += tensor.digest.size;
                let shape = tensor.shape.iter().copied().collect();
                let value = Value::List(vec![tensor.dtype.as_str().into(), shape, tensor.digest.into()]);
                if tensors.insert(format!("{}/{}", without_shard(stem), tensor.name), value).is_some() {
                    let detail = format!("tensor {:?} is in another file too", tensor.name);
                    return Err(Error::Safetensors { path: name.into(), detail });
                }
            }
        } else if is_read_by_loading(name) {
            others.insert(name.to_owned(), file.digest.into());
        }
    }
    let value = Value::map([("tensors", Value::Map(tensors)), ("files", Value::Map(others))]);
    Ok(hash::digest(Domain::ModelContent, &value, size))
}

/// Tells whether loading a model could read this file of its folder.
fn is_read_by_loading(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let lower = file.to_ascii_lowercase();
    !(lower.ends_with(".safetensors.index.json")
        || lower.starts_with("readme")
        || lower.starts_with("license")
        || matches!(lower.as_str(), ".gitattributes" | ".gitignore" | "notice"))
}

/// `model-00001-of-00003` → `model`.
fn without_shard(stem: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = stem.rsplitn(4, '-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(all), Some("of"), Some(one), Some(name)) if digits(all) && digits(one) => name,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, bytes) in tensors {
            let start = data.len();
            data.extend(*bytes);
            let entry = serde_json::json!({"dtype": "U8", "shape": [bytes.len()], "data_offsets": [start, data.len()]});
            header.insert((*name).to_owned(), entry);
        }
        let header = serde_json::Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    }

    fn read(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<Digest> {
        let mut read = Vec::new();
        for (name, bytes) in files {
            let path = folder.join(name);
            std::fs::write(&path, bytes).expect("written");
            let file = ModelFile::read(name, &path)?;
            assert_eq!(file.digest, Digest::of_bytes(bytes));
            read.push((*name, file));
        }
        content(read.iter().map(|(name, file)| (*name, file)))
    }

    #[test]
    fn ask_1_every_file_that_a_model_is_loaded_from_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = |files: &[(&str, Vec<u8>)]| read(folder.path(), files).expect("digested");
        let names = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "vocab.json",
            "merges.txt",
            "anything_else.bin",
        ];
        let weights = |tensors: &[(&str, &[u8])]| ("model.safetensors", safetensors(tensors));
        let plain = |changed: Option<&str>| -> Vec<(&str, Vec<u8>)> {
            let bytes = |name: &str| if changed == Some(name) { b"{ }".to_vec() } else { b"{}".to_vec() };
            names.iter().map(|name| (*name, bytes(name))).collect()
        };
        let tensors: [(&str, &[u8]); 2] = [("a", b"xx"), ("b", b"y")];
        let base = digest(&[plain(None), vec![weights(&tensors)]].concat());
        for name in names {
            assert_ne!(base, digest(&[plain(Some(name)), vec![weights(&tensors)]].concat()), "{name} changed");
            let without: Vec<_> = plain(None).into_iter().filter(|(other, _)| *other != name).collect();
            assert_ne!(base, digest(&[without, vec![weights(&tensors)]].concat()), "{name} left out");
        }
        for (what, tensors) in [
            ("a value", [("a", &b"xz"[..]), ("b", b"y")]),
            ("a name", [("a", b"xx"), ("c", b"y")]),
            ("a shape", [("a", b"x"), ("b", b"xy")]),
            ("values swapped", [("b", b"xx"), ("a", b"y")]),
        ] {
            assert_ne!(base, digest(&[plain(None), vec![weights(&tensors)]].concat()), "{what} of the weights");
        }
    }

    #[test]
    fn sharding_is_left_out_and_configuration_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = |files: &[(&str, Vec<u8>)]| read(folder.path(), files);
        let config = ("config.json", b"{}".to_vec());
        let whole = digest(&[config.clone(), ("model.safetensors", safetensors(&[("a", b"xx"), ("b", b"y")]))]);
        let whole = whole.expect("digested");
        let sharded = digest(&[
            config.clone(),
            ("model-00001-of-00002.safetensors", safetensors(&[("b", b"y")])),
            ("model-00002-of-00002.safetensors", safetensors(&[("a", b"xx")])),
            ("model.safetensors.index.json", b"{}".to_vec()),
            ("README.md", b"hello".to_vec()),
        ]);
        assert_eq!(whole, sharded.expect("digested"));
        assert_eq!(whole.size, 3);
        let other = ("config.json", b"{ }".to_vec());
        let weights = ("model.safetensors", safetensors(&[("a", b"xx"), ("b", b"y")]));
        assert_ne!(whole, digest(&[other, weights]).expect("digested"));
        let twice = digest(&[
            ("model.safetensors", safetensors(&[("a", b"x")])),
            ("model-00001-of-00001.safetensors", safetensors(&[("a", b"x")])),
        ]);
        assert!(twice.is_err());
        assert!(digest(&[("model.safetensors", b"short".to_vec())]).is_err());
    }
}
