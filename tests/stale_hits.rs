//! The stale-hit matrix: every declared input of every operator is changed, one
//! at a time, and the key must follow; what is declared not to matter must
//! leave the key, and the bytes of a real run, as they are.
//!
//! No case is written by hand: parameters come from the operator's JSON Schema,
//! ports and files from the operator itself. An operator that the generator
//! cannot cover is a failure, and so is one parameter of it.

mod cases;
mod mutate;
mod rows;

use std::collections::BTreeMap;

use fuseline_contract::operator::{Entry, Resolved};
use fuseline_contract::{Digest, Key, Part, StageId};
use fuseline_engine::key;
use fuseline_engine::plan::{Bound, Node, Resources, Source};
use fuseline_operators::ALL;
use serde_json::Value;

use cases::Matrix;

/// Execution parameters with the test that sees each at work.
const EXECUTED: &[(&str, &str, &str)] = &[
    ("command.env", "tests/command.rs", "fn the_environment_is_cleared_but_for_what_is_asked_for()"),
    ("command.timeout_seconds", "tests/command.rs", "fn a_time_limit_ends_the_program_and_all_that_it_started()"),
    ("dpo.train.checkpoint_every", "tests/resume.rs", "fn ask_16_killed_dpo_gives_the_same_bytes()"),
    ("endpoint.connect_timeout_seconds", "tests/endpoint.rs", "fn a_connection_that_nobody_takes_is_given_up()"),
    ("endpoint.max_attempts", "tests/endpoint.rs", "fn how_an_endpoint_is_asked_holds_as_it_stands_now()"),
    ("endpoint.max_concurrency", "tests/endpoint.rs", "fn limits_of_a_minute_and_at_once_reach_the_client()"),
    ("endpoint.max_usd", "tests/endpoint.rs", "fn the_spending_limit_holds_over_runs_and_answers_are_kept()"),
    ("endpoint.prices", "tests/endpoint.rs", "fn how_an_endpoint_is_asked_holds_as_it_stands_now()"),
    ("endpoint.requests_per_minute", "tests/endpoint.rs", "fn limits_of_a_minute_and_at_once_reach_the_client()"),
    ("endpoint.timeout_seconds", "tests/endpoint.rs", "fn how_an_endpoint_is_asked_holds_as_it_stands_now()"),
    ("endpoint.via", "tests/endpoint.rs", "fn ask_6_every_row_is_paid_for_once_and_a_further_prompt_costs_its_own()"),
    ("run_tests.without", "operators/run_tests.rs", "fn a_layer_that_is_refused_ends_the_stage_unless_it_is_named()"),
    ("sft.train.checkpoint_every", "tests/resume.rs", "fn ask_16_killed_sft_gives_the_same_bytes()"),
    ("wrpo.train.checkpoint_every", "tests/resume.rs", "fn ask_16_killed_wrpo_gives_the_same_bytes()"),
];

/// Digests that stand for what is bound and for files, told apart by a word.
fn digest(word: &str) -> Digest {
    Digest::of_bytes(word.as_bytes())
}

/// A node as a plan would have it: one artifact bound to every port.
fn node(entry: &'static Entry, resolved: &Resolved) -> Node {
    let source = || Source { node: 0, output: 0, label: Some("owl".to_owned()), axes: BTreeMap::new() };
    let bound = |port: &fuseline_contract::Input| Bound { port: port.name.clone(), from: vec![source()] };
    Node {
        id: StageId::plain("stage"),
        entry,
        resolved: std::sync::Arc::new(resolved.clone()),
        seed: 7,
        inputs: resolved.ports.inputs.iter().map(bound).collect(),
        resources: Resources::default(),
        tags: Vec::new(),
        retry: Default::default(),
        memo: true,
        uncacheable: false,
        file: None,
        line: 1,
    }
}

/// What is bound to a node's ports, by port and place.
fn contents(node: &Node) -> Vec<Vec<Digest>> {
    let of = |bound: &Bound| (0..bound.from.len()).map(|i| digest(&format!("{} {i}", bound.port))).collect();
    node.inputs.iter().map(of).collect()
}

/// What files held, by parameter.
fn trees(node: &Node) -> Vec<Digest> {
    let files = node.resolved.files.iter().enumerate();
    files.map(|(i, file)| digest(&format!("{} {i}", file.parameter))).collect()
}

fn key_of(node: &Node) -> Key {
    key::stage(node, None, &contents(node), &trees(node)).key
}

fn key_with(node: &Node, change: impl FnOnce(&mut Node)) -> Key {
    let mut changed = node.clone();
    change(&mut changed);
    key::stage(&changed, None, &contents(node), &trees(node)).key
}

/// An operator with something changed, as a later program would have it.
fn entry_with(entry: &Entry, change: impl FnOnce(&mut Entry)) -> &'static Entry {
    let mut changed = *entry;
    change(&mut changed);
    Box::leak(Box::new(changed))
}

#[test]
fn ask_1_every_parameter_of_every_operator_is_in_its_key() {
    let mut failures = Vec::new();
    for entry in ALL {
        let matrix = Matrix::of(entry);
        println!(
            "{:16} {:3} parameters, {:5} changes in {:3} configurations",
            entry.name, matrix.places, matrix.changes, matrix.bases
        );
        failures.extend(matrix.failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn ask_21_every_parameter_of_every_operator_changes_the_key_or_the_execution() {
    for entry in ALL {
        let matrix = Matrix::of(entry);
        let (in_key, besides) = matrix.effects;
        let undeclared: Vec<_> =
            besides.difference(&in_key).filter(|place| !cases::is_left_out(entry, place)).collect();
        assert!(undeclared.is_empty(), "{}: not in the key and not declared so: {undeclared:?}", entry.name);
        // What is left out of the key is shown to reach the work by a test of its own.
        for name in entry.execution {
            let place: Vec<String> = name.split('.').map(str::to_owned).collect();
            let changed = besides.iter().any(|changed| changed.starts_with(&place));
            assert!(changed, "{}.{name} never reaches the operator", entry.name);
            let (file, words) =
                EXECUTED.iter().find(|(known, ..)| *known == format!("{}.{name}", entry.name)).map_or_else(
                    || panic!("nothing shows what {}.{name} does: name a test", entry.name),
                    |(_, file, words)| (file, words),
                );
            let text = std::fs::read_to_string(crate::root().join(file)).expect("a file of tests");
            assert!(text.contains(words), "{}.{name}: {file} has no {words}", entry.name);
        }
    }
}

#[test]
fn ask_1_every_input_file_seed_and_version_of_every_operator_is_in_its_key() {
    for entry in ALL {
        let name = entry.name;
        for (params, resolved) in cases::bases(entry) {
            let node = node(entry, &resolved);
            let (base, contents, trees) = (key_of(&node), contents(&node), trees(&node));
            for (at, bound) in node.inputs.iter().enumerate() {
                let mut other = contents.clone();
                other[at][0] = digest("other");
                assert_ne!(
                    base,
                    key::stage(&node, None, &other, &trees).key,
                    "{name}: content of {}: {params}",
                    bound.port
                );
                let port = resolved.ports.inputs.iter().find(|port| port.name == bound.port).expect("its port");
                let label = key_with(&node, |node| node.inputs[at].from[0].label = Some("fox".to_owned()));
                assert_eq!(label != base, port.labelled, "{name}: label of {}: {params}", bound.port);
                let axis = |node: &mut Node| drop(node.inputs[at].from[0].axes.insert("axis".into(), "1".into()));
                let is_table = !port.kind.is_model();
                assert_eq!(
                    key_with(&node, axis) != base,
                    is_table,
                    "{name}: gathered axis of {}: {params}",
                    bound.port
                );
                let unbound = key_with(&node, |node| drop(node.inputs.remove(at)));
                assert_ne!(unbound, base, "{name}: {} unbound: {params}", bound.port);
                for to in at + 1..node.inputs.len() {
                    let mut swapped = contents.clone();
                    swapped.swap(at, to);
                    assert_ne!(
                        base,
                        key::stage(&node, None, &swapped, &trees).key,
                        "{name}: two inputs swapped: {params}"
                    );
                }
            }
            for (at, file) in resolved.files.iter().enumerate() {
                let mut other = trees.clone();
                other[at] = digest("other");
                assert_ne!(base, key::stage(&node, None, &contents, &other).key, "{name}: file of {}", file.parameter);
                let moved = key_with(&node, |node| {
                    std::sync::Arc::make_mut(&mut node.resolved).files[at].path = "elsewhere".into()
                });
                assert_eq!(base, moved, "{name}: where the file of {} lies", file.parameter);
            }
            let salted = key::stage(&node, Some("salt"), &contents, &trees).key;
            assert_ne!(base, salted, "{name}: salt");
            assert_eq!(key_with(&node, |node| node.seed = 8) != base, entry.traits.uses_seed, "{name}: seed");
            let version = entry_with(entry, |entry| entry.version += 1);
            assert_ne!(base, key_with(&node, |node| node.entry = version), "{name}: version");
            for part in 0..entry.parts.len() {
                let mut parts: Vec<Part> = entry.parts.to_vec();
                parts[part].version += 1;
                let changed = entry_with(entry, |entry| entry.parts = parts.leak());
                let what = entry.parts[part].name;
                assert_ne!(base, key_with(&node, |node| node.entry = changed), "{name}: version of {what}");
            }
            let numerics = entry_with(entry, |entry| entry.traits.numerics = Some("f64/other"));
            assert_ne!(base, key_with(&node, |node| node.entry = numerics), "{name}: numerics class");
            let renamed = entry_with(entry, |entry| entry.name = "other");
            assert_ne!(base, key_with(&node, |node| node.entry = renamed), "{name}: name");
            let nothing = |node: &mut Node| {
                node.id = StageId::plain("renamed");
                node.id.axes.insert("axis".into(), "1".into());
                (node.line, node.tags) = (9, vec!["slow".into()]);
                node.resources = Resources { cpus: 8, gpus: 1, mem_bytes: Some(1) };
            };
            assert_eq!(base, key_with(&node, nothing), "{name}: what is not in the key");
        }
    }
}

#[test]
fn what_is_left_out_of_keys_leaves_the_bytes_of_a_run_as_they_are() {
    for entry in ALL.iter().filter(|entry| !entry.execution.is_empty()) {
        let matrix = Matrix::of(entry);
        let base = rows::run(entry, &matrix.example);
        for name in entry.execution {
            let changed =
                matrix.execution.get(*name).unwrap_or_else(|| panic!("{}.{name} was not changed", entry.name));
            assert_eq!(base, rows::run(entry, changed), "{}.{name} changes the result: {changed}", entry.name);
        }
    }
}

#[test]
fn ask_2_ten_spellings_of_one_configuration_are_one_key() {
    let plain = "op: sample\ninputs: {prompts: p, model: m}\nwith: {n: 2, temperature: 1, max_tokens: 8, label: me, stop: [a, b]}";
    let spellings = [
        plain.to_owned(),
        "# a comment\nop:   sample\ninputs:\n  model: m\n  prompts: p\nwith:\n  label: me\n  max_tokens: 8\n  stop:\n  - a\n  - b\n  temperature: 1.0\n  n: 2".to_owned(),
        plain.replace("temperature: 1", "temperature: 1e0"),
        plain.replace("temperature: 1", "temperature: 1.000"),
        plain.replace("label: me", "label: \"me\"").replace("n: 2", "'n': 2"),
        plain.replace("n: 2", "n: 0x2"),
        plain.replace("n: 2", "n: '${n}'").replace("max_tokens: 8", "max_tokens: '${eight}'"),
        plain.replace("label: me", "label: 'm${e}'"),
        plain.replace("prompts: p", "prompts: [p]").replace("model: m", "model: {me: m}"),
        plain.replace("[a, b]", "[a, &x b]").replace("with: {", "resources: {cpus: 2}\ntags: [slow]\nwith: {top_p: 1, "),
        plain.replace("op: sample", "op: !!str sample"),
    ];
    let key = |spelling: &str| {
        let stage: String = spelling.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!(
            "vars: {{n: 2, eight: 8, e: e}}\nstages:\n  p: {{op: load, with: {{path: p.jsonl, as: prompt}}}}\n  m: {{op: import_model, with: {{from: m}}}}\n  s:\n{stage}"
        );
        let plan = fuseline_engine::load_text(&text, std::path::Path::new("p.yaml"), ALL, &Default::default());
        let plan = plan.unwrap_or_else(|problems| panic!("{spelling}\n{problems}"));
        let node = plan.nodes.iter().find(|node| node.id.stage == "s").expect("the stage");
        key_of(node)
    };
    let first = key(&spellings[0]);
    for spelling in &spellings {
        assert_eq!(key(spelling), first, "{spelling}");
    }
    assert_ne!(key(&plain.replace("[a, b]", "[b, a]")), first, "the order of a list counts");
}

#[test]
fn planted_holes_are_found() {
    use cases::planted::*;
    let failures = |entry: &'static Entry| Matrix::of(entry).failures.join("\n");
    static SOUND: Entry = Entry::of::<Sound>();
    static FORGETFUL: Entry = Entry::of::<Forgetful>();
    static UNEVEN: Entry = Entry::of::<Uneven>();
    static CLOSED: Entry = Entry::of::<Closed>();
    static SILENT: Entry = Entry::of::<Silent>();
    assert_eq!(failures(&SOUND), "");
    assert!(failures(&FORGETFUL).contains("forgetful: no change of \"n\" has any effect"), "{}", failures(&FORGETFUL));
    assert!(
        failures(&UNEVEN).contains("uneven: \"n\" written out at its default is another key"),
        "{}",
        failures(&UNEVEN)
    );
    assert!(failures(&CLOSED).contains("closed: no change of \"word\" has any effect"), "{}", failures(&CLOSED));
    assert!(failures(&SILENT).contains("silent: \"how\" is left out and not filled in"), "{}", failures(&SILENT));
    let example: Value = serde_json::json!({"n": 1});
    assert_eq!(Matrix::of(&SOUND).example, example);
}
