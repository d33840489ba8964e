//! What readers of a result are told: rows that failed, mixed numerics classes,
//! results that differ under one key.

use super::*;
use crate::footnotes::footnotes;
use crate::schedule::stage::differed;
use fuseline_contract::Promise;

/// A node whose operator runs in a numerics class.
fn in_class(mut node: Node, class: &'static str) -> Node {
    let mut entry = *node.entry;
    entry.traits.numerics = Some(class);
    node.entry = Box::leak(Box::new(entry));
    node
}

/// Three instances of one operator in these classes, another operator, and what is made of all.
fn scored(classes: [&'static str; 3]) -> Plan {
    let names = ["owl", "fox", "elk"];
    let mut nodes = vec![in_class(node("numbers", "count", json!({"n": 3}), &[]), "f32/cpu")];
    nodes.extend(
        (0..3).map(|i| in_class(node(names[i], "scale", json!({"by": 2 + i, "note": names[i]}), &[0]), classes[i])),
    );
    nodes.push(node("table", "gather", json!({}), &[1, 2, 3]));
    nodes.push(node("beside", "gather", json!({}), &[1]));
    plan(nodes)
}

#[test]
fn ask_10_a_table_of_several_numerics_classes_says_so() {
    let bench = Bench::new();
    let notes = |plan: &Plan, index: usize| {
        let summary = bench.run(plan);
        assert_eq!(summary.cause, None, "{:?}", summary.failed);
        footnotes(plan, &bench.store, &summary.records, index)
    };
    let none: [&str; 0] = [];
    assert_eq!(notes(&scored(["f32/cpu"; 3]), 4), none);
    let mixed = scored(["f32/cpu", "bf16/cuda", "f32/cpu"]);
    let said = ["scale ran in several numerics classes: bf16/cuda (fox), f32/cpu (owl, elk)"];
    assert_eq!(notes(&mixed, 4), said);
    assert_eq!(notes(&mixed, 5), none, "only what it rests on counts");
    // Another operator in another class than all of these mixes nothing.
    assert_eq!(notes(&scored(["bf16/cuda"; 3]), 4), none);
    // A result that was taken over keeps the class that it was made in.
    let before = bench.run(&mixed).records;
    let plan = scored(["f32/cpu"; 3]);
    let given = [(2, before[2].clone().expect("it ran"))].into();
    let options = RunOptions { overrides: Overrides { given, ..Overrides::default() }, ..bench.options() };
    let (summary, _) = bench.run_with(&plan, &options);
    assert_eq!(footnotes(&plan, &bench.store, &summary.records, 4), said);
}

#[test]
fn ask_7_rows_that_failed_are_told_below_what_rests_on_the_rest() {
    let bench = Bench::new();
    let mut plan = chain(2, 3, "");
    let notes = |plan: &Plan| footnotes(plan, &bench.store, &bench.run(plan).records, 3);
    assert!(notes(&plan).is_empty());
    Arc::make_mut(&mut plan.nodes[1].resolved).ports.outputs[0].lists_failures = true;
    assert_eq!(notes(&plan), ["2 rows of scaled failed and are left out (out)"]);
    plan.nodes[0] = node("numbers", "count", json!({"n": 0}), &[]);
    assert!(notes(&plan).is_empty(), "none failed");
}

#[test]
fn another_result_for_one_key_is_a_bug_of_an_operator_that_promises_the_same_bytes() {
    let bench = Bench::new();
    let plan = chain(1, 1, "");
    let summary = bench.run(&plan);
    let record = |index: usize| summary.records[index].clone().expect("it ran");
    let given = attempt::Given {
        store: bench.store.root(),
        run: "r",
        attempt: "a",
        key: record(0).key,
        trees: &[],
        records: &record,
        threads: 1,
        supersedes: false,
        memo: MemoUse::On,
        attended: false,
    };
    let spec = attempt::spec(&plan, &plan.nodes[0], &given);
    match differed(&spec, Promise::Deterministic) {
        Event::Warning { text } => assert!(text.starts_with("numbers: ") && text.contains("a bug of it"), "{text}"),
        other => panic!("{other:?}"),
    }
    match differed(&spec, Promise::Sampled) {
        Event::Note { stage, text } => assert!(stage.stage == "numbers" && !text.contains("bug"), "{text}"),
        other => panic!("{other:?}"),
    }
}
