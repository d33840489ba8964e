//! The JSON Schema of a pipeline file, so that editors complete and check it.
//!
//! It accepts every valid file, and so wherever a value may be substituted it
//! accepts a text with `${` too. What one cannot say in a schema (references,
//! row types) is left to the plan. Must not know any operator by name but
//! `table`.

use fuseline_contract::{Entry, Ports};
use serde_json::{Map, Value as Json, json};

use crate::problem::Findings;
use crate::spec::TABLE;
use crate::yaml;

/// The draft that the schema is written in.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of pipeline files with these operators.
pub fn json_schema(entries: &[Entry]) -> Json {
    let mut definitions = Map::new();
    definitions.insert("substituted".into(), json!({"type": "string", "pattern": "\\$\\{"}));
    let reference = json!({"type": "string", "description": "STAGE, STAGE.OUTPUT or STAGE[AXIS=VALUE]"});
    let references = json!({"anyOf": [reference, {"type": "array", "items": reference}]});
    definitions.insert(
        "input".into(),
        json!({"anyOf": [references, {"type": "object", "description": "label to stages", "additionalProperties": references}]}),
    );
    let mut by_operator = Vec::new();
    for entry in entries {
        let name = format!("with_{}", entry.name);
        let mut schema = (entry.schema)();
        hoist(&mut schema, &name, &mut definitions);
        let required =
            schema.get("required").is_some_and(|required| required.as_array().is_some_and(|list| !list.is_empty()));
        definitions.insert(name.clone(), schema);
        let mut then = json!({"properties": {"with": {"anyOf": [{"$ref": format!("#/$defs/{name}")}]}}});
        if required {
            then["required"] = json!(["with"]);
        } else if let Some(any) = then["properties"]["with"]["anyOf"].as_array_mut() {
            any.push(json!({"type": "null"}));
        }
        by_operator.push(json!({
            "if": {"properties": {"op": {"const": entry.name}}, "required": ["op"]},
            "then": then,
        }));
    }
    definitions.insert("stage".into(), stage(entries, by_operator));
    let table = if entries.iter().any(|entry| entry.name == TABLE) {
        json!({"$ref": format!("#/$defs/with_{TABLE}")})
    } else {
        json!(false)
    };
    json!({
        "$schema": DRAFT,
        "title": "fuseline pipeline",
        "type": "object",
        "anyOf": [
            {"required": ["stages"], "properties": {"stages": {"type": "object", "minProperties": 1}}},
            {"required": ["include"]},
        ],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "description": "The pipeline's name."},
            "seed": or_substituted(json!({"type": ["integer", "null"], "minimum": 0, "description": "The seed of stages without one of their own."})),
            "salt": {"type": ["string", "null"], "minLength": 1, "description": "Enters every key: another salt disowns every result made before."},
            "vars": {"type": ["object", "null"], "description": "Variables, used as ${name}.", "propertyNames": {"pattern": NAME}},
            "include": or_substituted(include()),
            "stages": named(json!({"$ref": "#/$defs/stage"}), "The stages by name."),
            "repeat": or_substituted(repeat()),
            "tables": named(table, "The tables by name; `tables.NAME` is a stage."),
        },
        "$defs": definitions,
    })
}

/// An operator's own example, read as a pipeline file is; `None` if it is broken.
pub fn example(entry: &Entry) -> Option<Json> {
    let mut findings = Findings::default();
    yaml::parse(entry.example, &[], &mut findings).filter(|_| findings.is_empty())
}

/// The ports that an operator has in its own example; `None` if that is broken.
pub fn example_ports(entry: &Entry) -> Option<Ports> {
    let example = example(entry)?;
    let params = example.get("with").filter(|with| !with.is_null()).cloned().unwrap_or_else(|| json!({}));
    entry.resolve(&params).ok().map(|resolved| resolved.ports)
}

const NAME: &str = "^[a-z][a-z0-9_]*$";

fn include() -> Json {
    let item = json!({
        "type": "object",
        "required": ["file"],
        "additionalProperties": false,
        "properties": {
            "file": {"type": "string", "minLength": 1, "description": "A pipeline file; its path is taken from the folder of this one."},
            "prefix": or_substituted(json!({"type": ["string", "null"], "pattern": NAME, "description": "What the names of its stages begin with here, before a _."})),
            "vars": {"type": ["object", "null"], "description": "Values of its variables.", "propertyNames": {"pattern": NAME}},
        },
    });
    json!({"type": ["array", "null"], "description": "Files whose stages belong to this pipeline.", "items": or_substituted(item)})
}

fn repeat() -> Json {
    let reference = json!({"type": "string"});
    let body = json!({
        "type": "object",
        "required": ["times", "stages"],
        "additionalProperties": false,
        "properties": {
            "times": or_substituted(json!({"type": "integer", "minimum": 1, "description": "How many turns."})),
            "stages": or_substituted(json!({"type": "array", "minItems": 1, "items": reference, "description": "The stages of a turn."})),
            "carry": or_substituted(json!({
                "type": ["object", "null"],
                "description": "Name to [what it stands for in the first turn, what the turn before made later].",
                "propertyNames": {"pattern": NAME},
                "additionalProperties": or_substituted(json!({"type": "array", "minItems": 2, "maxItems": 2, "items": reference})),
            })),
        },
    });
    json!({
        "type": ["object", "null"],
        "description": "Stages that are repeated, by the axis of their turns.",
        "propertyNames": {"pattern": NAME},
        "additionalProperties": or_substituted(body),
    })
}

fn named(item: Json, description: &str) -> Json {
    json!({
        "type": ["object", "null"],
        "description": description,
        "propertyNames": {"pattern": NAME},
        "additionalProperties": item,
    })
}

fn stage(entries: &[Entry], by_operator: Vec<Json>) -> Json {
    let summaries: Vec<Json> =
        entries.iter().map(|entry| json!({"const": entry.name, "description": entry.summary()})).collect();
    let scalar = json!({"type": ["string", "number", "boolean"]});
    let points = or_substituted(json!({"type": ["array", "null"], "items": or_substituted(json!({
        "type": "object", "minProperties": 1, "additionalProperties": scalar,
    }))}));
    json!({
        "type": "object",
        "required": ["op"],
        "additionalProperties": false,
        "properties": {
            "op": {"description": "The operator.", "oneOf": summaries},
            "inputs": {"type": ["object", "null"], "description": "What is bound to each input.", "additionalProperties": {"$ref": "#/$defs/input"}},
            "with": {"description": "The operator's parameters."},
            "matrix": or_substituted(json!({
                "type": ["object", "null"],
                "description": "Axes; an instance for every combination of their values.",
                "properties": {"include": points, "exclude": points},
                "additionalProperties": or_substituted(json!({"type": "array", "minItems": 1, "items": scalar})),
            })),
            "when": or_substituted(json!({"type": ["boolean", "null"], "description": "Whether it is there at all."})),
            "seed": or_substituted(json!({"type": ["integer", "null"], "minimum": 0, "description": "Its own seed."})),
            "resources": or_substituted(json!({
                "type": ["object", "null"],
                "description": "What an instance may use.",
                "additionalProperties": false,
                "properties": {
                    "cpus": or_substituted(json!({"type": "integer", "minimum": 1})),
                    "gpus": or_substituted(json!({"type": "integer", "minimum": 0})),
                    "mem": {"type": ["string", "integer"], "description": "Bytes, or a size such as 8GiB."},
                },
            })),
            "retry": or_substituted(json!({
                "type": ["object", "null"],
                "description": "When an attempt that was lost or failed for a reason of the moment is tried again.",
                "additionalProperties": false,
                "properties": {
                    "times": or_substituted(json!({"type": "integer", "minimum": 0, "description": "More attempts after the first; 2 by default."})),
                    "backoff": {"type": ["string", "number"], "description": "The pause before the second attempt, such as 10s; 1 s by default. It doubles with each further one."},
                },
            })),
            "tags": or_substituted(json!({"type": ["array", "null"], "items": {"type": "string"}, "description": "Tags, for `tag:NAME`."})),
            "uncacheable": or_substituted(json!({"type": ["boolean", "null"], "description": "Whether it runs even if its result is there."})),
            "memo": or_substituted(json!({"enum": ["on", "off", true, false, null], "description": "Whether rows that were computed before are taken from the row memo; on, if left out."})),
        },
        "allOf": by_operator,
    })
}

/// A schema that also accepts a text with `${`.
fn or_substituted(schema: Json) -> Json {
    json!({"anyOf": [schema, {"$ref": "#/$defs/substituted"}]})
}

/// Moves a schema's own definitions to the common ones under a prefix, and
/// lets every value inside of it be substituted.
fn hoist(schema: &mut Json, prefix: &str, definitions: &mut Map<String, Json>) {
    let Json::Object(root) = schema else { return };
    root.remove("$schema");
    let own = root.remove("$defs");
    rewrite(schema, prefix);
    if let Some(Json::Object(own)) = own {
        for (name, mut definition) in own {
            rewrite(&mut definition, prefix);
            definitions.insert(format!("{prefix}.{name}"), definition);
        }
    }
}

/// Rewrites references and wraps the schemas of values.
fn rewrite(schema: &mut Json, prefix: &str) {
    let Json::Object(map) = schema else { return };
    if let Some(Json::String(target)) = map.get_mut("$ref")
        && let Some(name) = target.strip_prefix("#/$defs/")
    {
        *target = format!("#/$defs/{prefix}.{name}");
    }
    let wrap = |value: &mut Json| {
        rewrite(value, prefix);
        if value.is_object() {
            *value = or_substituted(value.take());
        }
    };
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties", Json::Object(members)) => members.values_mut().for_each(wrap),
            ("items" | "additionalProperties", value) => wrap(value),
            ("prefixItems", Json::Array(items)) => items.iter_mut().for_each(wrap),
            ("anyOf" | "oneOf" | "allOf", Json::Array(choices)) => {
                choices.iter_mut().for_each(|choice| rewrite(choice, prefix));
            }
            ("not" | "if" | "then" | "else", value) => rewrite(value, prefix),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::tests::{BASE, TOYS};

    /// As much of JSON Schema as the schema uses; what it does not know, it
    /// refuses.
    fn accepts(schema: &Json, root: &Json, value: &Json) -> bool {
        let map = match schema {
            Json::Bool(truth) => return *truth,
            other => other.as_object().expect("a schema"),
        };
        let all =
            |list: &Json| list.as_array().expect("schemas").iter().map(|s| accepts(s, root, value)).collect::<Vec<_>>();
        map.iter().all(|(keyword, rule)| match keyword.as_str() {
            "$ref" => accepts(root.pointer(&rule.as_str().expect("text")[1..]).expect("a definition"), root, value),
            "type" => {
                let kinds =
                    if rule.is_array() { rule.as_array().cloned().unwrap_or_default() } else { vec![rule.clone()] };
                kinds.iter().filter_map(Json::as_str).any(|kind| match kind {
                    "null" => value.is_null(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "string" => value.is_string(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("type {other}"),
                })
            }
            "anyOf" => all(rule).contains(&true),
            "oneOf" => all(rule).into_iter().filter(|holds| *holds).count() == 1,
            "allOf" => !all(rule).contains(&false),
            "const" => value == rule,
            "enum" => rule.as_array().expect("values").contains(value),
            "minimum" => value.as_f64().is_none_or(|v| v >= rule.as_f64().expect("a number")),
            "maxItems" => value.as_array().is_none_or(|v| v.len() as u64 <= rule.as_u64().expect("a count")),
            "minLength" => value.as_str().is_none_or(|v| v.chars().count() as u64 >= rule.as_u64().expect("a count")),
            "minItems" => value.as_array().is_none_or(|v| v.len() as u64 >= rule.as_u64().expect("a count")),
            "minProperties" => value.as_object().is_none_or(|v| v.len() as u64 >= rule.as_u64().expect("a count")),
            "pattern" => value.as_str().is_none_or(|text| match rule.as_str() {
                Some("\\$\\{") => text.contains("${"),
                Some(NAME) => crate::reference::is_name(text),
                other => panic!("pattern {other:?}"),
            }),
            "propertyNames" => {
                value.as_object().is_none_or(|v| v.keys().all(|key| accepts(rule, root, &Json::String(key.clone()))))
            }
            "required" => value.as_object().is_none_or(|v| {
                rule.as_array().expect("names").iter().filter_map(Json::as_str).all(|name| v.contains_key(name))
            }),
            "properties" => value.as_object().is_none_or(|v| {
                v.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| accepts(schema, root, value)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|v| {
                let known =
                    |key: &String| map.get("properties").is_some_and(|properties| properties.get(key).is_some());
                v.iter().filter(|(key, _)| !known(key)).all(|(_, value)| accepts(rule, root, value))
            }),
            "items" => value.as_array().is_none_or(|v| v.iter().all(|value| accepts(rule, root, value))),
            "if" => !accepts(rule, root, value) || map.get("then").is_none_or(|then| accepts(then, root, value)),
            "then" | "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
            other => panic!("keyword {other}"),
        })
    }

    fn valid(text: &str) -> bool {
        let schema = json_schema(TOYS);
        let file: Json = serde_yaml::from_str(text).expect("YAML");
        accepts(&schema, &schema, &file)
    }

    #[test]
    fn valid_files_are_accepted() {
        assert!(valid(BASE));
        assert!(valid("stages: {s: {op: sample, seed: 1, with: {n: '${k}', limits: {tokens: '${k}'}, stop: '${k}'}}}"));
        assert!(valid(
            "stages: {s: {op: merge, matrix: {include: [{a: 1}]}, inputs: {m: {a: [b, c]}}, resources: {mem: 1GiB}}}"
        ));
    }

    #[test]
    fn composed_files_are_accepted() {
        assert!(valid("include: [{file: a.yaml, prefix: a, vars: {x: 1}}, {file: '${b}'}]"));
        assert!(valid(
            "repeat: {r: {times: '${n}', stages: [s], carry: {p: [a, s]}}}\nstages: {s: {op: merge, when: '${w}'}}"
        ));
    }

    #[test]
    fn an_example_has_ports() {
        let sample = TOYS.iter().find(|entry| entry.name == "sample").and_then(example_ports).expect("ports");
        assert_eq!(sample.inputs.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["prompts", "model"]);
        assert_eq!(TOYS.iter().find(|entry| entry.name == "load").and_then(example_ports), None);
    }

    #[test]
    fn wrong_files_are_refused() {
        assert!(!valid("stages: {}"));
        assert!(!valid("name: x"));
        assert!(!valid("include: [{prefix: a}]"));
        assert!(!valid("repeat: {r: {times: 0, stages: [s]}}\nstages: {s: {op: merge}}"));
        assert!(!valid("stages: {s: {op: sampel}}"));
        assert!(!valid("stages: {s: {op: sample, with: {temprature: 1}}}"));
        assert!(!valid("stages: {s: {op: sample, with: {n: many}}}"));
        assert!(!valid("stages: {s: {op: sample, with: {limits: {token: 1}}}}"));
        assert!(!valid("stages: {s: {op: load}}"));
        assert!(!valid("stages: {s: {op: merge, when: 1}}"));
        assert!(!valid("stages: {s: {op: merge}}\ntables: {t: {sq: x}}"));
    }
}
