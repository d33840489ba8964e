//! `${name}`: typed substitution of variables and axes, and `--set`. Must not
//! know stages' operators.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use crate::locate::Path;
use crate::problem::{At, Findings, Origin, nearest, suggest, under};
use crate::spec::Spec;
use crate::yaml::{describe, parse_argument};

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

/// The variables with their values.
pub(crate) struct Vars {
    values: BTreeMap<String, Json>,
    /// The argument that said a value, where one did.
    set: BTreeMap<String, String>,
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

impl Vars {
    /// Where a variable got its value.
    pub(crate) fn origin(&self, name: &str) -> Option<Origin> {
        let value = self.values.get(name)?;
        let at = match self.set.get(name) {
            Some(argument) => At::Argument(argument.clone()),
            None => At::key(&["vars".to_owned(), name.to_owned()]),
        };
        Some(Origin {
            text: format!("${{{name}}} is {}", describe(value)),
            at: Some(at),
            variable: Some(name.to_owned()),
        })
    }
}

/// Parameters that arguments set: stage and path inside `with` to the argument.
pub(crate) type SetParameters = BTreeMap<(String, Path), String>;

/// Applies `--set` to variables and stages' parameters, and evaluates variables.
pub(crate) fn resolve(spec: &mut Spec, sets: &[String], findings: &mut Findings) -> (Vars, SetParameters) {
    let mut raw = spec.vars.clone();
    let mut set = BTreeMap::new();
    let mut parameters = SetParameters::new();
    for argument in sets {
        let typed = format!("--set {argument}");
        let Some((target, text)) = argument.split_once('=') else {
            findings.add(At::Argument(typed), "expected NAME=VALUE or STAGE.PARAM=VALUE", None);
            continue;
        };
        let value = match parse_argument(text) {
            Ok(value) => value,
            Err(message) => {
                findings.add(At::Argument(typed), message, None);
                continue;
            }
        };
        let target = target.trim();
        if !target.contains('.') {
            if raw.contains_key(target) {
                raw.insert(target.to_owned(), value);
                set.insert(target.to_owned(), typed);
            } else {
                let help = suggest(target, raw.keys().map(String::as_str));
                findings.add(At::Argument(typed), format!("unknown variable {target:?}"), help);
            }
        } else if let Some((stage, path)) = set_parameter(spec, target, value, &typed, findings) {
            parameters.insert((stage, path), typed);
        }
    }
    let mut evaluated =
        Evaluation { raw: &raw, set: &set, values: BTreeMap::new(), broken: BTreeSet::new(), open: Vec::new() };
    for name in raw.keys() {
        evaluated.value(name, findings);
    }
    let Evaluation { values, broken, .. } = evaluated;
    (Vars { values, set, broken }, parameters)
}

/// Puts a value into a stage's parameters.
fn set_parameter(
    spec: &mut Spec,
    target: &str,
    value: Json,
    typed: &str,
    findings: &mut Findings,
) -> Option<(String, Path)> {
    let mut parts: Vec<String> = target.split('.').map(str::to_owned).collect();
    if parts[0] == "tables" && parts.len() > 2 {
        let name = parts.remove(1);
        parts[0] = format!("tables.{name}");
    }
    let name = parts.remove(0);
    let known: Vec<String> = spec.stages.iter().map(|stage| stage.name.clone()).collect();
    let Some(stage) = spec.stages.iter_mut().find(|stage| stage.name == name) else {
        let help = suggest(&name, known.iter().map(String::as_str));
        findings.add(At::Argument(typed.to_owned()), format!("unknown stage {name:?}"), help);
        return None;
    };
    if parts.iter().any(String::is_empty) {
        findings.add(At::Argument(typed.to_owned()), "expected STAGE.PARAM=VALUE", None);
        return None;
    }
    let (last, parents) = parts.split_last().expect("the target has a dot");
    let mut map = &mut stage.with;
    for parent in parents {
        let inner = map.entry(parent.clone()).or_insert_with(|| Json::Object(Map::new()));
        if !inner.is_object() {
            *inner = Json::Object(Map::new());
        }
        map = inner.as_object_mut().expect("made an object above");
    }
    map.insert(last.clone(), value);
    Some((name, parts))
}

struct Evaluation<'a> {
    raw: &'a Map<String, Json>,
    set: &'a BTreeMap<String, String>,
    values: BTreeMap<String, Json>,
    broken: BTreeSet<String>,
    /// Variables that are being evaluated, to find cycles.
    open: Vec<String>,
}

impl Evaluation<'_> {
    /// Evaluates a variable after those it refers to.
    fn value(&mut self, name: &str, findings: &mut Findings) {
        if self.values.contains_key(name) {
            return;
        }
        let Some(raw) = self.raw.get(name) else { return };
        let path = ["vars".to_owned(), name.to_owned()];
        if let Some(start) = self.open.iter().position(|open| open == name) {
            let cycle = [&self.open[start..], &[name.to_owned()]].concat().join(" -> ");
            findings.add(At::value(&path), format!("variables form a cycle: {cycle}"), None);
            self.broken.extend(self.open[start..].iter().cloned());
            self.values.insert(name.to_owned(), Json::Null);
            return;
        }
        let mut names = BTreeSet::new();
        names_in(raw, &mut names);
        self.open.push(name.to_owned());
        for other in &names {
            self.value(other, findings);
        }
        self.open.pop();
        let scope = Partial { values: &self.values, all: self.raw, broken: &self.broken };
        let mut broken = names.iter().any(|name| scope.get(name).is_none() || scope.is_broken(name));
        let value = match self.set.get(name) {
            None => substitute(raw, &scope, &path, findings),
            Some(typed) => {
                if let Some(unknown) = names.iter().find(|name| scope.get(name).is_none()) {
                    let help = nearest(unknown, scope.names()).map(|near| format!("did you mean {near:?}?"));
                    findings.add(At::Argument(typed.clone()), format!("unknown variable {unknown:?}"), help);
                }
                substitute(raw, &scope, &path, &mut Findings::default())
            }
        };
        broken |= findings.is_silenced_below(&path);
        if broken {
            self.broken.insert(name.to_owned());
        }
        self.values.entry(name.to_owned()).or_insert(value);
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
    use serde_json::json;

    fn evaluate(vars: Json) -> (Vars, Vec<String>) {
        let Json::Object(vars) = vars else { panic!("a map") };
        let mut spec = Spec { name: None, seed: None, vars, stages: Vec::new() };
        let mut findings = Findings::default();
        let (vars, _) = resolve(&mut spec, &[], &mut findings);
        let problems = findings.locate(std::path::Path::new("p"), "");
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
