//! Tests of the row memo as a whole: killed writers, damage, many at once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::store::Faults;

fn key(number: u64) -> RowKey {
    RowKey(blake3::derive_key("toy rows", &number.to_le_bytes()))
}

fn row(number: u64) -> Vec<u8> {
    format!("row {number}").into_bytes()
}

fn store(home: &Path) -> Store {
    let store = Store::with_faults(home, Faults::default()).expect("opens");
    store.prepare().expect("prepares");
    store
}

/// What is remembered under some keys, and how many are damaged.
fn ask(memo: &RowMemo, keys: &[u64]) -> (Vec<Option<Vec<u8>>>, usize) {
    let mut rows = vec![None; keys.len()];
    let row_keys: Vec<RowKey> = keys.iter().map(|number| key(*number)).collect();
    let mut take = |place: usize, row: &[u8]| {
        assert!(rows[place].replace(row.to_vec()).is_none(), "handed out twice");
        true
    };
    let looked = memo.get_many(&row_keys, &mut take).expect("looked");
    assert_eq!(looked.found, rows.iter().flatten().count());
    (rows, looked.damaged)
}

fn remembered(memo: &RowMemo, keys: std::ops::Range<u64>) -> u64 {
    let keys: Vec<u64> = keys.collect();
    let (rows, _) = ask(memo, &keys);
    keys.iter().zip(rows).filter(|(number, found)| found.as_ref().is_some_and(|found| *found == row(**number))).count()
        as u64
}

fn put(memo: &RowMemo, keys: std::ops::Range<u64>) {
    keys.for_each(|number| memo.put(&key(number), &row(number), false).expect("put"));
}

/// Ends a writer as a kill would: its segment is not completed.
fn kill(memo: RowMemo) {
    drop(memo.journal.lock().expect("free").take());
}

fn files(home: &Path, kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(home.join("memo/toy"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == kind))
        .collect();
    files.sort();
    files
}

#[test]
fn rows_outlive_their_writer_however_it_ends() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    let memo = RowMemo::open(&store, "toy").expect("opens");
    assert_eq!(remembered(&memo, 0..10), 0);
    put(&memo, 0..10);
    assert_eq!(remembered(&memo, 0..20), 10, "its own rows, while it writes");
    drop(memo);
    let memo = RowMemo::open(&store, "toy").expect("opens");
    assert_eq!(remembered(&memo, 0..20), 10);
    put(&memo, 10..20);
    kill(memo);
    assert_eq!((files(home.path(), "rows").len(), files(home.path(), "index").len()), (2, 1));
    let memo = RowMemo::open(&store, "toy").expect("opens");
    assert_eq!(files(home.path(), "index").len(), 2, "its successor completes the segment");
    assert_eq!(remembered(&memo, 0..20), 20);
    assert_eq!(remembered(&RowMemo::open(&store, "other").expect("opens"), 0..20), 0);
}

#[test]
fn a_living_writer_is_read_and_left_alone() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    let writer = RowMemo::open(&store, "toy").expect("opens");
    put(&writer, 0..5);
    let reader = RowMemo::open(&store, "toy").expect("opens");
    assert_eq!(remembered(&reader, 0..10), 5);
    assert_eq!(files(home.path(), "index").len(), 0);
    put(&writer, 5..10);
    assert_eq!(remembered(&reader, 0..10), 10);
    drop(writer);
    assert_eq!((files(home.path(), "index").len(), remembered(&reader, 0..10)), (1, 10));
}

#[test]
fn full_segments_are_completed_and_every_row_is_found() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    let memo = RowMemo::with_segments_of(&store, "toy", 4096).expect("opens");
    put(&memo, 0..3000);
    assert!(files(home.path(), "index").len() > 10);
    assert_eq!(remembered(&memo, 0..6000), 3000);
    let twice: Vec<u64> = (0..3000).chain(0..3000).collect();
    assert_eq!(ask(&memo, &twice).0.iter().flatten().count(), 6000, "a key may be asked for twice");
}

#[test]
fn the_first_row_answers_unless_a_later_one_replaces_it() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    let open = || RowMemo::open(&store, "toy").expect("opens");
    let answer = |expected: &str| {
        let text = ask(&open(), &[1]).0.remove(0).map(|row| String::from_utf8(row).expect("text"));
        assert_eq!(text.as_deref(), Some(expected));
    };
    open().put(&key(1), b"first", false).expect("put");
    open().put(&key(1), b"second", false).expect("put");
    answer("first");
    open().put(&key(1), b"third", true).expect("put");
    answer("third");
    open().put(&key(1), b"fourth", false).expect("put");
    answer("third");
    let memo = open();
    memo.put(&key(1), b"fifth", true).expect("put");
    memo.put(&key(1), b"sixth", true).expect("put");
    drop(memo);
    answer("sixth");
}

#[test]
fn ask_7_a_torn_row_is_cut_off_and_all_whole_ones_stay() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    let memo = RowMemo::open(&store, "toy").expect("opens");
    put(&memo, 0..4);
    kill(memo);
    let path = files(home.path(), "rows").remove(0);
    let bytes = fs::read(&path).expect("read");
    let each = bytes.len() / 4;
    for length in 0..=bytes.len() {
        fs::write(&path, &bytes[..length]).expect("written");
        let whole = (length / each) as u64;
        // A process that another test starts holds all locks of this one until it is another program.
        let settled = || {
            let memo = RowMemo::open(&store, "toy").expect("opens");
            assert_eq!(remembered(&memo, 0..4), whole, "cut at {length}");
            fs::metadata(&path).map_or(0, |file| file.len()) == whole * each as u64
        };
        for _ in 0..100 {
            if settled() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if whole == 0 {
            assert!(!path.exists(), "nothing is in it");
        } else {
            assert_eq!(fs::metadata(&path).expect("there").len(), whole * each as u64, "cut at {length}");
            fs::remove_file(path.with_extension("index")).expect("completed");
        }
    }
}

#[test]
fn ask_7_a_flipped_byte_is_a_miss_and_never_another_row() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    for number in [0, 5] {
        let memo = RowMemo::open(&store, "toy").expect("opens");
        put(&memo, number..number + 5);
    }
    let memo = RowMemo::open(&store, "toy").expect("opens");
    put(&memo, 10..12);
    let all = [files(home.path(), "rows"), files(home.path(), "index")].concat();
    assert_eq!(all.len(), 5, "two complete segments and one that is being written");
    for path in all {
        let bytes = fs::read(&path).expect("read");
        let is_index = path.extension().is_some_and(|kind| kind == "index");
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x04;
            fs::write(&path, &damaged).expect("written");
            let keys: Vec<u64> = (0..20).collect();
            let (rows, _) = ask(&memo, &keys);
            let wrong =
                keys.iter().zip(&rows).find(|(number, found)| found.as_ref().is_some_and(|f| *f != row(**number)));
            assert_eq!(wrong, None, "byte {place} of {}", path.display());
            let missing = 12 - rows.iter().flatten().count();
            assert_eq!(missing, usize::from(!is_index), "byte {place} of {}", path.display());
            fs::write(&path, &bytes).expect("written");
        }
    }
}

#[test]
fn a_damaged_row_is_told_and_what_is_put_in_its_place_answers() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    put(&RowMemo::open(&store, "toy").expect("opens"), 0..3);
    let path = files(home.path(), "rows").remove(0);
    let mut bytes = fs::read(&path).expect("read");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&path, bytes).expect("written");
    let memo = RowMemo::open(&store, "toy").expect("opens");
    assert_eq!(ask(&memo, &[0, 1, 2]), (vec![Some(row(0)), Some(row(1)), None], 1));
    put(&memo, 2..3);
    assert_eq!(ask(&memo, &[0, 1, 2]), (vec![Some(row(0)), Some(row(1)), Some(row(2))], 0));
    drop(memo);
    assert_eq!(remembered(&RowMemo::open(&store, "toy").expect("opens"), 0..3), 3);
}

#[test]
fn a_row_of_no_use_to_the_receiver_can_be_replaced() {
    let home = tempfile::tempdir().expect("a folder");
    let memo = RowMemo::open(&store(home.path()), "toy").expect("opens");
    memo.put(&key(1), b"old form", false).expect("put");
    let looked = memo.get_many(&[key(1)], &mut |_, _| false).expect("looked");
    assert_eq!(looked, Looked { found: 0, damaged: 1 });
    memo.put(&key(1), b"new form", false).expect("put");
    assert_eq!(ask(&memo, &[1]).0, [Some(b"new form".to_vec())]);
}

#[test]
fn many_small_segments_become_few() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    for number in 0..100 {
        put(&RowMemo::open(&store, "toy").expect("opens"), number..number + 2);
        assert!(files(home.path(), "rows").len() < 9, "after {number}");
    }
    let left = files(home.path(), "rows");
    assert_eq!(left.len(), files(home.path(), "index").len());
    let bytes: u64 = left.iter().map(|path| fs::metadata(path).expect("there").len()).sum();
    assert!(bytes < 101 * 60 + 8 * 2 * 60, "rows that were put twice are kept once: {bytes}");
    assert_eq!(remembered(&RowMemo::open(&store, "toy").expect("opens"), 0..200), 101);
}

#[test]
fn writers_that_begin_at_once_have_segments_of_their_own() {
    let home = tempfile::tempdir().expect("a folder");
    let ahead = ulid::Ulid::from_parts(ulid::Ulid::new().timestamp_ms() + 60_000, 7);
    fs::write(home.path().join(format!("{ahead}-0000-a.rows")), "").expect("written");
    let stems: Vec<String> = (0..20).map(|_| segment::new_stem(home.path()).expect("a stem")).collect();
    assert!(stems.iter().all(|stem| stem[..26] > *ahead.to_string()), "{stems:?} sort behind {ahead}");
    let distinct: std::collections::BTreeSet<&String> = stems.iter().collect();
    assert_eq!(distinct.len(), stems.len(), "whoever lists the folder in the same moment");
}

#[test]
fn readers_and_writers_at_once_miss_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let store = store(home.path());
    put(&RowMemo::open(&store, "toy").expect("opens"), 0..50);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // A store of its own, as another process has.
                let memo = RowMemo::open(&self::store(home.path()), "toy").expect("opens");
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(remembered(&memo, 0..60), 50, "a segment was merged away meanwhile");
                }
            });
        }
        let writers: Vec<_> = (1..4u64)
            .map(|writer| {
                let store = self::store(home.path());
                scope.spawn(move || {
                    for round in 0..40 {
                        let first = writer * 1000 + round * 5;
                        put(&RowMemo::with_segments_of(&store, "toy", 4096).expect("opens"), first..first + 7);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("it ends"));
        stop.store(true, Ordering::Relaxed);
    });
    let memo = RowMemo::open(&store, "toy").expect("opens");
    assert_eq!(remembered(&memo, 0..50), 50);
    for writer in 1..4 {
        assert_eq!(remembered(&memo, writer * 1000..writer * 1000 + 300), 202);
    }
}

#[test]
fn a_full_disk_is_an_error_and_what_was_put_before_stays() {
    let home = tempfile::tempdir().expect("a folder");
    store(home.path());
    let full = Store::with_faults(home.path(), Faults::parse("row-appended:full:3").expect("parses")).expect("opens");
    let memo = RowMemo::open(&full, "toy").expect("opens");
    put(&memo, 0..2);
    let error = memo.put(&key(2), &row(2), false).expect_err("the disk is full");
    assert!(error.hint().is_some_and(|hint| hint.contains("disk space")), "{error}");
    put(&memo, 3..5);
    drop(memo);
    let memo = RowMemo::open(&full, "toy").expect("opens");
    assert_eq!(remembered(&memo, 0..5), 4);
}

#[test]
fn a_failed_sync_is_told_at_the_end() {
    let home = tempfile::tempdir().expect("a folder");
    store(home.path());
    for point in ["row-synced", "segment-sealed"] {
        let faults = Faults::parse(&format!("{point}:full")).expect("parses");
        let memo = RowMemo::open(&Store::with_faults(home.path(), faults).expect("opens"), "toy").expect("opens");
        put(&memo, 0..1);
        memo.finish().expect_err("it is not on the disk");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { key: u64, row: u8, replaces: bool },
    Close,
    Kill,
    Tear(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0..12u64, any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(key, row, replaces)| Step::Put {
        key,
        row,
        replaces,
    });
    let step =
        prop_oneof![8 => put, 3 => Just(Step::Close), 2 => Just(Step::Kill), 1 => any::<u8>().prop_map(Step::Tear)];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever becomes of the writers, the memo answers as a map does.
    #[test]
    fn it_answers_as_a_map_does(steps in steps(), segment_bytes in 100..3000u64) {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path());
        let open = || RowMemo::with_segments_of(&store, "toy", segment_bytes).expect("opens");
        let mut memo = open();
        let mut model: HashMap<u64, Vec<u8>> = HashMap::new();
        for step in steps {
            match step {
                Step::Put { key: number, row, replaces } => {
                    memo.put(&key(number), &[row; 9], replaces).expect("put");
                    if replaces || !model.contains_key(&number) {
                        model.insert(number, vec![row; 9]);
                    }
                }
                Step::Close => memo = open(),
                Step::Kill => {
                    kill(memo);
                    memo = open();
                }
                Step::Tear(length) => {
                    // A writer that dies within a row.
                    let mut torn = Vec::new();
                    record::encode(&key(99), false, &[1; 300], &mut torn);
                    let folder = home.path().join("memo/toy");
                    fs::create_dir_all(&folder).expect("made");
                    let stem = segment::new_stem(&folder).expect("listed");
                    fs::write(Segment::new(&folder, &stem).rows, &torn[..usize::from(length)]).expect("written");
                }
            }
        }
        let keys: Vec<u64> = (0..12).chain([99]).collect();
        let expected: Vec<Option<Vec<u8>>> = keys.iter().map(|number| model.get(number).cloned()).collect();
        prop_assert_eq!(ask(&memo, &keys), (expected.clone(), 0));
        drop(memo);
        prop_assert_eq!(ask(&open(), &keys), (expected, 0));
    }
}
