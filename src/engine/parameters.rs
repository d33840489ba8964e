//! A stage's parameters typed by its operator: what serde says of the first
//! thing that is wrong is put in our words, and decoding goes on behind it, so
//! that everything that is wrong is said. Must not know YAML.

use fuseline_contract::Entry;
use fuseline_contract::operator::{ParameterProblem, Resolved};
use serde_json::Value as Json;

use crate::locate::Path;
use crate::problem::suggest;
use crate::spec::secrets_below;

/// One thing that is wrong with the parameters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Path inside the parameters.
    pub(crate) path: Path,
    /// Whether the key is wrong rather than the value.
    pub(crate) at_key: bool,
    /// What is wrong.
    pub(crate) message: String,
    /// What to type.
    pub(crate) help: Option<String>,
}

/// How often decoding is tried again behind a wrong parameter.
const TRIES: usize = 50;

/// Types parameters and says all that is wrong with them. Where only unknown
/// ones are wrong, the others are typed without them, so that ports can be
/// checked too.
pub(crate) fn resolve(entry: &Entry, mut params: Json) -> (Option<Resolved>, Vec<Wrong>) {
    let mut wrongs: Vec<Wrong> = Vec::new();
    // Whether a value was left out: then later findings may follow from that.
    let mut left_out = false;
    for path in misplaced_secrets(entry, &params) {
        let message = format!("parameter {:?} takes no secret", path.join("."));
        let help = match entry.secret {
            [] => format!("operator {:?} has no parameter that does", entry.name),
            known => format!("one may stand in {}", known.join(", ")),
        };
        left_out = true;
        remove(&mut params, &path);
        wrongs.push(Wrong { path, at_key: false, message, help: Some(help) });
    }
    for _ in 0..TRIES {
        let problems = match entry.resolve(&params) {
            Ok(resolved) => return ((!left_out).then_some(resolved), wrongs),
            Err(problems) => problems.0,
        };
        let decoding = match &problems[..] {
            [problem] => Decoding::of(&problem.message),
            _ => None,
        };
        let Some(decoding) = decoding else {
            if !left_out {
                wrongs.extend(problems.into_iter().map(|problem| checked(entry, problem)));
            }
            break;
        };
        let problem = problems.into_iter().next().expect("decoding stops at the first problem");
        if left_out && matches!(decoding, Decoding::Missing(_)) {
            break;
        }
        let wrong = decoding.wrong(entry, problem);
        let path = wrong.path.clone();
        let goes_on = matches!(decoding, Decoding::Unknown { .. }) || !path.is_empty();
        left_out |= !matches!(decoding, Decoding::Unknown { .. });
        let missing = matches!(decoding, Decoding::Missing(_));
        wrongs.push(wrong);
        if missing || !goes_on || !remove(&mut params, &path) {
            break;
        }
    }
    (None, wrongs)
}

/// Where secrets stand in parameters that are not declared to hold them.
fn misplaced_secrets(entry: &Entry, params: &Json) -> Vec<Path> {
    let mut found = Vec::new();
    for (name, value) in params.as_object().into_iter().flatten() {
        if !entry.secret.contains(&name.as_str()) {
            secrets_below(value, vec![name.clone()], &mut found);
        }
    }
    // From the last, so that removing one moves none of the others.
    found.reverse();
    found
}

/// Leaves out what a path leads to; `false` if it is not in a map.
fn remove(params: &mut Json, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut value = params;
    for step in parents {
        let next = match value {
            Json::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            other => other.get_mut(step),
        };
        match next {
            Some(next) => value = next,
            None => return false,
        }
    }
    match value {
        Json::Object(map) => map.shift_remove(last).is_some(),
        Json::Array(items) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// What an operator's own check says.
fn checked(entry: &Entry, problem: ParameterProblem) -> Wrong {
    let message = if problem.path.is_empty() {
        format!("operator {:?}: {}", entry.name, problem.message)
    } else {
        format!("parameter {:?}: {}", problem.path.join("."), problem.message)
    };
    Wrong { at_key: problem.path.is_empty(), path: problem.path, message, help: None }
}

/// What serde says, taken apart.
enum Decoding {
    Unknown { field: String, valid: Vec<String> },
    Missing(String),
    Variant { found: String, valid: Vec<String> },
    Type { found: String, expected: String },
}

impl Decoding {
    fn of(message: &str) -> Option<Self> {
        let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let names = |rest: &str| {
            let mut names = quoted(rest);
            (!names.is_empty()).then(|| (names.remove(0), names))
        };
        if let Some(rest) = message.strip_prefix("unknown field ") {
            names(rest).map(|(field, valid)| Self::Unknown { field, valid })
        } else if let Some(rest) = message.strip_prefix("missing field ") {
            names(rest).map(|(field, _)| Self::Missing(field))
        } else if let Some(rest) = message.strip_prefix("unknown variant ") {
            names(rest).map(|(found, valid)| Self::Variant { found, valid })
        } else {
            let rest = ["invalid type: ", "invalid value: ", "invalid length "]
                .iter()
                .find_map(|p| message.strip_prefix(p))?;
            let (found, expected) = rest.rsplit_once(", expected ")?;
            Some(Self::Type { found: found.to_owned(), expected: expected.to_owned() })
        }
    }

    fn wrong(&self, entry: &Entry, problem: ParameterProblem) -> Wrong {
        let operator = entry.name;
        let mut path = problem.path;
        match self {
            Self::Unknown { field, valid } => {
                if path.last() != Some(field) {
                    path.push(field.clone());
                }
                let help = suggest(field, valid.iter().map(String::as_str))
                    .or_else(|| Some(format!("{operator:?} takes no parameter")));
                let message = match &path[..] {
                    [_] => format!("unknown parameter {field:?} of operator {operator:?}"),
                    [outer @ .., _] => format!("unknown field {field:?} of parameter {:?}", outer.join(".")),
                    [] => unreachable!("the field was pushed"),
                };
                Wrong { path, at_key: true, message, help }
            }
            Self::Missing(field) => {
                let message = match &path[..] {
                    [] => format!("operator {operator:?} needs the parameter {field:?}"),
                    outer => format!("parameter {:?} needs the field {field:?}", outer.join(".")),
                };
                let help = path
                    .is_empty()
                    .then(|| format!("add `{field}:` under `with`; `fuseline ops {operator}` explains it"));
                Wrong { path, at_key: true, message, help }
            }
            Self::Variant { found, valid } => Wrong {
                message: format!("parameter {:?}: unknown value {found:?}", path.join(".")),
                help: suggest(found, valid.iter().map(String::as_str)),
                at_key: false,
                path,
            },
            Self::Type { found, expected } => {
                let found = plain_found(found);
                let message = match &path[..] {
                    [] => format!("operator {operator:?}: expected {expected}, found {found}"),
                    path => format!("parameter {:?}: expected {}, found {found}", path.join("."), plain(expected)),
                };
                Wrong { path, at_key: false, message, help: None }
            }
        }
    }
}

/// Rust's name of a type in words.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "an integer from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer",
        "f32" | "f64" => "a number",
        "a string" | "path string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    }
}

/// What serde found, in words.
fn plain_found(found: &str) -> String {
    let (kind, value) =
        found.split_once('`').map_or((found, ""), |(kind, value)| (kind.trim(), value.trim_end_matches('`')));
    match kind {
        "null" | "unit value" | "Option value" => "nothing".to_owned(),
        "integer" | "floating point" | "boolean" => value.to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "a map".to_owned(),
        other => match other.strip_prefix("string ") {
            Some(text) => format!("the text {text}"),
            None => found.to_owned(),
        },
    }
}
