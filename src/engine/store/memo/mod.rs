//! The row memo: results of single rows that were paid for, such as a model's
//! answer to one prompt, kept whatever becomes of the stage that paid.
//!
//! ```text
//! memo/<row function>/<stem>.rows    records (see `record`), added to by one writer
//! memo/<row function>/<stem>.index   where each row lies (see `index`), once the writer is done
//! memo/<row function>/lock           held while small segments are merged
//! ```
//!
//! Every writer, thread or process, has a segment of its own; readers look at
//! all of them. Of several rows of one key the first answers, unless a later
//! one was written to replace it. A killed process loses the rows in flight, a
//! power cut those of the last two seconds. A row whose bytes are damaged is
//! not there; what is put in its place replaces it.
//!
//! Must not know what a row means.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fuseline_contract::RowKey;

use crate::error::{At, Error, Result};
use crate::store::{Store, disk};

pub mod care;
mod compact;
mod index;
mod journal;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use index::Entry;
use journal::Journal;
use segment::Segment;

/// The folder of the store.
pub(crate) const FOLDER: &str = "memo";
/// A segment that is longer is completed, and another begun.
const SEGMENT_BYTES: u64 = 64 << 20;
/// How often a reader looks again when segments come and go under its hands,
/// before it keeps others from merging, and after that.
const TRIES: usize = 4;

/// The remembered rows of one row function.
pub struct RowMemo {
    store: Store,
    folder: PathBuf,
    segment_bytes: u64,
    journal: Mutex<Option<Journal>>,
    /// Keys whose rows are damaged.
    damaged: Mutex<HashSet<RowKey>>,
}

/// What a look-up met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Rows that were handed out and taken.
    pub found: usize,
    /// Rows that are there and damaged, or of no use to the receiver.
    pub damaged: usize,
}

/// Where the row that answers lies: the segment's number, and the record.
#[derive(Clone, Copy)]
struct Place {
    segment: u32,
    length: u32,
    offset: u64,
}

impl RowMemo {
    /// Opens the rows of a row function in a prepared store, and completes
    /// segments whose writers died.
    pub fn open(store: &Store, function: &str) -> Result<Self> {
        Self::with_segments_of(store, function, SEGMENT_BYTES)
    }

    /// As [`RowMemo::open`], with segments of another size.
    pub fn with_segments_of(store: &Store, function: &str, segment_bytes: u64) -> Result<Self> {
        let folder = store.root().join(FOLDER).join(function);
        for segment in segment::list(&folder)?.iter().filter(|segment| !segment.sealed) {
            // It can be read as it is; the next one tries again.
            let _ = segment.recover(store);
        }
        let (journal, damaged) = (Mutex::new(None), Mutex::default());
        Ok(Self { store: store.clone(), folder, segment_bytes, journal, damaged })
    }

    /// Hands out every row that is remembered, with the place of its key, in no
    /// fixed order; `take` says whether it can use it.
    pub fn get_many(&self, keys: &[RowKey], take: &mut dyn FnMut(usize, &[u8]) -> bool) -> Result<Looked> {
        let mut looked = Looked::default();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        open.sort_unstable_by_key(|place| keys[*place]);
        let mut still = None;
        for tried in 0..2 * TRIES {
            if tried == TRIES {
                still = compact::hold_off(&self.folder);
            }
            let segments = segment::list(&self.folder)?;
            let whole = self.look(keys, &mut open, &segments, &mut looked, take)?;
            // A segment that was made or merged meanwhile may hold what is still missing.
            if open.is_empty() || whole && segment::list(&self.folder)? == segments {
                break;
            }
        }
        drop(still);
        Ok(looked)
    }

    /// Looks once for the keys at the sorted places `open`, and leaves there
    /// those that are not found. False if a segment was merged away meanwhile.
    fn look(
        &self,
        keys: &[RowKey],
        open: &mut Vec<usize>,
        segments: &[Segment],
        looked: &mut Looked,
        take: &mut dyn FnMut(usize, &[u8]) -> bool,
    ) -> Result<bool> {
        let prefixes: Vec<u128> = open.iter().map(|place| index::prefix(&keys[*place])).collect();
        let mut answers: Vec<Option<Place>> = vec![None; open.len()];
        for (number, segment) in segments.iter().enumerate() {
            let mut found = |at: usize, entry: Entry| {
                if answers[at].is_none() || entry.replaces {
                    let Entry { length, offset, .. } = entry;
                    answers[at] = Some(Place { segment: number as u32, length, offset });
                }
            };
            if !segment.find(&self.store, &prefixes, &mut found)? {
                return Ok(false);
            }
        }
        drop(prefixes);
        let mut order: Vec<u32> = (0..open.len() as u32).filter(|at| answers[*at as usize].is_some()).collect();
        let place = |at: &u32| answers[*at as usize].map_or((0, 0), |place| (place.segment, place.offset));
        order.sort_unstable_by_key(place);
        let mut whole = true;
        let mut done = vec![false; open.len()];
        for group in order.chunk_by(|a, b| place(a).0 == place(b).0) {
            let Some(file) = segments[place(&group[0]).0 as usize].open()? else {
                whole = false;
                continue;
            };
            let places: Vec<(u64, u32)> =
                group.iter().filter_map(|at| answers[*at as usize].map(|place| (place.offset, place.length))).collect();
            segment::read(&file, &places, &mut |nth, raw| {
                let at = group[nth] as usize;
                let key = &keys[open[at]];
                let record = raw.and_then(record::decode).filter(|record| record.key == *key);
                done[at] = true;
                if record.is_some_and(|record| take(open[at], record.row)) {
                    looked.found += 1;
                } else {
                    looked.damaged += 1;
                    self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(*key);
                }
            });
        }
        let mut at = 0;
        open.retain(|_| {
            at += 1;
            !done[at - 1]
        });
        Ok(whole)
    }

    /// Remembers a row. It outlives this process at once, and a power cut soon.
    /// If `replaces` is set, it answers in place of what was there before.
    pub fn put(&self, key: &RowKey, row: &[u8], replaces: bool) -> Result<()> {
        if row.len() > record::MAX_ROW {
            let bytes = row.len();
            return Err(Error::RowTooLong { bytes });
        }
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(key);
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *journal {
            Some(open) => open,
            none => {
                fs::create_dir_all(&self.folder).at("create", &self.folder)?;
                disk::settle(&self.store, &[self.store.root().join(FOLDER)])?;
                none.insert(Journal::create(&self.store, &self.folder)?)
            }
        };
        match open.append(key, replaces || damaged, row) {
            Ok(()) if open.bytes >= self.segment_bytes => journal.take().map_or(Ok(()), Journal::seal),
            Ok(()) => Ok(()),
            Err(error) => {
                // What is behind a torn row is found all the same, but a new segment is cleaner.
                *journal = None;
                Err(error)
            }
        }
    }

    /// Syncs what was put and completes its segment.
    pub fn finish(&self) -> Result<()> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(journal) = journal else { return Ok(()) };
        journal.seal()?;
        // Rows are safe; merging can wait for the next one.
        let _ = compact::compact(&self.store, &self.folder, self.segment_bytes);
        Ok(())
    }
}

impl Drop for RowMemo {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}
