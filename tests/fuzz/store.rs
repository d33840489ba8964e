//! What others left in a row memo and in a store elsewhere: whatever it is,
//! nothing is taken for what it is not.

use std::path::{Path, PathBuf};

use fuseline_contract::{Digest, RowKey};
use fuseline_engine::Store;
use fuseline_engine::store::manifest::Record;
use fuseline_engine::store::memo::RowMemo;
use fuseline_engine::store::{OutputRecord, Remote};
use tempfile::TempDir;

use super::{RECORD, fuzz, seal};
use crate::harness::Home;

/// A folder in memory where there is one: a million executions must not wait for a disk.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder for temporary files")
}

fn store(home: &Path) -> Store {
    let store = Store::open(home).expect("opens");
    store.prepare().expect("prepares");
    store
}

/// A seed or an input with the mark of the file that it is for.
fn marked(mark: u8, bytes: Vec<u8>) -> Vec<u8> {
    [vec![mark], bytes].concat()
}

#[test]
fn remembered_rows_are_their_own_keys_or_not_there() {
    let home = folder();
    let key = |number: u64| RowKey(Digest::of_bytes(&number.to_le_bytes()).hash);
    let row = |number: u64| format!("row {number}").repeat(number as usize).into_bytes();
    {
        let memo = RowMemo::open(&store(home.path()), "toy").expect("opens");
        (0..8).for_each(|number| memo.put(&key(number), &row(number), number % 3 == 2).expect("put"));
    }
    let files = |kind: &str| crate::files(&home.path().join("memo/toy"), kind);
    let (rows, index) = (files(".rows").remove(0), files(".index").remove(0));
    let read = |path: &PathBuf| std::fs::read(path).expect("read");
    let (good_rows, good_index) = (read(&rows), read(&index));
    let seeds = [(b'r', &good_rows), (b'i', &good_index), (b'k', &good_rows)];
    let seeds = seeds.map(|(mark, bytes)| marked(mark, bytes.clone())).to_vec();
    let keys: Vec<RowKey> = (0..10).map(key).collect();
    fuzz("memo", seeds, &["fmm1", "fuseline index 1", "\0\0\0\0", "\u{7f}\u{7f}\u{7f}\u{7f}", "row 3"], |input| {
        let Some((mark, bytes)) = input.split_first() else { return false };
        let (in_rows, in_index) = match mark {
            b'r' => (bytes, Some(good_index.as_slice())),
            b'i' => (good_rows.as_slice(), Some(bytes)),
            // As a killed writer leaves it.
            b'k' => (bytes, None),
            _ => return false,
        };
        for path in [files(".rows"), files(".index")].concat() {
            std::fs::remove_file(path).expect("ours");
        }
        std::fs::write(&rows, in_rows).expect("written");
        if let Some(bytes) = in_index {
            std::fs::write(&index, bytes).expect("written");
        }
        let memo = RowMemo::open(&store(home.path()), "toy").expect("opens");
        let mut take = |place: usize, found: &[u8]| {
            assert_eq!(found, row(place as u64), "another row answers for key {place}");
            true
        };
        let found = memo.get_many(&keys, &mut take).expect("looked").found;
        assert!(*mark != b'i' || found == 8, "an index costs no row");
        found > 0
    });
}

#[test]
fn what_comes_from_a_store_elsewhere_is_whole_or_a_miss() {
    let maker = Home::new();
    maker.write("p.yaml", "stages:\n  one: {op: sql, with: {sql: SELECT 1 AS x}}\n");
    maker.ok(&["run", "p.yaml"]);
    let elsewhere = folder();
    let url = format!("file://{}", elsewhere.path().display());
    maker.ok(&["push", "p.yaml", &url]);
    let objects = |part: &str| -> Vec<PathBuf> {
        let mut all = crate::files(&elsewhere.path().join("v1").join(part), "");
        all.sort_by_key(|path| path.metadata().expect("there").len());
        all
    };
    let (record, preimage, blobs) = (objects("ac").remove(0), objects("keys").remove(0), objects("cas"));
    let good = Record::parse(&std::fs::read(&record).expect("read")).expect("a record");
    let is_manifest = |path: &&PathBuf| path.ends_with(good.outputs[0].artifact.hex());
    let manifest = blobs.iter().find(is_manifest).expect("pushed").clone();
    let blob = blobs.iter().find(|path| !is_manifest(path)).expect("pushed").clone();
    let folder_of_records = record.parent().expect("a folder").to_owned();

    let read = |path: &PathBuf| std::fs::read(path).expect("read");
    let sealed = read(&record);
    let end = sealed.windows(10).rposition(|window| window == b",\"check\":\"").expect("records are sealed");
    let open = [&sealed[..end], b"}"].concat();
    let goods = [(b'm', &manifest), (b'b', &blob), (b'k', &preimage)].map(|(mark, path)| (mark, path, read(path)));
    let mut seeds = vec![marked(b'r', open)];
    seeds.extend(goods.iter().map(|(mark, _, bytes)| marked(*mark, bytes.clone())));
    let home = folder();
    fuzz("remote", seeds, RECORD, |input| {
        let Some((mark, bytes)) = input.split_first() else { return false };
        for old in objects("ac") {
            std::fs::remove_file(old).expect("ours");
        }
        goods.iter().for_each(|(_, path, bytes)| std::fs::write(path, bytes).expect("written"));
        // A record's name is right, as a careless writer's would be; the name of anything else is its key.
        let of_record = if *mark == b'r' { seal(bytes) } else { sealed.clone() };
        let name = format!("{}.rec", Digest::of_bytes(&of_record).hex());
        std::fs::write(folder_of_records.join(name), of_record).expect("written");
        match goods.iter().find(|(other, _, _)| other == mark) {
            Some((_, path, _)) => std::fs::write(path, bytes).expect("written"),
            None if *mark == b'r' => {}
            None => return false,
        }
        for part in ["ac", "cas", "keys", "quarantine"] {
            let _ = std::fs::remove_dir_all(home.path().join(part));
        }
        let store = store(home.path());
        store.attach(Remote::open(&url).expect("an address"));
        let Ok(found) = store.find(&good.key) else { return false };
        assert_eq!(found.record.key, good.key, "it answers for another key");
        if !store.pull(&found.record).expect("our own disk is well") {
            return false;
        }
        for blob in found.record.outputs.iter().flat_map(OutputRecord::blobs) {
            assert_eq!(Digest::of_bytes(&std::fs::read(store.blob(&blob)).expect("here")), blob);
        }
        if let Some(parts) = store.key_parts(&good.key) {
            assert!(parts.is_object(), "{parts}");
        }
        true
    });
}
