//! Killed runs: at any moment, at most the unfinished stages are lost, and the
//! next run gives the same bytes.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fuseline_engine::store::fault::POINTS;

use crate::harness::{Done, Home, LONG};

/// The tables of the uninterrupted run as CSV, made once for tests that run at the same time.
fn uninterrupted() -> Arc<String> {
    static SHARED: Mutex<Weak<String>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tables) = shared.upgrade() {
        return tables;
    }
    let home = Home::new();
    home.write("long.yaml", LONG);
    home.ok(&["run", "long.yaml"]);
    let tables = Arc::new(tables(&home));
    *shared = Arc::downgrade(&tables);
    tables
}

fn tables(home: &Home) -> String {
    home.ok(&["table", "long.yaml", "--format", "csv"])
}

/// What `ls` says of a stage.
fn state(home: &Home, pipeline: &str, stage: &str) -> String {
    let listed: serde_json::Value =
        serde_json::from_str(&home.ok(&["ls", pipeline, "--json"])).expect("ls prints JSON");
    let row = listed.as_array().expect("a list").iter().find(|row| row["stage"] == stage);
    row.expect("the stage is listed")["state"].as_str().expect("a state").to_owned()
}

fn killed_during(stage: &str) {
    let expected = uninterrupted();
    let home = Home::new();
    home.write("long.yaml", LONG);
    let mut run = home.start_until("long.yaml", stage);
    run.kill().expect("the run can be killed");
    run.wait().expect("the run ends");
    home.wait_for_workers();
    assert_eq!(state(&home, "long.yaml", stage), "to run");
    assert_eq!(state(&home, "long.yaml", "lessons"), "cached");
    let again = home.ran("long.yaml", &[]);
    assert!(again.contains(&stage.to_owned()) && !again.contains(&"lessons".to_owned()), "{again:?}");
    assert_eq!(tables(&home), *expected);
}

#[test]
fn killed_while_training() {
    killed_during("tuned");
}

#[test]
fn killed_while_sampling() {
    killed_during("answers");
}

#[test]
fn interrupted_while_training() {
    let expected = uninterrupted();
    let home = Home::new();
    home.write("long.yaml", LONG);
    let run = home.start_until("long.yaml", "tuned");
    let sent = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill starts");
    assert!(sent.success());
    let done = Done::of(run.wait_with_output().expect("the run ends"));
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("finished stages are kept"), "{}", done.stderr);
    assert!(!done.stderr.contains("panic"), "{}", done.stderr);
    assert_eq!(home.workers(), [""; 0], "a worker outlived the run");
    assert_eq!(state(&home, "long.yaml", "tuned"), "to run");
    home.ok(&["run", "long.yaml"]);
    assert_eq!(tables(&home), *expected);
}

/// A stage of this process, then one of a worker.
const TWO: &str = "\
name: two
seed: 1
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 8}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: unigram, vocab_size: 290, chat: gemma}}
";

/// The lessons and the vocabulary.
fn results(home: &Home) -> (String, Vec<u8>) {
    let lessons = home.ok(&["sql", "two.yaml", "SELECT * FROM lessons.examples", "--format", "json"]);
    let folder = home.ok(&["path", "two.yaml", "vocabulary"]);
    let vocabulary = std::fs::read(home.path(folder.trim()).join("tokenizer.json")).expect("a tokenizer");
    (lessons, vocabulary)
}

#[test]
fn killed_at_every_point_of_publication() {
    let whole = Home::new();
    whole.write("two.yaml", TWO);
    whole.ok(&["run", "two.yaml"]);
    let expected = results(&whole);
    for point in POINTS {
        let home = Home::new();
        home.write("two.yaml", TWO);
        let fault = format!("{point}:kill");
        // The driver dies of it in its own first stage.
        let output = home.command(&["run", "two.yaml"]).env("FUSELINE_FAULT", &fault).output().expect("starts");
        assert_eq!(output.status.code(), None, "{point}: the driver is killed");
        home.ok(&["run", "two.yaml", "--target", "lessons"]);
        // The worker dies of it and the driver tells, or finds the result complete;
        // the last point is passed by the driver alone.
        let output = home.command(&["run", "two.yaml"]).env("FUSELINE_FAULT", &fault).output().expect("starts");
        let done = Done::of(output);
        let (code, told) = match point {
            "work-removed" => (None, false),
            "record-linked" => (Some(0), false),
            _ => (Some(3), true),
        };
        assert_eq!((done.code, done.stderr.contains("was killed")), (code, told), "{point}: {}", done.stderr);
        home.ok(&["run", "two.yaml"]);
        assert_eq!(results(&home), expected, "{point}");
        let left: Vec<_> = std::fs::read_dir(home.path("store/work")).expect("the store has it").collect();
        assert!(left.is_empty(), "{point}: {left:?}");
    }
}
