//! What is read from outside is mutated at random: whatever comes, there is no
//! panic, and what is accepted means what it says.
//!
//! A test runs a few thousand executions from a fixed start; `make fuzz` a
//! million of each target. A new target is a folder of seeds under
//! `tests/fuzz/seeds` and a test that calls [`fuzz`].

mod mutate;
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use fuseline_contract::Digest;
use fuseline_engine::problem::Place;
use fuseline_engine::store::manifest::{Manifest, OutputRecord, Record};
use fuseline_engine::{Settings, Store, load_text};
use fuseline_operators::ALL;

use crate::harness::Home;
use mutate::Mutator;
pub use mutate::Random;

/// Executions of a target in a test.
const EXECUTIONS: u64 = 2000;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, expected a number")),
        Err(_) => default,
    }
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = crate::files(&crate::root().join("tests/fuzz/seeds").join(target), "");
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("a seed")).collect();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

/// Runs a check on mutated seeds; FUSELINE_FUZZ says how often, FUSELINE_FUZZ_START
/// where random numbers begin.
pub fn fuzz(target: &str, seeds: Vec<Vec<u8>>, words: &[&str], mut check: impl FnMut(&[u8]) -> bool) {
    let executions = number("FUSELINE_FUZZ", EXECUTIONS);
    let start = number("FUSELINE_FUZZ_START", 1);
    let mut mutator = Mutator { random: Random(start), seeds, words };
    let (clock, mut slowest, mut accepted) = (Instant::now(), Duration::ZERO, 0u64);
    let mut run = |input: &[u8]| {
        let one = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| check(input))) {
            Ok(taken) => accepted += u64::from(taken),
            Err(_) => panic!("{target}: this input fails:\n{}", String::from_utf8_lossy(input)),
        }
        slowest = slowest.max(one.elapsed());
    };
    mutator.seeds.clone().iter().for_each(|seed| run(seed));
    for _ in 0..executions {
        run(&mutator.next());
    }
    assert!(accepted > 0, "{target}: nothing was ever accepted, so nothing was tried");
    println!(
        "{target}: {executions} executions in {:.1} s, {accepted} accepted, the slowest took {slowest:?}",
        clock.elapsed().as_secs_f64()
    );
}

/// Words of the language, so that mutations often stay in it.
const PIPELINE: &[&str] = &[
    "name: ",
    "seed: ",
    "vars: ",
    "stages:\n",
    "tables:\n",
    "include: ",
    "repeat: ",
    "op: ",
    "inputs: ",
    "with: ",
    "matrix: ",
    "when: ",
    "tags: ",
    "resources: ",
    "uncacheable: true",
    "exclude: ",
    "file: ",
    "prefix: ",
    "times: 2",
    "carry: ",
    "!secret KEY",
    "!!str ",
    "${",
    "}",
    "$${",
    "${n}",
    "&a ",
    "*a",
    "<<: *a",
    "~",
    "true",
    "-1",
    "1e999",
    ".nan",
    "18446744073709551616",
    "0x7f",
    "'",
    "\"",
    "|\n",
    ">\n",
    "? ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "\t",
    "\u{feff}",
    "\u{0}",
    "é",
    "sql",
    "load",
    "sample",
    "make_dataset",
    "SELECT x FROM a",
    "[a=1]",
    "a[b=c].d",
    "tables.t",
    "system",
];

#[test]
fn pipelines_are_plans_or_problems_with_places() {
    let mut seeds = seeds("pipeline");
    seeds.extend(
        crate::files(&crate::root().join("tests/tiny"), ".yaml")
            .iter()
            .map(|file| std::fs::read(file).expect("a text")),
    );
    // A name whose folder does not exist: nothing is included by chance.
    let name = Path::new("no/such/folder/p.yaml");
    fuzz("pipeline", seeds, PIPELINE, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return false };
        match load_text(text, name, ALL, &Settings::default()) {
            Ok(plan) => {
                for (index, node) in plan.nodes.iter().enumerate() {
                    let before = node.inputs.iter().flat_map(|bound| &bound.from).all(|source| source.node < index);
                    assert!(before, "{} comes before what it takes", node.id);
                }
                true
            }
            Err(problems) => {
                assert!(!problems.0.is_empty());
                for problem in &problems.0 {
                    if let Place::Spot { line, column, .. } = &problem.place {
                        assert!(*line >= 1 && *column >= 1 && *line <= text.lines().count() + 1, "{problem}");
                    }
                }
                assert!(problems.to_string().starts_with("error: "));
                false
            }
        }
    });
}

#[test]
fn arguments_set_variables_or_are_refused() {
    let seeds = ["n=3", "t='x'", "s.n=4", "s.limits={a: [1, 2]}", "l=[1, ${n}]", "s.sql=SELECT 1 AS x"];
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let text = "vars: {n: 1, t: x, l: [1]}\nstages:\n  s: {op: sql, with: {sql: 'SELECT ${n} AS x'}}\n";
    fuzz("argument", seeds, PIPELINE, |input| {
        let Ok(argument) = std::str::from_utf8(input) else { return false };
        let settings = Settings { sets: vec![argument.to_owned()], ..Settings::default() };
        load_text(text, Path::new("p.yaml"), ALL, &settings).is_ok()
    });
}

const RECORD: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "\"",
    "-1",
    "1e999",
    "\"..\"",
    "\"/etc/passwd\"",
    "\"files\"",
    "\"name\"",
    "\"format\"",
    "\"key\"",
    "\"outputs\"",
    "\"content\"",
    "\"artifact\"",
    "\"rows\"",
    "18446744073709551615",
    "\\u0000",
    "0000000000000000",
];

#[test]
fn manifests_name_files_below_their_folder_or_are_refused() {
    fuzz("manifest", seeds("manifest"), RECORD, |input| {
        let Some(manifest) = Manifest::parse(input) else { return false };
        for file in &manifest.files {
            let inside = Path::new(&file.name).components().all(|part| matches!(part, Component::Normal(_)));
            assert!(inside && !file.name.is_empty(), "{:?} leads out of the folder", file.name);
        }
        assert_eq!(Manifest::parse(&manifest.bytes()).as_ref(), Some(&manifest), "it does not survive its bytes");
        true
    });
}

#[test]
fn records_answer_for_their_own_key_with_files_that_are_there_or_not_at_all() {
    let home = Home::new();
    home.write("p.yaml", "stages:\n  one: {op: sql, with: {sql: SELECT 1 AS x}}\n");
    home.ok(&["run", "p.yaml"]);
    let root = home.path("store");
    let store = Store::open(&root).expect("opens");
    let path = only_record(&root);
    let key = Record::parse(&std::fs::read(&path).expect("a record")).expect("a record").key;
    let mut seeds = seeds("record");
    let sealed = std::fs::read(&path).expect("a record");
    let end = sealed.windows(10).rposition(|window| window == b",\"check\":\"").expect("records are sealed");
    seeds.push([&sealed[..end], b"}"].concat());
    std::fs::remove_file(&path).expect("ours");
    fuzz("record", seeds, RECORD, |input| {
        // As it is, no mutation gets past the seal; so what is sealed is mutated too.
        assert_eq!(Record::parse(input), None, "it is not sealed");
        let input = seal(input);
        if let Some(read) = Record::parse(&input) {
            assert_eq!(Record::parse(&read.bytes()), Some(read), "it does not survive its bytes");
        }
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, input).expect("our own folder");
        // Another process would open it anew.
        let answer = Store::open(&root).expect("opens").lookup(&key);
        let Ok(found) = answer else { return false };
        assert_eq!(found.key, key, "it answers for another key");
        let there = |digest: Digest| store.blob(&digest).metadata().is_ok_and(|file| file.len() == digest.size);
        assert!(found.outputs.iter().flat_map(OutputRecord::blobs).all(there), "it names what is not there");
        true
    });
}

/// An object's bytes with the checksum that records end in.
fn seal(object: &[u8]) -> Vec<u8> {
    let members = object.strip_suffix(b"}").unwrap_or(object);
    let check = &Digest::of_bytes(members).hex()[..32];
    [members, b",\"check\":\"", check.as_bytes(), b"\"}"].concat()
}

/// The one record in a store.
fn only_record(root: &Path) -> PathBuf {
    let records = crate::files(&root.join("ac"), ".rec");
    assert_eq!(records.len(), 1, "{}", root.display());
    records[0].clone()
}
