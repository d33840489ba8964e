//! A planted secret is found nowhere: not under the store, not in what is
//! reported, not on a command line.
//!
//! Cargo's own variables stand in for secrets: they are in the environment of
//! this test and are passed to a worker only by name.

use super::*;

/// A variable with a value that nothing else here holds.
const NAME: &str = "CARGO_MANIFEST_DIR";

/// A plan whose stage says the secret wherever it can.
fn blabbing(operator: &str) -> Plan {
    plan(vec![node("told", operator, json!({"n": 1, "key": {"!secret": NAME}}), &[])])
}

fn value() -> String {
    std::env::var(NAME).expect("cargo sets it for tests")
}

/// Every file under a folder, with its bytes; a name counts as bytes too.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let mut bytes = fs::read(&path).expect("a file");
            bytes.extend(path.to_string_lossy().bytes());
            found.push((path, bytes));
        }
    }
    found
}

fn holds(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

#[track_caller]
fn nowhere(bench: &Bench, events: &[Event]) {
    let files = contents(bench.store.root());
    assert!(files.len() > 3, "the search reads files");
    for (path, bytes) in &files {
        assert!(!holds(bytes, &value()), "{} holds the secret", path.display());
    }
    let events = serde_json::to_string(events).expect("events are data");
    assert!(!events.contains(&value()), "{events}");
}

#[test]
fn secret_is_found_nowhere_after_a_stage_on_a_thread() {
    let bench = Bench::new();
    let (summary, events) = bench.run_with(&blabbing("blab"), &bench.options());
    assert_eq!(summary.cause, None, "{:?}", summary.failed);
    // The operator had the value: it wrote its length.
    assert_eq!(bench.values(&summary, 0), [value().len() as i64]);
    let notes: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Note { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(notes, [format!("the key is [secret {NAME}]")]);
    nowhere(&bench, &events);
    let mut failing = blabbing("blab");
    Arc::make_mut(&mut failing.nodes[0].resolved).params["n"] = json!(0);
    Arc::make_mut(&mut failing.nodes[0].resolved).key = Value::Null;
    let (summary, events) = bench.run_with(&failing, &bench.options());
    assert_eq!(summary.failed[0].1.message, format!("it was not [secret {NAME}]"));
    nowhere(&bench, &events);
}

#[test]
fn secret_is_found_nowhere_after_a_worker() {
    let bench = Bench::new();
    let test = std::env::current_exe().expect("this program");
    let entry = "schedule::tests::worker_main --exact --ignored --nocapture";
    let text = format!("ATTEMPT=\"$1\" exec {} {entry}", test.display());
    let (summary, events) = bench.run_with(&blabbing("blab_far"), &script(&bench, &text));
    assert_eq!(summary.cause, None, "{:?}", summary.failed);
    assert_eq!(bench.values(&summary, 0), [value().len() as i64]);
    nowhere(&bench, &events);
    let logs: Vec<_> = contents(bench.store.root())
        .into_iter()
        .filter(|(_, bytes)| {
            holds(bytes, &format!("stdout: [secret {NAME}]")) || holds(bytes, &format!("stderr: [secret {NAME}]"))
        })
        .collect();
    assert_eq!(logs.len(), 2, "both logs were kept, without the value");
}

#[test]
fn secret_is_not_in_the_key() {
    let entry = ENTRIES.iter().find(|entry| entry.name == "blab").expect("a toy");
    let key = |params| entry.resolve(&params).expect("good").key;
    assert_eq!(key(json!({"key": {"!secret": "A"}})), key(json!({"key": {"!secret": "B"}})));
    assert_eq!(key(json!({"key": {"!secret": "A"}})), key(json!({})));
}

#[test]
fn a_secret_that_is_not_set_is_an_error_that_says_what_to_do() {
    let bench = Bench::new();
    let plan = plan(vec![node("told", "blab", json!({"key": {"!secret": "FUSELINE_TEST_NOT_SET"}}), &[])]);
    let error = bench.run(&plan).failed[0].1.clone();
    assert_eq!((error.cause, error.message.as_str()), (Cause::Input, "the secret FUSELINE_TEST_NOT_SET is not set"));
    assert!(error.hint.is_some_and(|hint| hint.starts_with("export FUSELINE_TEST_NOT_SET, or put a line")));
}
