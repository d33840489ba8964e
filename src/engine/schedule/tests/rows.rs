//! Rows that are paid for once: what a stage takes from the row memo and what
//! it leaves there.

use super::*;

/// Runs a stage that pays per row; its values, and its rows out of the events.
fn pay(bench: &Bench, rows: i64, params: serde_json::Value, edit: impl Fn(&mut Plan)) -> (Vec<i64>, RowCounts) {
    let mut plan = plan(vec![node("n", "count", json!({"n": rows}), &[]), node("paid", "pay", params, &[0])]);
    edit(&mut plan);
    let force = if plan.nodes[1].tags == ["force"] { [1].into() } else { BTreeSet::new() };
    let overrides = Overrides { force, ..Overrides::default() };
    let (summary, events) = bench.run_with(&plan, &RunOptions { overrides, ..bench.options() });
    let counts = events.into_iter().find_map(|event| match event {
        Event::StageEnded { memo, .. } => memo,
        _ => None,
    });
    let values = if summary.cause.is_none() { bench.values(&summary, 1) } else { vec![] };
    (values, counts.unwrap_or_default())
}

/// At the size that papers have: what is paid for is counted by who is paid.
#[test]
fn ask_6_a_hundred_prompts_more_among_ten_thousand_cost_two_thousand_calls() {
    let bench = Bench::new();
    let calls = |prompts: i64, samples: i64| {
        let mut nodes = vec![node("prompts", "count", json!({"n": prompts}), &[])];
        for model in ["owl", "fox", "elk", "yak"] {
            nodes.push(node(model, "answer", json!({"note": model, "by": samples}), &[0]));
        }
        let before = CALLS.load(Ordering::SeqCst);
        let summary = bench.run(&plan(nodes));
        assert_eq!(summary.cause, None, "{:?}", summary.failed);
        let answers: BTreeSet<i64> = (1..=4).flat_map(|index| bench.values(&summary, index)).collect();
        assert_eq!(answers.len() as i64, prompts * samples * 4, "every answer is one call's");
        CALLS.load(Ordering::SeqCst) - before
    };
    assert_eq!(calls(10_000, 4), 160_000);
    assert_eq!(calls(10_000, 5), 40_000, "a quarter more");
    assert_eq!(calls(10_100, 5), 2_000, "100 prompts, 5 samples, 4 models");
    assert_eq!(calls(10_100, 5), 0);
}

#[test]
fn ask_7_a_failed_row_is_not_remembered_and_those_before_it_are() {
    let bench = Bench::new();
    let (values, counts) = pay(&bench, 5, json!({"by": 2, "workers": 3}), |_| {});
    assert_eq!((values, counts), (vec![], RowCounts { reused: 0, fresh: 3 }), "counted although the stage failed");
    let (values, counts) = pay(&bench, 5, json!({"by": 2}), |_| {});
    assert_eq!((values, counts), (vec![0, 2, 4, 6, 8], RowCounts { reused: 3, fresh: 2 }));
    let (values, counts) = pay(&bench, 6, json!({"by": 2}), |plan| plan.nodes[1].id = StageId::plain("other"));
    assert_eq!((values, counts), (vec![0, 2, 4, 6, 8, 10], RowCounts { reused: 5, fresh: 1 }));
}

#[test]
fn rows_of_a_forced_rerun_replace_the_old_ones_and_uncacheable_stages_have_none() {
    let bench = Bench::new();
    let params = |note: &str| json!({"by": 1, "note": note});
    assert_eq!(pay(&bench, 2, params(""), |_| {}), (vec![0, 1], RowCounts { reused: 0, fresh: 2 }));
    assert_eq!(pay(&bench, 2, params("abc"), |_| {}), (vec![0, 1], RowCounts { reused: 2, fresh: 0 }));
    let forced = pay(&bench, 2, params("abc"), |plan| plan.nodes[1].tags = vec!["force".into()]);
    assert_eq!(forced, (vec![3, 4], RowCounts { reused: 0, fresh: 2 }));
    assert_eq!(pay(&bench, 2, params("d"), |_| {}), (vec![3, 4], RowCounts { reused: 2, fresh: 0 }));
    let always = |plan: &mut Plan| plan.nodes[1].uncacheable = true;
    assert_eq!(pay(&bench, 2, params("e"), always), (vec![1, 2], RowCounts { reused: 0, fresh: 2 }));
    assert_eq!(
        pay(&bench, 2, params("ef"), |plan| plan.nodes[1].memo = false),
        (vec![2, 3], RowCounts { reused: 0, fresh: 2 })
    );
    assert_eq!(pay(&bench, 2, params("efg"), |_| {}), (vec![3, 4], RowCounts { reused: 2, fresh: 0 }));
}

#[test]
fn a_salt_disowns_rows_too() {
    let bench = Bench::new();
    let params = || json!({"by": 1});
    let salted = |plan: &mut Plan| plan.salt = Some("after the bad disk".into());
    assert_eq!(pay(&bench, 2, params(), |_| {}).1, RowCounts { reused: 0, fresh: 2 });
    assert_eq!(pay(&bench, 2, params(), salted).1, RowCounts { reused: 0, fresh: 2 });
    assert_eq!(pay(&bench, 3, params(), salted).1, RowCounts { reused: 2, fresh: 1 });
    assert_eq!(pay(&bench, 3, params(), |_| {}).1, RowCounts { reused: 2, fresh: 1 });
}
