//! The JSON Schema that editors use: it is valid itself, takes every pipeline
//! and every example of ours, and refuses what the plan refuses.

use std::cmp::Reverse;

use fuseline_operators::ALL;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Value, json};

use crate::harness::{FUSION, Home, LONG};

fn schema() -> Value {
    serde_json::from_str(&Home::new().ok(&["schema"])).expect("the schema is JSON")
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).expect("the schema is valid")
}

/// YAML as an editor sees it: a secret is a text.
fn parse(yaml: &str) -> Value {
    serde_yaml::from_str(&yaml.replace("!secret ", "")).expect("YAML")
}

/// The deepest place where a value breaks the schema, with the reason; `None` if it fits.
fn refused(validator: &Validator, value: &Value) -> Option<String> {
    validator
        .iter_errors(value)
        .map(|error| deepest(&error))
        .min_by_key(|(depth, _)| Reverse(*depth))
        .map(|(_, text)| text)
}

fn deepest(error: &ValidationError<'_>) -> (usize, String) {
    let place = error.instance_path().to_string().trim_start_matches('/').replace('/', ".");
    let own = (place.split('.').count() - usize::from(place.is_empty()), format!("{place}: {error}"));
    let inner: Vec<(usize, String)> = match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            context.iter().flatten().map(deepest).collect()
        }
        _ => Vec::new(),
    };
    inner.into_iter().filter(|(depth, _)| *depth > own.0).max_by_key(|(depth, _)| *depth).unwrap_or(own)
}

#[test]
fn the_schema_is_valid_draft_2020_12() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
        panic!("{}: {error}", error.instance_path());
    }
}

#[test]
fn every_pipeline_and_every_example_passes() {
    let validator = validator();
    let home = Home::new();
    home.ok(&["init", "starter.yaml"]);
    let starter = std::fs::read_to_string(home.path("starter.yaml")).expect("a text");
    let mut files: Vec<(String, Value)> =
        vec![("fusion".into(), parse(FUSION)), ("long".into(), parse(LONG)), ("starter".into(), parse(&starter))];
    for path in crate::files(&crate::root().join("pipelines"), ".yaml") {
        files.push((path.display().to_string(), parse(&std::fs::read_to_string(&path).expect("a text"))));
    }
    for entry in ALL {
        files.push((format!("the example of {}", entry.name), json!({"stages": {"example": parse(entry.example)}})));
    }
    for (name, file) in files {
        assert_eq!(refused(&validator, &file), None, "{name}");
    }
}

#[test]
fn the_whole_language_passes() {
    let text = "\
include: [{file: a.yaml, prefix: a, vars: {n: 1}}, {file: '${b}'}]
vars: {b: b.yaml, on: true, times: 2}
repeat: {round: {times: '${times}', stages: [x], carry: {before: [start, x]}}}
stages:
  start: {op: sql, with: {sql: SELECT 1 AS x}, when: '${on}', tags: [slow], uncacheable: true, seed: 4}
  x: {op: sql, matrix: {k: [1], include: [{k: 2}], exclude: [{k: 1}]}, with: {sql: SELECT x FROM before}, resources: {cpus: 2, mem: 1GiB}}
";
    assert_eq!(refused(&validator(), &parse(text)), None);
}

#[test]
fn every_example_can_be_resolved() {
    for entry in ALL {
        let example = fuseline_engine::schema::example(entry).expect("YAML");
        assert_eq!(example["op"], entry.name);
        let parameters = example.get("with").cloned().unwrap_or_else(|| json!({}));
        let resolved = entry.resolve(&parameters).unwrap_or_else(|problems| panic!("{}: {problems:?}", entry.name));
        let known: Vec<&str> = resolved.ports.inputs.iter().map(|input| input.name.as_ref()).collect();
        for port in example["inputs"].as_object().into_iter().flat_map(|inputs| inputs.keys()) {
            assert!(known.contains(&port.as_str()), "{}: input {port} is not among {known:?}", entry.name);
        }
        // Defaults that are written out change nothing.
        let again = entry.resolve(&resolved.params).expect("resolved parameters are parameters");
        assert_eq!(again.key, resolved.key, "{}", entry.name);
    }
}

#[test]
fn broken_files_are_refused_where_they_are_broken() {
    let validator = validator();
    let broken = [
        ("unknown field at the top", FUSION.replace("seed: 7", "sead: 7"), ""),
        ("unknown operator", FUSION.replace("op: sft", "op: stf"), "stages.target.op"),
        ("unknown field of a stage", FUSION.replace("op: sft, inputs:", "op: sft, input:"), "stages.target"),
        ("unknown parameter", FUSION.replace("n: 2, max_tokens", "m: 2, max_tokens"), "stages.sampled.with"),
        ("a parameter that is missing", FUSION.replace("n: 2, max_tokens: 6", "n: 2"), "stages.sampled.with"),
        ("a wrong type", FUSION.replace("max_tokens: 6", "max_tokens: many"), "stages.sampled.with.max_tokens"),
        ("a word that is no choice", FUSION.replace("chat: chatml", "chat: chatter"), "stages.vocabulary.with.chat"),
        (
            "a wrong type below",
            FUSION.replace("steps: 2, batch_size: 4", "steps: 2, batch_size: [4]"),
            "stages.target.with.train",
        ),
        ("unknown parameter of a table", FUSION.replace("bold: max", "bald: max"), "tables.main.pivot"),
        ("no stages", "name: nothing\n".to_owned(), ""),
        (
            "a stage that may be left out",
            FUSION.replace("op: sft, inputs", "op: sft, when: maybe, inputs"),
            "stages.target.when",
        ),
        ("a repeat without times", format!("{FUSION}repeat: {{round: {{stages: [target]}}}}\n"), "repeat.round"),
        ("an included file without a name", format!("{FUSION}include: [{{prefix: a}}]\n"), "include.0"),
    ];
    for (what, text, place) in broken {
        assert_ne!(text, FUSION, "{what}: the edit misses its place");
        let found = refused(&validator, &parse(&text)).unwrap_or_else(|| panic!("{what} is not refused"));
        assert!(found.starts_with(&format!("{place}: ")) || found.starts_with(&format!("{place}.")), "{what}: {found}");
    }
}
