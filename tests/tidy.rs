//! House rules that a machine can check.

use std::collections::BTreeSet;

/// Files longer than the limit, with the reason.
const LONG: &[(&str, &str)] = &[];

#[test]
fn every_file_says_what_it_is_for() {
    for path in super::sources(".rs") {
        let text = std::fs::read_to_string(&path).expect("a text");
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

#[test]
fn no_file_is_long_without_a_reason() {
    let root = super::root();
    for path in super::sources(".rs") {
        let lines = std::fs::read_to_string(&path).expect("a text").lines().count();
        let relative = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        let excused = LONG.iter().any(|(long, _)| *long == relative);
        assert!(lines <= 800 || excused, "{relative} has {lines} lines: find the seam, or write down why");
    }
}

#[test]
fn nothing_unfinished_is_left() {
    // Spelled apart, so that this file does not find itself.
    let marks = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("FIX", "ME"), concat!("db", "g!(")];
    for path in super::sources(".rs") {
        let text = std::fs::read_to_string(&path).expect("a text");
        for mark in marks {
            assert!(!text.contains(mark), "{} has {mark}", path.display());
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let allowed = ["src/metrics/sandbox/", "src/torch/", "src/weights/"];
    let word = concat!("uns", "afe ");
    let root = super::root();
    for path in super::sources(".rs") {
        let relative = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a text");
        let code = text.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
        assert!(!code || allowed.iter().any(|folder| relative.starts_with(folder)), "{relative}");
    }
}

#[test]
fn every_test_file_is_included() {
    let main = std::fs::read_to_string(super::root().join("tests/main.rs")).expect("a text");
    let included: BTreeSet<String> = main
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("mod ")?.trim_end_matches(';').to_owned()))
        .collect();
    for entry in std::fs::read_dir(super::root().join("tests")).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(included.contains(module), "tests/{name} is not included in tests/main.rs");
        }
    }
}

#[test]
fn every_operator_file_is_listed() {
    let list = std::fs::read_to_string(super::root().join("operators/lib.rs")).expect("a text");
    for entry in std::fs::read_dir(super::root().join("operators")).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "lib") {
            assert!(list.contains(&format!("mod {module};")), "operators/{name} is not listed in operators/lib.rs");
        }
    }
}
