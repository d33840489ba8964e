//! Collections of stores small enough to know what must be left.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field};
use fuseline_contract::{StageId, Table};

use super::*;
use crate::care::fsck::{self, fsck};
use crate::ledger::{Ledger, StageEntry};
use crate::plan::Resources;
use crate::store::Faults;
use crate::store::manifest::{InputRecord, Made};
use crate::store::staging::stage_table;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Bench {
    home: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path()).expect("opens");
        store.prepare().expect("prepares");
        Self { home, store }
    }

    /// Another process's view of the store.
    fn other(&self) -> Store {
        Store::open(self.home.path()).expect("opens")
    }

    /// Publishes a table of n rows under a key, made from other results.
    fn publish(&self, key: u8, rows: i64, from: &[&Record]) -> Record {
        publish_to(&self.store, key, rows, from)
    }

    fn note(&self, pipeline: &str, records: &[&Record]) {
        let ledger = Ledger::begin(&self.store, pipeline, records.len(), Default::default()).expect("begins");
        for record in records {
            ledger.stage(&entry(record)).expect("noted");
        }
        ledger.end([records.len(), 0, 0, 0], 0.1, 0).expect("ends");
        // Ids of runs order them by the millisecond.
        std::thread::sleep(Duration::from_millis(2));
    }

    /// Lets a result be as old as if it had not been used since.
    fn age(&self, record: &Record, days: u32) {
        let folder = self.store.records(&record.key);
        let blobs = record.outputs[0].blobs().map(|blob| self.store.blob(&blob));
        for path in blobs.chain([folder.join("1.rec"), folder]) {
            fs::File::open(path).expect("there").set_modified(SystemTime::now() - DAY * days).expect("set");
        }
    }

    /// The keys of the results that are there, whole.
    fn keys(&self) -> Vec<u8> {
        (0..=255).filter(|key| self.store.lookup(&Key([*key; 32])).is_ok()).collect()
    }

    /// Collects as if so much time had passed.
    fn collect(&self, days: u32, change: impl FnOnce(&mut Options)) -> Report {
        let mut options = Options { now: SystemTime::now() + DAY * days, ..Options::default() };
        change(&mut options);
        let before = self.keys();
        let look = gc(&self.other(), &options, false).expect("looked");
        assert_eq!(self.keys(), before, "a look changes nothing");
        let report = gc(&self.other(), &options, true).expect("collected");
        assert_eq!((&look.records, look.blobs, look.kept), (&report.records, report.blobs, report.kept));
        let whole = fsck(&self.other(), fsck::Options::default()).expect("checked");
        assert_eq!(whole.findings, [], "nothing dangles");
        report
    }
}

fn publish_to(store: &Store, key: u8, rows: i64, from: &[&Record]) -> Record {
    let array = Arc::new(Int64Array::from_iter_values(0..rows));
    let table = Table::of_columns(vec![(Field::new("x", DataType::Int64, false), array)]).expect("a table");
    let staged = stage_table(&table, &store.temporary("table")).expect("staged");
    let staged = vec![("rows".to_owned(), staged)];
    let made = Made { seconds: f64::from(key), ..Made::default() };
    let input = |record: &&Record| InputRecord { port: "rows".into(), artifact: record.outputs[0].artifact };
    let record = Record::new(Key([key; 32]), "toy", vec![], false, made).made_from(from.iter().map(input).collect());
    publish::publish(store, publish::Pending::new(record, staged)).expect("published").record
}

fn entry(record: &Record) -> StageEntry {
    StageEntry {
        id: StageId::plain(format!("stage-{}", record.key.0[0])),
        operator: "toy".into(),
        operator_version: 1,
        key: Some(record.key),
        definition: None,
        outcome: "ran".into(),
        reason: None,
        started_ms: 0,
        seconds: 0.0,
        peak_bytes: None,
        host: None,
        params: serde_json::json!({}),
        seed: 0,
        resources: Resources::default(),
        outputs: record.outputs.clone(),
        error: None,
        stdout: None,
        stderr: None,
        memo: None,
        usage: None,
        device: None,
        energy_joules: None,
    }
}

#[test]
fn what_is_young_stays_and_what_nobody_used_for_long_goes_a_generation_later() {
    let bench = Bench::new();
    let record = bench.publish(1, 10, &[]);
    assert_eq!(bench.collect(13, |_| {}).records, []);
    let report = bench.collect(15, |_| {});
    assert_eq!(report.records.iter().map(|dropped| dropped.key).collect::<Vec<_>>(), [record.key]);
    assert_eq!((report.blobs.files, report.kept.files, report.emptied.files), (2, 0, 0));
    assert!(bench.keys().is_empty());
    let report = bench.collect(15, |_| {});
    assert_eq!((report.records.len(), report.blobs.files, report.emptied.files), (0, 0, 3));
    bench.publish(1, 10, &[]);
    assert_eq!(bench.keys(), [1], "it can be made anew");
}

#[test]
fn the_last_runs_stay_with_what_they_were_made_from() {
    let bench = Bench::new();
    let source = bench.publish(1, 1, &[]);
    let middle = bench.publish(2, 2, &[&source]);
    let last = bench.publish(3, 3, &[&middle]);
    let before = bench.publish(4, 4, &[]);
    bench.note("paper", &[&before]);
    bench.note("paper", &[&last]);
    bench.note("other", &[&before]);
    let report = bench.collect(100, |options| options.keep_runs = 1);
    assert_eq!((bench.keys(), report.records.len()), (vec![1, 2, 3, 4], 0));
    bench.note("other", &[&last]);
    let report = bench.collect(100, |options| options.keep_runs = 1);
    assert_eq!(bench.keys(), [1, 2, 3]);
    let gone = &report.records[0];
    assert_eq!((gone.pipeline.as_deref(), gone.stage.as_deref()), (Some("other"), Some("stage-4")));
    bench.collect(100, |options| (options.keep_runs, options.forget_inputs) = (1, true));
    assert_eq!(bench.keys(), [3]);
}

#[test]
fn an_input_whose_record_is_gone_keeps_its_bytes() {
    let bench = Bench::new();
    let source = bench.publish(1, 1, &[]);
    let last = bench.publish(2, 2, &[&source]);
    bench.note("paper", &[&last]);
    fs::remove_dir_all(bench.store.records(&source.key)).expect("removed");
    bench.collect(100, |_| {});
    bench.store.table(&source.outputs[0].artifact).expect("it can still be read");
}

#[test]
fn pins_keep_their_results_until_they_are_unpinned() {
    let bench = Bench::new();
    let source = bench.publish(1, 1, &[]);
    let pinned = bench.publish(2, 2, &[&source]);
    bench.publish(3, 3, &[]);
    pins::pin(&bench.store, "paper-v1", "p", "s", std::slice::from_ref(&pinned)).expect("pinned");
    let again = pins::pin(&bench.store, "paper-v1", "p", "s", &[]).expect_err("taken");
    assert!(again.hint().is_some_and(|hint| hint.contains("unpin paper-v1")), "{again}");
    for name in ["", "../x", ".hidden", "a b"] {
        assert!(pins::pin(&bench.store, name, "p", "s", &[]).is_err(), "{name:?}");
    }
    bench.collect(100, |_| {});
    assert_eq!(bench.keys(), [1, 2]);
    // Not even for want of room.
    bench.collect(100, |options| options.max_bytes = Some(0));
    assert_eq!(bench.keys(), [1, 2]);
    assert!(pins::unpin(&bench.store, "paper").is_err());
    pins::unpin(&bench.store, "paper-v1").expect("unpinned");
    bench.collect(100, |_| {});
    assert!(bench.keys().is_empty());
}

#[test]
fn a_damaged_pin_stops_the_collector_before_it_takes_anything() {
    let bench = Bench::new();
    let pinned = bench.publish(2, 2, &[]);
    pins::pin(&bench.store, "paper", "p", "s", &[pinned]).expect("pinned");
    let path = bench.home.path().join("roots/paper");
    let mut bytes = fs::read(&path).expect("read");
    bytes[20] ^= 4;
    fs::write(&path, bytes).expect("written");
    let options = Options { now: SystemTime::now() + DAY * 100, ..Options::default() };
    let error = gc(&bench.other(), &options, true).expect_err("what it keeps is not known");
    assert!(error.hint().is_some_and(|hint| hint.contains("fsck")), "{error}");
    assert_eq!(bench.keys(), [2]);
}

#[test]
fn shared_blobs_stay_while_one_result_has_them() {
    let bench = Bench::new();
    let first = bench.publish(1, 5, &[]);
    let second = bench.publish(2, 5, &[]);
    assert_eq!(first.outputs[0].artifact, second.outputs[0].artifact);
    bench.note("paper", &[&second]);
    // Key 1 was in no run that is kept, but its artifact is: what made it stays too.
    bench.collect(100, |_| {});
    assert_eq!(bench.keys(), [1, 2]);
    bench.collect(100, |options| options.forget_inputs = true);
    assert_eq!(bench.keys(), [2]);
    bench.store.table(&second.outputs[0].artifact).expect("its bytes are there");
}

#[test]
fn a_budget_takes_the_oldest_first_and_of_a_day_the_cheapest_for_its_size() {
    let bench = Bench::new();
    // Seconds are the key; rows are alike in size.
    let (old, quick, slow) = (bench.publish(9, 1000, &[]), bench.publish(1, 1001, &[]), bench.publish(8, 1002, &[]));
    bench.note("paper", &[&old, &quick, &slow]);
    bench.age(&old, 3);
    let size = |record: &Record| record.outputs[0].blobs().map(|blob| blob.size).sum::<u64>();
    let later = |room: u64| {
        move |options: &mut Options| {
            options.now = SystemTime::now() + Duration::from_secs(60);
            options.max_bytes = Some(room);
        }
    };
    let all = size(&old) + size(&quick) + size(&slow);
    bench.collect(0, later(all));
    assert_eq!(bench.keys(), [1, 8, 9]);
    bench.collect(0, later(all - 1));
    assert_eq!(bench.keys(), [1, 8]);
    let report = bench.collect(0, later(size(&quick) + size(&slow) - 1));
    assert_eq!(bench.keys(), [8]);
    assert_eq!(report.kept.bytes, size(&slow));
}

#[test]
fn a_result_without_its_bytes_and_what_killed_processes_left_go() {
    let bench = Bench::new();
    let broken = bench.publish(1, 5, &[]);
    fs::remove_file(bench.store.blob(&broken.outputs[0].files[0])).expect("removed");
    for path in ["tmp/blob-x", "work/k/attempt/out-rows", "locks/k", "leases/k", "runs/r/stages.ndjson"] {
        let path = bench.home.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, "left").expect("written");
    }
    let report = bench.collect(0, |_| {});
    let found = (report.records.len(), report.scratch.files);
    assert_eq!(found, (1, 1), "a miss and a dead lease go at once, the rest when it is old");
    let report = bench.collect(15, |_| {});
    assert_eq!(report.scratch.files, 3);
    assert!(entries(&bench.home.path().join("locks")).expect("locks").is_empty());
}

#[test]
fn one_collector_at_a_time() {
    let bench = Bench::new();
    let other = bench.other();
    let Asked::Ours(_claim) = other.try_claim(GC, "gc", &mut Watch::default()).expect("asks") else { panic!("free") };
    let error = gc(&bench.store, &Options::default(), true).expect_err("refused");
    assert!(error.to_string().contains("another collection"), "{error}");
    gc(&bench.store, &Options::default(), false).expect("a look needs no lease");
}

/// What a run does at every hit, in the middle of a collection.
#[test]
fn ask_28_a_hit_while_a_collection_goes_on_keeps_what_it_relies_on() {
    let bench = Bench::new();
    let options = Options { now: SystemTime::now() + DAY * 100, ..Options::default() };
    // After how many candidates the hit comes: 4 results, then their 8 blobs.
    for after in 0..=12 {
        let records: Vec<Record> = (1..=4).map(|key| bench.publish(key, i64::from(key), &[])).collect();
        records.iter().for_each(|record| bench.age(record, 50));
        let store = bench.other();
        let trash = store.root().join("trash").join(format!("{after}"));
        let run = bench.other();
        fs::write(bench.home.path().join("leases").join(GC), "what the run sees of a collector").expect("written");
        let (mut seen, mut relied) = (0, false);
        let collector = Collector::look(&store, &options).expect("looked");
        collector
            .run(&mut |path, touched| {
                if seen == after {
                    relied = run.lookup(&records[3].key).is_ok() && run.rely_on(&records[3]);
                }
                seen += 1;
                discard(&store, &trash, path, touched)
            })
            .expect("collected");
        assert!(seen >= 9, "{seen} candidates");
        let there = bench.other().lookup(&records[3].key).is_ok();
        assert_eq!((there, relied), (after < 4, after < 4), "a hit after {after} candidates");
    }
}

/// A touch between the look at a path and its move is seen after the move.
#[test]
fn ask_28_what_is_touched_before_it_moves_goes_back() {
    let bench = Bench::new();
    let record = bench.publish(1, 5, &[]);
    let trash = bench.home.path().join("trash/g");
    let folder = bench.store.records(&record.key);
    let blob = bench.store.blob(&record.outputs[0].artifact);
    for path in [&folder, &blob] {
        let seen = stat(path).expect("read").and_then(|meta| meta.modified().ok());
        fs::File::open(path).expect("there").set_modified(SystemTime::now() + DAY).expect("touched");
        assert_eq!(discard(&bench.store, &trash, path, seen).expect("moved"), Moved::Stays);
        assert!(path.exists());
    }
    assert_eq!(bench.keys(), [1]);
}

#[test]
fn a_collector_that_dies_at_any_moment_leaves_a_whole_store() {
    for nth in 1..=6 {
        let bench = Bench::new();
        let records: Vec<Record> = (1..=2).map(|key| bench.publish(key, i64::from(key), &[])).collect();
        let faults = Faults::parse(&format!("trashed:full:{nth}")).expect("parses");
        let store = Store::with_faults(bench.home.path(), faults).expect("opens");
        let options = Options { now: SystemTime::now() + DAY * 100, ..Options::default() };
        gc(&store, &options, true).expect_err("it fails");
        let report = fsck(&bench.other(), fsck::Options::default()).expect("checked");
        assert_eq!(report.findings, [], "{nth}");
        for record in records {
            let key = record.key.0[0];
            assert_eq!(bench.publish(key, i64::from(key), &[]).outputs, record.outputs);
        }
        assert_eq!(bench.keys(), [1, 2]);
    }
}

#[test]
fn while_a_run_goes_on_what_was_touched_within_a_day_stays() {
    let bench = Bench::new();
    bench.publish(1, 5, &[]);
    let run = bench.other();
    let Asked::Ours(claim) = run.try_claim(&format!("{RUN}x"), "x", &mut Watch::default()).expect("asks") else {
        panic!("free")
    };
    let soon = |options: &mut Options| options.min_age = Duration::ZERO;
    bench.collect(1, soon);
    assert_eq!(bench.keys(), [1], "its hit may have left it untouched");
    drop(claim);
    bench.collect(1, soon);
    assert!(bench.keys().is_empty());
}

#[test]
fn remembered_rows_go_only_by_name_and_age_and_lie_in_the_trash_at_first() {
    use crate::store::memo::RowMemo;
    let bench = Bench::new();
    let key = fuseline_contract::RowKey([1; 32]);
    for function in ["judge", "sample"] {
        let memo = RowMemo::open(&bench.store, function).expect("opens");
        memo.put(&key, b"an answer", false).expect("put");
    }
    let known = |function: &str| {
        let memo = RowMemo::open(&bench.other(), function).expect("opens");
        memo.get_many(&[key], &mut |_, row| row == b"an answer").expect("looked").found == 1
    };
    assert_eq!(bench.collect(1000, |_| {}).rows, []);
    let named = |options: &mut Options| options.memo = vec!["sample".into()];
    assert_eq!(bench.collect(10, named).rows[0].rows, 0, "they are young");
    assert!(known("sample") && known("judge"));
    let gone = bench.collect(20, named).rows;
    assert_eq!((gone.len(), gone[0].function.as_str(), gone[0].rows), (1, "sample", 1));
    assert!(!known("sample") && known("judge"));
    let trash = bench.home.path().join("trash");
    let generation = paths(&trash).expect("listed").next().expect("a generation");
    assert_eq!(paths(&generation.join("memo/sample")).expect("listed").count(), 2, "rows and index");
    let mut options = Options::default();
    options.memo.push("simple".into());
    let error = gc(&bench.store, &options, false).expect_err("unknown");
    assert!(error.hint().is_some_and(|hint| hint.contains("judge, sample")), "{error}");
}
