//! The only place where a stage's key is made.
//!
//! A key is BLAKE3 over the canonical encoding of everything that decides a
//! stage's result, and nothing else: no stage name, path, time, host, thread
//! count or resource. The parts are kept, so that a rerun can be explained.
//!
//! The record that is hashed (a map; empty fields are left out):
//!
//! | field      | holds |
//! |------------|-------|
//! | `format`   | [`FORMAT`] |
//! | `operator` | `name`, `version`, `parts`: name → version |
//! | `params`   | the parameters as the operator gives them for keys |
//! | `inputs`   | port → list of `content`, with `label` where the port is labelled and `axes` where a table is gathered |
//! | `files`    | parameter → list of tree digests |
//! | `seed`     | where the operator uses one |
//! | `numerics` | where results depend on device and dtype |
//! | `salt`     | where the pipeline has one: it disowns all results made without it |
//!
//! The encoding is frozen by `tests/golden/keys.json`.

use std::collections::BTreeMap;

use fuseline_contract::hash::{self, Domain};
use fuseline_contract::value::Value;
use fuseline_contract::{Digest, Key};

use crate::plan::Node;

/// Raised only if the record above changes its meaning: every key changes.
pub const FORMAT: u32 = 1;

/// A key with what it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct StageKey {
    /// The key.
    pub key: Key,
    /// Its preimage.
    pub parts: Value,
}

/// One artifact bound to a port, as the key sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct InputPart {
    /// Content digest of the artifact.
    pub content: Digest,
    /// The label, where the operator writes it into its output.
    pub label: Option<String>,
    /// Axes that become columns; empty where they do not.
    pub axes: BTreeMap<String, String>,
}

/// Everything that decides a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts<'a> {
    /// The operator's name.
    pub operator: &'a str,
    /// The operator's version.
    pub version: u32,
    /// Name and version of shared code.
    pub shared: Vec<(&'a str, u32)>,
    /// Parameters.
    pub params: Value,
    /// Per bound port what is bound, in order.
    pub inputs: Vec<(&'a str, Vec<InputPart>)>,
    /// Per parameter that names files, their tree digests.
    pub files: Vec<(&'a str, Digest)>,
    /// The seed, if it is used.
    pub seed: Option<u64>,
    /// The numerics class, if there is one.
    pub numerics: Option<&'a str>,
    /// The pipeline's salt, if it has one.
    pub salt: Option<&'a str>,
}

impl Parts<'_> {
    /// The key and its preimage.
    pub fn key(self) -> StageKey {
        let mut record = BTreeMap::from([
            ("format".to_owned(), FORMAT.into()),
            (
                "operator".to_owned(),
                Value::map([
                    ("name", self.operator.into()),
                    ("version", self.version.into()),
                    ("parts", Value::map(self.shared.iter().map(|(name, version)| (*name, Value::from(*version))))),
                ]),
            ),
            ("params".to_owned(), self.params),
        ]);
        if !self.inputs.is_empty() {
            let ports = self.inputs.iter().map(|(port, parts)| (*port, Value::List(parts.iter().map(input).collect())));
            record.insert("inputs".to_owned(), Value::map(ports));
        }
        let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (parameter, digest) in &self.files {
            files.entry((*parameter).to_owned()).or_default().push((*digest).into());
        }
        if !files.is_empty() {
            let files = files.into_iter().map(|(parameter, digests)| (parameter, Value::List(digests)));
            record.insert("files".to_owned(), Value::map(files));
        }
        if let Some(seed) = self.seed {
            record.insert("seed".to_owned(), seed.into());
        }
        if let Some(numerics) = self.numerics {
            record.insert("numerics".to_owned(), numerics.into());
        }
        if let Some(salt) = self.salt {
            record.insert("salt".to_owned(), salt.into());
        }
        let parts = Value::Map(record);
        StageKey { key: hash::key(Domain::Stage, &parts), parts }
    }
}

fn input(part: &InputPart) -> Value {
    let mut map = BTreeMap::from([("content".to_owned(), part.content.into())]);
    if let Some(label) = &part.label {
        map.insert("label".to_owned(), label.as_str().into());
    }
    if !part.axes.is_empty() {
        let axes = part.axes.iter().map(|(axis, value)| (axis.as_str(), Value::from(value.as_str())));
        map.insert("axes".to_owned(), Value::map(axes));
    }
    Value::Map(map)
}

/// The key of a node, from the content digests of its inputs (in the order of
/// [`Node::inputs`] and of the sources of each) and the tree digests of its
/// external files (in the order of the resolved files).
pub fn stage(node: &Node, salt: Option<&str>, contents: &[Vec<Digest>], trees: &[Digest]) -> StageKey {
    let mut inputs = Vec::new();
    for (bound, digests) in node.inputs.iter().zip(contents) {
        let port = node.resolved.ports.inputs.iter().find(|port| port.name == bound.port);
        let labelled = port.is_some_and(|port| port.labelled);
        let gathered = port.is_none_or(|port| !port.kind.is_model());
        let parts = bound.from.iter().zip(digests).map(|(source, content)| InputPart {
            content: *content,
            label: source.label.clone().filter(|_| labelled),
            axes: if gathered { source.axes.clone() } else { BTreeMap::new() },
        });
        inputs.push((bound.port.as_str(), parts.collect()));
    }
    Parts {
        operator: node.entry.name,
        version: node.entry.version,
        shared: node.entry.parts.iter().map(|part| (part.name, part.version)).collect(),
        params: node.resolved.key.clone(),
        inputs,
        files: node.resolved.files.iter().map(|file| &*file.parameter).zip(trees.iter().copied()).collect(),
        seed: node.entry.traits.uses_seed.then_some(node.seed),
        numerics: node.entry.traits.numerics,
        salt,
    }
    .key()
}

/// The definition key that goes with the parts of a stage key: the same record
/// with each content replaced by the definition key and the output's name of
/// what makes it, in the order of the ports' sources.
///
/// It is known before anything runs, and serves plans and forecasts alone: no
/// result is ever looked up by it.
pub fn definition(parts: &Value, producers: &[(&str, Vec<(Key, &str)>)]) -> Key {
    let mut record = parts.clone();
    let entry = |value: &mut Value, name: &str| match value {
        Value::Map(map) => map.remove(name),
        _ => None,
    };
    if let Some(Value::Map(mut ports)) = entry(&mut record, "inputs") {
        for (port, sources) in producers {
            let Some(Value::List(bound)) = ports.get_mut(*port) else { continue };
            for (part, (key, output)) in bound.iter_mut().zip(sources) {
                let Value::Map(part) = part else { continue };
                part.remove("content");
                part.insert("definition".to_owned(), key.to_string().into());
                part.insert("output".to_owned(), (*output).into());
            }
        }
        if let Value::Map(map) = &mut record {
            map.insert("inputs".to_owned(), Value::Map(ports));
        }
    }
    hash::key(Domain::Definition, &record)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/keys.json");

    #[derive(Serialize, Deserialize)]
    struct Vector {
        name: String,
        operator: String,
        version: u32,
        parts: Vec<(String, u32)>,
        params: serde_json::Value,
        inputs: Vec<(String, Vec<VectorInput>)>,
        files: Vec<(String, Digest)>,
        seed: Option<u64>,
        numerics: Option<String>,
        #[serde(default)]
        salt: Option<String>,
        /// Whether it is a definition key.
        #[serde(default)]
        definition: bool,
        #[serde(default)]
        key: String,
    }

    #[derive(Serialize, Deserialize)]
    struct VectorInput {
        /// Of a stage key.
        #[serde(default)]
        content: Option<Digest>,
        /// Of a definition key: the producer's, and which output.
        #[serde(default)]
        definition: Option<(Key, String)>,
        label: Option<String>,
        axes: BTreeMap<String, String>,
    }

    fn key_of(vector: &Vector) -> Key {
        let input = |input: &VectorInput| InputPart {
            content: input.content.unwrap_or(Digest { hash: [0; 32], size: 0 }),
            label: input.label.clone(),
            axes: input.axes.clone(),
        };
        let made = |input: &VectorInput| input.definition.clone();
        let stage = Parts {
            operator: &vector.operator,
            version: vector.version,
            shared: vector.parts.iter().map(|(name, version)| (name.as_str(), *version)).collect(),
            params: Value::from_json(&vector.params),
            inputs: vector
                .inputs
                .iter()
                .map(|(port, inputs)| (port.as_str(), inputs.iter().map(input).collect()))
                .collect(),
            files: vector.files.iter().map(|(parameter, digest)| (parameter.as_str(), *digest)).collect(),
            seed: vector.seed,
            numerics: vector.numerics.as_deref(),
            salt: vector.salt.as_deref(),
        }
        .key();
        if !vector.definition {
            return stage.key;
        }
        let producers: Vec<(&str, Vec<(Key, String)>)> = vector
            .inputs
            .iter()
            .map(|(port, inputs)| (port.as_str(), inputs.iter().filter_map(made).collect()))
            .collect();
        let producers: Vec<(&str, Vec<(Key, &str)>)> = producers
            .iter()
            .map(|(port, made)| (*port, made.iter().map(|(key, output)| (*key, output.as_str())).collect()))
            .collect();
        definition(&stage.parts, &producers)
    }

    /// The vectors were also derived by `tests/golden/make_keys.py`, which
    /// shares no code with this crate. They never change.
    #[test]
    fn golden_keys() {
        let text = std::fs::read_to_string(GOLDEN).expect("the golden file");
        let vectors: Vec<Vector> = serde_json::from_str(&text).expect("vectors");
        assert!(vectors.len() >= 12);
        for vector in &vectors {
            assert_eq!(key_of(vector).to_string(), vector.key, "{}", vector.name);
        }
        let distinct: std::collections::BTreeSet<_> = vectors.iter().map(|vector| &vector.key).collect();
        assert_eq!(distinct.len(), vectors.len(), "no two different records share a key");
    }

    #[test]
    fn swapping_what_is_bound_to_two_ports_changes_the_key() {
        let (a, b) = (Digest::of_bytes(b"a"), Digest::of_bytes(b"b"));
        let key = |left, right| {
            let part = |content| vec![InputPart { content, label: None, axes: BTreeMap::new() }];
            Parts {
                operator: "toy",
                version: 1,
                shared: vec![],
                params: Value::map::<&str>([]),
                inputs: vec![("left", part(left)), ("right", part(right))],
                files: vec![],
                seed: None,
                numerics: None,
                salt: None,
            }
            .key()
            .key
        };
        assert_ne!(key(a, b), key(b, a));
    }
}
