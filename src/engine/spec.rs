//! A pipeline file as written: its fields known and of the right form, names
//! valid, nothing substituted, looked up or included. Must not know operators.

use fuseline_contract::secret;
use serde_json::{Map, Value as Json};

use crate::locate::{Part, Path, entry_lines, locate};
use crate::problem::{At, Findings, INCLUDE, suggest, under};
use crate::reference::is_name;
use crate::yaml::{self, describe};

/// The operator that an entry of `tables` is a stage of.
pub(crate) const TABLE: &str = "table";
/// What the names of tables begin with, as stages.
pub(crate) const TABLES: &str = "tables";
/// Where stages are repeated.
pub(crate) const REPEAT: &str = "repeat";

/// A pipeline file.
pub(crate) struct Spec {
    /// The name; the file's where it is left out.
    pub(crate) name: Option<Json>,
    /// The seed.
    pub(crate) seed: Option<Json>,
    /// What enters every key.
    pub(crate) salt: Option<Json>,
    /// Variables.
    pub(crate) vars: Map<String, Json>,
    /// Other files whose stages belong to it.
    pub(crate) include: Option<Json>,
    /// Stages that are repeated, by axis.
    pub(crate) repeat: Option<Json>,
    /// Stages in the file's order, then tables.
    pub(crate) stages: Vec<StageSpec>,
}

/// A stage as written.
pub(crate) struct StageSpec {
    /// Its name in its file; of a table `tables.NAME`.
    pub(crate) name: String,
    /// The name by which it is known outside of its file.
    pub(crate) full: String,
    /// The file, by its number among those of the pipeline.
    pub(crate) file: usize,
    /// What repeats it, by its number among the file's repeats.
    pub(crate) repeat: Option<usize>,
    /// Its path.
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
    /// Whether it is there at all.
    pub(crate) when: Option<Json>,
    /// Its own seed.
    pub(crate) seed: Option<Json>,
    /// What it may use.
    pub(crate) resources: Option<Json>,
    /// When a failed attempt is tried again.
    pub(crate) retry: Option<Json>,
    /// Tags.
    pub(crate) tags: Option<Json>,
    /// Whether it always runs.
    pub(crate) uncacheable: Option<Json>,
    /// Whether its rows are remembered.
    pub(crate) memo: Option<Json>,
}

const TOP: &[&str] = &["name", "seed", "salt", "vars", INCLUDE, "stages", REPEAT, TABLES];
const STAGE: &[&str] =
    &["op", "inputs", "with", "matrix", "when", "seed", "resources", "retry", "tags", "uncacheable", "memo"];

/// Reads the file whose top has the path `base`; `None` where nothing in it can
/// be used.
pub(crate) fn parse(text: &str, base: &[String], findings: &mut Findings) -> Option<Spec> {
    let file = match yaml::parse(text, base, findings)? {
        Json::Object(file) => file,
        other => {
            let message = format!("expected a map with \"stages\", found {}", describe(&other));
            findings.add(At::File(base.to_vec()), message, None);
            return None;
        }
    };
    known_fields(&file, base, TOP, "at the top level", findings);
    refuse_misplaced_secrets(&file, base, findings);
    let vars = map(&file, base, "vars", findings).cloned().unwrap_or_default();
    for name in vars.keys().filter(|name| !is_name(name)) {
        findings.add(At::key(&under(&under(base, "vars"), name)), bad_name("a variable's name", name), None);
    }
    let field = |name: &str| file.get(name).filter(|value| !value.is_null()).cloned();
    let mut spec = Spec {
        name: file.get("name").cloned(),
        seed: file.get("seed").cloned(),
        salt: field("salt"),
        vars,
        include: field(INCLUDE),
        repeat: field(REPEAT),
        stages: Vec::new(),
    };
    let lines = Lines { text, entries: entry_lines(text, "stages"), base, section: "stages" };
    if let Some(stages) = map(&file, base, "stages", findings) {
        spec.stages.extend(stages.iter().filter_map(|(name, body)| stage(name, body, &lines, findings)));
    }
    if spec.include.is_none() {
        if !file.contains_key("stages") {
            let help = "add `stages:` with at least one stage".to_owned();
            findings.add(At::File(base.to_vec()), "there is no \"stages\"", Some(help));
        } else if file["stages"].as_object().is_some_and(Map::is_empty) {
            findings.add(At::key(&under(base, "stages")), "there is no stage", None);
        }
    }
    let lines = Lines { text, entries: entry_lines(text, TABLES), base, section: TABLES };
    if let Some(tables) = map(&file, base, TABLES, findings) {
        spec.stages.extend(tables.iter().filter_map(|(name, body)| table(name, body, &lines, findings)));
    }
    Some(spec)
}

/// A secret stands in a stage's parameters and nowhere else; in which of them,
/// the operator says.
fn refuse_misplaced_secrets(file: &Map<String, Json>, base: &[String], findings: &mut Findings) {
    let mut found = Vec::new();
    for (section, value) in file {
        secrets_below(value, under(base, section), &mut found);
    }
    for path in found {
        let is_parameter =
            matches!(&path[base.len()..], [stages, _, with, _, ..] if stages == "stages" && with == "with");
        if !is_parameter {
            let help =
                "put it in a stage's parameter that is declared secret; `fuseline ops NAME` says which".to_owned();
            findings.add(At::value(&path), "a secret may not stand here", Some(help));
            findings.silence(&path);
        }
    }
}

/// The paths of all secrets in a value.
pub(crate) fn secrets_below(value: &Json, path: Path, found: &mut Vec<Path>) {
    match value {
        secret if secret::of_json(secret).is_some() => found.push(path),
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                secrets_below(item, under(&path, index.to_string()), found);
            }
        }
        Json::Object(map) => map.iter().for_each(|(key, item)| secrets_below(item, under(&path, key), found)),
        _ => {}
    }
}

struct Lines<'t> {
    text: &'t str,
    base: &'t [String],
    entries: std::collections::HashMap<String, usize>,
    section: &'static str,
}

impl Lines<'_> {
    fn of(&self, name: &str) -> usize {
        let slow =
            || locate(self.text, &[self.section.to_owned(), name.to_owned()], Part::Key).map_or(1, |place| place.0);
        self.entries.get(name).copied().unwrap_or_else(slow)
    }

    fn path(&self, name: &str) -> Path {
        under(&under(self.base, self.section), name)
    }
}

/// What is wrong with a name.
pub(crate) fn bad_name(what: &str, name: &str) -> String {
    format!("{name:?} is not {what}, expected a lower-case letter, then letters, digits and _")
}

fn stage(name: &str, body: &Json, lines: &Lines<'_>, findings: &mut Findings) -> Option<StageSpec> {
    let path = lines.path(name);
    if !is_name(name) {
        findings.add(At::key(&path), bad_name("a stage's name", name), None);
    } else if name == "system" || name == TABLES {
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
        full: name.to_owned(),
        file: 0,
        repeat: None,
        with_path: under(&path, "with"),
        line: lines.of(name),
        op,
        inputs,
        with,
        matrix: field("matrix"),
        when: field("when"),
        seed: field("seed"),
        resources: field("resources"),
        retry: field("retry"),
        tags: field("tags"),
        uncacheable: field("uncacheable"),
        memo: field("memo"),
        path,
    })
}

fn table(name: &str, body: &Json, lines: &Lines<'_>, findings: &mut Findings) -> Option<StageSpec> {
    let path = lines.path(name);
    if !is_name(name) {
        findings.add(At::key(&path), bad_name("a table's name", name), None);
    }
    let Json::Object(with) = body else {
        findings.add(At::value(&path), format!("expected a table with \"sql\", found {}", describe(body)), None);
        return None;
    };
    Some(StageSpec {
        name: format!("{TABLES}.{name}"),
        full: format!("{TABLES}.{name}"),
        file: 0,
        repeat: None,
        with_path: path.clone(),
        line: lines.of(name),
        op: Some(TABLE.to_owned()),
        inputs: Map::new(),
        with: with.clone(),
        matrix: None,
        when: None,
        seed: None,
        resources: None,
        retry: None,
        tags: None,
        uncacheable: None,
        memo: None,
        path,
    })
}

/// A field that holds a map; left out or empty is none.
pub(crate) fn map<'m>(
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
