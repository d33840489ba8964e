//! Parameters and key parts in canonical form, and their encoding to bytes.
//!
//! | value          | bytes |
//! |----------------|-------|
//! | null           | `00` |
//! | false, true    | `01`, `02` |
//! | integer        | `03`, sign (`00` plus, `01` minus), u8 length, minimal big-endian magnitude |
//! | float          | `04`, 8 bytes big-endian of the f64; −0 becomes +0 |
//! | text           | `05`, u64 big-endian length, UTF-8 bytes; no Unicode normalisation |
//! | list           | `06`, u64 count, items |
//! | map            | `07`, u64 count, entries sorted by key bytes, each key as text then value |
//! | digest         | `08`, `01` (BLAKE3), 32 bytes, u64 size |
//!
//! Every value carries its tag and every variable part its length, so no two
//! values share an encoding (`engine/design_notes` §3). The encoding is frozen
//! by `tests/golden/keys.json`.

use std::collections::BTreeMap;

use crate::id::Digest;

/// A value with one encoding.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer; wide enough for any of `u64` and `i64`.
    Int(i128),
    /// A finite float.
    Float(f64),
    /// A text.
    Text(String),
    /// A list, in order.
    List(Vec<Value>),
    /// A map, sorted by key.
    Map(BTreeMap<String, Value>),
    /// What an input or a file held.
    Digest(Digest),
}

impl Value {
    /// Converts JSON that was written by a typed configuration: an integer
    /// field gives an integer, a float field a float, however a person wrote it.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as J;
        match json {
            J::Null => Self::Null,
            J::Bool(truth) => Self::Bool(*truth),
            J::Number(number) => number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .map_or_else(|| Self::Float(number.as_f64().expect("JSON numbers are i64, u64 or f64")), Self::Int),
            J::String(text) => Self::Text(text.clone()),
            J::Array(items) => Self::List(items.iter().map(Self::from_json).collect()),
            J::Object(map) => Self::Map(map.iter().map(|(k, v)| (k.clone(), Self::from_json(v))).collect()),
        }
    }

    /// Renders for people, with digests as text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as J;
        match self {
            Self::Null => J::Null,
            Self::Bool(truth) => J::Bool(*truth),
            Self::Int(int) => match (i64::try_from(*int), u64::try_from(*int)) {
                (Ok(int), _) => int.into(),
                (_, Ok(int)) => int.into(),
                _ => int.to_string().into(),
            },
            Self::Float(float) => (*float).into(),
            Self::Text(text) => text.clone().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(map) => J::Object(map.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
            Self::Digest(digest) => digest.to_string().into(),
        }
    }

    /// A map from pairs.
    pub fn map<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// The canonical bytes (see the module's table).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0),
            Self::Bool(false) => out.push(1),
            Self::Bool(true) => out.push(2),
            Self::Int(int) => {
                out.extend([3, u8::from(*int < 0)]);
                let magnitude = int.unsigned_abs().to_be_bytes();
                let digits = &magnitude[magnitude.iter().take_while(|b| **b == 0).count()..];
                out.push(digits.len() as u8);
                out.extend(digits);
            }
            Self::Float(float) => {
                debug_assert!(float.is_finite(), "parameters are checked to be finite");
                out.push(4);
                // Adding +0 turns −0 into +0 and leaves every other value alone.
                out.extend((float + 0.0).to_be_bytes());
            }
            Self::Text(text) => {
                out.push(5);
                encode_text(text, out);
            }
            Self::List(items) => {
                out.push(6);
                out.extend((items.len() as u64).to_be_bytes());
                items.iter().for_each(|item| item.encode_into(out));
            }
            Self::Map(map) => {
                out.push(7);
                out.extend((map.len() as u64).to_be_bytes());
                for (key, value) in map {
                    encode_text(key, out);
                    value.encode_into(out);
                }
            }
            Self::Digest(digest) => {
                out.extend([8, 1]);
                out.extend(digest.hash);
                out.extend(digest.size.to_be_bytes());
            }
        }
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(int: u64) -> Self {
        Self::Int(int.into())
    }
}

impl From<u32> for Value {
    fn from(int: u32) -> Self {
        Self::Int(int.into())
    }
}

impl From<Digest> for Value {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_never_share_bytes() {
        assert_ne!(Value::Int(1).encode(), Value::Float(1.0).encode());
        assert_eq!(Value::Int(0).encode(), [3, 0, 0]);
        assert_eq!(Value::Int(-256).encode(), [3, 1, 2, 1, 0]);
        assert_eq!(Value::Float(-0.0).encode(), Value::Float(0.0).encode());
    }

    #[test]
    fn nesting_is_not_ambiguous() {
        let joined: Value = ["a-b"].into_iter().collect();
        let split: Value = ["a", "b"].into_iter().collect();
        assert_ne!(joined.encode(), split.encode());
        let outer = Value::map([("a", Value::map([("b_c", Value::Int(1))]))]);
        let inner = Value::map([("a_b", Value::map([("c", Value::Int(1))]))]);
        assert_ne!(outer.encode(), inner.encode());
    }

    #[test]
    fn json_keeps_the_type_of_the_field() {
        let json = serde_json::json!({"a": 1, "b": 1.0, "c": 18446744073709551615u64});
        let Value::Map(map) = Value::from_json(&json) else { panic!("a map") };
        assert_eq!(map["a"], Value::Int(1));
        assert_eq!(map["b"], Value::Float(1.0));
        assert_eq!(map["c"], Value::Int(u64::MAX.into()));
    }
}
