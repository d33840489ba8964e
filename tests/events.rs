//! What `run --json` prints is what `schema --events` says: every line of real
//! runs fits, and a line with anything else in it does not.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::{FUSION, Home};

fn schema() -> Value {
    serde_json::from_str(&Home::new().ok(&["schema", "--events"])).expect("the schema is JSON")
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("events are JSON")).collect()
}

/// What an event is, with its outcome if it has one.
fn kind(event: &Value) -> String {
    let outcome = event["outcome"]["outcome"].as_str().map(|outcome| format!(" {outcome}")).unwrap_or_default();
    format!("{}{outcome}", event["event"].as_str().expect("every event says what it is"))
}

fn fits(validator: &Validator, event: &Value) {
    if let Err(error) = validator.validate(event) {
        panic!("{}: {error}\n{event}", error.instance_path());
    }
}

/// Every object within a value, by the way to it.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(at.to_owned());
            map.iter().for_each(|(name, inner)| objects(inner, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| objects(inner, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn the_schema_of_events_is_valid_and_tells_what_everything_is() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
        panic!("{}: {error}", error.instance_path());
    }
    let mut places = Vec::new();
    objects(&schema, "", &mut places);
    for place in places.iter().filter(|place| place.ends_with("/properties")) {
        for (name, property) in schema.pointer(place).and_then(Value::as_object).expect("properties") {
            let said = property.get("description").is_some() || property.get("const").is_some();
            assert!(said, "{place}/{name} has no description");
        }
    }
}

#[test]
fn every_event_of_real_runs_fits_the_schema_and_nothing_else_does() {
    let validator = jsonschema::draft202012::new(&schema()).expect("the schema is valid");
    let home = Home::new();
    home.write(
        "p.yaml",
        format!(
            "name: p\nstages:\n  fine: {{op: sql, with: {{sql: SELECT 1 AS a}}}}\n  flaky:\n    op: command\n    \
             retry: {{times: 1, backoff: 0}}\n    with:\n      program: sh\n      args: ['{{file.script}}', '{{output.rows.jsonl}}']\n      \
             files: {{script: script.sh}}\n      set_env: {{HERE: '{}'}}\n      outputs: {{rows: table}}\n  \
             broken: {{op: command, with: {{program: sh, args: [-c, 'echo why >&2; exit 3'], outputs: {{rows: table}}}}}}\n  \
             behind: {{op: sql, with: {{sql: SELECT * FROM broken}}}}\n",
            home.path("").display()
        ),
    );
    home.write(
        "script.sh",
        "echo '{\"progress\": {\"done\": 1, \"total\": 2}}'\necho '{\"note\": \"half\"}'\n\
         test -e $HERE/tried || { touch $HERE/tried; exit 75; }\necho '{\"a\": 1}' > $1\n",
    );
    // A remote store that is no folder.
    home.write("remote", "");
    let remote = format!("file://{}", home.path("remote").display());
    let first = home.fuseline(&["run", "p.yaml", "--json", "--keep-going", "--remote", &remote]);
    assert_eq!(first.code, Some(1), "{}", first.stderr);
    let second = home.fuseline(&["run", "p.yaml", "--json", "--target", "flaky"]);
    home.write("fusion.yaml", FUSION);
    let third = home.ok(&["run", "fusion.yaml", "--json", "--target", "dpo"]);

    let all = events(&[first.stdout, second.stdout, third].concat());
    let kinds: BTreeSet<String> = all.iter().map(kind).collect();
    let expected = [
        "note",
        "progress",
        "run_ended",
        "run_started",
        "stage_ended failed",
        "stage_ended hit",
        "stage_ended ran",
        "stage_ended skipped",
        "stage_started",
        "warning",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert!(all.iter().any(|event| event["memo"]["fresh"].as_u64() > Some(0)), "no rows were remembered");
    for event in &all {
        fits(&validator, event);
        let mut places = Vec::new();
        objects(event, "", &mut places);
        for place in places.iter().filter(|place| !place.ends_with("/axes")) {
            let mut more = event.clone();
            more.pointer_mut(place).expect("it is there")["surprise"] = json!("none");
            assert!(!validator.is_valid(&more), "{place} takes a field that is not described: {more}");
        }
        let mut less = event.clone();
        less.as_object_mut().expect("an object").remove("event");
        assert!(!validator.is_valid(&less), "an event need not say what it is");
    }
}
