//! Bit rot: a flipped byte anywhere in a store is noticed before it is used.

use std::process::Command;

use super::*;
use crate::care::fsck::{self, fsck};
use crate::care::pins;

/// Positions in each file; the seed of the rest is the file's number.
const PER_FILE: u64 = 5;

/// Uniform numbers from a seed (splitmix64).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Every file below a folder, but for views, which are links to blobs.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.ends_with("views") || path.ends_with("locks") => {}
            path if path.is_dir() => found.extend(files_below(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, at: u64, bit: u64) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = fs::read(path).expect("read");
    bytes[at as usize] ^= 1 << bit;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("writable");
    // In place, as rot does: the views of a blob show it too.
    fs::write(path, bytes).expect("written");
}

/// What a run gives: values of its tables. A reader that meets a damaged blob
/// is told, not given it, and the next run makes it anew.
fn outcome(bench: &Bench, plan: &Plan, tables: &[usize]) -> Vec<Vec<i64>> {
    for _ in 0..2 {
        let summary = bench.run(plan);
        assert_eq!(summary.cause, None, "{:?}", summary.failed);
        let read = |index: &usize| {
            let record = summary.records[*index].as_ref().expect("done");
            bench.store.table(&record.outputs[0].artifact).map(|table| values(&table))
        };
        match tables.iter().map(read).collect() {
            Ok(values) => return values,
            Err(Error::BlobCorrupt { .. } | Error::BlobMissing { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("damaged again after it was made anew")
}

#[test]
fn ask_30_a_flipped_bit_anywhere_is_noticed_before_it_is_used() {
    let bench = Bench::new();
    let external = bench.home.path().join("numbers.txt");
    fs::write(&external, "3 1 4").expect("written");
    let plan = plan(vec![
        node("numbers", "count", json!({"n": 5}), &[]),
        node("scaled", "scale", json!({"by": 2}), &[0]),
        node("model", "make", json!({"note": "hello"}), &[]),
        node("looked", "inspect", json!({}), &[2]),
        node("loaded", "load", json!({"path": external}), &[]),
    ]);
    let tables = [0, 1, 3, 4];
    bench.run(&plan);
    // The second run finds the external file settled and remembers its digest.
    std::thread::sleep(Duration::from_millis(80));
    let summary = bench.run(&plan);
    let expected = outcome(&bench, &plan, &tables);
    let record = summary.records[1].clone().expect("done");
    pins::pin(&bench.store, "kept", "toys", "scaled", &[record]).expect("pinned");
    let look = |store: &Store| fsck(store, fsck::Options::default()).expect("checked");
    assert_eq!(look(&bench.store).findings, []);

    let whole = bench.store.root();
    let (mut flips, mut kinds) = (0, BTreeSet::new());
    for (number, path) in files_below(whole).iter().enumerate() {
        let relative = path.strip_prefix(whole).expect("inside");
        kinds.insert(relative.components().next().expect("a part").as_os_str().to_owned());
        let length = fs::metadata(path).expect("there").len();
        for nth in 0..PER_FILE {
            let random = mix(number as u64 * PER_FILE + nth);
            let at = [0, length - 1, length / 2].get(nth as usize).copied().unwrap_or(random % length);
            let place = format!("{} byte {at} bit {}", relative.display(), random >> 61);
            let copy = tempfile::tempdir().expect("a folder");
            let root = copy.path().join("store");
            // Links stay links.
            let copied = Command::new("cp").arg("-a").args([whole, &root]).status().expect("cp starts");
            assert!(copied.success());
            flip(&root.join(relative), at, random >> 61);
            flips += 1;
            // The format is the first thing that is read.
            let Ok(store) = Store::open(&root) else {
                assert_eq!(relative, Path::new("format"), "{place}");
                continue;
            };
            assert_ne!(look(&store).findings, [], "{place}: fsck sees nothing");
            let bench = Bench { home: copy, store };
            assert_eq!(outcome(&bench, &plan, &tables), expected, "{place}");
            let repaired = fsck(&bench.store, fsck::Options { repair: true, fast: false }).expect("checked");
            assert!(repaired.is_whole(), "{place}: {:?}", repaired.findings);
            assert_eq!(look(&bench.store).findings, [], "{place}: repaired");
            assert_eq!(outcome(&bench, &plan, &tables), expected, "{place}: repaired");
        }
    }
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.to_string_lossy()).collect();
    assert_eq!(kinds, ["ac", "cas", "format", "index", "keys", "roots", "runs"], "every kind of file was tried");
    println!("{flips} flips");
}
