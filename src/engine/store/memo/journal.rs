//! The segment that a writer adds to: every row is written at once, and synced
//! to disk by a thread of its own at least every two seconds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fuseline_contract::RowKey;

use crate::error::{At, Error, Result};
use crate::store::memo::index::{self, Entry};
use crate::store::memo::record::{self, Record};
use crate::store::memo::segment::{self, Segment};
use crate::store::{Store, disk};

/// How often rows are synced: with the time that a sync takes, a power cut
/// costs at most the rows of two seconds.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A segment that is being written.
pub(crate) struct Journal {
    segment: Segment,
    shared: Arc<Shared>,
    flusher: Option<JoinHandle<()>>,
    entries: Vec<Entry>,
    buffer: Vec<u8>,
    /// Bytes written.
    pub bytes: u64,
}

struct Shared {
    store: Store,
    /// Locked, so that others see that its writer lives.
    file: File,
    dirty: AtomicBool,
    closed: Mutex<bool>,
    wake: Condvar,
    failed: Mutex<Option<io::Error>>,
}

impl Shared {
    fn sync(&self) -> io::Result<()> {
        self.store.faults().pass("row-synced").and_then(|()| self.file.sync_data())
    }

    /// What the flusher could not write.
    fn failure(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }

    fn flush_until_closed(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let waited = self.wake.wait_timeout_while(closed, SYNC_EVERY, |closed| !*closed);
            closed = waited.unwrap_or_else(PoisonError::into_inner).0;
            if *closed {
                return;
            }
            drop(closed);
            // A row that comes between the two is synced the next time.
            if self.dirty.swap(false, Ordering::AcqRel)
                && let Err(error) = self.sync()
            {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Journal {
    /// Begins a segment. It is locked before it has its name, so that nobody
    /// sees it without its writer.
    pub(crate) fn create(store: &Store, folder: &Path) -> Result<Self> {
        let temporary = store.temporary("rows");
        let file = File::options().append(true).create_new(true).open(&temporary).at("create", &temporary)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(Error::io("lock", &temporary, error.into())),
        }
        let segment = Segment::new(folder, &segment::new_stem(folder)?);
        fs::rename(&temporary, &segment.rows).at("create", &segment.rows)?;
        disk::settle(store, &[folder.to_owned()])?;
        let shared = Arc::new(Shared {
            store: store.clone(),
            file,
            dirty: AtomicBool::new(false),
            closed: Mutex::new(false),
            wake: Condvar::new(),
            failed: Mutex::new(None),
        });
        let flushed = shared.clone();
        let flusher = std::thread::Builder::new()
            .name("row memo".to_owned())
            .spawn(move || flushed.flush_until_closed())
            .at("start a thread that syncs", &segment.rows)?;
        let (entries, buffer) = (Vec::new(), Vec::new());
        Ok(Self { segment, shared, flusher: Some(flusher), entries, buffer, bytes: 0 })
    }

    /// Adds a row. After an error nothing more may be added.
    pub(crate) fn append(&mut self, key: &RowKey, replaces: bool, row: &[u8]) -> Result<()> {
        self.buffer.clear();
        record::encode(key, replaces, row, &mut self.buffer);
        self.shared
            .failure()
            .and_then(|()| self.shared.store.faults().pass("row-appended"))
            .and_then(|()| (&self.shared.file).write_all(&self.buffer))
            .at("write", &self.segment.rows)?;
        self.shared.dirty.store(true, Ordering::Release);
        self.entries.push(segment::entry(self.bytes, &Record { key: *key, replaces, row }));
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Syncs all rows and completes the segment.
    pub(crate) fn seal(mut self) -> Result<()> {
        self.stop();
        self.shared.failure().and_then(|()| self.shared.sync()).at("write", &self.segment.rows)?;
        index::settle(&mut self.entries);
        self.shared.store.faults().pass("segment-sealed").at("write", &self.segment.rows)?;
        // Without an index whoever comes next makes it, as after a crash.
        let _ = self.segment.write_index(&self.shared.store, &self.entries, self.bytes);
        Ok(())
    }

    fn stop(&mut self) {
        *self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(flusher) = self.flusher.take() {
            let _ = flusher.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}
