//! How a stage is named: `stage`, `stage.output`, `stage[axis=value]`,
//! `stage[axis=value].output`, and `tables.NAME` in place of `stage`. Inputs,
//! `--target` and every verb that takes a stage use the same words.

use std::fmt;
use std::str::FromStr;

/// A reference to instances of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The stage.
    pub stage: String,
    /// Axis values that are asked for.
    pub point: Vec<(String, String)>,
    /// The output; the first where it is left out.
    pub output: Option<String>,
}

/// A text that names no stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name a stage, expected STAGE, STAGE.OUTPUT or STAGE[AXIS=VALUE]")]
pub struct ParseReferenceError {
    /// The text.
    pub text: String,
}

/// Whether a text may name a stage, an axis or a variable.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).ok_or_else(|| ParseReferenceError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Reference> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let take = |text: &str| {
        let end = text.find(|c| !word(c)).unwrap_or(text.len());
        (end > 0).then(|| (text[..end].to_owned(), text[end..].to_owned()))
    };
    let (mut stage, mut rest) = take(text)?;
    if stage == "tables" {
        let (name, after) = take(rest.strip_prefix('.')?)?;
        stage = format!("tables.{name}");
        rest = after;
    }
    let mut point = Vec::new();
    if let Some(inner) = rest.strip_prefix('[') {
        let (inner, after) = inner.split_once(']')?;
        for pair in inner.split(',') {
            let (axis, value) = pair.split_once('=')?;
            point.push((axis.trim().to_owned(), value.trim().to_owned()));
        }
        rest = after.to_owned();
    }
    let output = match rest.strip_prefix('.') {
        None if rest.is_empty() => None,
        None => return None,
        Some(output) => match take(output)? {
            (output, after) if after.is_empty() => Some(output),
            _ => return None,
        },
    };
    Some(Reference { stage, point, output })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stage)?;
        let mut separator = '[';
        for (axis, value) in &self.point {
            write!(f, "{separator}{axis}={value}")?;
            separator = ',';
        }
        if !self.point.is_empty() {
            f.write_str("]")?;
        }
        self.output.iter().try_for_each(|output| write!(f, ".{output}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive_their_text() {
        for text in ["a", "a.rows", "a[x=1]", "a[x=1,y=p/q.r].rows", "tables.main", "tables.main.rows", "a-b"] {
            assert_eq!(text.parse::<Reference>().map(|r| r.to_string()).as_deref(), Ok(text));
        }
        let spaced: Reference = "a[x = 1, y=2]".parse().expect("a reference");
        assert_eq!(spaced.to_string(), "a[x=1,y=2]");
    }

    #[test]
    fn other_texts_do_not_name_a_stage() {
        for text in ["", "a.", "a[x]", "a[x=1", "a.b.c", "tables", "a b", "a[x=1]b", ".a"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
