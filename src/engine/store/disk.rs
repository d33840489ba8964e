//! Waiting for the disk. What a record promises must be there after a power
//! cut, so every file and folder that it stands on is synced before it.

use std::fs::File;
use std::path::PathBuf;

use crate::error::{At, Error, Result};
use crate::store::Store;

/// From so many paths on, the whole file system is synced at once: a disk takes
/// about a millisecond for a file, whether or not it is alone.
#[cfg(target_os = "linux")]
const MANY: usize = 6;
/// Unless other programs have left more than this to write for each path of
/// ours: we would wait for that too, and a disk writes so much in about the time
/// that it takes for a file.
#[cfg(target_os = "linux")]
const FOREIGN_BYTES: u64 = 1 << 20;

/// So many threads sync at once: file systems write what several wait for in one go.
const AT_ONCE: usize = 8;

/// Waits until files and folders are on disk.
pub(crate) fn settle(store: &Store, paths: &[PathBuf]) -> Result<()> {
    #[cfg(target_os = "linux")]
    if paths.len() >= MANY && unwritten_bytes().is_some_and(|bytes| bytes < FOREIGN_BYTES * paths.len() as u64) {
        let folder = store.folder()?;
        if is_local(folder) {
            return nix::unistd::syncfs(folder).map_err(|errno| Error::io("write", store.root(), errno.into()));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = store;
    let each = paths.len().div_ceil(AT_ONCE).max(MANY);
    let (first, rest) = paths.split_at(paths.len().min(each));
    std::thread::scope(|scope| {
        let sync = |paths: &[PathBuf]| {
            paths.iter().try_for_each(|path| File::open(path).and_then(|file| file.sync_all()).at("write", path))
        };
        let mut others = Vec::new();
        let mut own = vec![first];
        for paths in rest.chunks(each) {
            // Where no thread can be had, we do it ourselves.
            match std::thread::Builder::new().spawn_scoped(scope, move || sync(paths)) {
                Ok(other) => others.push(other),
                Err(_) => own.push(paths),
            }
        }
        let own = own.into_iter().try_for_each(sync);
        others.into_iter().map(|other| other.join().expect("it does not panic")).fold(own, Result::and)
    })
}

/// Whether a file system is known to be a local disk's: one call brings all that
/// was written to it to the disk, and no other host changes a file behind its
/// times. Behind FUSE and networks nobody promises that.
#[cfg(target_os = "linux")]
pub(crate) fn is_local(folder: &File) -> bool {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
    let local = [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC];
    fstatfs(folder).is_ok_and(|found| local.contains(&found.filesystem_type()))
}

/// Elsewhere it is not known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_local(_: &File) -> bool {
    false
}

/// What this machine has in memory that is not on disk yet.
#[cfg(target_os = "linux")]
fn unwritten_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("Dirty:")? + kib("Writeback:")?) * 1024)
}
