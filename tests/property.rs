//! Random edits of a pipeline of real operators: what `plan` says is what `run`
//! runs, and going on gives the bytes of starting anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::harness::{Home, ran};

/// Random walks in a test; PROPTEST_CASES says otherwise.
const CASES: u32 = 4;

const PIPELINE: &str = "\
name: walk
seed: 1
vars: {n: 3, skip: 0, least: 1, wide: true, kinds: [addition, reverse_word], times: 2}
repeat: {turn: {times: '${times}', stages: [thinned], carry: {before: [all, thinned]}}}
stages:
  drawn: {matrix: {kind: '${kinds}'}, op: make_dataset, with: {split: train, skip: '${skip}', tasks: {lookup: '${n}', count_letter: 1}}}
  exam: {op: make_dataset, with: {split: test, tasks: {lookup: 2}}, when: '${wide}'}
  all: {op: sql, inputs: {rows: [drawn.prompts]}, with: {sql: SELECT DISTINCT prompt_id FROM rows ORDER BY prompt_id}}
  thinned: {op: sql, with: {sql: \"SELECT prompt_id FROM before WHERE hash_fraction(prompt_id) < 0.7 ORDER BY prompt_id\"}}
  counted: {op: sql, with: {sql: \"SELECT turn, count(*) AS n FROM thinned GROUP BY turn HAVING count(*) >= ${least} ORDER BY turn\"}}
  asked: {op: sql, with: {sql: SELECT count(*) AS n FROM exam}}
tables:
  main: {sql: \"SELECT turn, n FROM counted ORDER BY turn\"}
";

/// The walk's edits, as `--set` writes them.
fn edits() -> impl Strategy<Value = Vec<String>> {
    let edit = prop_oneof![
        (1..6u32).prop_map(|n| format!("n={n}")),
        (0..3u32).prop_map(|skip| format!("skip={skip}")),
        (1..3u32).prop_map(|least| format!("least={least}")),
        any::<bool>().prop_map(|wide| format!("wide={wide}")),
        (1..4u32).prop_map(|times| format!("times={times}")),
        prop_oneof![Just("kinds=[addition]"), Just("kinds=[reverse_word, addition]"), Just("kinds=[a, b, addition]")]
            .prop_map(str::to_owned),
        (1..4u32).prop_map(|n| format!("exam.tasks.lookup={n}")),
    ];
    proptest::collection::vec(edit, 2..6)
}

/// Arguments after which every variable was set at most once, the last counts.
fn arguments(edits: &[String]) -> Vec<String> {
    let latest: BTreeMap<&str, &String> =
        edits.iter().map(|edit| (edit.split('=').next().unwrap_or_default(), edit)).collect();
    latest.values().flat_map(|edit| ["--set".to_owned(), (*edit).clone()]).collect()
}

/// The states of a plan, by instance.
fn planned(home: &Home, arguments: &[String]) -> BTreeMap<String, String> {
    let all: Vec<&str> = ["plan", "p.yaml", "--json"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let done = home.fuseline(&all);
    let plan: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    plan["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|stage| (text(&stage["stage"]), text(&stage["state"])))
        .collect()
}

/// The folder's name, which is the artifact's digest, of what every instance gave.
fn results(home: &Home, names: &BTreeSet<String>, arguments: &[String]) -> BTreeMap<String, String> {
    let of = |name: &String| {
        let all: Vec<&str> = ["path", "p.yaml", name].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let folder = home.ok(&all);
        let name = std::path::Path::new(folder.trim()).file_name().expect("a name");
        name.to_string_lossy().into_owned()
    };
    names.iter().map(|name| (name.clone(), of(name))).collect()
}

fn home() -> Home {
    let home = Home::new();
    home.write("p.yaml", PIPELINE);
    home
}

fn run(home: &Home, arguments: &[String]) -> BTreeSet<String> {
    let all: Vec<&str> = ["run", "p.yaml", "--json"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    ran(&home.ok(&all)).into_iter().collect()
}

#[test]
fn what_plan_says_is_what_runs_and_going_on_gives_what_starting_anew_gives() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config { cases, failure_persistence: None, ..Config::default() }, random);
    let walked = runner.run(&edits(), |edits| {
        let home = home();
        for step in 0..=edits.len() {
            let arguments = arguments(&edits[..step]);
            let plan = planned(&home, &arguments);
            let ran = run(&home, &arguments);
            for (stage, state) in &plan {
                match state.as_str() {
                    "hit" => prop_assert!(!ran.contains(stage), "{stage} was a hit, but ran"),
                    "run" => prop_assert!(ran.contains(stage), "{stage} was to run, but did not"),
                    "maybe" => {}
                    other => prop_assert!(false, "{stage} is {other}"),
                }
            }
            prop_assert!(ran.iter().all(|stage| plan.contains_key(stage)));
        }
        let (arguments, anew) = (arguments(&edits), self::home());
        run(&anew, &arguments);
        let names: BTreeSet<String> = planned(&home, &arguments).into_keys().collect();
        prop_assert_eq!(results(&home, &names, &arguments), results(&anew, &names, &arguments));
        Ok(())
    });
    if let Err(error) = walked {
        panic!("{error}");
    }
}
