//! Large blobs whose bytes were compared with their names, remembered in
//! `index/blobs/` from one process to the next: while inode, size and times are
//! those of then, gigabytes are not read again. Only on local disks, where the
//! times of a file can be relied on; `fsck` reads every byte all the same.
//!
//! Touches and links change a file's times too; those that are our own go
//! through [`Store::in_passing`].

use std::fs;
use std::path::PathBuf;

use fuseline_contract::Digest;
use serde::{Deserialize, Serialize};

use crate::store::files::Stat;
use crate::store::{Store, disk, seal};

/// A blob smaller than this is read more quickly than a note of it is kept.
pub(crate) const LARGE: u64 = 16 << 20;

/// A blob as it was when it held what its name promises.
#[derive(Serialize, Deserialize)]
struct Verified {
    blob: Digest,
    stat: Stat,
}

impl Store {
    /// Where the notes lie.
    pub(crate) fn verified_blobs(&self) -> PathBuf {
        self.root().join("index").join("blobs")
    }

    fn note_of(&self, digest: &Digest) -> PathBuf {
        self.verified_blobs().join(format!("{}.json", digest.hex()))
    }

    /// How a large blob on a local disk looks now.
    pub(crate) fn stat_of_large(&self, digest: &Digest) -> Option<Stat> {
        let is_local = || self.folder().is_ok_and(disk::is_local);
        if digest.size < LARGE || !is_local() {
            return None;
        }
        fs::metadata(self.blob(digest)).ok().map(|meta| Stat::of(&meta))
    }

    /// Whether a blob is as it was when it was compared with its name.
    pub(crate) fn was_verified(&self, digest: &Digest) -> bool {
        self.stat_of_large(digest).is_some_and(|stat| {
            let note: Option<Verified> = fs::read(self.note_of(digest)).ok().and_then(|bytes| seal::unseal(&bytes));
            note.is_some_and(|note| note.blob == *digest && note.stat == stat)
        })
    }

    /// Remembers a large blob that holds what its name promises.
    pub(crate) fn remember_verified(&self, digest: &Digest) {
        if let Some(stat) = self.stat_of_large(digest) {
            let note = seal::seal(&Verified { blob: *digest, stat });
            // Without it the blob is read again, nothing worse.
            let _ = self.write_replacing(&self.note_of(digest), &note, "index-written");
        }
    }

    /// Does something to a blob's times or links that leaves its bytes alone.
    pub(crate) fn in_passing<T>(&self, digest: &Digest, act: impl FnOnce() -> T) -> T {
        let known = self.was_verified(digest);
        let done = act();
        if known {
            self.remember_verified(digest);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::error::Error;
    use crate::store::publish;

    fn open(home: &Path) -> Store {
        let store = Store::open(home).expect("opens");
        store.prepare().expect("prepares");
        store
    }

    /// A store with one large blob, which it knows.
    fn bench(home: &Path) -> Option<Digest> {
        let store = open(home);
        let digest = publish::put_bytes(&store, &vec![7; LARGE as usize]).expect("put");
        if store.stat_of_large(&digest).is_none() {
            println!("skipped: {} is on no local disk", home.display());
            return None;
        }
        assert!(open(home).was_verified(&digest), "a later process knows it");
        Some(digest)
    }

    #[test]
    fn what_was_verified_is_known_until_it_changes_in_any_way() {
        let home = tempfile::tempdir().expect("a folder");
        let Some(digest) = bench(home.path()) else { return };
        let path = open(home.path()).blob(&digest);
        // The same size at another time.
        let mut bytes = fs::read(&path).expect("read");
        bytes[1000] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let modified = fs::metadata(&path).expect("there").modified().expect("told");
        fs::write(&path, &bytes).expect("written");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(modified)).expect("set back");
        let store = open(home.path());
        assert!(!store.was_verified(&digest), "a time that is set back is noticed");
        let error = store.verify(&digest).expect_err("noticed");
        assert!(matches!(error, Error::BlobCorrupt { .. }), "{error}");
    }

    #[test]
    fn a_damaged_note_counts_for_nothing_and_another_ones_too() {
        let home = tempfile::tempdir().expect("a folder");
        let Some(digest) = bench(home.path()) else { return };
        let store = open(home.path());
        let note = store.note_of(&digest);
        let good = fs::read(&note).expect("a note");
        for at in (0..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[at] ^= 2;
            fs::write(&note, bytes).expect("written");
            assert!(!store.was_verified(&digest), "byte {at}");
        }
        let other = publish::put_bytes(&store, &vec![8; LARGE as usize]).expect("put");
        fs::write(store.note_of(&other), good).expect("written");
        assert!(!store.was_verified(&other));
        // It is read, found whole, and known again.
        open(home.path()).verify(&other).expect("whole");
        assert!(open(home.path()).was_verified(&other));
    }

    #[test]
    fn touches_and_links_of_our_own_are_no_changes() {
        let home = tempfile::tempdir().expect("a folder");
        let Some(digest) = bench(home.path()) else { return };
        let store = open(home.path());
        let path = store.blob(&digest);
        let link = || fs::hard_link(&path, home.path().join("tmp/link"));
        store.in_passing(&digest, link).expect("linked");
        assert!(open(home.path()).was_verified(&digest));
        fs::remove_file(home.path().join("tmp/link")).expect("removed");
        assert!(!open(home.path()).was_verified(&digest), "somebody else's change is one");
        assert!(!store.in_passing(&digest, || open(home.path()).was_verified(&digest)), "it stays unknown");
    }
}
