//! Merging of small segments, so that a folder does not grow without bound
//! however many stages leave a few rows.
//!
//! Only complete segments that follow each other are merged, so that of two
//! rows of one key the same one answers before and after. The merged segment
//! is complete before it is seen, and seen before the others go; a reader from
//! whom one is taken away looks again.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::{At, Error, Result};
use crate::store::memo::index::{self, Entry};
use crate::store::memo::record;
use crate::store::memo::segment::{self, Segment};
use crate::store::{Store, disk};

/// Segments that are merged, at least.
const AT_LEAST: usize = 8;

/// The file that is locked while segments are merged.
const LOCK: &str = "lock";

/// Waits for a merge that goes on, and keeps others from beginning one while
/// the result lives. Nothing where no merge ever was, or nothing can be locked.
pub(crate) fn hold_off(folder: &Path) -> Option<File> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    lock.lock().ok().map(|()| lock)
}

/// Waits until nobody merges, and keeps others from it while the result lives.
pub(crate) fn exclude(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let lock = File::options().create(true).append(true).open(&path).at("open", &path)?;
    match lock.lock() {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(Error::io("lock", &path, error)),
        _ => Ok(lock),
    }
}

/// Merges the small segments of a folder to ones of at most `segment_bytes`,
/// unless another process does so at this moment.
pub(crate) fn compact(store: &Store, folder: &Path, segment_bytes: u64) -> Result<()> {
    if segment::list(folder)?.len() < AT_LEAST {
        return Ok(());
    }
    let path = folder.join(LOCK);
    let lock = File::options().create(true).append(true).open(&path).at("open", &path)?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    segment::sweep(folder)?;
    // What was listed before the lock may be merged by now.
    let mut group: Vec<Segment> = Vec::new();
    let mut bytes = 0;
    for segment in segment::list(folder)? {
        let size = fs::metadata(&segment.rows).map_or(u64::MAX, |meta| meta.len());
        let small = segment.sealed && size <= segment_bytes / 2;
        if !small || bytes + size > segment_bytes {
            merge(store, folder, &std::mem::take(&mut group))?;
            bytes = 0;
        }
        if small {
            bytes += size;
            group.push(segment);
        }
    }
    merge(store, folder, &group)
}

/// Merges segments that follow each other, the oldest first.
fn merge(store: &Store, folder: &Path, group: &[Segment]) -> Result<()> {
    let Some(stem) = group.last().filter(|_| group.len() >= AT_LEAST).and_then(segment::merged_stem) else {
        return Ok(());
    };
    // Which rows answer, by the segment that they lie in.
    let mut chosen: Vec<(Entry, usize)> = Vec::new();
    for (number, segment) in group.iter().enumerate() {
        let Some(entries) = segment.all(store)? else { return Ok(()) };
        chosen.extend(entries.into_iter().map(|entry| (entry, number)));
    }
    chosen.sort_by_key(|(entry, _)| entry.prefix);
    chosen.dedup_by(|later, chosen| {
        let same = later.0.prefix == chosen.0.prefix;
        if same && later.0.replaces {
            *chosen = *later;
        }
        same
    });
    chosen.sort_by_key(|(entry, number)| (*number, entry.offset));

    let temporary = store.temporary("rows");
    let mut out = BufWriter::new(File::create_new(&temporary).at("create", &temporary)?);
    let (mut entries, mut bytes, mut written) = (Vec::with_capacity(chosen.len()), 0, Ok(()));
    for (number, segment) in group.iter().enumerate() {
        let Some(file) = segment.open()? else {
            let _ = fs::remove_file(&temporary);
            return Ok(());
        };
        let from = chosen.partition_point(|(_, other)| *other < number);
        let to = chosen.partition_point(|(_, other)| *other <= number);
        let places: Vec<(u64, u32)> = chosen[from..to].iter().map(|(entry, _)| (entry.offset, entry.length)).collect();
        segment::read(&file, &places, &mut |_, raw| {
            // A damaged row is left behind.
            if let Some((raw, record)) = raw.and_then(|raw| Some((raw, record::decode(raw)?)))
                && written.is_ok()
            {
                entries.push(segment::entry(bytes, &record));
                bytes += raw.len() as u64;
                written = out.write_all(raw);
            }
        });
    }
    let newest = group.iter().filter_map(|segment| fs::metadata(&segment.rows).ok()?.modified().ok()).max();
    let synced = written.and_then(|()| {
        let out = out.into_inner().map_err(|error| error.into_error())?;
        // Rows grow no younger by being merged.
        newest.map_or(Ok(()), |newest| out.set_modified(newest))?;
        out.sync_all()
    });
    if synced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    synced.at("write", &temporary)?;
    index::settle(&mut entries);
    let merged = Segment::new(folder, &stem);
    merged.write_index(store, &entries, bytes)?;
    fs::rename(&temporary, &merged.rows).at("create", &merged.rows)?;
    disk::settle(store, &[folder.to_owned()])?;
    group.iter().try_for_each(Segment::remove)
}
