//! `${name}`: typed substitution of variables and axes, values that are given to
//! variables from outside of their file, and `--set`. Must not know stages'
//! operators.

use std::collections::{BTreeMap, BTreeSet};

use fuseline_contract::secret;
use serde_json::{Map, Value as Json};

use crate::locate::Path;
use crate::problem::{At, Findings, Origin, nearest, suggest, under};
use crate::spec::{StageSpec, TABLES};
use crate::yaml::{describe, parse_argument};

/// How deep variables may refer to each other.
const MAX_DEPTH: usize = 500;
/// How large a variable may be, in bytes of text and in items.
const MAX_SIZE: usize = 16 << 20;

/// A piece of a text that may hold `${name}`.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

/// Splits a text at `${name}`; `$${` is a plain `${`.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            found.push(Piece::Text(&rest[..start - 1]));
            found.push(Piece::Text("${"));
            rest = &rest[start + 2..];
            continue;
        }
        let (name, after) = rest[start + 2..]
            .split_once('}')
            .ok_or_else(|| format!("\"${{\" is not closed in {text:?}, expected ${{name}}"))?;
        if start > 0 {
            found.push(Piece::Text(&rest[..start]));
        }
        found.push(Piece::Name(name.trim()));
        rest = after;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    Ok(found)
}

/// The names that a value refers to.
pub(crate) fn names_in(value: &Json, names: &mut BTreeSet<String>) {
    match value {
        Json::String(text) if text.contains("${") => {
            for piece in pieces(text).unwrap_or_default() {
                if let Piece::Name(name) = piece {
                    names.insert(name.to_owned());
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| names_in(item, names)),
        Json::Object(map) => map.values().for_each(|item| names_in(item, names)),
        _ => {}
    }
}

/// Where names get their values.
pub(crate) trait Scope {
    /// A name's value.
    fn get(&self, name: &str) -> Option<&Json>;
    /// All names, for suggestions.
    fn names(&self) -> Vec<&str>;
    /// Whether something is wrong with the value, and was said.
    fn is_broken(&self, name: &str) -> bool;
}

/// Replaces every `${name}` in a value that stands at a path.
pub(crate) fn substitute(value: &Json, scope: &dyn Scope, path: &[String], findings: &mut Findings) -> Json {
    match value {
        Json::String(text) if text.contains("${") => substitute_text(text, scope, path, findings),
        Json::Array(items) => {
            let item = |(i, item): (usize, &Json)| substitute(item, scope, &under(path, i.to_string()), findings);
            Json::Array(items.iter().enumerate().map(item).collect())
        }
        Json::Object(map) => {
            let entry = |(k, v): (&String, &Json)| (k.clone(), substitute(v, scope, &under(path, k), findings));
            Json::Object(map.iter().map(entry).collect())
        }
        other => other.clone(),
    }
}

fn substitute_text(text: &str, scope: &dyn Scope, path: &[String], findings: &mut Findings) -> Json {
    let pieces = match pieces(text) {
        Ok(pieces) => pieces,
        Err(message) => {
            findings.add(At::value(path), message, Some("a plain \"${\" is written \"$${\"".into()));
            findings.silence(path);
            return Json::Null;
        }
    };
    let mut unknown = false;
    for piece in &pieces {
        let Piece::Name(name) = piece else { continue };
        if scope.get(name).is_none() {
            unknown = true;
            let help = suggest(name, scope.names())
                .or_else(|| Some("say it under `vars:`; a plain \"${\" is written \"$${\"".into()));
            findings.add(At::value(path), format!("unknown variable {name:?}"), help);
        }
    }
    if unknown || pieces.iter().any(|piece| matches!(piece, Piece::Name(name) if scope.is_broken(name))) {
        findings.silence(path);
        return Json::Null;
    }
    if let [Piece::Name(name)] = pieces[..] {
        return scope.get(name).cloned().unwrap_or_default();
    }
    let mut joined = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => joined.push_str(text),
            Piece::Name(name) => match scope.get(name) {
                Some(Json::String(text)) => joined.push_str(text),
                Some(scalar @ (Json::Number(_) | Json::Bool(_))) => joined.push_str(&scalar.to_string()),
                other => {
                    let found = describe(other.unwrap_or(&Json::Null));
                    findings.add(
                        At::value(path),
                        format!("variable {name:?} is {found}, which cannot stand within a text"),
                        None,
                    );
                    findings.silence(path);
                }
            },
        }
    }
    Json::String(joined)
}

/// The variables of a file with their values.
#[derive(Default)]
pub(crate) struct Vars {
    /// The path of the file's top.
    base: Path,
    values: BTreeMap<String, Json>,
    /// Where a value was given, where it was not in the file.
    given: BTreeMap<String, At>,
    /// Variables with which something is wrong.
    broken: BTreeSet<String>,
}

impl Scope for Vars {
    fn get(&self, name: &str) -> Option<&Json> {
        self.values.get(name)
    }

    fn names(&self) -> Vec<&str> {
        self.values.keys().map(String::as_str).collect()
    }

    fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }
}

/// A value that is given to a variable from outside of its file.
pub(crate) enum Given {
    /// In an argument; it may refer to the file's variables.
    Typed {
        /// The argument.
        argument: String,
        /// The value.
        value: Json,
    },
    /// By a file that includes this one.
    Passed {
        /// Where.
        at: At,
        /// The value.
        value: Json,
        /// Something is wrong with it, and was said.
        broken: bool,
    },
}

impl Given {
    fn at(&self) -> At {
        match self {
            Self::Typed { argument, .. } => At::Argument(argument.clone()),
            Self::Passed { at, .. } => at.clone(),
        }
    }
}

/// Values from outside of a file, by variable.
pub(crate) type GivenValues = BTreeMap<String, Given>;

impl Vars {
    /// Evaluates the variables of the file whose top has the path `base`.
    pub(crate) fn evaluate(
        written: &Map<String, Json>,
        given: GivenValues,
        base: &[String],
        findings: &mut Findings,
    ) -> Self {
        let mut raw = written.clone();
        let mut evaluation = Evaluation { base, ..Evaluation::default() };
        let mut at = BTreeMap::new();
        for (name, given) in given {
            if !raw.contains_key(&name) {
                let help = suggest(&name, raw.keys().map(String::as_str))
                    .or_else(|| Some("the file has no `vars`".to_owned()));
                findings.add(given.at(), format!("unknown variable {name:?}"), help);
                continue;
            }
            at.insert(name.clone(), given.at());
            match given {
                Given::Typed { argument, value } => {
                    evaluation.typed.insert(name.clone(), argument);
                    raw.insert(name, value);
                }
                Given::Passed { value, broken, .. } => {
                    if broken {
                        evaluation.broken.insert(name.clone());
                    }
                    evaluation.sizes.insert(name.clone(), size(&value, &BTreeMap::new()));
                    evaluation.values.insert(name, value);
                }
            }
        }
        evaluation.raw = raw;
        for name in written.keys() {
            evaluation.value(name, findings);
        }
        let Evaluation { values, broken, .. } = evaluation;
        let mut vars = Self { base: base.to_vec(), values, given: at, broken };
        vars.check_kinds(written, findings);
        vars
    }

    /// A value from outside is of the kind of the value in the file.
    fn check_kinds(&mut self, written: &Map<String, Json>, findings: &mut Findings) {
        if self.given.is_empty() {
            return;
        }
        let plain = Self::evaluate(written, GivenValues::new(), &self.base, &mut Findings::default());
        for (name, at) in &self.given {
            let (Some(value), Some(expected)) = (self.values.get(name), plain.values.get(name).and_then(kind)) else {
                continue;
            };
            if plain.broken.contains(name) || self.broken.contains(name) || kind(value) == Some(expected) {
                continue;
            }
            let help = match at {
                At::Argument(_) if expected == TEXT && matches!(value, Json::Number(_) | Json::Bool(_)) => {
                    Some(format!("quote it to give a text: --set '{name}=\"{value}\"'"))
                }
                _ => None,
            };
            let message = format!("variable {name:?}: expected {expected}, found {}", describe(value));
            findings.add(at.clone(), message, help);
            self.broken.insert(name.clone());
        }
    }

    /// Where a variable got its value.
    pub(crate) fn origin(&self, name: &str) -> Option<Origin> {
        let value = self.values.get(name)?;
        let at = self.given.get(name).cloned().unwrap_or_else(|| At::key(&variable_path(&self.base, name)));
        Some(Origin {
            text: format!("${{{name}}} is {}", describe(value)),
            at: Some(at),
            variable: Some(name.to_owned()),
        })
    }
}

const TEXT: &str = "a text";

/// The kind of a value in words; of an empty one there is none.
fn kind(value: &Json) -> Option<&'static str> {
    match value {
        Json::Null => None,
        Json::Bool(_) => Some("true or false"),
        Json::Number(_) => Some("a number"),
        Json::String(_) => Some(TEXT),
        Json::Array(_) => Some("a list"),
        Json::Object(_) => Some("a map"),
    }
}

fn variable_path(base: &[String], name: &str) -> Path {
    under(&under(base, "vars"), name)
}

/// What `--set` says.
#[derive(Default)]
pub(crate) struct Arguments {
    /// Values of the pipeline's variables.
    pub(crate) vars: GivenValues,
    /// Values of stages' parameters.
    parameters: Vec<SetParameter>,
}

struct SetParameter {
    target: String,
    value: Json,
    argument: String,
}

/// Parameters that arguments set: stage and path inside `with` to the argument.
pub(crate) type SetParameters = BTreeMap<(String, Path), String>;

impl Arguments {
    /// Reads `NAME=VALUE` and `STAGE.PARAM=VALUE`.
    pub(crate) fn read(sets: &[String], findings: &mut Findings) -> Self {
        let mut arguments = Self::default();
        for set in sets {
            let argument = format!("--set {set}");
            let Some((target, text)) = set.split_once('=') else {
                findings.add(At::Argument(argument), "expected NAME=VALUE or STAGE.PARAM=VALUE", None);
                continue;
            };
            let target = target.trim().to_owned();
            match parse_argument(text) {
                Ok(value) if target.contains('.') => {
                    arguments.parameters.push(SetParameter { target, value, argument });
                }
                Ok(value) if secret::of_json(&value).is_some() => {
                    let help = "a parameter that is declared secret may: --set 'STAGE.PARAM=!secret NAME'".to_owned();
                    findings.add(At::Argument(argument), "a variable holds no secret", Some(help));
                }
                Ok(value) => drop(arguments.vars.insert(target, Given::Typed { argument, value })),
                Err(message) => findings.add(At::Argument(argument), message, None),
            }
        }
        arguments
    }

    /// Puts values into the parameters of stages.
    pub(crate) fn set_parameters(self, stages: &mut [StageSpec], findings: &mut Findings) -> SetParameters {
        self.parameters.into_iter().filter_map(|set| set_parameter(stages, set, findings)).collect()
    }
}

fn set_parameter(
    stages: &mut [StageSpec],
    set: SetParameter,
    findings: &mut Findings,
) -> Option<((String, Path), String)> {
    let mut parts: Vec<String> = set.target.split('.').map(str::to_owned).collect();
    if parts[0] == TABLES && parts.len() > 2 {
        let name = parts.remove(1);
        parts[0] = format!("{TABLES}.{name}");
    }
    let name = parts.remove(0);
    let at = At::Argument(set.argument.clone());
    let Some(index) = stages.iter().position(|stage| stage.full == name) else {
        let help = suggest(&name, stages.iter().map(|stage| stage.full.as_str()));
        findings.add(at, format!("unknown stage {name:?}"), help);
        return None;
    };
    if parts.iter().any(String::is_empty) {
        findings.add(at, "expected STAGE.PARAM=VALUE", None);
        return None;
    }
    let (last, parents) = parts.split_last().expect("the target has a dot");
    let mut map = &mut stages[index].with;
    for parent in parents {
        let inner = map.entry(parent.clone()).or_insert_with(|| Json::Object(Map::new()));
        if !inner.is_object() {
            *inner = Json::Object(Map::new());
        }
        map = inner.as_object_mut().expect("made an object above");
    }
    map.insert(last.clone(), set.value);
    Some(((name, parts), set.argument))
}

#[derive(Default)]
struct Evaluation<'a> {
    base: &'a [String],
    raw: Map<String, Json>,
    /// Arguments that say values.
    typed: BTreeMap<String, String>,
    values: BTreeMap<String, Json>,
    broken: BTreeSet<String>,
    /// The sizes of values.
    sizes: BTreeMap<String, usize>,
    /// Variables that are being evaluated, to find cycles.
    open: Vec<String>,
}

impl Evaluation<'_> {
    /// Evaluates a variable after those it refers to.
    fn value(&mut self, name: &str, findings: &mut Findings) {
        if self.values.contains_key(name) {
            return;
        }
        let Some(raw) = self.raw.get(name).cloned() else { return };
        let path = variable_path(self.base, name);
        if let Some(start) = self.open.iter().position(|open| open == name) {
            let cycle = [&self.open[start..], &[name.to_owned()]].concat().join(" -> ");
            findings.add(At::value(&path), format!("variables form a cycle: {cycle}"), None);
            self.broken.extend(self.open[start..].iter().cloned());
            self.values.insert(name.to_owned(), Json::Null);
            return;
        }
        let mut names = BTreeSet::new();
        names_in(&raw, &mut names);
        if self.open.len() == MAX_DEPTH {
            findings.add(At::value(&path), format!("variables refer to each other over {MAX_DEPTH} steps"), None);
            self.broken.insert(name.to_owned());
            self.values.insert(name.to_owned(), Json::Null);
            return;
        }
        self.open.push(name.to_owned());
        for other in &names {
            self.value(other, findings);
        }
        self.open.pop();
        let scope = Partial { values: &self.values, all: &self.raw, broken: &self.broken };
        let mut broken = names.iter().any(|name| scope.get(name).is_none() || scope.is_broken(name));
        let size = size(&raw, &self.sizes);
        self.sizes.insert(name.to_owned(), size);
        if size > MAX_SIZE {
            findings.add(At::value(&path), format!("variable {name:?} is larger than {} MiB", MAX_SIZE >> 20), None);
            self.broken.insert(name.to_owned());
            self.values.insert(name.to_owned(), Json::Null);
            return;
        }
        let value = match self.typed.get(name) {
            None => substitute(&raw, &scope, &path, findings),
            Some(typed) => {
                if let Some(unknown) = names.iter().find(|name| scope.get(name).is_none()) {
                    let help = nearest(unknown, scope.names()).map(|near| format!("did you mean {near:?}?"));
                    findings.add(At::Argument(typed.clone()), format!("unknown variable {unknown:?}"), help);
                }
                substitute(&raw, &scope, &path, &mut Findings::default())
            }
        };
        broken |= findings.is_silenced_below(&path);
        if broken {
            self.broken.insert(name.to_owned());
        }
        self.values.entry(name.to_owned()).or_insert(value);
    }
}

/// The size of a value after substitution, in bytes and items.
fn size(raw: &Json, sizes: &BTreeMap<String, usize>) -> usize {
    let sum = |sizes: &mut dyn Iterator<Item = usize>| sizes.fold(1, usize::saturating_add);
    match raw {
        Json::String(text) => sum(&mut pieces(text).unwrap_or_default().iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Name(name) => sizes.get(*name).copied().unwrap_or(0),
        })),
        Json::Array(items) => sum(&mut items.iter().map(|item| size(item, sizes))),
        Json::Object(map) => sum(&mut map.iter().map(|(key, item)| size(item, sizes).saturating_add(key.len()))),
        _ => 1,
    }
}

struct Partial<'a> {
    values: &'a BTreeMap<String, Json>,
    all: &'a Map<String, Json>,
    broken: &'a BTreeSet<String>,
}

impl Scope for Partial<'_> {
    fn get(&self, name: &str) -> Option<&Json> {
        self.values.get(name)
    }

    fn names(&self) -> Vec<&str> {
        self.all.keys().map(String::as_str).collect()
    }

    fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Source;
    use serde_json::json;

    fn evaluate(vars: Json) -> (Vars, Vec<String>) {
        let Json::Object(vars) = vars else { panic!("a map") };
        let mut findings = Findings::default();
        let vars = Vars::evaluate(&vars, GivenValues::new(), &[], &mut findings);
        let problems = findings.locate(&Source::new(std::path::Path::new("p"), ""));
        (vars, problems.0.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn a_lone_name_keeps_its_type_and_within_a_text_it_is_text() {
        let (vars, problems) = evaluate(
            json!({"list": [1, 2], "a": "${list}", "b": 0.1, "c": "x-${b}-${d}", "d": "${ e }", "e": true, "f": "$${b}"}),
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(vars.get("a"), Some(&json!([1, 2])));
        assert_eq!(vars.get("c"), Some(&json!("x-0.1-true")));
        assert_eq!(vars.get("f"), Some(&json!("${b}")));
    }

    #[test]
    fn cycles_unknown_names_and_lists_within_texts_are_found() {
        let (_, problems) = evaluate(json!({"a": "${b}", "b": "x${c}", "c": "${a}"}));
        assert_eq!(problems[0], "variables form a cycle: a -> b -> c -> a");
        let (_, problems) = evaluate(json!({"a": "${bb}", "c": "x${d}", "d": [1], "e": "${a"}));
        assert_eq!(
            problems,
            [
                "unknown variable \"bb\"",
                "variable \"d\" is a list, which cannot stand within a text",
                "\"${\" is not closed in \"${a\", expected ${name}"
            ]
        );
    }
}
