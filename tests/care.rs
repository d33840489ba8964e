//! Care of a store: what takes room, what may go, what is damaged.

use std::process::Stdio;

use serde_json::Value;

use crate::crash::{SMALL, TWO, results};
use crate::harness::{Done, Home, fused, ran};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it prints JSON")
}

/// A working directory in which `two.yaml` has run.
fn two() -> Home {
    let home = Home::new();
    home.write("two.yaml", TWO);
    home.ok(&["run", "two.yaml"]);
    home
}

#[test]
fn damage_is_found_moved_aside_and_made_good_by_a_run() {
    let home = two();
    let expected = results(&home);
    assert!(home.ok(&["fsck"]).contains("the store is whole"));
    let tokenizer = home.path(home.ok(&["path", "two.yaml", "vocabulary"]).trim()).join("tokenizer.json");
    let mut bytes = std::fs::read(&tokenizer).expect("a tokenizer");
    bytes[100] ^= 1;
    std::fs::remove_file(&tokenizer).expect("only the view's name of it");
    std::fs::write(&tokenizer, &bytes).expect("written");
    let found = json(&home.fuseline(&["fsck", "--json"]).stdout);
    assert_eq!(found["findings"][0]["damage"], "view-wrong", "{found}");

    // A blob of another size is seen without reading; one byte of it only by reading.
    let blobs = crate::files(&home.path("store/cas"), "");
    let blob = blobs.iter().max_by_key(|path| path.metadata().expect("there").len()).expect("the tokenizer");
    let whole = std::fs::read(blob).expect("read");
    std::fs::remove_file(blob).expect("removed");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(blob, flipped).expect("written");
    let fast = json(&home.fuseline(&["fsck", "--fast", "--json"]).stdout);
    let damages = |report: &Value| -> Vec<String> {
        let findings = report["findings"].as_array().expect("a list").iter();
        findings.map(|finding| finding["damage"].as_str().expect("a text").to_owned()).collect()
    };
    assert_eq!(damages(&fast), ["view-wrong"]);
    let full = home.fuseline(&["fsck", "--json"]);
    assert_eq!(
        (full.code, damages(&json(&full.stdout))),
        (Some(3), ["blob-corrupt", "record-dangling", "view-wrong"].map(str::to_owned).to_vec())
    );
    let said = home.fuseline(&["fsck"]).stdout;
    assert!(said.contains("train_tokenizer") && said.contains("fuseline fsck --repair"), "{said}");

    let repaired = home.ok(&["fsck", "--repair"]);
    assert!(repaired.contains("whole again"), "{repaired}");
    assert!(home.ok(&["fsck"]).contains("quarantine/ holds 3 files"));
    assert_eq!(home.ran("two.yaml", &[]), ["vocabulary"]);
    assert_eq!(results(&home), expected);
    assert!(home.ok(&["fsck"]).contains("the store is whole"));
}

#[test]
fn room_is_counted_once_and_by_stage() {
    let home = two();
    let report = json(&home.ok(&["du", "two.yaml", "--json"]));
    let stages = report["stages"].as_array().expect("a list");
    assert_eq!(stages.iter().map(|stage| &stage["stage"]).collect::<Vec<_>>(), ["lessons", "vocabulary"]);
    let own: u64 = stages.iter().map(|stage| stage["own_bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(report["bytes"], own);
    let folders: u64 = report["folders"].as_object().expect("folders").values().filter_map(Value::as_u64).sum();
    assert_eq!(report["store_bytes"], folders);
    assert!(report["folders"]["cas"].as_u64() >= report["bytes"].as_u64(), "{report}");
    assert_eq!(report["folders"]["views"], 0, "views are links to blobs");
    assert!(home.ok(&["du", "two.yaml"]).contains("all of the store"));
}

#[test]
fn remembered_rows_are_counted_checked_and_let_go_of_by_name() {
    let home = fused();
    let report = json(&home.ok(&["du", "fusion.yaml", "--json"]));
    let rows = report["memo"].as_array().expect("a list").iter().find(|of| of["function"] == "sample");
    let rows = rows.expect("answers are remembered")["rows"].as_u64().expect("rows");
    assert!(rows > 0);
    assert!(home.ok(&["du", "fusion.yaml"]).contains(&format!("sample, {rows} rows")));
    assert!(json(&home.ok(&["fsck", "--json"]))["rows"].as_u64() >= Some(rows));
    let look = home.ok(&["gc", "--memo", "sample", "--min-age", "0"]);
    assert!(look.contains(&format!("would go: {rows} remembered rows of sample")), "{look}");
    assert!(home.ok(&["gc", "--memo", "sample"]).contains("would go: 0 remembered rows of sample"));
    let unknown = home.fuseline(&["gc", "--memo", "simple"]);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("help: rows are remembered of: ") && unknown.stderr.contains("sample"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn garbage_goes_only_when_asked_and_pins_stay() {
    let home = two();
    home.ok(&["pin", "keep-1", "two.yaml", "vocabulary"]);
    let taken = home.fuseline(&["pin", "keep-1", "two.yaml", "lessons"]);
    assert_eq!(taken.code, Some(2));
    assert!(taken.stderr.contains("fuseline unpin keep-1"), "{}", taken.stderr);
    assert!(home.ok(&["pins"]).contains("keep-1"));
    home.ok(&["run", "two.yaml", "--set", "lessons.tasks={reverse_word: 9}"]);
    let everything = ["gc", "--min-age", "0", "--keep-runs", "0"];
    let with = |more: &[&str]| json(&home.ok(&[&everything[..], more, &["--json"]].concat()));
    let look = with(&[]);
    let stages = |report: &Value| -> Vec<String> {
        let records = report["records"].as_array().expect("a list").iter();
        let mut stages: Vec<_> = records.map(|record| record["stage"].as_str().expect("a text").to_owned()).collect();
        stages.sort();
        stages
    };
    assert_eq!((stages(&look), &look["done"]), (["lessons", "vocabulary"].map(str::to_owned).to_vec(), &false.into()));
    assert_eq!(home.ran("two.yaml", &["--set", "lessons.tasks={reverse_word: 9}"]), [""; 0], "a look takes nothing");
    let text = home.ok(&everything);
    assert!(text.contains("would go: 2 results") && text.contains("--yes"), "{text}");
    let done = with(&["--yes"]);
    assert_eq!((stages(&done), &done["done"]), (stages(&look), &true.into()));
    assert_eq!(home.ran("two.yaml", &[]), [""; 0], "the pinned results are all there, inputs too");
    assert_eq!(home.ran("two.yaml", &["--set", "lessons.tasks={reverse_word: 9}"]), ["lessons", "vocabulary"]);
    home.ok(&["unpin", "keep-1"]);
    let unknown = home.fuseline(&["unpin", "keep-1"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(with(&["--yes"])["emptied"]["bytes"].as_u64() > Some(0));
    assert!(home.ok(&["fsck"]).contains("the store is whole"));
}

#[test]
fn a_store_that_is_not_there_is_not_an_empty_one() {
    let home = Home::new();
    for verb in [&["fsck"][..], &["gc"], &["pins"], &["unpin", "x"]] {
        let done = home.fuseline(verb);
        assert_eq!(done.code, Some(2), "{verb:?}");
        assert!(done.stderr.contains("--store"), "{}", done.stderr);
    }
    let wrong = two().fuseline(&["gc", "--min-age", "fortnight"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("14d"), "{}", wrong.stderr);
}

#[test]
fn ask_28_two_runs_at_once_make_each_stage_once() {
    let home = Home::new();
    home.write("small.yaml", SMALL);
    let start = || {
        let mut command = home.command(&["run", "small.yaml", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let runs = [start(), start()].map(|run| Done::of(run.wait_with_output().expect("the run ends")));
    let mut made = Vec::new();
    for done in &runs {
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        made.extend(ran(&done.stdout));
    }
    made.sort();
    let mut once = made.clone();
    once.dedup();
    assert_eq!(made, once, "a stage was made twice");
    assert_eq!(made.len(), 11);
    assert!(home.ok(&["fsck"]).contains("the store is whole"));
    for folder in ["work", "leases", "locks", "tmp"] {
        assert_eq!(std::fs::read_dir(home.path("store").join(folder)).expect("a folder").count(), 0, "{folder}");
    }
}
