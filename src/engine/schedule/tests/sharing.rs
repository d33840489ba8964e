//! Several runs, or hosts, on one store.

use super::*;
use crate::care::gc::{Options, gc};
use crate::store::seal;

/// What would have to be known of a stage to run it in a worker of its own.
fn given<'a>(store: &'a Store, attempt: &'a str) -> attempt::Given<'a> {
    attempt::Given {
        store: store.root(),
        run: "run",
        attempt,
        key: Key([3; 32]),
        trees: &[],
        records: &|_| unreachable!("it has no inputs"),
        threads: 1,
        supersedes: false,
        memo: attempt::MemoUse::On,
        attended: true,
    }
}

/// Starts a worker at an attempt, which no driver and so no lease guards.
fn start_worker(folder: &Path, plan: &Plan, given: &attempt::Given<'_>) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    fs::create_dir_all(folder).expect("made");
    fs::write(folder.join("spec.json"), seal::seal(&attempt::spec(plan, &plan.nodes[0], given))).expect("written");
    std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["schedule::tests::worker_main", "--exact", "--ignored", "--nocapture"])
        .env("ATTEMPT", folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .expect("starts")
}

#[test]
fn a_worker_whose_driver_dies_ends() {
    let bench = Bench::new();
    bench.store.prepare().expect("prepares");
    let plan = plan(vec![node("w", "wait", json!({}), &[])]);
    let mut worker = start_worker(bench.home.path(), &plan, &given(&bench.store, "attempt"));
    // The stage would wait for ever; the pipe's end is what a dead driver leaves.
    drop(worker.stdin.take());
    let status = worker.wait().expect("ends");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(!bench.home.path().join("result.json").exists());
}

#[test]
fn ask_28_two_finishers_without_a_lock_that_differ_keep_the_first_and_say_so() {
    let bench = Bench::new();
    bench.store.prepare().expect("prepares");
    let plan = plan(vec![node("d", "drift", json!({}), &[])]);
    let attempts = ["one", "two"];
    let folder = |attempt: &str| bench.home.path().join(attempt);
    let workers: Vec<_> =
        attempts.map(|attempt| start_worker(&folder(attempt), &plan, &given(&bench.store, attempt))).into();
    for mut worker in workers {
        // Waiting for a child closes its standard input, which would mean that we died.
        let attended = worker.stdin.take();
        assert!(worker.wait().expect("ends").success());
        drop(attended);
    }
    let key = Key([3; 32]);
    let all = bench.store.all_records(&key);
    assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bench.store.lookup(&key).as_ref(), Ok(&all[0].1), "the first answers");
    let mut told = 0;
    for attempt in attempts {
        let result = fs::read(folder(attempt).join("result.json")).expect("a result");
        let outcome: Outcome = seal::unseal(&result).expect("whole");
        assert_eq!(outcome.result.expect("done"), all[0].1, "both runs go on with the first");
        let events = fs::read_to_string(folder(attempt).join("events.ndjson")).expect("events");
        told += events.lines().filter(|line| *line == "\"differed\"").count();
    }
    assert_eq!(told, 1);
}

#[test]
fn ask_28_a_run_that_was_taken_for_dead_takes_the_result_that_is_there() {
    let bench = Bench::new();
    let plan = plan(vec![node("u", "usurped", json!({}), &[])]);
    bench.store.prepare().expect("prepares");
    USURP.lock().expect("free").replace(bench.store.root().to_owned());
    let summary = bench.run(&plan);
    assert_eq!(summary.cause, None, "{:?}", summary.failed);
    assert_eq!(bench.values(&summary, 0), [2], "it was tried again after the other's lease");
}

/// Sets the times of everything below a folder.
fn date(folder: &Path, time: std::time::SystemTime) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            date(&entry.path(), time);
        }
        fs::File::open(entry.path()).expect("there").set_modified(time).expect("set");
    }
}

#[test]
fn ask_30_a_clock_that_went_back_or_ahead_changes_no_result() {
    let bench = Bench::new();
    let external = bench.home.path().join("numbers.txt");
    let plan = plan(vec![
        node("loaded", "load", json!({"path": external}), &[]),
        node("scaled", "scale", json!({"by": 2}), &[0]),
    ]);
    let days = Duration::from_secs(3 * 24 * 3600);
    for (number, text) in ["1", "2", "3"].into_iter().enumerate() {
        fs::write(&external, text).expect("written");
        let now = std::time::SystemTime::now();
        // As written now, before the clock went back, and after it went ahead.
        let time = [now, now + days, now - days][number];
        fs::File::open(&external).expect("there").set_modified(time).expect("set");
        assert_eq!(bench.ran(&plan), ["loaded", "scaled"], "{text}");
        date(bench.store.root(), time);
        let summary = bench.run(&plan);
        assert_eq!((summary.hits.len(), bench.values(&summary, 1)), (2, vec![2 * (number as i64 + 1)]));
        let collected = gc(&bench.store, &Options { min_age: days / 3, ..Options::default() }, true);
        assert_eq!(collected.expect("collected").records, [], "the last run's results stay");
        assert_eq!(bench.ran(&plan), [""; 0]);
    }
}
