//! Two stores and what lies between them, well and broken.

use std::sync::atomic::Ordering;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field};
use fuseline_contract::Table;

use super::fake::{Fake, TROUBLES, Trouble};
use super::*;
use crate::store::Miss;
use crate::store::manifest::Made;
use crate::store::publish::Pending;
use crate::store::staging::{Copies, Staged, stage_model, stage_table};

const KEY: Key = Key([7; 32]);

struct Bench {
    home: tempfile::TempDir,
    objects: Arc<Fake>,
}

impl Bench {
    /// Objects to which a table of so many numbers was pushed.
    fn new(n: i64) -> Self {
        let bench = Self { home: tempfile::tempdir().expect("a folder"), objects: Fake::new() };
        let maker = bench.store("maker");
        publish_table(&maker, n, 1);
        let pushed = bench.objects.remote().push(&maker, &maker.lookup(&KEY).expect("made")).expect("pushed");
        assert!(pushed.is_new && pushed.blobs == 2, "{pushed:?}");
        bench
    }

    fn store(&self, name: &str) -> Store {
        let store = Store::open(self.home.path().join(name)).expect("opens");
        store.prepare().expect("prepares");
        store
    }

    /// A store that looks there.
    fn reader(&self, name: &str) -> Store {
        let store = self.store(name);
        store.attach(self.objects.remote());
        store
    }
}

fn numbers(n: i64) -> Table {
    let array = Arc::new(Int64Array::from_iter_values((0..n).map(|x| x * x)));
    Table::of_columns(vec![(Field::new("x", DataType::Int64, false), array)]).expect("a table")
}

fn commit(store: &Store, key: Key, staged: Staged, started_ms: u64) -> Record {
    let made = Made { started_ms, ..Made::default() };
    let pending = Pending::new(Record::new(key, "toy", Vec::new(), false, made), vec![("out".into(), staged)]);
    publish::publish(store, pending).expect("published").record
}

fn publish_table(store: &Store, n: i64, started_ms: u64) -> Record {
    let folder = store.temporary("attempt");
    let staged = stage_table(&numbers(n), &folder).expect("staged");
    commit(store, KEY, staged, started_ms)
}

#[test]
fn a_result_is_found_elsewhere_and_comes_only_when_it_is_read() {
    let bench = Bench::new(3000);
    let reader = bench.reader("reader");
    assert_eq!(reader.lookup(&KEY), Err(Miss::NoRecord));
    let found = reader.find(&KEY).expect("there");
    assert!(!found.here);
    assert_eq!(std::fs::read_dir(reader.root().join("cas")).expect("cas").count(), 0, "nothing was fetched");
    let artifact = found.record.outputs[0].artifact;
    assert_eq!(reader.table(&artifact).expect("fetched").n_rows(), 3000);
    assert_eq!(bench.objects.fetched.load(Ordering::SeqCst), 1);
    assert_eq!(reader.lookup(&KEY), Err(Miss::NoRecord), "not yet one of this store");
    reader.take_over(&found.record).expect("adopted");
    assert_eq!(reader.lookup(&KEY), Ok(found.record.clone()));
    assert!(reader.find(&KEY).expect("here").here);
    assert_eq!(std::fs::read_dir(reader.root().join("tmp")).expect("tmp").count(), 0);
    let view = bench.reader("viewer").view(&artifact).expect("a view");
    assert!(view.join("data.parquet").is_file());
    let again = bench.objects.remote().push(&reader, &found.record).expect("pushed");
    assert_eq!(again, Pushed::default(), "everything was there");
}

#[test]
fn large_blobs_go_in_parts_and_a_stopped_upload_leaves_none() {
    let bench = Bench::new(1);
    let store = bench.store("large");
    let folder = store.temporary("model");
    std::fs::create_dir_all(&folder).expect("made");
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(folder.join("weights.bin"), &bytes).expect("written");
    let record = commit(&store, Key([9; 32]), stage_model(&folder, &Copies::default()).expect("staged"), 1);
    assert_eq!(bench.objects.remote().push(&store, &record).expect("pushed").blobs, 2);
    let reader = bench.reader("reader");
    let found = reader.find(&record.key).expect("there").record;
    reader.verify_artifact(&found.outputs[0].artifact).expect("fetched");
    assert_eq!(std::fs::read(reader.blob(&found.outputs[0].files[0])).expect("here"), bytes);
}

#[test]
fn troubles_are_misses_are_told_once_and_leave_nothing_behind() {
    for trouble in TROUBLES {
        let bench = Bench::new(3000);
        bench.objects.set(trouble);
        let reader = bench.reader("reader");
        if trouble == Trouble::Down {
            assert_eq!(reader.find(&KEY), Err(Miss::NoRecord));
        } else {
            let found = reader.find(&KEY).expect("its blobs are said to be there");
            let error = reader.verify_artifact(&found.record.outputs[0].artifact).expect_err("lost");
            assert!(matches!(error, Error::BlobMissing { .. }), "{trouble:?}: {error}");
            reader.take_over(&found.record).expect("nothing to adopt");
        }
        // What was met once is known: no second try, no second word.
        assert_eq!(reader.find(&KEY), Err(Miss::NoRecord), "{trouble:?}");
        assert_eq!(reader.lookup(&KEY), Err(Miss::NoRecord), "{trouble:?}");
        let said = reader.remote().expect("attached").troubles();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("remote fake://objects: ") && !said[0].contains("hidden"), "{said:?}");
        assert_eq!(std::fs::read_dir(reader.root().join("tmp")).expect("tmp").count(), 0, "{trouble:?}");
    }
}

#[test]
fn a_record_whose_blob_is_gone_or_short_is_no_hit() {
    let bench = Bench::new(3000);
    let data = bench.objects.paths("/cas/").into_iter().max_by_key(|path| bench.objects.read(path).len());
    let data = data.expect("two blobs");
    let bytes = bench.objects.read(&data);
    bench.objects.write(&data, &bytes[1..]);
    assert_eq!(bench.reader("short").find(&KEY), Err(Miss::NoRecord));
    bench.objects.remove(&data);
    assert_eq!(bench.reader("gone").find(&KEY), Err(Miss::NoRecord));
    // Another push mends it; the record is there already.
    let maker = bench.store("maker");
    let pushed = bench.objects.remote().push(&maker, &maker.lookup(&KEY).expect("made")).expect("pushed");
    assert!(pushed.blobs == 1 && !pushed.is_new, "{pushed:?}");
    assert!(bench.reader("mended").find(&KEY).is_ok());
}

#[test]
fn the_first_record_answers_and_one_here_comes_before() {
    let bench = Bench::new(3);
    let other = bench.store("other");
    let second = publish_table(&other, 4, 2);
    bench.objects.remote().push(&other, &second).expect("pushed");
    assert_eq!(bench.objects.paths(".rec").len(), 2);
    assert_eq!(bench.reader("reader").find(&KEY).expect("there").record.rows(), Some(3));
    other.attach(bench.objects.remote());
    assert_eq!(other.find(&KEY).expect("here").record.rows(), Some(4));
}

#[test]
fn what_a_key_was_made_of_goes_with_its_result() {
    let bench = Bench::new(3);
    let maker = bench.store("maker");
    assert_eq!(bench.objects.paths("/keys/").len(), 0, "nothing was known of it");
    let parts = fuseline_contract::value::Value::map([("lr", 1_u32.into())]);
    maker.remember_key(&crate::key::StageKey { key: KEY, parts }).expect("written");
    let record = maker.lookup(&KEY).expect("made");
    bench.objects.remote().push(&maker, &record).expect("pushed");
    let reader = bench.reader("reader");
    assert!(reader.pull(&reader.find(&KEY).expect("there").record).expect("brought"));
    assert_eq!(reader.key_parts(&KEY), Some(serde_json::json!({"lr": 1})));
    // A damaged one is left aside, and the result comes all the same.
    let path = bench.objects.paths("/keys/").remove(0);
    bench.objects.write(&path, b"{}");
    let other = bench.reader("other");
    assert!(other.pull(&record).expect("brought"));
    assert_eq!(other.key_parts(&KEY), None);
}

#[test]
fn ask_28_a_push_meets_a_collection_and_sends_all_or_says_what_went() {
    for taken in 0..3 {
        let bench = Bench { home: tempfile::tempdir().expect("a folder"), objects: Fake::new() };
        let store = bench.store("maker");
        let record = publish_table(&store, 3000, 1);
        let mut blobs = record.outputs[0].blobs();
        match blobs.nth(taken) {
            Some(blob) => std::fs::remove_file(store.blob(&blob)).expect("taken"),
            None => std::fs::remove_dir_all(store.records(&KEY)).expect("taken"),
        }
        let lost = bench.objects.remote().push(&store, &record).expect_err("it is not all there");
        assert!(matches!(lost, Error::BlobMissing { .. }), "{lost}");
        assert_eq!(bench.objects.paths(".rec").len(), 0, "no record names what did not go");
    }
}

/// What is here but for its record is what a collector takes first.
#[test]
fn ask_28_a_pull_while_collections_go_on_loses_nothing() {
    use crate::care::gc::{Options, gc};
    let bench = Bench::new(3000);
    let record = bench.store("maker").lookup(&KEY).expect("made");
    let reader = bench.reader("reader");
    let stop = AtomicBool::new(false);
    /// Ends the collections, also when the test fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(50 * 24 * 3600);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let options = Options { min_age: Duration::ZERO, keep_runs: 0, ..Options::default() };
                gc(&bench.store("reader"), &options, true).expect("collected");
            }
        });
        let _end = End(&stop);
        for round in 0..15 {
            // Another process each time.
            let puller = bench.reader("reader");
            let spared = puller.spare("pull").expect("writable");
            assert!(puller.pull(&record).expect("brought"), "round {round}");
            let here = bench.store("reader").lookup(&KEY).map(|here| here.outputs);
            assert_eq!(here.as_ref(), Ok(&record.outputs), "round {round}");
            drop(spared);
            let _ = std::fs::remove_dir_all(reader.records(&KEY));
            for blob in record.outputs[0].blobs() {
                // Unless a collector has it just now.
                let _ = std::fs::File::open(reader.blob(&blob)).and_then(|file| file.set_modified(long_ago));
            }
        }
    });
}

#[test]
fn a_damaged_blob_here_is_fetched_again() {
    let bench = Bench::new(3000);
    let maker = bench.store("maker");
    let record = maker.lookup(&KEY).expect("made");
    let path = maker.blob(&record.outputs[0].files[0]);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[100] ^= 1;
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, bytes).expect("written");
    let reader = bench.reader("maker");
    assert!(reader.verify_artifact(&record.outputs[0].artifact).is_err(), "noticed");
    reader.verify_artifact(&record.outputs[0].artifact).expect("fetched");
    assert_eq!(reader.table(&record.outputs[0].artifact).expect("whole").n_rows(), 3000);
}

#[test]
fn no_altered_record_is_a_wrong_hit() {
    let bench = Bench::new(30);
    let path = bench.objects.paths(".rec").remove(0);
    let (good, folder) = (bench.objects.read(&path), path.as_ref().rsplit_once('/').expect("a folder").0.to_owned());
    let record = Record::parse(&good).expect("a record");
    bench.objects.remove(&path);
    // A fixed sequence, so that a failure comes again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    };
    let store = bench.store("reader");
    let mut hits = 0;
    for round in 0..4000 {
        let mut bytes = good.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(5) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = b"0123456789abcdef\"{}[],:"[next(23)],
                2 => bytes.truncate(at.max(1)),
                3 => drop(bytes.drain(at..bytes.len().min(at + next(9)))),
                _ => bytes.insert(at, bytes[next(bytes.len())]),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        // The name is right two times of three, as a careless writer's would be.
        let digest = if round % 3 == 0 { Digest::of_bytes(&good) } else { Digest::of_bytes(&bytes) };
        let path = ObjectPath::from(format!("{folder}/{}.rec", digest.hex()));
        bench.objects.write(&path, &bytes);
        if let Some(found) = bench.objects.remote().find(&store, &KEY) {
            hits += 1;
            assert_eq!(found.key, KEY);
            let contents = |record: &Record| -> Vec<_> {
                record.outputs.iter().map(|output| (output.artifact, output.content, output.files.clone())).collect()
            };
            let subset = contents(&found).iter().all(|output| contents(&record).contains(output));
            assert!(subset, "round {round}: {}", String::from_utf8_lossy(&bytes));
        }
        bench.objects.remove(&path);
    }
    // Changes of what is only told, such as the host, are not noticed here.
    assert!(hits < 2000, "{hits} altered records were accepted");
}
