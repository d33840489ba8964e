//! A pipeline file with those it includes: the stages of all under names of
//! their own, every file with its variables.
//!
//! An included file's stages are known outside by its prefix; inside, its names
//! mean its own stages and those it includes, whatever the file above has. Its
//! path is taken from the folder of the file that includes it. Everything else
//! means what it means when the file is run alone: a relative path in a
//! parameter is taken from the working directory. Must not know operators.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::locate::Path;
use crate::problem::{At, FILE, Findings, INCLUDE, Source, nearest_file, under};
use crate::reference::is_name;
use crate::repeat::{self, Repeat};
use crate::spec::{self, StageSpec, TABLES, bad_name, known_fields, map};
use crate::vars::{Arguments, Given, GivenValues, SetParameters, Vars, substitute};
use crate::yaml::describe;

/// How many files a pipeline may have.
const MAX_FILES: usize = 1000;

/// All files of a pipeline; the first is the one that was asked for.
pub(crate) struct Pipeline {
    /// The files; one that includes comes before what it includes.
    pub(crate) files: Vec<File>,
    /// The stages of all; those of a file after those it includes.
    pub(crate) stages: Vec<StageSpec>,
    /// Parameters that arguments set.
    pub(crate) sets: SetParameters,
}

/// What is a file's own.
pub(crate) struct File {
    /// Its path, for messages.
    pub(crate) path: Arc<FilePath>,
    /// The path of its top.
    pub(crate) base: Path,
    /// The file that includes it.
    pub(crate) parent: Option<usize>,
    /// What the names of its stages begin with outside: empty, or with `_` at the end.
    pub(crate) prefix: String,
    /// The name that it gives the pipeline.
    pub(crate) name: Option<Json>,
    /// The seed of its stages.
    pub(crate) seed: Option<Json>,
    /// What enters every key; of the file that is run alone.
    pub(crate) salt: Option<Json>,
    /// Its variables.
    pub(crate) vars: Vars,
    /// What repeats its stages.
    pub(crate) repeats: Vec<Repeat>,
}

impl File {
    /// The name by which one of its stages is known outside.
    pub(crate) fn full(&self, name: &str) -> String {
        match name.strip_prefix(TABLES).and_then(|rest| rest.strip_prefix('.')) {
            Some(table) => format!("{TABLES}.{}{table}", self.prefix),
            None => format!("{}{name}", self.prefix),
        }
    }

    /// The name that this file uses of a stage that is known outside by `full`.
    pub(crate) fn local<'n>(&self, full: &'n str) -> std::borrow::Cow<'n, str> {
        match full.strip_prefix(TABLES).and_then(|rest| rest.strip_prefix('.')) {
            Some(table) => format!("{TABLES}.{}", table.strip_prefix(&self.prefix).unwrap_or(table)).into(),
            None => full.strip_prefix(&self.prefix).unwrap_or(full).into(),
        }
    }
}

impl Pipeline {
    /// Whether names in one file may mean stages of another: its own and those
    /// of files that it includes.
    pub(crate) fn sees(&self, file: usize, other: usize) -> bool {
        let mut at = Some(other);
        while let Some(index) = at {
            if index == file {
                return true;
            }
            at = self.files[index].parent;
        }
        false
    }
}

/// Reads a pipeline file, given as text, and what it includes; `None` where
/// nothing of the file itself can be used.
pub(crate) fn read(
    text: &str,
    path: &FilePath,
    sets: &[String],
    findings: &mut Findings,
) -> (Source, Option<Pipeline>) {
    let mut arguments = Arguments::read(sets, findings);
    let mut reader = Reader { findings, files: Vec::new(), stages: Vec::new(), open: Vec::new() };
    let place = Place { parent: None, prefix: String::new(), base: Path::new() };
    let source = reader.file(text, path, place, std::mem::take(&mut arguments.vars));
    let Reader { files, mut stages, .. } = reader;
    if files.is_empty() {
        return (source, None);
    }
    refuse_same_names(&files, &mut stages, findings);
    let sets = arguments.set_parameters(&mut stages, findings);
    (source, Some(Pipeline { files, stages, sets }))
}

/// Where a file is included.
struct Place {
    parent: Option<usize>,
    prefix: String,
    base: Path,
}

struct Reader<'f> {
    findings: &'f mut Findings,
    files: Vec<File>,
    stages: Vec<StageSpec>,
    /// Files that are being read, to find one that includes itself.
    open: Vec<PathBuf>,
}

impl Reader<'_> {
    fn file(&mut self, text: &str, path: &FilePath, place: Place, given: GivenValues) -> Source {
        let mut source = Source::new(path, text);
        let Some(mut spec) = spec::parse(text, &place.base, self.findings) else { return source };
        let vars = Vars::evaluate(&spec.vars, given, &place.base, self.findings);
        let repeats = match &spec.repeat {
            Some(repeat) => repeat::read(repeat, &vars, &place.base, &mut spec.stages, self.findings),
            None => Vec::new(),
        };
        if spec.salt.is_some() && place.parent.is_some() {
            let message = "a salt stands in the file that is run, not in one that it includes";
            self.findings.add(At::key(&under(&place.base, "salt")), message, None);
        }
        let index = self.files.len();
        self.files.push(File {
            path: path.into(),
            base: place.base,
            parent: place.parent,
            prefix: place.prefix,
            name: spec.name,
            seed: spec.seed,
            salt: spec.salt,
            vars,
            repeats,
        });
        self.open.push(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        if let Some(include) = &spec.include {
            self.included(include, index, &mut source);
        }
        self.open.pop();
        let file = &self.files[index];
        self.stages.extend(spec.stages.into_iter().map(|stage| StageSpec {
            full: file.full(&stage.name),
            file: index,
            ..stage
        }));
        source
    }

    /// Reads what a file includes.
    fn included(&mut self, include: &Json, parent: usize, source: &mut Source) {
        let path = under(&self.files[parent].base, INCLUDE);
        let items = substitute(include, &self.files[parent].vars, &path, self.findings);
        let Json::Array(items) = items else {
            if !self.findings.is_silenced_below(&path) {
                let message = format!("expected a list of files to include, found {}", describe(&items));
                let help = "such as `include: [{file: data.yaml, prefix: data}]`".to_owned();
                self.findings.add(At::value(&path), message, Some(help));
            }
            return;
        };
        for (index, item) in items.iter().enumerate() {
            if let Some(included) = self.item(item, &under(&path, index.to_string()), parent) {
                source.include(index, included);
            }
        }
    }

    fn item(&mut self, item: &Json, at: &[String], parent: usize) -> Option<Source> {
        if self.findings.is_silenced_below(&under(at, FILE)) || self.findings.is_silenced_below(&under(at, "prefix")) {
            return None;
        }
        let Json::Object(item) = item else {
            let message = format!("expected a file to include, such as {{file: data.yaml}}, found {}", describe(item));
            self.findings.add(At::value(at), message, None);
            return None;
        };
        known_fields(item, at, &[FILE, "prefix", "vars"], "of an included file", self.findings);
        let base = under(at, FILE);
        let file = match item.get(FILE) {
            Some(Json::String(file)) if !file.is_empty() => file,
            other => {
                let found = describe(other.unwrap_or(&Json::Null));
                let message = format!("expected the path of a pipeline file, found {found}");
                self.findings.add(At::value(&base), message, None);
                return None;
            }
        };
        let prefix = match item.get("prefix") {
            None | Some(Json::Null) => String::new(),
            Some(Json::String(prefix)) if is_name(prefix) => format!("{prefix}_"),
            Some(Json::String(prefix)) => {
                self.findings.add(At::value(&under(at, "prefix")), bad_name("a prefix", prefix), None);
                return None;
            }
            Some(other) => {
                let message = format!("expected a prefix for the names of stages, found {}", describe(other));
                self.findings.add(At::value(&under(at, "prefix")), message, None);
                return None;
            }
        };
        if self.files.len() >= MAX_FILES {
            self.findings.add(At::value(&base), format!("too many files: a pipeline may have {MAX_FILES}"), None);
            return None;
        }
        let vars = map(item, at, "vars", self.findings).map(|vars| self.given(vars, &under(at, "vars")));
        let path = self.files[parent].path.parent().unwrap_or(FilePath::new("")).join(file);
        let text = self.text(&path, &base)?;
        let prefix = format!("{}{prefix}", self.files[parent].prefix);
        Some(self.file(&text, &path, Place { parent: Some(parent), prefix, base }, vars.unwrap_or_default()))
    }

    /// Variables as an item gives them.
    fn given(&self, vars: &Map<String, Json>, at: &[String]) -> GivenValues {
        let given = |(name, value): (&String, &Json)| {
            let at = under(at, name);
            let broken = self.findings.is_silenced_below(&at);
            (name.clone(), Given::Passed { at: At::key(&at), value: value.clone(), broken })
        };
        vars.iter().map(given).collect()
    }

    /// The text of a file to include.
    fn text(&mut self, path: &FilePath, at: &[String]) -> Option<String> {
        let shown = path.display().to_string();
        let mut refuse = |message: String, help: Option<String>| {
            self.findings.add(At::value(at), message, help);
            None
        };
        let real = match std::fs::canonicalize(path) {
            // A pipe or a device may never end.
            Ok(real) if real.is_file() => real,
            Ok(_) => return refuse(format!("{shown:?} is not a file"), None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let near = nearest_file(path).map(|near| format!("did you mean {:?}? ", near.display().to_string()));
                let help = format!("{}the path is taken from the folder of this file", near.unwrap_or_default());
                return refuse(format!("{shown:?} does not exist"), Some(help));
            }
            Err(error) => return refuse(format!("failed to read {shown:?}: {error}"), None),
        };
        if let Some(start) = self.open.iter().position(|open| *open == real) {
            let names = self.open[start..].iter().chain([&real]);
            let names: Vec<_> = names.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect();
            return refuse(format!("the file includes itself: {}", names.join(" -> ")), None);
        }
        match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => Some(text),
            Ok(Err(_)) => refuse(format!("{shown:?} is not UTF-8 text"), None),
            Err(error) => refuse(format!("failed to read {shown:?}: {error}"), None),
        }
    }
}

/// A name that two files give is an error at the second; its stage is dropped.
fn refuse_same_names(files: &[File], stages: &mut Vec<StageSpec>, findings: &mut Findings) {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    stages.retain(|stage| match known.get(&stage.full) {
        None => {
            known.insert(stage.full.clone(), stage.file);
            true
        }
        Some(other) => {
            let message = format!("stage {:?} is there already, from {}", stage.full, files[*other].path.display());
            findings.add(At::key(&stage.path), message, Some("include one of the files with another prefix".into()));
            false
        }
    });
}
