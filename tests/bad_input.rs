//! Whatever is wrong, there is one clear message with its place and what to do,
//! the exit code of who can act, no panic and nothing half done.

use std::path::Path;

use crate::harness::{Done, Home};

/// A pipeline that is right; each test breaks one thing in it.
const RIGHT: &str = "\
name: right
vars: {n: 2}
stages:
  prompts: {op: load, with: {path: prompts.jsonl, as: prompt}}
  vocabulary: {op: train_tokenizer, inputs: {texts: prompts}, with: {kind: byte_level_bpe, vocab_size: 280, chat: chatml}}
  model:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: llama, hidden_size: 8, intermediate_size: 8, layers: 1, heads: 2, max_positions: 64}
  answers:
    op: sample
    inputs: {prompts: prompts, model: model}
    with: {n: \"${n}\", max_tokens: 4, label: model}
tables:
  main: {sql: \"SELECT source, sample FROM answers ORDER BY sample\"}
";

const PROMPTS: &str = "{\"prompt\": \"what is 1 + 1?\", \"reference\": \"2\"}\n";

fn home(pipeline: &str) -> Home {
    let home = Home::new();
    home.write("p.yaml", pipeline);
    home.write("prompts.jsonl", PROMPTS);
    home
}

/// The right pipeline with something replaced.
fn edited(what: &str, with: &str) -> Home {
    assert!(RIGHT.contains(what), "{what:?} is not in the pipeline");
    home(&RIGHT.replace(what, with))
}

/// A message without the line of source text in it.
fn message(stderr: &str) -> String {
    let kept: Vec<&str> = stderr.lines().filter(|line| !line.contains(" | ")).collect();
    kept.join("\n")
}

/// `check` and `run` refuse the file with the same words, before anything is done.
#[track_caller]
fn refused(home: &Home, expected: &str) {
    for verb in ["check", "run"] {
        let done = home.fuseline(&[verb, "p.yaml"]);
        assert_eq!(message(&done.stderr), expected, "{verb}");
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{verb}");
        assert!(!home.path("store").exists(), "{verb} made a store");
    }
}

/// What a run that fails in a stage says of it.
#[track_caller]
fn failed(home: &Home, code: i32) -> String {
    let done = home.fuseline(&["run", "p.yaml"]);
    said(&done, code)
}

#[track_caller]
fn said(done: &Done, code: i32) -> String {
    assert_eq!(done.code, Some(code), "{}", done.stderr);
    assert!(!done.stderr.contains("panic"), "{}", done.stderr);
    let lines = done.stderr.lines().skip_while(|line| !line.starts_with("  failed ") && !line.starts_with("error"));
    // Stages that were running go on to their end after another failed.
    let of_others = |line: &str| ["  done ", "  start ", "  note "].iter().any(|word| line.starts_with(word));
    let own = lines.take_while(|line| !line.starts_with("run ")).filter(|line| !of_others(line)).map(str::trim);
    own.collect::<Vec<_>>().join("\n")
}

/// Where a file of this home is, as messages write it.
fn place(home: &Home, name: &str) -> String {
    let home = home.path(".").canonicalize().expect("the folder exists");
    home.join(name).display().to_string()
}

#[test]
fn the_right_one_runs() {
    let home = home(RIGHT);
    assert_eq!(home.ok(&["check", "p.yaml"]), "p.yaml: 5 stages, no problems\n");
    assert_eq!(home.ok(&["run", "p.yaml"]), "source  sample\n------  ------\nmodel        0\nmodel        1\n");
}

#[test]
fn unknown_operator() {
    refused(
        &edited("op: sample", "op: sampel"),
        "error: p.yaml:11:9: unknown operator \"sampel\"\n  \
         help: did you mean \"sample\"? `fuseline ops` lists them all",
    );
}

#[test]
fn unknown_parameter() {
    refused(
        &edited("n: \"${n}\"", "temprature: 1, n: \"${n}\""),
        "error: p.yaml:13:12: unknown parameter \"temprature\" of operator \"sample\"\n  \
         help: did you mean \"temperature\"?",
    );
}

#[test]
fn mistakes_in_an_included_file() {
    let home = home("include:\n  - {file: parts/a.yaml, prefix: a, vars: {n: 1, m: 2}}\n  - {file: parts/c.yaml}\n");
    std::fs::create_dir(home.path("parts")).expect("a folder of our own");
    home.write(
        "parts/a.yaml",
        "vars: {n: x}\nstages:\n  b: {op: sql, with: {sql: SELECT 1 AS x}, when: '${n}'}\n  c: {op: sql, with: {sql: SELECT x FROM d}}\n",
    );
    refused(
        &home,
        "error: p.yaml:2:44: variable \"n\": expected a text, found 1\n\
         error: p.yaml:2:50: unknown variable \"m\"\n  \
         help: expected n\n\
         error: p.yaml:3:12: \"parts/c.yaml\" does not exist\n  \
         help: did you mean \"parts/a.yaml\"? the path is taken from the folder of this file\n\
         error: parts/a.yaml:4:28: unknown stage \"d\"\n  \
         help: expected one of b, c",
    );
}

#[test]
fn a_carried_name_that_leads_nowhere() {
    let home = home(
        "repeat: {round: {times: 2, stages: [b], carry: {before: [a, c]}}}\n\
         stages:\n  a: {op: sql, with: {sql: SELECT 1 AS x}}\n  b: {op: sql, with: {sql: SELECT x FROM before}}\n",
    );
    refused(
        &home,
        "error: p.yaml:1:61: stage \"c\" is not repeated\n  help: expected b\n\
         error: p.yaml:4:28: unknown stage \"before\"\n  help: expected one of a, b",
    );
}

#[test]
fn a_secret_where_none_may_stand() {
    let home = home(
        "vars: {key: !secret API_KEY, n: 2}\nstages:\n  \
         a: {op: make_dataset, with: {split: train, tasks: {addition: !secret API_KEY}}}\n  \
         b: {op: sql, with: {sql: !secret sk-1}}\n",
    );
    refused(
        &home,
        "error: p.yaml:1:13: a secret may not stand here\n  \
         help: put it in a stage's parameter that is declared secret; `fuseline ops NAME` says which\n\
         error: p.yaml:3:64: parameter \"tasks.addition\" takes no secret\n  \
         help: operator \"make_dataset\" has no parameter that does\n\
         error: p.yaml:4:28: expected the name of an environment variable after !secret, found the text \"sk-1\"",
    );
    let said = home.fuseline(&["check", "p.yaml", "--set", "n=!secret X"]);
    assert!(said.stderr.contains("in `--set n=!secret X`: a variable holds no secret"), "{}", said.stderr);
}

#[test]
fn missing_parameter() {
    refused(
        &edited("max_tokens: 4, ", ""),
        "error: p.yaml:13:5: operator \"sample\" needs the parameter \"max_tokens\"\n  \
         help: add `max_tokens:` under `with`; `fuseline ops sample` explains it",
    );
}

#[test]
fn unknown_stage() {
    refused(
        &edited("model: model}", "model: modell}"),
        "error: p.yaml:12:39: unknown stage \"modell\"\n  help: did you mean \"model\"?",
    );
}

#[test]
fn unknown_output() {
    refused(
        &edited("prompts: prompts,", "prompts: prompts.row,"),
        "error: p.yaml:12:23: stage \"prompts\" has no output \"row\"\n  help: did you mean \"rows\"?",
    );
}

#[test]
fn unknown_port() {
    refused(
        &edited("{tokenizer: vocabulary}", "{tokenizer: vocabulary, texts: prompts}"),
        "error: p.yaml:8:37: unknown input \"texts\" of operator \"init_model\"\n  help: expected tokenizer",
    );
}

#[test]
fn unknown_variable() {
    refused(&edited("${n}", "${m}"), "error: p.yaml:13:15: unknown variable \"m\"\n  help: expected n");
}

#[test]
fn unknown_names_in_arguments() {
    let done = home(RIGHT).fuseline(&["plan", "p.yaml", "--set", "m=1", "--set", "answers.max_token=3"]);
    assert_eq!(done.code, Some(2));
    assert_eq!(
        message(&done.stderr),
        "error: in `--set m=1`: unknown variable \"m\"\n  help: expected n\n\
         error: in `--set answers.max_token=3`: unknown parameter \"max_token\" of operator \"sample\"\n  \
         help: did you mean \"max_tokens\"?"
    );
}

#[test]
fn cycle() {
    refused(
        &edited(
            "tables:",
            "  tuned: {op: merge, inputs: {models: other}, with: {how: {method: linear, weights: 1.0}}}\n  \
             other: {op: merge, inputs: {models: tuned}, with: {how: {method: linear, weights: 1.0}}}\ntables:",
        ),
        "error: p.yaml:14:39: stages form a cycle: tuned -> other -> tuned\n  \
         help: an input may not need, directly or not, the stage that takes it",
    );
}

#[test]
fn duplicate_stage() {
    refused(
        &edited("tables:", "  prompts: {op: load, with: {path: other.jsonl}}\ntables:"),
        "error: p.yaml:14:3: \"prompts\" stands here for the second time",
    );
}

#[test]
fn wrong_type() {
    refused(
        &edited("max_tokens: 4", "max_tokens: many"),
        "error: p.yaml:13:35: parameter \"max_tokens\": expected an integer from 0, found the text \"many\"",
    );
}

#[test]
fn a_row_type_that_does_not_fit() {
    refused(
        &edited("model: model}", "model: prompts}"),
        "error: p.yaml:12:39: \"prompts\" does not fit the input \"model\": a table of Prompt rows is not a model or \
         an endpoint\n  help: it takes a model or an endpoint",
    );
    refused(
        &edited("tables:", "  graded: {op: evaluate, inputs: {responses: answers}}\ntables:"),
        "error: p.yaml:14:46: \"answers\" does not fit the input \"responses\": \
         Response rows do not fit Scored rows: column \"reward\" is missing\n  help: it takes a table of Scored rows",
    );
}

#[test]
fn broken_yaml_and_no_file() {
    let done = home("name: [x\nstages: {}\n").fuseline(&["check", "p.yaml"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.starts_with("error: p.yaml:2:7: not valid YAML: "), "{}", done.stderr);
    let done = Home::new().fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.starts_with("error: p.yaml: failed to read the pipeline: "), "{}", done.stderr);
}

#[test]
fn missing_file() {
    let home = edited("prompts.jsonl", "prompt.jsonl");
    assert_eq!(home.fuseline(&["check", "p.yaml"]).code, Some(0), "check needs no data");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(
        (done.code, message(&done.stderr).as_str()),
        (Some(2), "error: p.yaml:4:36: \"prompt.jsonl\" does not exist\n  help: did you mean \"prompts.jsonl\"?")
    );
}

#[test]
fn empty_file() {
    let home = home(RIGHT);
    home.write("prompts.jsonl", "");
    assert_eq!(failed(&home, 2), format!("failed prompts: {} has no rows", place(&home, "prompts.jsonl")));
}

#[test]
fn empty_table() {
    let home = edited(
        "tables:",
        "  none: {op: sql, with: {as: response, sql: SELECT * FROM answers WHERE false}}\n  \
         graded: {op: verify, inputs: {responses: none}, with: {method: exact}}\ntables:",
    );
    assert_eq!(failed(&home, 2), "failed graded: the table bound to \"responses\" has no rows");
}

#[test]
fn truncated_json_lines() {
    let home = home(RIGHT);
    home.write("prompts.jsonl", format!("{PROMPTS}{}", &PROMPTS[..30]));
    let start = format!("failed prompts: {}:2: the line is not JSON: ", place(&home, "prompts.jsonl"));
    let said = failed(&home, 2);
    assert!(said.starts_with(&start), "{said}");
}

#[test]
fn truncated_parquet() {
    let home = edited("path: prompts.jsonl", "path: prompts.parquet");
    home.write("whole.yaml", RIGHT);
    home.ok(&["run", "whole.yaml", "--target", "prompts"]);
    let folder = home.ok(&["path", "whole.yaml", "prompts"]);
    let whole = std::fs::read(home.path(folder.trim()).join("data.parquet")).expect("a table");
    home.write("prompts.parquet", &whole[..whole.len() / 2]);
    let said = failed(&home, 2);
    let start = format!("failed prompts: failed to read {}: ", place(&home, "prompts.parquet"));
    assert!(said.starts_with(&start) && said.contains("help: the file may be truncated"), "{said}");
}

/// A home with a model folder `model` that is right, and a pipeline that imports it.
fn with_model() -> Home {
    let home = home(RIGHT);
    home.ok(&["run", "p.yaml", "--target", "model"]);
    let from = home.path(home.ok(&["path", "p.yaml", "model"]).trim());
    std::fs::create_dir(home.path("model")).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a model folder") {
        let entry = entry.expect("an entry");
        // Content only: files of the store are read-only.
        let content = std::fs::read(entry.path()).expect("a file");
        home.write(&format!("model/{}", entry.file_name().to_string_lossy()), content);
    }
    home.write("p.yaml", "stages: {model: {op: import_model, with: {from: model}}}\n");
    home
}

fn weights(home: &Home) -> std::path::PathBuf {
    home.path("model/model.safetensors")
}

#[test]
fn missing_weights() {
    let home = with_model();
    std::fs::remove_file(weights(&home)).expect("removed");
    let said = failed(&home, 2);
    let start = format!("failed model: no weights in {}: expected model.safetensors", place(&home, "model"));
    assert!(said.starts_with(&start) && said.contains("help: give a Hugging Face model folder"), "{said}");
}

#[test]
fn truncated_weights() {
    let home = with_model();
    let whole = std::fs::read(weights(&home)).expect("weights");
    std::fs::write(weights(&home), &whole[..whole.len() - 100]).expect("written");
    let said = failed(&home, 2);
    let start = format!("failed model: {} is ", place(&home, "model/model.safetensors"));
    assert!(said.starts_with(&start) && said.contains("help: the file was cut short"), "{said}");
    // Nothing of it is in the store.
    assert!(home.fuseline(&["path", "p.yaml", "model"]).stderr.contains("stage model has no result yet"));
}

#[test]
fn a_tokenizer_of_another_model() {
    let home = with_model();
    let config = std::fs::read_to_string(home.path("model/config.json")).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["vocab_size"] = 100.into();
    home.write("model/config.json", config.to_string());
    let said = failed(&home, 2);
    let start = format!("failed model: {}: it has ", place(&home, "model/tokenizer.json"));
    assert!(said.starts_with(&start) && said.contains("the model's embedding has 100 rows"), "{said}");
}

#[test]
fn a_full_disk() {
    let home = home(RIGHT);
    for point in ["outputs-written", "blob-synced", "record-written"] {
        let mut command = home.command(&["run", "p.yaml"]);
        let done = Done::of(command.env("FUSELINE_FAULT", format!("{point}:full")).output().expect("it starts"));
        let said = said(&done, 3);
        assert!(
            said.starts_with("failed prompts: failed to write ") && said.contains("No space left on device"),
            "{said}"
        );
        assert!(said.ends_with("help: free some disk space, then run again: finished stages are kept"), "{said}");
    }
    home.ok(&["run", "p.yaml"]);
}

#[test]
fn a_store_that_cannot_be_written() {
    let home = home(RIGHT);
    home.write("file", "");
    // Not below a folder that is only write-protected: root may write there too.
    let mut stores = vec!["file", "file/store"];
    if Path::new("/proc/self").exists() {
        stores.push("/proc/store");
    }
    for store in stores {
        let done = home.fuseline(&["--store", store, "run", "p.yaml"]);
        let said = said(&done, 3);
        assert!(said.starts_with("error: failed to ") && said.contains(store), "{said}");
        assert!(said.contains("help: choose a folder that you may write with --store DIR or FUSELINE_STORE"), "{said}");
    }
}

#[test]
fn a_folder_that_is_no_store() {
    let home = home(RIGHT);
    let done = home.fuseline(&["--store", ".", "run", "p.yaml"]);
    let said = said(&done, 2);
    assert!(said.contains("is not a fuseline store: it holds other files"), "{said}");
    assert!(said.contains("help: choose an empty or new folder"), "{said}");
}
