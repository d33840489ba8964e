//! What is asked besides the file: selections, inputs that are given, results
//! that are accepted; locks and reruns.

use super::*;
use crate::choice::{Asked, Choice, Word};
use crate::ledger;
use crate::lock::Lock;
use crate::rerun::{self, Means, Verdict};
use crate::store::ArtifactKind;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn word() -> Option<Word> {
    Some(Word { who: "ada".into(), when_ms: 5, why: "only the writer changed".into() })
}

impl Bench {
    fn choose(&self, plan: &Plan, asked: &Asked) -> Result<Choice, String> {
        Choice::of(plan, &self.store, asked).map_err(|problems| problems.to_string())
    }

    /// Runs what is asked for, after comparing with what is planned for it.
    fn ran_as(&self, plan: &Plan, asked: &Asked) -> (Vec<String>, RunSummary) {
        let choice = self.choose(plan, asked).expect("a good choice");
        let planned = decide_with(plan, &self.store, &choice.overrides);
        let options = RunOptions { targets: choice.targets, overrides: choice.overrides, ..self.options() };
        let (summary, _) = self.run_with(plan, &options);
        assert_eq!(summary.cause, None, "{:?}", summary.failed);
        for &index in &choice.wanted {
            let ran = summary.ran.contains(&plan.nodes[index].id);
            match &planned[index] {
                Decision::Run { .. } => assert!(ran, "{}", plan.nodes[index].id),
                Decision::Hit { .. } | Decision::Accept { .. } => assert!(!ran, "{}", plan.nodes[index].id),
                Decision::Maybe { .. } | Decision::Blocked { .. } => {}
            }
        }
        let mut names: Vec<String> = summary.ran.iter().map(ToString::to_string).collect();
        names.sort();
        (names, summary)
    }
}

#[test]
fn changed_and_failed_select_by_what_happened() {
    let bench = Bench::new();
    let select = |plan: &Plan, text: &str| -> Vec<String> {
        let asked = Asked { force: texts(&[text]), ..Asked::default() };
        let choice = bench.choose(plan, &asked).expect("selects");
        choice.overrides.force.iter().map(|index| plan.nodes[*index].id.to_string()).collect()
    };
    assert_eq!(select(&chain(3, 2, ""), "changed").len(), 4, "nothing ran yet");
    bench.run(&chain(3, 2, ""));
    assert_eq!(select(&chain(3, 2, ""), "changed"), [""; 0]);
    assert_eq!(select(&chain(3, 4, ""), "changed"), ["scaled"]);
    assert_eq!(select(&chain(3, 4, ""), "changed+"), ["scaled", "gathered"]);
    // Both differ by themselves, though the second also waits for the first.
    assert_eq!(select(&chain(5, 4, ""), "changed"), ["numbers", "scaled"]);
    let failing = plan(vec![node("bad", "fail", json!({}), &[]), node("after", "scale", json!({"by": 1}), &[0])]);
    assert_eq!(select(&failing, "failed"), [""; 0]);
    bench.run(&failing);
    assert_eq!(select(&failing, "failed"), ["bad"]);
    assert_eq!(select(&failing, "failed+"), ["bad", "after"]);
    let wrong = bench.choose(&failing, &Asked { targets: texts(&["fialed"]), ..Asked::default() }).expect_err("wrong");
    assert!(wrong.contains("in `fialed`: unknown stage \"fialed\""), "{wrong}");
}

#[test]
fn only_runs_what_is_named_and_refuses_where_an_input_is_missing() {
    let bench = Bench::new();
    let only = |text: &str| Asked { only: texts(&[text]), ..Asked::default() };
    let refused = bench.choose(&chain(3, 2, ""), &only("scaled")).expect_err("nothing is there");
    for part in
        ["in `--only scaled`", "its input numbers is not there", "never run", "--target scaled", "--only +scaled"]
    {
        assert!(refused.contains(part), "{part} is missing in {refused}");
    }
    bench.run(&chain(3, 2, ""));
    assert_eq!(bench.ran_as(&chain(3, 4, ""), &only("scaled")).0, ["scaled"]);
    assert_eq!(bench.ran_as(&chain(3, 9, ""), &only("beside")).0, [""; 0], "what is not named does not run");
    let refused = bench.choose(&chain(3, 9, ""), &only("gathered")).expect_err("scaled would run");
    assert!(refused.contains("its input scaled is not there as the pipeline asks for it: by 4 → 9"), "{refused}");
    assert_eq!(bench.ran_as(&chain(3, 9, ""), &only("+gathered")).0, ["gathered", "scaled"]);
}

#[test]
fn deferring_takes_inputs_from_another_run() {
    let bench = Bench::new();
    let first = bench.run(&chain(3, 2, ""));
    let defer = |only: &[&str], targets: &[&str], run: &str| Asked {
        only: texts(only),
        targets: texts(targets),
        defer: Some(run.to_owned()),
        ..Asked::default()
    };
    // The numbers are others now, but those of the first run are scaled.
    let (ran, summary) = bench.ran_as(&chain(9, 10, ""), &defer(&[], &["scaled"], &first.run[..24]));
    assert_eq!(ran, ["scaled"]);
    assert_eq!(bench.values(&summary, 1), [0, 10, 20]);
    let (ran, _) = bench.ran_as(&chain(9, 11, ""), &defer(&["scaled"], &[], &first.run));
    assert_eq!(ran, ["scaled"]);
    // What was taken is not what the pipeline ran with: a plan goes on as before.
    assert!(bench.reason(&chain(9, 10, ""), "numbers").starts_with("n 3 → 9"));
    let wrong = |asked: Asked| bench.choose(&chain(9, 10, ""), &asked).expect_err("refused");
    assert!(wrong(defer(&[], &["scaled"], "01ZZ")).contains("no run is \"01ZZ\""));
    assert!(wrong(defer(&[], &[], &first.run)).contains("every stage is selected"));
}

#[test]
fn accepting_blesses_the_last_result_under_the_new_key() {
    let bench = Bench::new();
    let first = bench.run(&chain(3, 2, ""));
    let asked = Asked { accept: texts(&["scaled"]), accepts: word(), ..Asked::default() };
    let choice = bench.choose(&chain(3, 7, ""), &asked).expect("a good choice");
    let planned = decide_with(&chain(3, 7, ""), &bench.store, &choice.overrides);
    assert!(matches!(&planned[1], Decision::Accept { reason, .. } if reason.text == "by 2 → 7"));
    assert!(matches!(&planned[3], Decision::Hit { .. }), "what follows has the same input as before");
    let (ran, summary) = bench.ran_as(&chain(3, 7, ""), &asked);
    assert_eq!(ran, [""; 0]);
    assert_eq!(bench.values(&summary, 1), [0, 2, 4]);
    let record = summary.records[1].as_ref().expect("accepted");
    let accepted = record.accepted.as_ref().expect("it says so");
    assert_eq!((accepted.who.as_str(), accepted.why.as_str()), ("ada", "only the writer changed"));
    assert_eq!(accepted.from, first.records[1].as_ref().expect("done").key);
    // From now on it is a hit, and still says who accepted it.
    let again = bench.run(&chain(3, 7, ""));
    assert_eq!((again.ran.len(), &again.records[1]), (0, &summary.records[1]));
    // Accepted once more for a third key, it still names the key it was made under.
    let (_, third) = bench.ran_as(&chain(3, 8, ""), &asked);
    let third = third.records[1].as_ref().and_then(|record| record.accepted.clone()).expect("accepted");
    assert_eq!(third.from, accepted.from);
    // A rerun that is asked for takes its place.
    let forced = Asked { force: texts(&["scaled"]), ..Asked::default() };
    let (ran, summary) = bench.ran_as(&chain(3, 7, ""), &forced);
    assert_eq!(ran, ["gathered", "scaled"]);
    assert_eq!(summary.records[1].as_ref().and_then(|record| record.accepted.clone()), None);
}

#[test]
fn only_a_result_that_is_there_can_be_accepted() {
    let bench = Bench::new();
    let accept = |text: &str| Asked { accept: texts(&[text]), accepts: word(), ..Asked::default() };
    let refused = bench.choose(&chain(3, 2, ""), &accept("scaled")).expect_err("nothing ran");
    assert!(refused.contains("in `--accept scaled`: no earlier run of this pipeline has its result"), "{refused}");
    bench.run(&chain(3, 2, ""));
    let both = Asked { force: texts(&["scaled"]), ..accept("scaled") };
    assert!(bench.choose(&chain(3, 7, ""), &both).expect_err("both").contains("it is forced as well"));
    let mut always = chain(3, 7, "");
    always.nodes[1].uncacheable = true;
    assert!(bench.choose(&always, &accept("scaled")).expect_err("always").contains("it always runs"));
}

#[test]
fn ask_11_a_lock_names_every_digest_and_tells_what_deviates() {
    let bench = Bench::new();
    let file = bench.home.path().join("numbers.txt");
    fs::write(&file, "1 2 3").expect("written");
    let pipeline = |by: i64| {
        plan(vec![
            node("loaded", "load", json!({"path": file}), &[]),
            node("scaled", "scale", json!({"by": by}), &[0]),
            node("made", "make", json!({"note": "{}"}), &[]),
        ])
    };
    let locked = pipeline(2);
    assert!(Lock::of(&locked, &bench.store, &decide(&locked, &bench.store)).is_err(), "nothing is there");
    let mut always = pipeline(2);
    always.nodes[0].uncacheable = true;
    let refused = Lock::of(&always, &bench.store, &decide(&always, &bench.store)).expect_err("nothing to hold it to");
    assert!(refused.message.contains("loaded is uncacheable"), "{refused}");
    bench.run(&locked);
    let lock = Lock::of(&locked, &bench.store, &decide(&locked, &bench.store)).expect("a lock");
    let lock = Lock::parse(&lock.to_yaml()).expect("it survives its text");
    assert_eq!(lock.stages.len(), 3);
    assert_eq!(lock.stages[1].inputs["rows"], ["loaded.out"]);
    assert_eq!(lock.stages[0].files["path"].len(), 1);
    let fresh = || Store::open(bench.store.root()).expect("opens");
    let said = |plan: &Plan| -> Vec<String> {
        let deviations = lock.check_definitions(plan, &bench.store, None);
        deviations.into_iter().map(|found| format!("{}: {}", found.stage, found.what)).collect()
    };
    assert_eq!(said(&locked), [""; 0]);
    assert_eq!(lock.check_results(&locked, &fresh(), None), []);
    assert_eq!(said(&pipeline(5)), ["scaled: by 2 → 5"]);
    let mut versions = pipeline(2);
    let mut raised = *versions.nodes[1].entry;
    raised.version = 2;
    versions.nodes[1].entry = Box::leak(Box::new(raised));
    assert_eq!(said(&versions), ["scaled: operator version 1 → 2"]);
    let mut fewer = pipeline(2);
    fewer.nodes.pop();
    assert_eq!(said(&fewer), ["made: is in the lock and not in the pipeline"]);
    fs::write(&file, "1 2 4").expect("written");
    assert_eq!(said(&locked), ["loaded: file of path changed"]);
    // In a store that never saw the locked keys the lock itself must do.
    let elsewhere = Store::open(bench.home.path().join("elsewhere")).expect("opens");
    let found = lock.check_definitions(&versions, &elsewhere, Some(&[0, 1].into()));
    let words: Vec<&str> = found.iter().map(|found| found.what.as_str()).collect();
    assert!(words[0].starts_with("file of path ") && words[1] == "operator version 1 → 2", "{words:?}");
    fs::write(&file, "1 2 3").expect("written");
    // A flipped byte of a result is seen, and so is a result of other content.
    let record = bench.run(&locked).records[1].clone().expect("a hit");
    assert_eq!(lock.check_records([("scaled".to_owned(), &record)].into_iter()), []);
    let mut other = record.clone();
    other.outputs[0].content.hash[0] ^= 1;
    assert_eq!(lock.check_records([("scaled".to_owned(), &other)].into_iter()).len(), 1);
    let blob = bench.store.blob(&record.outputs[0].files[0]);
    let mut bytes = fs::read(&blob).expect("read");
    bytes[30] ^= 1;
    fs::remove_file(&blob).expect("removed");
    fs::write(&blob, bytes).expect("written");
    let found = lock.check_results(&locked, &fresh(), None);
    assert_eq!((found.len(), found[0].stage.as_str(), found[0].cause), (1, "scaled", Cause::Environment));
    assert!(Lock::parse("format: 9\npipeline: x\nfuseline: y\nstages: []\n").is_err());
    assert!(Lock::parse("tables: 1\n").is_err());
}

#[test]
fn ask_11_a_rerun_aside_finds_an_operator_that_breaks_its_promise() {
    let bench = Bench::new();
    let honest = chain(3, 2, "");
    let fickle = plan(vec![node("n", "count", json!({"n": 2}), &[]), node("f", "fickle", json!({}), &[0])]);
    bench.run(&honest);
    bench.run(&fickle);
    let rerun = |plan: &Plan, index: usize| {
        let (cancel, quiet) = (AtomicBool::new(false), |_: Event| {});
        let means = Means { options: bench.options(), runners: &RUNNERS, cancel: &cancel, on_event: &quiet };
        rerun::rerun(plan, &bench.store, &decide(plan, &bench.store), index, &means)
    };
    let runs = ledger::run_entries(&bench.store).expect("runs").len();
    for index in 0..4 {
        let again = rerun(&honest, index).expect("it runs");
        assert!(again.outputs().all(|(.., verdict)| verdict == Verdict::Same), "{}", honest.nodes[index].id);
    }
    let again = rerun(&fickle, 1).expect("it runs");
    let (before, now, verdict) = again.outputs().next().expect("an output");
    assert_eq!((verdict, before.kind), (Verdict::Differs, ArtifactKind::Table));
    assert_ne!(
        values(&bench.store.table(&before.artifact).expect("there")),
        values(&again.store.table(&now.artifact).expect("aside"))
    );
    let aside = again.store.root().to_owned();
    assert!(aside.exists());
    drop(again);
    assert!(!aside.exists());
    assert_eq!(ledger::run_entries(&bench.store).expect("runs").len(), runs, "nothing is noted in the store");
    assert_eq!(bench.ran(&fickle), [""; 0], "and nothing is replaced");
    let unknown = plan(vec![node("new", "count", json!({"n": 77}), &[])]);
    assert!(rerun(&unknown, 0).err().is_some_and(|error| error.message.contains("no result to compare with")));
}
