//! The parameters of `command`; programs are run by the whole-program tests.

use super::*;

fn config(yaml: serde_json::Value) -> Config {
    serde_json::from_value(yaml).expect("parameters")
}

fn problems(params: serde_json::Value) -> Vec<String> {
    let mut problems = Problems::default();
    Command::check(&config(params), &mut problems);
    problems.0.into_iter().map(|problem| format!("{}: {}", problem.path.join("."), problem.message)).collect()
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let found = problems(serde_json::json!({
        "program": "awk",
        "args": ["{print $1}", "{input.promts}", "--to={output.rows.xml}", "x{input.many}", "{output.tuned.csv}", "{file.a}"],
        "inputs": {"prompts": "prompt", "many": "models"},
        "outputs": {"rows": "table", "tuned": "model", "Bad": "table", "several": "models"},
        "env": ["A", "A=B", "FUSELINE_IO"],
        "set_env": {"A": "1"},
        "timeout_seconds": 0.0,
    }));
    assert_eq!(
        found,
        [
            "outputs: \"Bad\" is no name: expected a lower-case letter, then letters, digits and _",
            "outputs.several: `models` is an input only; expected a row type, table or model",
            "args.1: {input.promts} means the input \"promts\", and `inputs` has many, prompts",
            "args.2: {output.rows.xml}: expected parquet, jsonl, csv behind the name",
            "args.3: {input.many} is several folders; it must stand alone in its argument",
            "args.4: {output.tuned.csv}: a model is a folder",
            "args.5: {file.a} means the file \"a\", and `files` has none",
            "env: \"A=B\" is not a variable's name",
            "env: FUSELINE_IO is set for the program already",
            "set_env: A is given twice; expected it once",
            "timeout_seconds: is 0; expected a number above 0",
        ]
    );
}

#[test]
fn braces_of_the_programs_own_are_left_alone() {
    let own = "{print $1} {\"a\": {}} {x.y} {input} {outputs.rows} {scratch} {input.rows}";
    assert_eq!(io::placeholders(own).collect::<Vec<_>>(), ["scratch", "input.rows"]);
}

#[test]
fn the_key_holds_bytes_and_not_where_they_lie() {
    let entry = fuseline_contract::Entry::of::<Command>();
    let params = serde_json::json!({
        "program": "sh", "files": {"script": "a/b.sh"}, "outputs": {"rows": "table"},
        "env": ["HF_HOME"], "set_env": {"K": "v"}, "timeout_seconds": 5.0,
    });
    let resolved = entry.resolve(&params).expect("sound");
    let named: Vec<&str> = resolved.files.iter().map(|file| &*file.parameter).collect();
    assert_eq!(named, ["program", "files.script"]);
    assert!(resolved.files[0].path.is_absolute(), "{:?}", resolved.files[0].path);
    assert_eq!(resolved.environment, ["HF_HOME"]);
    let key = serde_json::to_string(&resolved.key.to_json()).expect("JSON");
    for absent in ["\"sh\"", "b.sh", "HF_HOME", "timeout", "program"] {
        assert!(!key.contains(absent), "{absent} in {key}");
    }
    assert!(key.contains("\"K\":\"v\""), "{key}");
}

#[test]
fn a_script_brings_its_interpreter() {
    let home = tempfile::tempdir().expect("a folder");
    let script = |line: &str| {
        let path = home.path().join("script");
        std::fs::write(&path, format!("{line}\nexit\n")).expect("written");
        interpreter(&path)
    };
    assert_eq!(script("#!/bin/bash -e"), Some(PathBuf::from("/bin/bash")));
    assert_eq!(script("#!/usr/bin/env -S A=1 sh -e"), Some(find("sh")));
    assert!(find("sh").is_absolute());
    assert_eq!(script("exit 0"), None);
    assert_eq!(interpreter(&home.path().join("nowhere")), None);
    assert_eq!(find("no-such-program-here"), PathBuf::from("no-such-program-here"));
}
