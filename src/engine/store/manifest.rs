//! What an artifact consists of ([`Manifest`]) and how it came to be
//! ([`Record`]).

use fuseline_contract::{Digest, Key, RowCounts, Usage};
use serde::{Deserialize, Serialize};

use crate::store::seal;

/// Format of manifests.
const FORMAT: u32 = 1;
/// Format of records: sealed, with inputs.
const RECORD_FORMAT: u32 = 2;

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// Parquet files of one schema.
    Table,
    /// A Hugging Face folder.
    Model,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name inside the artifact, `/` between folders.
    pub name: String,
    /// Its blob.
    pub digest: Digest,
}

/// A column of a table artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold nulls.
    pub nullable: bool,
    /// The digest of its logical content.
    pub content: Digest,
}

/// Everything an artifact consists of. The digest of its bytes is the
/// artifact's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// What it is.
    pub kind: ArtifactKind,
    /// The digest of the logical content, which keys hold.
    pub content: Digest,
    /// Rows of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Columns of a table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ManifestColumn>,
    /// The files, in order.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// The manifest of a table.
    pub fn table(content: Digest, rows: u64, columns: Vec<ManifestColumn>, files: Vec<ManifestFile>) -> Self {
        Self { format: FORMAT, kind: ArtifactKind::Table, content, rows: Some(rows), columns, files }
    }

    /// The manifest of a model folder.
    pub fn model(content: Digest, files: Vec<ManifestFile>) -> Self {
        Self { format: FORMAT, kind: ArtifactKind::Model, content, rows: None, columns: Vec::new(), files }
    }

    /// The bytes that are stored, always the same for the same manifest.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is plain data")
    }

    /// Reads a manifest; nothing if it is none, or of a later format.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes).ok()?;
        let plain = |name: &str| name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        (manifest.format == FORMAT && manifest.files.iter().all(|file| plain(&file.name))).then_some(manifest)
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.digest.size).sum()
    }
}

/// An output in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// The output's name.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// The manifest.
    pub artifact: Digest,
    /// The logical content.
    pub content: Digest,
    /// Rows of a table.
    pub rows: Option<u64>,
    /// Blobs of the files, so that a hit needs no look at the manifest.
    pub files: Vec<Digest>,
}

impl OutputRecord {
    /// The output of a manifest.
    pub fn new(name: &str, artifact: Digest, manifest: &Manifest) -> Self {
        Self {
            name: name.to_owned(),
            kind: manifest.kind,
            artifact,
            content: manifest.content,
            rows: manifest.rows,
            files: manifest.files.iter().map(|file| file.digest).collect(),
        }
    }

    /// The manifest's blob and those of all files.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        std::iter::once(self.artifact).chain(self.files.iter().copied())
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|digest| digest.size).sum()
    }
}

/// An artifact that a result was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The port it was bound to.
    pub port: String,
    /// The artifact.
    pub artifact: Digest,
}

/// How a result was made; recorded, never in a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// The attempt.
    pub attempt: String,
    /// The run.
    pub run: String,
    /// The host.
    pub host: String,
    /// Peak resident memory of its worker, in bytes.
    pub peak_bytes: Option<u64>,
    /// fuseline's version.
    pub version: String,
    /// The steps that an earlier attempt had done, if this one went on from its
    /// checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at_step: Option<u64>,
    /// What it took from outside the store besides files: a commit on the Hub.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Rows that were remembered and rows that were computed, where the
    /// operator remembers rows. Where some were remembered the result is
    /// assembled: with arithmetic whose rounding depends on what else is
    /// computed, it is one that a run from scratch might have given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<RowCounts>,
    /// What the attempt consumed, where the operator tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A person's word that a result made under another key holds under this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Who gave it.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub when_ms: u64,
    /// Why.
    pub why: String,
    /// The key that the result was made under.
    pub from: Key,
}

/// An action record: what a stage key gave. Its publication is the commit point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// The key.
    pub key: Key,
    /// The operator's name.
    pub operator: String,
    /// What it was made from, in the order of the ports; for provenance, which
    /// the collector of garbage follows.
    pub inputs: Vec<InputRecord>,
    /// Every output, in the order of the ports.
    pub outputs: Vec<OutputRecord>,
    /// It answers in place of earlier ones: the rerun was asked for.
    pub supersedes: bool,
    /// How it was made.
    pub made: Made,
    /// Set where the result was not made under this key but accepted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
}

impl Record {
    /// A record.
    pub fn new(key: Key, operator: &str, outputs: Vec<OutputRecord>, supersedes: bool, made: Made) -> Self {
        let (operator, inputs) = (operator.to_owned(), Vec::new());
        Self { format: RECORD_FORMAT, key, operator, inputs, outputs, supersedes, made, accepted: None }
    }

    /// The record with what its outputs were made from.
    pub fn made_from(self, inputs: Vec<InputRecord>) -> Self {
        Self { inputs, ..self }
    }

    /// The same result, accepted for another key, for which it answers.
    #[must_use]
    pub fn accepted_for(&self, key: Key, acceptance: Acceptance) -> Self {
        Self { key, supersedes: true, accepted: Some(acceptance), ..self.clone() }
    }

    /// The bytes that are stored, sealed.
    pub fn bytes(&self) -> Vec<u8> {
        seal::seal(self)
    }

    /// Reads a record; nothing if it is none, damaged, or of another format.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        seal::unseal::<Self>(bytes).filter(|record| record.format == RECORD_FORMAT)
    }

    /// Rows of the first output that is a table.
    pub fn rows(&self) -> Option<u64> {
        self.outputs.iter().find_map(|output| output.rows)
    }

    /// Whether two records name the same outputs.
    pub fn same_outputs(&self, other: &Self) -> bool {
        self.outputs == other.outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_survive_their_bytes_and_refuse_paths_that_lead_out() {
        let digest = Digest::of_bytes(b"x");
        let file = |name: &str| ManifestFile { name: name.to_owned(), digest };
        let manifest = Manifest::model(digest, vec![file("config.json"), file("sub/a.json")]);
        assert_eq!(Manifest::parse(&manifest.bytes()), Some(manifest));
        let outside = Manifest::model(digest, vec![file("../../etc/passwd")]);
        assert_eq!(Manifest::parse(&outside.bytes()), None);
    }
}
