//! Runs that find results in a store elsewhere, well and broken.

use crate::store::remote::fake::{Fake, TROUBLES, Trouble};

use super::*;

/// Objects that hold every result of a pipeline.
fn pushed(plan: &Plan) -> Arc<Fake> {
    let (bench, objects) = (Bench::new(), Fake::new());
    for record in bench.run(plan).records.into_iter().flatten() {
        objects.remote().push(&bench.store, &record).expect("pushed");
    }
    objects
}

/// Runs a plan in a new store that looks there: what ran, what was a hit, and every warning.
fn run_with(objects: &Arc<Fake>, plan: &Plan, home: &Path, jobs: usize) -> (RunSummary, Vec<String>) {
    let store = Store::open(home).expect("opens");
    store.attach(objects.remote());
    let machine = Machine { cpus: 4, gpus: vec![], mem_bytes: None };
    let options = RunOptions { machine, jobs: Some(jobs), ..RunOptions::new("no-worker") };
    let warnings = std::sync::Mutex::new(Vec::new());
    let note = |event| {
        if let Event::Warning { text } = event {
            warnings.lock().expect("free").push(text);
        }
    };
    let summary = run(plan, &store, &options, &RUNNERS, &AtomicBool::new(false), &note).expect("runs");
    (summary, warnings.into_inner().expect("free"))
}

fn last(home: &Path, summary: &RunSummary) -> Vec<i64> {
    let record = summary.records.last().and_then(Option::as_ref).expect("it is done");
    values(&Store::open(home).expect("opens").table(&record.outputs[0].artifact).expect("a table"))
}

/// Enough numbers that their blob is not taken for a manifest.
const N: i64 = 2000;

#[test]
fn nothing_runs_and_nothing_comes_that_nobody_needs() {
    let plan = chain(N, 3, "");
    let objects = pushed(&plan);
    let home = tempfile::tempdir().expect("a folder");
    let decisions = {
        let store = Store::open(home.path()).expect("opens");
        store.attach(objects.remote());
        decide(&plan, &store)
    };
    assert!(decisions.iter().all(|decision| matches!(decision, Decision::Hit { here: false, .. })), "{decisions:?}");
    let (summary, warnings) = run_with(&objects, &plan, home.path(), 4);
    assert_eq!((summary.ran.len(), summary.hits.len(), warnings.len()), (0, 4, 0));
    assert_eq!(objects.fetched.load(Ordering::SeqCst), 0);
}

#[test]
fn ask_4_what_must_run_takes_only_its_inputs_from_elsewhere() {
    let objects = pushed(&chain(N, 3, ""));
    let home = tempfile::tempdir().expect("a folder");
    let mut changed = chain(N, 3, "");
    changed.name = "another pipeline".into();
    changed.nodes[3] = node("renamed", "gather", json!({"note": "again"}), &[1, 2]);
    let (summary, _) = run_with(&objects, &changed, home.path(), 4);
    assert_eq!(summary.ran, [StageId::plain("renamed")]);
    assert_eq!(objects.fetched.load(Ordering::SeqCst), 2, "the two that it reads, not what they were made of");
    // What came is now one of this store's results.
    let here = Store::open(home.path()).expect("opens");
    for index in [1, 2] {
        let record = summary.records[index].as_ref().expect("a hit");
        assert_eq!(here.lookup(&record.key).as_ref(), Ok(record));
    }
}

#[test]
fn no_trouble_elsewhere_fails_a_run() {
    let undisturbed = {
        let bench = Bench::new();
        let plan = changed();
        let summary = bench.run(&plan);
        last(bench.store.root(), &summary)
    };
    for trouble in TROUBLES {
        for jobs in [1, 4] {
            let objects = pushed(&chain(N, 3, ""));
            objects.set(trouble);
            let home = tempfile::tempdir().expect("a folder");
            let (summary, warnings) = run_with(&objects, &changed(), home.path(), jobs);
            assert_eq!(summary.failed, [], "{trouble:?}");
            assert_eq!(last(home.path(), &summary), undisturbed, "{trouble:?}");
            assert!(summary.ran.contains(&StageId::plain("gathered")), "{trouble:?}: {:?}", summary.ran);
            assert!(!warnings.is_empty(), "{trouble:?}");
            if matches!(trouble, Trouble::Down | Trouble::Refuses) {
                assert_eq!(warnings.len(), 1, "{trouble:?}: {warnings:?}");
            }
        }
    }
}

/// The chain with three more that read what is found elsewhere, at the same time.
fn changed() -> Plan {
    let mut plan = chain(N, 3, "");
    plan.nodes[3] = node("gathered", "gather", json!({"note": "again"}), &[1, 2]);
    for by in 11..14 {
        plan.nodes.push(node(&format!("more{by}"), "scale", json!({"by": by}), &[1]));
    }
    plan.nodes.push(node("all", "gather", json!({}), &[3, 4, 5, 6]));
    plan
}
