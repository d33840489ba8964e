//! Compares the parts of two keys and says the first cause in words.
//!
//! Must not look into the store, at times, or at anything that is not in a key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Why a stage must run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Another operator.
    Operator,
    /// The operator's version was raised.
    OpVersion,
    /// The version of shared code was raised.
    PartVersion,
    /// A parameter.
    Param,
    /// An external file's content.
    File,
    /// The seed.
    Seed,
    /// The numerics class.
    Numerics,
    /// The pipeline's salt.
    Salt,
    /// The table that is bound to a port.
    Input,
    /// The model that is bound to a port.
    Model,
    /// The stage never ran in this pipeline.
    NeverRun,
    /// It was asked for.
    Forced,
    /// The stage is declared to run always.
    Uncacheable,
    /// Its record is gone.
    RecordMissing,
    /// A file of its result is gone.
    BlobMissing,
    /// A file of its result was damaged.
    BlobCorrupt,
    /// Its last attempt failed.
    PreviousFailed,
}

/// A leaf that differs between two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which kind of part.
    pub code: Code,
    /// Which part: `beta`, `input pairs`, `operator version`.
    pub what: String,
    /// What it was; nothing where it was not there or says nothing to a person.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{what} {from} → {to}"),
            (None, Some(to)) => write!(f, "{what} {to} added"),
            (Some(from), None) => write!(f, "{what} {from} removed"),
            (None, None) => write!(f, "{what} changed"),
        }
    }
}

/// Why a stage must run, in words and with every difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The first cause.
    pub code: Code,
    /// The first cause in words.
    pub text: String,
    /// All differences to the key before, the first cause first.
    pub changes: Vec<Change>,
}

impl Code {
    /// Whether it is about what is bound to a port.
    pub const fn is_input(self) -> bool {
        matches!(self, Self::Input | Self::Model)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Reason {
    /// A reason that is no difference between keys.
    pub fn plain(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), changes: Vec::new() }
    }

    /// The reason that follows from differences; none if there are none.
    pub fn of(changes: Vec<Change>) -> Option<Self> {
        let first = changes.first()?;
        let text = match changes.len() {
            1 => first.to_string(),
            n => format!("{first} (and {} more)", n - 1),
        };
        Some(Self { code: first.code, text, changes })
    }

    /// Names of the ports whose inputs changed.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        let inputs = self.changes.iter().filter(|change| change.code.is_input());
        inputs.filter_map(|change| change.what.strip_prefix("input "))
    }
}

/// The differences between the parts of two keys, the likeliest first cause
/// first: the operator, its code, parameters, files, seed, numerics, salt,
/// inputs. `is_model` tells the ports that take models.
pub fn compare(before: &Json, now: &Json, is_model: &dyn Fn(&str) -> bool) -> Vec<Change> {
    let (before, now) = (leaves(before), leaves(now));
    let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let mut changes: Vec<Change> = Vec::new();
    for name in names {
        let (from, to) = (before.get(name), now.get(name));
        if from == to {
            continue;
        }
        let (from, to) = shown(from.map(String::as_str), to.map(String::as_str));
        let path: Vec<_> = name.split('\u{1f}').collect();
        let change = match path.as_slice() {
            ["operator", "name"] => Change { code: Code::Operator, what: "operator".to_owned(), from, to },
            ["operator", "version"] => Change { code: Code::OpVersion, what: "operator version".to_owned(), from, to },
            ["operator", "parts", part] => {
                Change { code: Code::PartVersion, what: format!("version of {part}"), from, to }
            }
            ["params", path @ ..] => Change { code: Code::Param, what: path.join("."), from, to },
            ["seed"] => Change { code: Code::Seed, what: "seed".to_owned(), from, to },
            ["numerics"] => Change { code: Code::Numerics, what: "numerics".to_owned(), from, to },
            ["salt"] => Change { code: Code::Salt, what: "salt".to_owned(), from, to },
            ["files", parameter, ..] => {
                Change { code: Code::File, what: format!("file of {parameter}"), from: None, to: None }
            }
            ["inputs", port, ..] => {
                let code = if is_model(port) { Code::Model } else { Code::Input };
                Change { code, what: format!("input {port}"), from: None, to: None }
            }
            _ => Change { code: Code::Operator, what: path.join("."), from, to },
        };
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
    changes.sort_by_key(|change| change.code);
    changes
}

/// How many leaves two preimages have in common.
pub(crate) fn common(a: &Json, b: &Json) -> usize {
    let (a, b) = (leaves(a), leaves(b));
    a.iter().filter(|(name, leaf)| b.get(*name) == Some(*leaf)).count()
}

/// Every leaf with its path, whose parts are joined by a unit separator. A list
/// of plain values is one leaf, so that `[1, 2] → [1, 2, 3]` is one change.
fn leaves(parts: &Json) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Json, found: &mut BTreeMap<String, String>) {
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}\u{1f}{name}") };
        match value {
            Json::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(name, value)| walk(&join(name), value, found))
            }
            Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                items.iter().enumerate().for_each(|(i, item)| walk(&join(&i.to_string()), item, found));
            }
            leaf => {
                let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
                found.insert(path.to_owned(), text);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", parts, &mut found);
    found
}

/// Two texts for people; long ones are cut to where they differ.
fn shown(from: Option<&str>, to: Option<&str>) -> (Option<String>, Option<String>) {
    const LONGEST: usize = 60;
    const BEFORE: usize = 20;
    let length = |text: Option<&str>| text.map_or(0, |text| text.chars().count());
    let start = match (from, to) {
        (Some(from), Some(to)) if length(Some(from)).max(length(Some(to))) > LONGEST => {
            from.chars().zip(to.chars()).take_while(|(a, b)| a == b).count().saturating_sub(BEFORE)
        }
        _ => 0,
    };
    let cut = |text: &str| {
        let left = text.chars().skip(start).collect::<Vec<_>>();
        let end = left.len().min(LONGEST);
        let before = if start > 0 { "…" } else { "" };
        let after = if end < left.len() { "…" } else { "" };
        format!("{before}{}{after}", left[..end].iter().collect::<String>().replace('\n', " "))
    };
    (from.map(cut), to.map(cut))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(before: Json, now: Json) -> String {
        Reason::of(compare(&before, &now, &|_| false)).expect("differs").text
    }

    #[test]
    fn each_kind_of_part_has_its_words() {
        let parts = |changes: Json| {
            let mut parts = json!({
                "operator": {"name": "wrpo", "version": 1, "parts": {"lm.decoder": 1}},
                "params": {"beta": 0.01, "schedule": {"warmup": 3}, "layers": [1, 2]},
                "inputs": {"pairs": [{"content": "aa-1"}]},
                "files": {"template": ["bb-2"]},
                "seed": 7, "numerics": "f32/cpu",
            });
            for (pointer, value) in changes.as_object().expect("an object") {
                *parts.pointer_mut(pointer).expect("a part") = value.clone();
            }
            parts
        };
        let change = |pointer: &str, value: Json| text(parts(json!({})), parts(json!({ pointer: value })));
        assert_eq!(change("/params/beta", json!(0.1)), "beta 0.01 → 0.1");
        assert_eq!(change("/params/schedule/warmup", json!(4)), "schedule.warmup 3 → 4");
        assert_eq!(change("/params/layers", json!([1, 2, 3])), "layers [1,2] → [1,2,3]");
        assert_eq!(change("/operator/version", json!(2)), "operator version 1 → 2");
        assert_eq!(change("/operator/parts/lm.decoder", json!(2)), "version of lm.decoder 1 → 2");
        assert_eq!(change("/operator/name", json!("dpo")), "operator wrpo → dpo");
        assert_eq!(change("/inputs/pairs/0/content", json!("cc-1")), "input pairs changed");
        assert_eq!(change("/files/template/0", json!("dd-2")), "file of template changed");
        assert_eq!(change("/seed", json!(8)), "seed 7 → 8");
        assert_eq!(change("/numerics", json!("bf16/cuda")), "numerics f32/cpu → bf16/cuda");
        let two = parts(json!({"/params/beta": 0.1, "/inputs/pairs/0/content": "cc-1"}));
        assert_eq!(text(parts(json!({})), two), "beta 0.01 → 0.1 (and 1 more)");
    }

    #[test]
    fn equal_parts_give_no_reason_and_long_texts_differ() {
        assert_eq!(Reason::of(compare(&json!({"seed": 1}), &json!({"seed": 1}), &|_| false)), None);
        let long = |end: &str| json!({"params": {"prompt": "x".repeat(100) + end}});
        let changes = compare(&long("a"), &long("b"), &|_| false);
        let tail = "x".repeat(20);
        assert_eq!(changes[0].to_string(), format!("prompt …{tail}a → …{tail}b"));
    }
}
