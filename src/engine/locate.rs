//! Where something stands in a YAML text: a path of keys and indices to a line
//! and a column.
//!
//! The text is parsed once more and decoding fails on purpose at the path;
//! serde_yaml then reports the exact place. This works after `${}` was
//! substituted, since only the text as written is looked at. Must not know what
//! the file means.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Keys and indices (as digits) from the top of the file.
pub(crate) type Path = Vec<String>;

/// What of a path's end is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The key.
    Key,
    /// The same key where it stands for the second time.
    KeyAgain,
    /// The value.
    Value,
}

/// The line and column, from one, of a path; `None` where the text has no such
/// path.
pub(crate) fn locate(text: &str, path: &[String], part: Part) -> Option<(usize, usize)> {
    let mut seen = 0;
    let seek = Seek { path, part, seen: &mut seen };
    let error = seek.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let location = error.location()?;
    Some((location.line(), location.column()))
}

/// As [`locate`], or the nearest enclosing thing that is in the text.
pub(crate) fn locate_near(text: &str, path: &[String], part: Part) -> Option<(usize, usize)> {
    if let Some(found) = locate(text, path, part) {
        return Some(found);
    }
    (1..path.len()).rev().find_map(|n| {
        // Of a scalar that stands for more (`${settings}`) the value is meant,
        // of a block the key.
        let key = locate(text, &path[..n], Part::Key);
        let value = locate(text, &path[..n], Part::Value);
        match (key, value) {
            (Some(key), Some(value)) if part == Part::Value && key.0 == value.0 => Some(value),
            (key, value) => key.or(value),
        }
    })
}

/// The lines of the entries of a top-level map in block style, in one pass.
///
/// Exact for block style: a line of exactly the entries' indentation can only
/// hold a key or a comment. In flow style the answer is empty; ask [`locate`].
pub(crate) fn entry_lines(text: &str, section: &str) -> HashMap<String, usize> {
    let mut lines = HashMap::new();
    let mut inside = false;
    let mut indent = None;
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let depth = line.len() - content.len();
        let Some((key, rest)) = content.split_once(':') else { continue };
        let key = key.trim_matches(['"', '\'', ' ']);
        if depth == 0 {
            let rest = rest.trim_start();
            inside = key == section && (rest.is_empty() || rest.starts_with('#'));
        } else if inside && *indent.get_or_insert(depth) == depth {
            lines.entry(key.to_owned()).or_insert(index + 1);
        }
    }
    lines
}

struct Seek<'p> {
    path: &'p [String],
    part: Part,
    /// How often the last key was met; for [`Part::KeyAgain`].
    seen: &'p mut usize,
}

const HERE: &str = "here";

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: Error>(self, _: $type) -> Result<(), E> {
            self.end()
        })*
    };
}

impl Seek<'_> {
    fn end<E: Error>(&self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom(HERE)) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.end()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.end()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.end()?;
        let (wanted, rest) = self.path.split_first().expect("end() refuses an empty path");
        let mut index = 0usize;
        loop {
            let more = if index.to_string() == *wanted {
                items.next_element_seed(Seek { path: rest, part: self.part, seen: &mut *self.seen })?.is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.end()?;
        let (wanted, rest) = self.path.split_first().expect("end() refuses an empty path");
        let last = rest.is_empty();
        while let Some(matches) =
            entries.next_key_seed(SeekKey { wanted, last, part: self.part, seen: &mut *self.seen })?
        {
            if matches && !(last && self.part != Part::Value) {
                entries.next_value_seed(Seek { path: rest, part: self.part, seen: &mut *self.seen })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<(), A::Error> {
        self.end()?;
        let (IgnoredAny, value) = data.variant()?;
        serde::de::VariantAccess::newtype_variant::<IgnoredAny>(value).map(|_| ())
    }
}

struct SeekKey<'p> {
    wanted: &'p str,
    last: bool,
    part: Part,
    seen: &'p mut usize,
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl SeekKey<'_> {
    fn compare<E: Error>(self, key: &str) -> Result<bool, E> {
        let matches = key == self.wanted;
        if matches && self.last {
            *self.seen += 1;
            if self.part == Part::Key || (self.part == Part::KeyAgain && *self.seen == 2) {
                return Err(E::custom(HERE));
            }
        }
        Ok(matches)
    }
}

macro_rules! keys {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: Error>(self, key: $type) -> Result<bool, E> {
            self.compare(&key.to_string())
        })*
    };
}

impl<'de> Visitor<'de> for SeekKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    keys!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.compare("null")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
name: x
# stages: none
vars: {a: 1, list: [p, q]}
stages:
  # first: not here
  first:
    op: load
    with: {path: a, deep: {n: 3}}
  second:
    op: sql
    with:
      sql: |
        third: SELECT
    inputs:
      - first
      - other
";

    fn at(path: &str, part: Part) -> Option<(usize, usize)> {
        locate(TEXT, &path.split('/').map(str::to_owned).collect::<Vec<_>>(), part)
    }

    #[test]
    fn keys_and_values_in_block_and_flow_style() {
        assert_eq!(at("name", Part::Value), Some((1, 7)));
        assert_eq!(at("vars/list", Part::Key), Some((3, 14)));
        assert_eq!(at("vars/list/1", Part::Value), Some((3, 24)));
        assert_eq!(at("stages/first/op", Part::Value), Some((7, 9)));
        assert_eq!(at("stages/first/with/deep/n", Part::Key), Some((8, 28)));
        assert_eq!(at("stages/second/inputs/1", Part::Value), Some((16, 9)));
        assert_eq!(at("stages/second/with/sql", Part::Value), Some((12, 12)));
        assert_eq!(at("stages/third", Part::Value), None);
        let near = locate_near(TEXT, &["stages".into(), "first".into(), "matrix".into()], Part::Value);
        assert_eq!(near, Some((6, 3)));
    }

    #[test]
    fn the_second_of_two_keys() {
        let text = "a: 1\nb: 2\na: 3\n";
        assert_eq!(locate(text, &["a".into()], Part::KeyAgain), Some((3, 1)));
        assert_eq!(locate(text, &["b".into()], Part::KeyAgain), None);
    }

    #[test]
    fn entries_of_a_section_have_lines() {
        let lines = entry_lines(TEXT, "stages");
        assert_eq!(lines, HashMap::from([("first".into(), 6), ("second".into(), 9)]));
        assert!(entry_lines("stages: {a: {op: x}}\n", "stages").is_empty());
    }
}
