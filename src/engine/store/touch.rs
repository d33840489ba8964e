//! Use, told to the collector of garbage: a hit touches its record and blobs
//! before it relies on them, and so does a publication that finds its blob
//! there already.
//!
//! A touch of something touched within [`TOUCH_EVERY`] is left out, since on a
//! shared file system it costs a round trip. The collector knows: while a run
//! goes on it spares everything that young. A run that begins while one collects
//! touches everything. (A run takes its lease before it looks for a collector's,
//! a collector its own before it looks for runs, so one of them sees the other.)

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuseline_contract::Digest;
use nix::errno::Errno;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::store::lease::GC;
use crate::store::{Record, Store};

/// How often something in use is touched.
pub(crate) const TOUCH_EVERY: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Tells the collector that a result is relied on; false if it is gone.
    pub fn rely_on(&self, record: &Record) -> bool {
        let folder = self.records(&record.key);
        let blobs = || record.outputs.iter().flat_map(|output| output.blobs());
        // The folder is touched last, so a fresh one vouches for the blobs.
        match self.is_fresh(&folder) {
            Ok(true) => true,
            Ok(false) => {
                blobs().all(|blob| self.in_passing(&blob, || touch(&self.blob(&blob))))
                    && touch(&folder)
                    && folder.join("1.rec").exists()
            }
            Err(_) => false,
        }
    }

    /// Touches a blob that is about to be relied on; false if it is gone.
    pub(crate) fn touch_blob(&self, digest: &Digest) -> bool {
        let path = self.blob(digest);
        matches!(self.is_fresh(&path), Ok(true)) || self.in_passing(digest, || touch(&path))
    }

    /// Whether a touch can be left out.
    fn is_fresh(&self, path: &Path) -> io::Result<bool> {
        let touched = fs::metadata(path)?.modified()?;
        let collecting = *self.known.collecting.get_or_init(|| self.root().join("leases").join(GC).exists());
        // A time to come, by a clock that went back, is no reason to leave it out.
        Ok(!collecting && SystemTime::now().duration_since(touched).is_ok_and(|age| age < TOUCH_EVERY))
    }
}

/// Sets a file's times to the file system's present; false if it is gone.
fn touch(path: &Path) -> bool {
    let now = TimeSpec::UTIME_NOW;
    // Another user's file cannot be touched: it is for that user's runs to do so.
    utimensat(nix::fcntl::AT_FDCWD, path, &now, &now, UtimensatFlags::FollowSymlink) != Err(Errno::ENOENT)
}
