//! Care of remembered rows: how much there is, whether it is whole, and letting
//! go of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::error::{At, Error, Result};
use crate::store::memo::index::{self, Entry, Index};
use crate::store::memo::segment::{self, Segment};
use crate::store::memo::{FOLDER, compact, record};
use crate::store::{Store, disk};

/// What is remembered of a row function, or of it what goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Remembered {
    /// The row function: the operator's name.
    pub function: String,
    /// Rows, as often as they were written.
    pub rows: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// The row functions of which something was remembered, by name.
pub fn functions(store: &Store) -> Result<Vec<String>> {
    let folder = store.root().join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>().at("read", &folder)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("read", &folder, error)),
    };
    let folders = entries.into_iter().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// What is remembered, by row function.
pub fn remembered(store: &Store) -> Result<Vec<Remembered>> {
    let mut all = Vec::new();
    for function in functions(store)? {
        let mut found = Remembered { function, ..Remembered::default() };
        for segment in segment::list(&folder(store, &found.function))? {
            found.bytes += bytes(&segment);
            found.rows += segment.entries(store)?.map_or(0, |entries| entries.len());
        }
        all.push(found);
    }
    Ok(all)
}

/// Lets go of the rows of a function that were written before a time, by whole
/// segments: `discard` moves a file away and says whether it is gone. A segment
/// that is being written stays.
pub(crate) fn forget(
    store: &Store,
    function: &str,
    before: SystemTime,
    discard: &mut dyn FnMut(&Path) -> Result<bool>,
) -> Result<Remembered> {
    let folder = folder(store, function);
    let mut gone = Remembered { function: function.to_owned(), ..Remembered::default() };
    // What is being merged would come back under another name.
    let _still = compact::hold_off(&folder);
    for segment in segment::list(&folder)?.into_iter().filter(|segment| segment.sealed) {
        let (written, bytes) = (fs::metadata(&segment.rows).and_then(|meta| meta.modified()), bytes(&segment));
        if written.is_ok_and(|written| written < before) {
            let rows = segment.entries(store)?.map_or(0, |entries| entries.len());
            // Without its rows an index is nothing; without an index rows are found all the same.
            if discard(&segment.rows)? {
                discard(&segment.index())?;
                gone.rows += rows;
                gone.bytes += bytes;
            }
        }
    }
    Ok(gone)
}

fn folder(store: &Store, function: &str) -> PathBuf {
    store.root().join(FOLDER).join(function)
}

fn bytes(segment: &Segment) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    size(&segment.rows) + size(&segment.index())
}

/// What is wrong with a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Some of its rows are damaged.
    Rows(String),
    /// Its rows are whole, but its index does not lead to them.
    Index,
}

/// A segment that was looked at.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Whole rows.
    pub rows: u64,
    /// What is wrong.
    pub wrong: Option<Wrong>,
}

/// Every segment of every row function.
pub(crate) fn segments(store: &Store) -> Result<Vec<Segment>> {
    let mut all = Vec::new();
    for function in functions(store)? {
        all.extend(segment::list(&folder(store, &function))?);
    }
    Ok(all)
}

/// Looks at every byte of a segment; `fast` is satisfied with the index. A torn
/// end is no damage while nobody has completed the segment.
pub(crate) fn check(segment: &Segment, fast: bool) -> Result<Checked> {
    let checked = |rows, wrong| Checked { rows: rows as u64, wrong };
    let index = match File::open(segment.index()) {
        Ok(file) if segment.sealed => Index::open(file).ok().flatten(),
        _ => None,
    };
    if fast {
        let length = fs::metadata(&segment.rows).map_or(0, |meta| meta.len());
        let right = !segment.sealed || index.as_ref().is_some_and(|index| index.covered == length);
        return Ok(checked(index.map_or(0, |index| index.len()), (!right).then_some(Wrong::Index)));
    }
    let bytes = match fs::read(&segment.rows) {
        Ok(bytes) => bytes,
        // Merged away meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(checked(0, None)),
        Err(error) => return Ok(checked(0, Some(Wrong::Rows(format!("it cannot be read: {error}"))))),
    };
    let mut entries: Vec<Entry> = Vec::new();
    let (mut lost, mut next) = (0, 0);
    let end = record::scan(&bytes, |at, record| {
        lost += at - next;
        next = at + record::HEAD + record.row.len();
        entries.push(segment::entry(at as u64, &record));
    });
    if segment.sealed {
        lost += bytes.len() - end;
        // Rows that were cut off between two are known to the index only.
        let covered = index.as_ref().map_or(0, |index| index.covered as usize);
        lost += covered.saturating_sub(bytes.len());
    }
    let rows = entries.len();
    if lost > 0 {
        let detail = format!("{lost} bytes are lost: the rows that were there are computed again");
        return Ok(checked(rows, Some(Wrong::Rows(detail))));
    }
    index::settle(&mut entries);
    let leads = |index: Index| index.covered == bytes.len() as u64 && index.all().ok().flatten() == Some(entries);
    let wrong = segment.sealed && !index.is_some_and(leads);
    Ok(checked(rows, wrong.then_some(Wrong::Index)))
}

/// Makes a segment whole: an index is made anew; damaged rows are left out of a
/// copy that takes the place of the segment, which is set aside. False if its
/// writer is at work.
pub(crate) fn mend(store: &Store, segment: &Segment) -> Result<bool> {
    let mut segment = segment.clone();
    let folder = segment.rows.parent().expect("in the folder of its function").to_owned();
    if !segment.sealed {
        segment.recover(store)?;
        segment.sealed = segment.index().exists();
    }
    let _alone = compact::exclude(&folder)?;
    let Some(file) = segment.open()? else { return Ok(true) };
    let Some(stem) = segment::merged_stem(&segment).filter(|_| segment.sealed) else { return Ok(false) };
    let bytes = as_far_as_it_can_be_read(&file);
    let (mut kept, mut entries) = (Vec::new(), Vec::new());
    record::scan(&bytes, |at, record| {
        entries.push(segment::entry(kept.len() as u64, &record));
        kept.extend(&bytes[at..at + record::HEAD + record.row.len()]);
    });
    index::settle(&mut entries);
    if kept == bytes {
        return segment.write_index(store, &entries, bytes.len() as u64).map(|()| true);
    }
    if !kept.is_empty() {
        let (mended, temporary) = (Segment::new(&folder, &stem), store.temporary("rows"));
        let mut out = File::create_new(&temporary).at("create", &temporary)?;
        out.write_all(&kept).and_then(|()| out.sync_all()).at("write", &temporary)?;
        mended.write_index(store, &entries, kept.len() as u64)?;
        fs::rename(&temporary, &mended.rows).at("create", &mended.rows)?;
        disk::settle(store, &[folder])?;
    }
    store.set_aside(&segment.rows)?;
    let _ = fs::remove_file(segment.index());
    Ok(true)
}

/// A file's bytes, with nothing for what the disk does not give.
fn as_far_as_it_can_be_read(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    const SECTOR: usize = 4096;
    let mut bytes = vec![0; file.metadata().map_or(0, |meta| meta.len() as usize)];
    for (number, sector) in bytes.chunks_mut(SECTOR).enumerate() {
        let _ = file.read_exact_at(sector, (number * SECTOR) as u64);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use fuseline_contract::RowKey;

    use super::*;
    use crate::store::Faults;
    use crate::store::memo::RowMemo;

    fn store(home: &Path) -> Store {
        let store = Store::with_faults(home, Faults::default()).expect("opens");
        store.prepare().expect("prepares");
        store
    }

    fn key(number: u64) -> RowKey {
        RowKey(blake3::derive_key("toy rows", &number.to_le_bytes()))
    }

    fn put(store: &Store, numbers: std::ops::Range<u64>) {
        let memo = RowMemo::open(store, "toy").expect("opens");
        numbers.for_each(|number| memo.put(&key(number), &number.to_le_bytes(), false).expect("put"));
    }

    /// The numbers among the first twenty that are remembered.
    fn known(store: &Store) -> Vec<u64> {
        let keys: Vec<RowKey> = (0..20).map(key).collect();
        let mut known = Vec::new();
        let mut take = |place: usize, row: &[u8]| {
            assert_eq!(row, (place as u64).to_le_bytes());
            known.push(place as u64);
            true
        };
        RowMemo::open(store, "toy").expect("opens").get_many(&keys, &mut take).expect("looked");
        known.sort_unstable();
        known
    }

    fn one(store: &Store) -> Segment {
        let all = segments(store).expect("listed");
        assert_eq!(all.len(), 1);
        all[0].clone()
    }

    fn wrong(store: &Store) -> Option<Wrong> {
        check(&one(store), false).expect("looked").wrong
    }

    #[test]
    fn every_flipped_byte_is_found_and_mending_costs_its_row_only() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path());
        put(&store, 0..5);
        let segment = one(&store);
        let (rows, index) = (fs::read(&segment.rows).expect("read"), fs::read(segment.index()).expect("read"));
        let each = rows.len() / 5;
        let restore = || {
            let now = one(&store);
            fs::remove_file(now.index()).expect("removed");
            fs::remove_file(now.rows).expect("removed");
            fs::write(&segment.rows, &rows).expect("written");
            fs::write(segment.index(), &index).expect("written");
        };
        assert_eq!(wrong(&store), None);
        for at in 0..rows.len() {
            let mut bytes = rows.clone();
            bytes[at] ^= 0x10;
            fs::write(&segment.rows, bytes).expect("written");
            assert!(matches!(wrong(&store), Some(Wrong::Rows(_))), "byte {at} of the rows");
            assert!(mend(&store, &segment).expect("mended"));
            assert_eq!(wrong(&store), None, "byte {at} of the rows");
            let rest: Vec<u64> = (0..5).filter(|number| *number as usize != at / each).collect();
            assert_eq!(known(&store), rest, "byte {at} of the rows");
            restore();
        }
        for at in 0..index.len() {
            let mut bytes = index.clone();
            bytes[at] ^= 0x10;
            fs::write(segment.index(), bytes).expect("written");
            assert_eq!(wrong(&store), Some(Wrong::Index), "byte {at} of the index");
            assert!(mend(&store, &segment).expect("mended"));
            assert_eq!(wrong(&store), None, "byte {at} of the index");
            assert_eq!(fs::read(segment.index()).expect("made anew"), index);
        }
        for length in 0..rows.len() {
            fs::write(&segment.rows, &rows[..length]).expect("written");
            assert!(matches!(wrong(&store), Some(Wrong::Rows(_))), "cut at {length}");
        }
        assert_eq!(fs::read_dir(home.path().join("quarantine")).expect("there").count(), rows.len());
    }

    #[test]
    fn what_a_killed_writer_leaves_is_no_damage_and_a_living_one_is_left_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path());
        put(&store, 0..3);
        let segment = one(&store);
        let bytes = fs::read(&segment.rows).expect("read");
        fs::remove_file(segment.index()).expect("removed");
        fs::write(&segment.rows, &bytes[..bytes.len() - 3]).expect("torn");
        assert_eq!(wrong(&store), None);
        fs::write(&segment.rows, &bytes).expect("written");
        let writer = File::open(&segment.rows).expect("opens");
        writer.lock().expect("locked");
        let mut damaged = bytes;
        damaged[60] ^= 1;
        fs::write(&segment.rows, damaged).expect("written");
        assert!(matches!(wrong(&store), Some(Wrong::Rows(_))));
        assert!(!mend(&store, &one(&store)).expect("looked"), "its writer lives");
        drop(writer);
        // A process that another test starts may hold the lock for a moment.
        while !mend(&store, &one(&store)).expect("mended") {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((wrong(&store), known(&store).len()), (None, 2));
    }

    #[test]
    fn rows_are_counted_by_function_and_forgotten_by_age() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path());
        assert_eq!(remembered(&store).expect("counted"), []);
        put(&store, 0..5);
        let old = one(&store).rows;
        put(&store, 5..9);
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        File::open(&old).and_then(|file| file.set_modified(long_ago)).expect("set");
        let found = remembered(&store).expect("counted").remove(0);
        assert_eq!((found.function.as_str(), found.rows), ("toy", 9));
        let forget = |age: u64, really: bool| {
            let before = SystemTime::now() - Duration::from_secs(age);
            let mut discard = |path: &Path| Ok(!really || fs::remove_file(path).is_ok());
            super::forget(&store, "toy", before, &mut discard).expect("forgotten").rows
        };
        assert_eq!((forget(7200, true), forget(60, false), known(&store).len()), (0, 5, 9));
        assert_eq!((forget(60, true), known(&store)), (5, (5..9).collect()));
        let left = remembered(&store).expect("counted").remove(0);
        assert!(left.rows == 4 && left.bytes < found.bytes, "{left:?}");
    }

    #[test]
    fn indexes_without_rows_are_swept_and_merging_keeps_the_age() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path());
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        put(&store, 0..1);
        let orphan = one(&store).rows.with_file_name("orphan.index");
        fs::write(&orphan, "killed between two removals").expect("written");
        for number in 1..8 {
            for segment in segments(&store).expect("listed") {
                File::open(&segment.rows).and_then(|file| file.set_modified(long_ago)).expect("set");
            }
            put(&store, number..number + 1);
        }
        let merged = one(&store);
        assert!(!orphan.exists());
        assert_eq!(known(&store), (0..8).collect::<Vec<_>>());
        let age = fs::metadata(merged.rows).and_then(|meta| meta.modified()).expect("told").elapsed();
        assert!(age.is_ok_and(|age| age < Duration::from_secs(1800)), "that of the newest row");
    }
}
