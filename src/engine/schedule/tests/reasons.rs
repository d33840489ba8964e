//! One test for each reason code, and the explanation behind it.

use super::*;
use crate::explain::{Explainer, Explanation};
use crate::history::{Basis, History, forecast};
use crate::why::Reason;

impl Bench {
    /// The reason for which an instance would run.
    fn reason_of(&self, plan: &Plan, index: usize) -> Reason {
        match decide(plan, &self.store).swap_remove(index) {
            Decision::Run { reason, .. } => reason,
            other => panic!("{} would not run: {other:?}", plan.nodes[index].id),
        }
    }

    fn code(&self, plan: &Plan, index: usize) -> Code {
        self.reason_of(plan, index).code
    }

    fn explain(&self, plan: &Plan, index: usize) -> Explanation {
        let decisions = decide(plan, &self.store);
        Explainer::new(plan, &self.store, &decisions, None).explain(index).expect("explained")
    }
}

/// Another entry in place of a node's.
fn with_entry(mut plan: Plan, index: usize, change: impl Fn(&mut Entry)) -> Plan {
    let mut entry = *plan.nodes[index].entry;
    change(&mut entry);
    plan.nodes[index].entry = Box::leak(Box::new(entry));
    plan
}

/// A model, a table, and one that reads the model.
fn inspected(note: &str) -> Plan {
    plan(vec![node("made", "make", json!({"note": note}), &[]), node("seen", "inspect", json!({}), &[0])])
}

fn blob_of(bench: &Bench, summary: &RunSummary, index: usize) -> PathBuf {
    bench.store.blob(&summary.records[index].as_ref().expect("done").outputs[0].files[0])
}

#[test]
fn reason_never_run() {
    assert_eq!(Bench::new().code(&chain(3, 2, ""), 0), Code::NeverRun);
}

#[test]
fn reason_param() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let reason = bench.reason_of(&chain(3, 4, ""), 1);
    assert_eq!((reason.code, reason.text.as_str()), (Code::Param, "by 2 → 4"));
}

#[test]
fn reason_op_version() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let raised = with_entry(chain(3, 2, ""), 1, |entry| entry.version = 2);
    let reason = bench.reason_of(&raised, 1);
    assert_eq!((reason.code, reason.text.as_str()), (Code::OpVersion, "operator version 1 → 2"));
}

#[test]
fn reason_part_version() {
    const OLD: &[Part] = &[Part { name: "lm.decoder", version: 1 }];
    const NEW: &[Part] = &[Part { name: "lm.decoder", version: 2 }];
    let bench = Bench::new();
    bench.run(&with_entry(chain(3, 2, ""), 1, |entry| entry.parts = OLD));
    let reason = bench.reason_of(&with_entry(chain(3, 2, ""), 1, |entry| entry.parts = NEW), 1);
    assert_eq!((reason.code, reason.text.as_str()), (Code::PartVersion, "version of lm.decoder 1 → 2"));
}

#[test]
fn reason_input() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    // The numbers are made anew by another target, so that what reads them knows them.
    let options = RunOptions { targets: Some([0].into()), ..bench.options() };
    bench.run_with(&chain(5, 2, ""), &options);
    assert_eq!(bench.code(&chain(5, 2, ""), 1), Code::Input);
    let explanation = bench.explain(&chain(5, 2, ""), 1);
    assert_eq!(explanation.differences[0].because.as_deref(), Some("numbers ran: n 3 → 5"));
    let replaced = &explanation.differences[0].replaced[0];
    assert_eq!((replaced.before.rows, replaced.now.rows), (Some(3), Some(5)));
}

#[test]
fn reason_file() {
    let bench = Bench::new();
    let file = bench.home.path().join("file");
    let loaded = plan(vec![node("loaded", "load", json!({"path": file}), &[])]);
    fs::write(&file, "1 2").expect("written");
    bench.run(&loaded);
    fs::write(&file, "1 2 3").expect("written");
    assert_eq!(bench.code(&loaded, 0), Code::File);
}

#[test]
fn reason_model() {
    let bench = Bench::new();
    bench.run(&inspected("{}"));
    let options = RunOptions { targets: Some([0].into()), ..bench.options() };
    bench.run_with(&inspected("{\"a\": 1}"), &options);
    assert_eq!(bench.code(&inspected("{\"a\": 1}"), 1), Code::Model);
}

#[test]
fn reason_seed() {
    let bench = Bench::new();
    let seeded = |seed| {
        let mut plan = plan(vec![node("seeded", "seeded", json!({}), &[])]);
        plan.nodes[0].seed = seed;
        plan
    };
    bench.run(&seeded(1));
    assert_eq!(bench.code(&seeded(2), 0), Code::Seed);
}

#[test]
fn reason_numerics() {
    let bench = Bench::new();
    let class = |class| with_entry(chain(3, 2, ""), 1, move |entry| entry.traits.numerics = Some(class));
    bench.run(&class("f32/cpu"));
    assert_eq!(bench.reason_of(&class("bf16/cuda"), 1).text, "numerics f32/cpu → bf16/cuda");
    assert_eq!(bench.code(&class("bf16/cuda"), 1), Code::Numerics);
}

#[test]
fn reason_salt() {
    let bench = Bench::new();
    let salted = |salt: &str| Plan { salt: Some(salt.to_owned()), ..chain(3, 2, "") };
    bench.run(&chain(3, 2, ""));
    assert_eq!(bench.reason_of(&salted("poisoned"), 0).text, "salt poisoned added");
    assert_eq!(bench.code(&salted("poisoned"), 0), Code::Salt);
    assert_eq!(bench.ran(&salted("poisoned")).len(), 4, "nothing made without it is used");
    assert_eq!(bench.ran(&chain(3, 2, "")), [""; 0]);
}

#[test]
fn reason_forced() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let overrides = Overrides { force: [1].into(), ..Overrides::default() };
    let decisions = decide_with(&chain(3, 2, ""), &bench.store, &overrides);
    assert!(matches!(&decisions[1], Decision::Run { reason, .. } if reason.code == Code::Forced));
}

#[test]
fn reason_record_missing() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    fs::remove_dir_all(bench.store.root().join("ac")).expect("removed");
    assert_eq!(bench.code(&chain(3, 2, ""), 0), Code::RecordMissing);
}

#[test]
fn reason_blob_missing() {
    let bench = Bench::new();
    let summary = bench.run(&chain(3, 2, ""));
    fs::remove_file(blob_of(&bench, &summary, 1)).expect("removed");
    assert_eq!(bench.code(&chain(3, 2, ""), 1), Code::BlobMissing);
}

#[test]
fn reason_blob_corrupt() {
    let bench = Bench::new();
    let summary = bench.run(&chain(3, 2, ""));
    let path = blob_of(&bench, &summary, 1);
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "short").expect("written");
    assert_eq!(bench.code(&chain(3, 2, ""), 1), Code::BlobCorrupt, "of another size");
    let mut bytes =
        vec![0; usize::try_from(summary.records[1].as_ref().expect("done").outputs[0].files[0].size).expect("small")];
    bytes[0] = 1;
    fs::write(&path, bytes).expect("written");
    let digest = summary.records[1].as_ref().expect("done").outputs[0].files[0];
    Store::open(bench.store.root()).expect("opens").verify(&digest).expect_err("other bytes");
    assert_eq!(bench.code(&chain(3, 2, ""), 1), Code::BlobCorrupt, "moved aside");
}

#[test]
fn reason_previous_failed() {
    let bench = Bench::new();
    let failing = plan(vec![node("bad", "fail", json!({}), &[])]);
    bench.run(&failing);
    assert_eq!(bench.code(&failing, 0), Code::PreviousFailed);
}

#[test]
fn reason_uncacheable() {
    let bench = Bench::new();
    let mut always = chain(3, 2, "");
    always.nodes[0].uncacheable = true;
    bench.run(&always);
    assert_eq!(bench.code(&always, 0), Code::Uncacheable);
}

#[test]
fn codes_have_the_names_of_the_field() {
    let codes =
        [Code::NeverRun, Code::OpVersion, Code::PartVersion, Code::BlobCorrupt, Code::PreviousFailed, Code::Model];
    let names = codes.map(|code| code.to_string());
    assert_eq!(names, ["never-run", "op-version", "part-version", "blob-corrupt", "previous-failed", "model"]);
}

#[test]
fn causes_are_followed_to_the_first_one_across_runs() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let until = |plan: &Plan, target: usize| {
        let options = RunOptions { targets: Some([target].into()), ..bench.options() };
        bench.run_with(plan, &options);
    };
    until(&chain(5, 2, ""), 0);
    until(&chain(5, 2, ""), 1);
    let explanation = bench.explain(&chain(5, 2, ""), 3);
    // "beside" has not run, so what is gathered is not known yet.
    assert!(explanation.differences.is_empty());
    until(&chain(5, 2, ""), 2);
    let explanation = bench.explain(&chain(5, 2, ""), 3);
    let because = explanation.differences[0].because.as_deref();
    assert_eq!(because, Some("scaled ran, because numbers ran: n 3 → 5"));
    assert_eq!(explanation.differences[0].replaced.len(), 2);
}

#[test]
fn what_is_not_in_the_key_is_told_apart() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let mut changed = chain(3, 4, "");
    changed.nodes[1].resources.cpus = 3;
    Arc::make_mut(&mut changed.nodes[1].resolved).params["workers"] = json!(8);
    changed.nodes[1].seed = 9;
    let explanation = bench.explain(&changed, 1);
    let names: Vec<&str> = explanation.differences.iter().map(|difference| difference.change.what.as_str()).collect();
    assert_eq!(names, ["by"]);
    let names: Vec<String> = explanation.not_causes.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["resources.cpus 1 → 3", "seed 7 → 9", "workers 0 → 8"]);
    // Of a hit the same is told: what changed and did not matter.
    let mut same = chain(3, 2, "");
    same.nodes[1].resources.gpus = 0;
    same.nodes[1].resources.mem_bytes = Some(5);
    let decisions = decide(&same, &bench.store);
    let explainer = Explainer::new(&same, &bench.store, &decisions, None);
    let since: Vec<String> = explainer.changed_since(1).expect("told").iter().map(ToString::to_string).collect();
    assert_eq!(since, ["resources.mem not stated → 5 bytes"]);
}

#[test]
fn a_stage_that_never_ran_is_compared_with_the_likest_result() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let other = plan(vec![node("n", "count", json!({"n": 3}), &[]), node("renamed", "scale", json!({"by": 6}), &[0])]);
    let explanation = bench.explain(&other, 1);
    let against = explanation.against.expect("two are like it");
    assert!(!against.same_stage);
    assert_eq!(explanation.differences.len(), 1);
    assert_eq!(explanation.differences[0].change.what, "by");
}

#[test]
fn ask_3_forecasts_come_from_the_same_definition_or_are_scaled_by_rows() {
    let bench = Bench::new();
    bench.run(&chain(10, 2, ""));
    bench.run(&chain(40, 3, ""));
    let forecasts = |plan: &Plan| {
        let decisions = decide(plan, &bench.store);
        forecast(plan, &History::of(&bench.store).expect("history"), &decisions)
    };
    // What never ran with these parameters: the stage's last run, by the rows it will read.
    let changed = forecasts(&chain(10, 7, ""));
    let scaled = changed[1].as_ref().expect("it ran before");
    assert_eq!((scaled.basis, scaled.rows), (Basis::Stage, Some(10)));
    assert_eq!((&changed[0], &changed[2]), (&None, &None), "hits cost nothing");
    let gathered = changed[3].as_ref().expect("it ran before");
    assert_eq!((gathered.basis, gathered.rows), (Basis::Stage, Some(20)), "two tables of ten rows");
    // Of the same definition: as it was, even where the record is gone.
    fs::remove_dir_all(bench.store.root().join("ac")).expect("removed");
    let again = forecasts(&chain(40, 3, ""));
    assert!(again.iter().all(|forecast| forecast.as_ref().is_some_and(|forecast| forecast.basis == Basis::Definition)));
    assert_eq!(again[3].as_ref().and_then(|forecast| forecast.rows), Some(80));
    let mut gpus = chain(10, 9, "");
    gpus.nodes[1].resources.gpus = 2;
    let costs = forecasts(&gpus);
    let cost = costs[1].as_ref().expect("it ran before");
    assert!((cost.gpu_hours - cost.seconds * 2.0 / 3600.0).abs() < 1e-12);
    let unknown = forecasts(&plan(vec![node("new", "seeded", json!({}), &[])]));
    assert_eq!(unknown, [None]);
}
