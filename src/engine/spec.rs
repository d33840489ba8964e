//! The pipeline file as written: its fields known and of the right form, names
//! valid, nothing substituted or looked up. Must not know operators.

use serde_json::{Map, Value as Json};

use crate::locate::{Part, Path, entry_lines, locate};
use crate::problem::{At, Findings, suggest, under};
use crate::reference::is_name;
use crate::yaml::{self, describe};

/// The operator that an entry of `tables` is a stage of.
pub(crate) const TABLE: &str = "table";

/// A pipeline file.
pub(crate) struct Spec {
    /// The name; the file's where it is left out.
    pub(crate) name: Option<Json>,
    /// The seed.
    pub(crate) seed: Option<Json>,
    /// Variables.
    pub(crate) vars: Map<String, Json>,
    /// Stages in the file's order, then tables.
    pub(crate) stages: Vec<StageSpec>,
}

/// A stage as written.
pub(crate) struct StageSpec {
    /// Its name; of a table `tables.NAME`.
    pub(crate) name: String,
    /// Its path in the file.
    pub(crate) path: Path,
    /// Where its parameters are.
    pub(crate) with_path: Path,
    /// Its line.
    pub(crate) line: usize,
    /// The operator.
    pub(crate) op: Option<String>,
    /// What is bound, by port.
    pub(crate) inputs: Map<String, Json>,
    /// The parameters.
    pub(crate) with: Map<String, Json>,
    /// The axes.
    pub(crate) matrix: Option<Json>,
    /// Its own seed.
    pub(crate) seed: Option<Json>,
    /// What it may use.
    pub(crate) resources: Option<Json>,
    /// Tags.
    pub(crate) tags: Option<Json>,
    /// Whether it always runs.
    pub(crate) uncacheable: Option<Json>,
}

const TOP: &[&str] = &["name", "seed", "vars", "stages", "tables"];
const STAGE: &[&str] = &["op", "inputs", "with", "matrix", "seed", "resources", "tags", "uncacheable"];

/// Reads a pipeline file; `None` where nothing in it can be used.
pub(crate) fn parse(text: &str, findings: &mut Findings) -> Option<Spec> {
    let file = match yaml::parse(text, findings)? {
        Json::Object(file) => file,
        other => {
            findings.add(At::File, format!("expected a map with \"stages\", found {}", describe(&other)), None);
            return None;
        }
    };
    known_fields(&file, &[], TOP, "at the top level", findings);
    let vars = map(&file, &[], "vars", findings).cloned().unwrap_or_default();
    for name in vars.keys().filter(|name| !is_name(name)) {
        findings.add(At::key(&under(&["vars".into()], name)), bad_name("a variable's name", name), None);
    }
    let mut spec = Spec { name: file.get("name").cloned(), seed: file.get("seed").cloned(), vars, stages: Vec::new() };
    let lines = Lines { text, entries: entry_lines(text, "stages"), section: "stages" };
    if let Some(stages) = map(&file, &[], "stages", findings) {
        spec.stages.extend(stages.iter().filter_map(|(name, body)| stage(name, body, &lines, findings)));
    }
    if !file.contains_key("stages") {
        findings.add(At::File, "there is no \"stages\"", Some("add `stages:` with at least one stage".into()));
    } else if file["stages"].as_object().is_some_and(Map::is_empty) {
        findings.add(At::key(&["stages".into()]), "there is no stage", None);
    }
    let lines = Lines { text, entries: entry_lines(text, "tables"), section: "tables" };
    if let Some(tables) = map(&file, &[], "tables", findings) {
        spec.stages.extend(tables.iter().filter_map(|(name, body)| table(name, body, &lines, findings)));
    }
    Some(spec)
}

struct Lines<'t> {
    text: &'t str,
    entries: std::collections::HashMap<String, usize>,
    section: &'static str,
}

impl Lines<'_> {
    fn of(&self, name: &str) -> usize {
        let slow =
            || locate(self.text, &[self.section.to_owned(), name.to_owned()], Part::Key).map_or(1, |place| place.0);
        self.entries.get(name).copied().unwrap_or_else(slow)
    }
}

fn bad_name(what: &str, name: &str) -> String {
    format!("{name:?} is not {what}, expected a lower-case letter, then letters, digits and _")
}

fn stage(name: &str, body: &Json, lines: &Lines<'_>, findings: &mut Findings) -> Option<StageSpec> {
    let path: Path = vec!["stages".into(), name.to_owned()];
    if !is_name(name) {
        findings.add(At::key(&path), bad_name("a stage's name", name), None);
    } else if name == "system" || name == "tables" {
        findings.add(
            At::key(&path),
            format!("the name {name:?} is taken"),
            Some("choose another name for the stage".into()),
        );
    }
    let Json::Object(body) = body else {
        findings.add(At::value(&path), format!("expected a stage with \"op\", found {}", describe(body)), None);
        return None;
    };
    known_fields(body, &path, STAGE, "of a stage", findings);
    let op = match body.get("op") {
        Some(Json::String(op)) => Some(op.clone()),
        Some(other) => {
            findings.add(
                At::value(&under(&path, "op")),
                format!("expected an operator's name, found {}", describe(other)),
                None,
            );
            None
        }
        None => {
            findings.add(
                At::key(&path),
                format!("stage {name:?} has no \"op\""),
                Some("`fuseline ops` lists the operators".into()),
            );
            None
        }
    };
    let inputs = map(body, &path, "inputs", findings).cloned().unwrap_or_default();
    let with = map(body, &path, "with", findings).cloned().unwrap_or_default();
    let field = |name: &str| body.get(name).cloned();
    Some(StageSpec {
        name: name.to_owned(),
        with_path: under(&path, "with"),
        line: lines.of(name),
        op,
        inputs,
        with,
        matrix: field("matrix"),
        seed: field("seed"),
        resources: field("resources"),
        tags: field("tags"),
        uncacheable: field("uncacheable"),
        path,
    })
}

fn table(name: &str, body: &Json, lines: &Lines<'_>, findings: &mut Findings) -> Option<StageSpec> {
    let path: Path = vec!["tables".into(), name.to_owned()];
    if !is_name(name) {
        findings.add(At::key(&path), bad_name("a table's name", name), None);
    }
    let Json::Object(with) = body else {
        findings.add(At::value(&path), format!("expected a table with \"sql\", found {}", describe(body)), None);
        return None;
    };
    Some(StageSpec {
        name: format!("tables.{name}"),
        with_path: path.clone(),
        line: lines.of(name),
        op: Some(TABLE.to_owned()),
        inputs: Map::new(),
        with: with.clone(),
        matrix: None,
        seed: None,
        resources: None,
        tags: None,
        uncacheable: None,
        path,
    })
}

/// A field that holds a map; left out or empty is none.
fn map<'m>(
    parent: &'m Map<String, Json>,
    path: &[String],
    field: &str,
    findings: &mut Findings,
) -> Option<&'m Map<String, Json>> {
    match parent.get(field)? {
        Json::Object(map) => Some(map),
        Json::Null => None,
        other => {
            findings.add(At::value(&under(path, field)), format!("expected a map, found {}", describe(other)), None);
            None
        }
    }
}

/// Finds fields that nobody knows.
pub(crate) fn known_fields(
    map: &Map<String, Json>,
    path: &[String],
    known: &[&str],
    place: &str,
    findings: &mut Findings,
) {
    for name in map.keys().filter(|name| !known.contains(&name.as_str())) {
        let help = suggest(name, known.iter().copied());
        findings.add(At::key(&under(path, name)), format!("unknown field {name:?} {place}"), help);
    }
}
