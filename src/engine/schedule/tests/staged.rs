//! Stages that go on from results on their way to the disk.

use super::*;
use crate::store::Faults;

fn chain(n: usize) -> Plan {
    let first = node("numbers", "count", json!({"n": 3}), &[]);
    let more = (1..n).map(|i| node(&format!("scaled_{i}"), "scale", json!({"by": 2}), &[i - 1]));
    plan(std::iter::once(first).chain(more).collect())
}

fn run_on(store: &Store, bench: &Bench, plan: &Plan) -> (RunSummary, Vec<Event>) {
    let events = std::sync::Mutex::new(Vec::new());
    let note = |event| events.lock().expect("free").push(event);
    let options = RunOptions { keep_going: true, ..bench.options() };
    let summary = run(plan, store, &options, &RUNNERS, &AtomicBool::new(false), &note).expect("runs");
    (summary, events.into_inner().expect("free"))
}

#[test]
fn ends_are_told_in_the_order_of_the_plan_and_give_what_waiting_gives() {
    let (bench, plan) = (Bench::new(), chain(20));
    let (summary, events) = run_on(&bench.store, &bench, &plan);
    let ended = events.iter().filter_map(|event| match event {
        Event::StageEnded { stage, .. } => Some(stage.clone()),
        _ => None,
    });
    let order: Vec<StageId> = plan.nodes.iter().map(|node| node.id.clone()).collect();
    assert_eq!(ended.collect::<Vec<_>>(), order);
    assert_eq!(summary.ran, order);
    assert_eq!(bench.values(&summary, 19), [0, 1 << 19, 2 << 19]);
}

#[test]
fn whatever_fails_on_the_way_to_the_disk_the_next_run_makes_it_good() {
    for point in ["outputs-written", "blob-synced", "blob-linked", "record-written", "record-linked"] {
        for nth in [1, 2, 5] {
            let (bench, plan) = (Bench::new(), chain(4));
            let faults = Faults::parse(&format!("{point}:full:{nth}")).expect("a point");
            let store = Store::with_faults(bench.store.root(), faults).expect("opens");
            let (summary, _) = run_on(&store, &bench, &plan);
            let (done, failed) = (summary.ran.len(), summary.failed.len());
            assert_eq!(done + failed + summary.skipped.len(), 4, "{point} {nth}");
            assert!(failed > 0 || nth == 5, "{point} {nth}: {summary:?}");
            let again = bench.run(&plan);
            assert_eq!(again.cause, None, "{point} {nth}");
            assert_eq!(bench.values(&again, 3), [0, 8, 16], "{point} {nth}");
        }
    }
}
