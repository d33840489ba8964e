//! The JSON Schema that editors use: it takes every pipeline and every example
//! of ours, and refuses what the plan refuses.

mod validate;

use fuseline_operators::ALL;
use serde_json::{Value, json};

use crate::harness::{FUSION, Home, LONG};
use validate::refused;

fn schema() -> Value {
    serde_json::from_str(&Home::new().ok(&["schema"])).expect("the schema is JSON")
}

fn parse(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).expect("YAML")
}

#[test]
fn every_pipeline_and_every_example_passes() {
    let schema = schema();
    let mut files: Vec<(String, Value)> = vec![("fusion".into(), parse(FUSION)), ("long".into(), parse(LONG))];
    for path in crate::files(&crate::root().join("pipelines"), ".yaml") {
        files.push((path.display().to_string(), parse(&std::fs::read_to_string(&path).expect("a text"))));
    }
    for entry in ALL {
        files.push((format!("the example of {}", entry.name), json!({"stages": {"example": parse(entry.example)}})));
    }
    for (name, file) in files {
        assert_eq!(refused(&schema, &file), None, "{name}");
    }
}

#[test]
fn every_example_can_be_resolved() {
    for entry in ALL {
        let example = parse(entry.example);
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
    let schema = schema();
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
    ];
    for (what, text, place) in broken {
        assert_ne!(text, FUSION, "{what}: the edit misses its place");
        let found = refused(&schema, &parse(&text)).unwrap_or_else(|| panic!("{what} is not refused"));
        assert!(found.starts_with(&format!("{place}: ")) || found.starts_with(&format!("{place}.")), "{what}: {found}");
    }
}
