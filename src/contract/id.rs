//! Names that must never be mixed: what was asked ([`Key`]), what came out
//! ([`Digest`]), and who asked ([`StageId`]).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that should have been a digest or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    /// The text as found.
    pub text: String,
    /// What a right one looks like.
    pub expected: &'static str,
}

fn hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&blake3::Hash::from_bytes(*bytes).to_hex())
}

fn unhex(text: &str, expected: &'static str) -> Result<[u8; 32], ParseIdError> {
    let wrong = || ParseIdError { text: text.to_owned(), expected };
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16).filter(|_| !c.is_ascii_uppercase());
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = (high * 16 + low) as u8,
            _ => return Err(wrong()),
        }
    }
    Ok(bytes)
}

/// BLAKE3 of something that exists, together with its size.
///
/// The size is bytes for a blob, the manifest's bytes for an artifact, rows for
/// a table's content and tensor bytes for a model's content. Written as
/// `<64 hex digits>-<size>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// BLAKE3, 32 bytes.
    pub hash: [u8; 32],
    /// Size in the unit of what was hashed.
    pub size: u64,
}

impl Digest {
    /// Digests bytes as a blob.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { hash: *blake3::hash(bytes).as_bytes(), size: bytes.len() as u64 }
    }

    /// The 64 hex digits alone, the name of a blob in the store.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.hash, f)?;
        write!(f, "-{}", self.size)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a digest: 64 hex digits, a hyphen, a size";
        let wrong = || ParseIdError { text: text.to_owned(), expected };
        let (hash, size) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self { hash: unhex(hash, expected)?, size: size.parse().map_err(|_| wrong())? })
    }
}

/// What was asked: BLAKE3 over everything that decides a stage's result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Key {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text, "a key: 64 hex digits").map(Self)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(Digest);
serde_as_text!(Key);

/// One instance of a stage: its name and the value of each of its axes.
///
/// Written as an input is: `sampled` or `sampled[round=2,source=owl]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StageId {
    /// The stage's name in the pipeline file.
    pub stage: String,
    /// Axis values, by axis name.
    pub axes: BTreeMap<String, String>,
}

impl StageId {
    /// An instance without axes.
    pub fn plain(stage: impl Into<String>) -> Self {
        Self { stage: stage.into(), axes: BTreeMap::new() }
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stage)?;
        let mut separator = '[';
        for (axis, value) in &self.axes {
            write!(f, "{separator}{axis}={value}")?;
            separator = ',';
        }
        if self.axes.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_keys_survive_their_text() {
        let digest = Digest::of_bytes(b"abc");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.size, 3);
        let key = Key(digest.hash);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("abc".parse::<Key>().is_err());
        assert!(format!("{key}").to_uppercase().parse::<Key>().is_err());
    }

    #[test]
    fn a_stage_id_is_written_as_an_input_is() {
        let mut id = StageId::plain("sampled");
        assert_eq!(id.to_string(), "sampled");
        id.axes.insert("source".into(), "owl".into());
        id.axes.insert("round".into(), "2".into());
        assert_eq!(id.to_string(), "sampled[round=2,source=owl]");
    }
}
