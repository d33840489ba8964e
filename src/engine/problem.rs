//! What is wrong with a pipeline file: all of it at once, each with its place,
//! what was expected and the nearest valid name; for people and as JSON.
//!
//! The passes collect findings by path; places in the texts are looked up once,
//! at the end. Must not know what the passes do.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use crate::locate::{Part, Path, locate_near};

/// Places are looked up for this many problems; nobody reads more.
const SHOWN: usize = 200;

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file as a whole.
    File(PathBuf),
    /// A place in a file.
    Spot {
        /// The file.
        file: PathBuf,
        /// The line, from one.
        line: usize,
        /// The column in characters, from one.
        column: usize,
        /// The line's text.
        text: String,
    },
    /// Something that was typed on the command line.
    Argument(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to type, if we know.
    pub help: Option<String>,
}

impl Problem {
    /// As JSON: `file`, `line`, `column` or `argument`; `message`; `help`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = match &self.place {
            Place::File(file) => serde_json::json!({"file": file}),
            Place::Spot { file, line, column, .. } => serde_json::json!({"file": file, "line": line, "column": column}),
            Place::Argument(argument) => serde_json::json!({"argument": argument}),
        };
        json["message"] = self.message.as_str().into();
        if let Some(help) = &self.help {
            json["help"] = help.as_str().into();
        }
        json
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.message;
        match &self.place {
            Place::File(file) => writeln!(f, "error: {}: {message}", file.display())?,
            Place::Argument(argument) => writeln!(f, "error: in `{argument}`: {message}")?,
            Place::Spot { file, line, column, text } => {
                writeln!(f, "error: {}:{line}:{column}: {message}", file.display())?;
                let blank =
                    text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect::<String>();
                writeln!(f, "{line:>5} | {text}\n      | {blank}^")?;
            }
        }
        self.help.iter().try_for_each(|help| writeln!(f, "  help: {help}"))
    }
}

/// Everything that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// One problem.
    pub fn one(place: Place, message: impl Into<String>, help: Option<String>) -> Self {
        Self(vec![Problem { place, message: message.into(), help }])
    }

    /// As a JSON list.
    pub fn to_json(&self) -> serde_json::Value {
        self.0.iter().map(Problem::to_json).collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| problem.fmt(f))
    }
}

/// The valid name that was most likely meant.
pub fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let allowed = match name.chars().count() {
        0 => return None,
        1 => 0,
        2..=3 => 1,
        n => (n / 3).max(2),
    };
    valid
        .into_iter()
        .filter_map(|candidate| {
            let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
            let extends = (lower.len() >= 3 && candidate.starts_with(&lower))
                || (candidate.len() >= 3 && lower.starts_with(candidate));
            (distance <= allowed || extends).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// A help line for an unknown name: the nearest one, or all.
pub(crate) fn suggest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let valid: Vec<&str> = valid.into_iter().collect();
    match nearest(name, valid.iter().copied()) {
        Some(near) => Some(format!("did you mean {near:?}?")),
        None if valid.is_empty() => None,
        None if valid.len() == 1 => Some(format!("expected {}", valid[0])),
        None if valid.len() > 20 => {
            Some(format!("expected one of {}, … ({} in all)", valid[..20].join(", "), valid.len()))
        }
        None => Some(format!("expected one of {}", valid.join(", "))),
    }
}

/// What an included file's name is written under, in an item of `include`.
pub(crate) const FILE: &str = "file";
/// Where files are included.
pub(crate) const INCLUDE: &str = "include";

/// A pipeline file's text, with the files it includes.
///
/// The path of something in an included file leads through the item that
/// includes it: `include/0/file/stages/sampled`.
pub(crate) struct Source {
    path: PathBuf,
    text: String,
    included: BTreeMap<String, Source>,
}

impl Source {
    /// A file that includes none yet.
    pub(crate) fn new(path: &FilePath, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into(), included: BTreeMap::new() }
    }

    /// Says what an item of `include` holds.
    pub(crate) fn include(&mut self, index: usize, source: Self) {
        self.included.insert(index.to_string(), source);
    }

    /// The file that a path leads into, and the path inside of it.
    fn find<'s, 'p>(&'s self, path: &'p [String]) -> (&'s Self, &'p [String]) {
        if let [include, index, file, inner @ ..] = path
            && include == INCLUDE
            && file == FILE
            && !inner.is_empty()
            && let Some(source) = self.included.get(index)
        {
            return source.find(inner);
        }
        (self, path)
    }

    /// The file whose top has a path.
    fn file(&self, base: &[String]) -> &Self {
        self.find(&under(base, "top")).0
    }

    fn spot(&self, line: usize, column: usize) -> Place {
        let text = self.text.lines().nth(line - 1).unwrap_or_default().to_owned();
        Place::Spot { file: self.path.clone(), line, column, text }
    }
}

/// The file that was most likely meant by one that is not there.
pub(crate) fn nearest_file(file: &FilePath) -> Option<PathBuf> {
    let parent = match file.parent()? {
        parent if parent.as_os_str().is_empty() => FilePath::new("."),
        parent => parent,
    };
    let entries = std::fs::read_dir(parent).ok()?;
    let mut names: Vec<String> =
        entries.flatten().take(1000).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let wanted = file.file_name()?.to_string_lossy();
    nearest(&wanted, names.iter().map(String::as_str)).map(|near| file.with_file_name(near))
}

/// Where a finding is, before places are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// At a path of the pipeline file.
    Path(Path, Part),
    /// At a line and column of the file whose top has the path.
    Spot(Path, usize, usize),
    /// The file as a whole whose top has the path.
    File(Path),
    /// In an argument, as typed.
    Argument(String),
}

impl At {
    /// At the key that ends a path.
    pub(crate) fn key(path: &[String]) -> Self {
        Self::Path(path.to_vec(), Part::Key)
    }

    /// At the value that a path leads to.
    pub(crate) fn value(path: &[String]) -> Self {
        Self::Path(path.to_vec(), Part::Value)
    }
}

/// A path with one more step.
pub(crate) fn under(path: &[String], step: impl Into<String>) -> Path {
    let mut longer = path.to_vec();
    longer.push(step.into());
    longer
}

/// Where a value came from, if not from where it is used.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// What it is: `"${beta}" is 3`.
    pub(crate) text: String,
    /// Where it was said: in the file or in an argument.
    pub(crate) at: Option<At>,
    /// The variable, if it is one.
    pub(crate) variable: Option<String>,
}

struct Finding {
    at: At,
    message: String,
    help: Option<String>,
    origin: Option<Origin>,
}

/// Collects findings; the same one of several instances counts once.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    seen: HashSet<(At, String)>,
    silenced: HashSet<Path>,
}

impl Findings {
    /// Adds a finding.
    pub(crate) fn add(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        self.add_from(at, message, help, None);
    }

    /// Adds a finding about a value that came from elsewhere.
    pub(crate) fn add_from(
        &mut self,
        at: At,
        message: impl Into<String>,
        help: Option<String>,
        origin: Option<Origin>,
    ) {
        let message = message.into();
        let silenced = matches!(&at, At::Path(path, _) if (1..=path.len()).any(|n| self.silenced.contains(&path[..n])));
        if !silenced && self.seen.insert((at.clone(), message.clone())) {
            self.list.push(Finding { at, message, help, origin });
        }
    }

    /// Lets nothing more be said of a path: what is wrong with it was said.
    pub(crate) fn silence(&mut self, path: &[String]) {
        self.silenced.insert(path.to_vec());
    }

    /// Whether something at or below a path was silenced.
    pub(crate) fn is_silenced_below(&self, path: &[String]) -> bool {
        self.silenced.iter().any(|silenced| silenced.starts_with(path))
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Looks up all places.
    pub(crate) fn locate(self, source: &Source) -> Problems {
        let total = self.list.len();
        let place = |at: At| match at {
            At::Argument(argument) => Place::Argument(argument),
            At::File(base) => Place::File(source.file(&base).path.clone()),
            At::Spot(base, line, column) => source.file(&base).spot(line, column),
            At::Path(path, part) => {
                let (source, path) = source.find(&path);
                match locate_near(&source.text, path, part) {
                    Some((line, column)) => source.spot(line, column),
                    None => Place::File(source.path.clone()),
                }
            }
        };
        let mut problems: Vec<Problem> = self
            .list
            .into_iter()
            .take(SHOWN)
            .map(|finding| {
                let origin = finding.origin.map(|origin| match origin.at.map(&place) {
                    Some(Place::Spot { file, line, .. }) if file == source.path => {
                        format!("{} (line {line})", origin.text)
                    }
                    Some(Place::Spot { file, line, .. }) => format!("{} ({}:{line})", origin.text, file.display()),
                    Some(Place::Argument(argument)) => format!("{} (from `{argument}`)", origin.text),
                    _ => origin.text,
                });
                let help: Vec<String> = origin.into_iter().chain(finding.help).collect();
                Problem {
                    place: place(finding.at),
                    message: finding.message,
                    help: (!help.is_empty()).then(|| help.join("; ")),
                }
            })
            .collect();
        // The file itself comes before those it includes.
        let rank = |file: &PathBuf| if *file == source.path { PathBuf::new() } else { file.clone() };
        problems.sort_by_cached_key(|problem| match &problem.place {
            Place::Argument(_) => (0, PathBuf::new(), 0, 0),
            Place::Spot { file, line, column, .. } => (1, rank(file), *line, *column),
            Place::File(file) => (2, rank(file), 0, 0),
        });
        // A file that is included twice says everything twice.
        problems.dedup();
        if total > SHOWN {
            let message = format!("there are {} more problems", total - SHOWN);
            problems.push(Problem { place: Place::File(source.path.clone()), message, help: None });
        }
        Problems(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name() {
        let valid = ["sample", "sft", "temperature", "verify"];
        assert_eq!(nearest("sampel", valid), Some("sample"));
        assert_eq!(nearest("Verify", valid), Some("verify"));
        assert_eq!(nearest("temp", valid), Some("temperature"));
        assert_eq!(nearest("sfr", valid), Some("sft"));
        assert_eq!(nearest("merge", valid), None);
        assert_eq!(suggest("merge", ["a", "b"]).as_deref(), Some("expected one of a, b"));
    }

    #[test]
    fn a_problem_for_people_and_for_programs() {
        let mut findings = Findings::default();
        let path = ["a".to_owned(), "op".to_owned()];
        for _ in 0..2 {
            findings.add(At::value(&path), "unknown operator \"sampel\"", Some("did you mean \"sample\"?".into()));
        }
        let problems = findings.locate(&Source::new(FilePath::new("x.yaml"), "a:\n    op: sampel\n"));
        assert_eq!(
            problems.to_string(),
            "error: x.yaml:2:9: unknown operator \"sampel\"\n    2 |     op: sampel\n      |         ^\n  help: did you mean \"sample\"?\n"
        );
        assert_eq!(
            problems.to_json(),
            serde_json::json!([{"file": "x.yaml", "line": 2, "column": 9, "message": "unknown operator \"sampel\"", "help": "did you mean \"sample\"?"}])
        );
    }
}
