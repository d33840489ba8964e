//! The record types that are hashed, each under a domain of its own, so that a
//! preimage of one kind can never equal one of another.

use crate::id::{Digest, Key};
use crate::value::Value;

/// What a hash is of. The text is the BLAKE3 key-derivation context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A stage key: what decides a stage's result.
    Stage,
    /// A definition key: as a stage key, with the producers' definitions in place of contents.
    Definition,
    /// The logical content of a table.
    TableContent,
    /// The logical content of one table column.
    Column,
    /// The logical content of a model folder.
    ModelContent,
    /// The content of an external file or folder.
    Tree,
    /// A number drawn from a seed for one purpose.
    Seed,
    /// The identity of a row: a prompt, a text.
    Row,
    /// What decides the result of a row function for one row.
    RowKey,
}

impl Domain {
    /// The key-derivation context; never changes.
    pub const fn context(self) -> &'static str {
        match self {
            Self::Stage => "fuseline 2026 stage key v1",
            Self::Definition => "fuseline 2026 definition key v1",
            Self::TableContent => "fuseline 2026 table content v1",
            Self::Column => "fuseline 2026 column content v1",
            Self::ModelContent => "fuseline 2026 model content v1",
            Self::Tree => "fuseline 2026 file tree v1",
            Self::Seed => "fuseline 2026 seed v1",
            Self::Row => "fuseline 2026 row v1",
            Self::RowKey => "fuseline 2026 row key v1",
        }
    }

    /// A streaming hasher of this domain.
    pub fn hasher(self) -> blake3::Hasher {
        blake3::Hasher::new_derive_key(self.context())
    }
}

/// Hashes a canonical value under a domain.
pub fn hash(domain: Domain, value: &Value) -> [u8; 32] {
    *domain.hasher().update(&value.encode()).finalize().as_bytes()
}

/// Hashes a canonical value to a key.
pub fn key(domain: Domain, value: &Value) -> Key {
    Key(hash(domain, value))
}

/// Hashes a canonical value to a digest of the given size.
pub fn digest(domain: Domain, value: &Value, size: u64) -> Digest {
    Digest { hash: hash(domain, value), size }
}

/// Derives an independent seed from a seed and what it is for, so that a new
/// consumer never shifts the draws of the others.
pub fn derive_seed(seed: u64, purpose: &str, parts: &[Value]) -> u64 {
    let value = Value::List(vec![seed.into(), purpose.into(), Value::List(parts.to_vec())]);
    let hash = hash(Domain::Seed, &value);
    u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"))
}

/// The identity of a row made of texts, as 32 hex digits (128 bits).
pub fn row_id(parts: &[Value]) -> String {
    let hash = hash(Domain::Row, &Value::List(parts.to_vec()));
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_separate_equal_values() {
        let value = Value::from("x");
        assert_ne!(hash(Domain::Stage, &value), hash(Domain::Definition, &value));
    }

    #[test]
    fn seeds_depend_on_purpose_and_parts() {
        assert_eq!(derive_seed(7, "order", &[]), derive_seed(7, "order", &[]));
        assert_ne!(derive_seed(7, "order", &[]), derive_seed(7, "draw", &[]));
        assert_ne!(derive_seed(7, "order", &["a".into()]), derive_seed(7, "order", &[]));
    }
}
