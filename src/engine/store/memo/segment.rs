//! The files of a row function: which there are, what is in them, and what to
//! do with those whose writer died.
//!
//! A segment is `STEM.rows`, records one after the other, with `STEM.index`
//! once nothing is added to it any more. Stems sort by age. The writer of a
//! segment without an index holds a lock on it until it ends, however it ends.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ulid::Ulid;

use crate::error::{At, Error, Result};
use crate::store::memo::index::{self, Entry, Index};
use crate::store::memo::record::{self, Record};
use crate::store::{Store, disk};

const ROWS: &str = "rows";
const INDEX: &str = "index";
/// After so long without a new row, the writer on another host is taken for dead.
const LOST_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Wanted rows that lie closer together are read at once.
const GAP: u64 = 16 << 10;
/// Bytes that are read at once, but for longer rows.
const CHUNK: u64 = 4 << 20;

/// A segment by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where its records lie.
    pub rows: PathBuf,
    /// Whether it is complete.
    pub sealed: bool,
}

/// A segment's name: when it was begun, how often it was merged, and on which
/// host its writer lives.
struct Stem {
    ulid: Ulid,
    generation: u32,
}

impl Stem {
    fn of(segment: &Segment) -> Option<Self> {
        let mut parts = segment.rows.file_stem()?.to_str()?.split('-');
        Some(Self { ulid: parts.next()?.parse().ok()?, generation: parts.next()?.parse().ok()? })
    }

    fn name(&self) -> String {
        format!("{}-{:04}-{}", self.ulid, self.generation, this_host())
    }
}

/// Makes a stem that sorts behind all that exist, whatever the clock says, and
/// that no other writer makes at this moment.
pub(crate) fn new_stem(folder: &Path) -> Result<String> {
    let fresh = Ulid::new();
    let behind = list(folder)?.last().and_then(Stem::of).map_or(0, |newest| newest.ulid.timestamp_ms() + 1);
    let ulid = Ulid::from_parts(fresh.timestamp_ms().max(behind), fresh.random());
    Ok(Stem { ulid, generation: 0 }.name())
}

/// The stem of what replaces a segment and those before it that were merged with it.
pub(crate) fn merged_stem(newest: &Segment) -> Option<String> {
    Stem::of(newest).map(|stem| Stem { generation: stem.generation + 1, ..stem }.name())
}

fn this_host() -> String {
    blake3::hash(crate::here::host().as_bytes()).to_hex()[..8].to_owned()
}

/// All segments of a folder, the oldest first; none where there is no folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.at("read", folder)?.path());
    }
    paths.sort();
    let is = |path: &Path, kind: &str| path.extension().is_some_and(|extension| extension == kind);
    let segments = paths
        .iter()
        .filter(|path| is(path, ROWS))
        .map(|rows| Segment { rows: rows.clone(), sealed: paths.binary_search(&rows.with_extension(INDEX)).is_ok() });
    Ok(segments.collect())
}

/// Removes indexes without rows, which a process that was killed while it
/// removed a segment left. Nobody may merge meanwhile.
pub(crate) fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at("read", folder)? {
        let path = entry.at("read", folder)?.path();
        if path.extension().is_some_and(|extension| extension == INDEX) && !path.with_extension(ROWS).exists() {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// What is known of a segment's rows.
pub(crate) enum Entries {
    Index(Index),
    Scanned(Vec<Entry>),
}

impl Entries {
    /// How many rows there are.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Index(index) => index.len() as u64,
            Self::Scanned(entries) => entries.len() as u64,
        }
    }
}

impl Segment {
    pub(crate) fn new(folder: &Path, stem: &str) -> Self {
        Self { rows: folder.join(format!("{stem}.{ROWS}")), sealed: false }
    }

    /// Where its index lies, once it is complete.
    pub(crate) fn index(&self) -> PathBuf {
        self.rows.with_extension(INDEX)
    }

    /// What it holds; nothing if it was merged away meanwhile. An index that is
    /// damaged, or knows of fewer bytes than there are, is made anew.
    pub(crate) fn entries(&self, store: &Store) -> Result<Option<Entries>> {
        let Some(file) = self.open()? else { return Ok(None) };
        if self.sealed
            && let Ok(index) = File::open(self.index())
            && let Some(index) = Index::open(index).at("read", &self.rows)?
            && file.metadata().at("read", &self.rows)?.len() <= index.covered
        {
            return Ok(Some(Entries::Index(index)));
        }
        self.scan(store, &file).map(|entries| Some(Entries::Scanned(entries)))
    }

    /// Finds sorted prefixes among its rows; false if it was merged away meanwhile.
    pub(crate) fn find(&self, store: &Store, wanted: &[u128], found: &mut dyn FnMut(usize, Entry)) -> Result<bool> {
        match self.entries(store)? {
            None => return Ok(false),
            Some(Entries::Scanned(entries)) => index::find(&entries, wanted, found),
            Some(Entries::Index(index)) => {
                if !index.find(wanted, found).at("read", &self.rows)? {
                    // What was found so far is found again.
                    let Some(file) = self.open()? else { return Ok(false) };
                    index::find(&self.scan(store, &file)?, wanted, found);
                }
            }
        }
        Ok(true)
    }

    /// Every row that it holds; nothing if it was merged away meanwhile.
    pub(crate) fn all(&self, store: &Store) -> Result<Option<Vec<Entry>>> {
        match self.entries(store)? {
            None => Ok(None),
            Some(Entries::Scanned(entries)) => Ok(Some(entries)),
            Some(Entries::Index(index)) => match index.all().at("read", &self.rows)? {
                Some(entries) => Ok(Some(entries)),
                None => match self.open()? {
                    Some(file) => self.scan(store, &file).map(Some),
                    None => Ok(None),
                },
            },
        }
    }

    /// Opens its records; nothing if it was merged away.
    pub(crate) fn open(&self) -> Result<Option<File>> {
        match File::open(&self.rows) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.rows, error)),
        }
    }

    /// Reads all its records, and makes a complete segment's index anew.
    fn scan(&self, store: &Store, file: &File) -> Result<Vec<Entry>> {
        let (entries, _, length) = scan(file).at("read", &self.rows)?;
        if self.sealed {
            // It is only slower without.
            let _ = self.write_index(store, &entries, length);
        }
        Ok(entries)
    }

    /// Writes its index, which says that it is complete.
    pub(crate) fn write_index(&self, store: &Store, entries: &[Entry], covered: u64) -> Result<()> {
        let temporary = store.temporary("index");
        let written = fs::write(&temporary, index::encode(entries, covered))
            .at("write", &temporary)
            .and_then(|()| disk::settle(store, std::slice::from_ref(&temporary)))
            .and_then(|()| fs::rename(&temporary, self.index()).at("write", &self.index()));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes it; its rows are in another segment.
    pub(crate) fn remove(&self) -> Result<()> {
        fs::remove_file(&self.rows).at("remove", &self.rows)?;
        let _ = fs::remove_file(self.index());
        Ok(())
    }

    /// Completes a segment whose writer died: cuts off a torn end and writes
    /// the index. Does nothing while the writer lives.
    pub(crate) fn recover(&self, store: &Store) -> Result<()> {
        let here = self.rows.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(&this_host()));
        let file = File::options().read(true).append(true).open(&self.rows).at("open", &self.rows)?;
        let meta = file.metadata().at("read", &self.rows)?;
        let lost = meta.modified().is_ok_and(|when| when.elapsed().is_ok_and(|age| age > LOST_AFTER));
        let dead = match file.try_lock() {
            Ok(()) => here || lost,
            Err(fs::TryLockError::WouldBlock) => false,
            Err(fs::TryLockError::Error(_)) => lost,
        };
        // Another process may have done all this meanwhile, and merged the segment away, its index
        // last: so the index is looked for first.
        let complete = self.index().exists();
        let there = fs::metadata(&self.rows).is_ok_and(|now| (now.dev(), now.ino()) == (meta.dev(), meta.ino()));
        if !dead || complete || !there {
            return Ok(());
        }
        let (scanned, synced) = std::thread::scope(|scope| {
            // The disk takes its time while the rows are read.
            let synced = scope.spawn(|| file.sync_all());
            (scan(&file), synced.join().expect("a sync does not panic"))
        });
        let (entries, end, length) = scanned.at("read", &self.rows)?;
        if entries.is_empty() {
            return self.remove();
        }
        synced.at("write", &self.rows)?;
        if end < length {
            file.set_len(end).and_then(|()| file.sync_all()).at("write", &self.rows)?;
        }
        self.write_index(store, &entries, end)
    }
}

/// The rows of a file, settled; the end of the last whole one, and of the file.
fn scan(mut file: &File) -> io::Result<(Vec<Entry>, u64, u64)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut entries = Vec::new();
    let end = record::scan(&bytes, |at, record| entries.push(entry(at as u64, &record)));
    index::settle(&mut entries);
    Ok((entries, end as u64, bytes.len() as u64))
}

/// The entry of a record at an offset.
pub(crate) fn entry(offset: u64, record: &Record<'_>) -> Entry {
    Entry {
        prefix: index::prefix(&record.key),
        offset,
        length: (record::HEAD + record.row.len()) as u32,
        replaces: record.replaces,
    }
}

/// Reads records at sorted places; `found` gets the number of the place, and
/// nothing for one that is not whole.
pub(crate) fn read(file: &File, places: &[(u64, u32)], found: &mut dyn FnMut(usize, Option<&[u8]>)) {
    let mut buffer = Vec::new();
    let mut next = 0;
    while next < places.len() {
        let start = places[next].0;
        let (mut last, mut end) = (next, start + u64::from(places[next].1));
        for (offset, length) in &places[next + 1..] {
            let reach = offset + u64::from(*length);
            if *offset > end + GAP || reach - start > CHUNK {
                break;
            }
            (last, end) = (last + 1, end.max(reach));
        }
        buffer.resize((end - start) as usize, 0);
        // What cannot be read is not whole, and costs its rows only.
        let there = read_at(file, &mut buffer, start).unwrap_or(0);
        for (place, (offset, length)) in places.iter().enumerate().take(last + 1).skip(next) {
            let from = (offset - start) as usize;
            found(place, buffer[..there].get(from..from + *length as usize));
        }
        next = last + 1;
    }
}

/// Fills a buffer as far as the file goes.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
