//! What takes how much room.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use fuseline_contract::Digest;
use serde::Serialize;

use crate::care::inventory;
use crate::error::Result;
use crate::store::{Record, Store};

/// The room of some results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Bytes of the outputs, manifests included.
    pub bytes: u64,
    /// Those of them that nothing counted before has: what is shared counts once.
    pub own_bytes: u64,
}

/// Counts blobs once.
#[derive(Debug, Default)]
pub struct Counter {
    seen: BTreeSet<Digest>,
    /// Bytes of everything counted so far.
    pub total: u64,
}

impl Counter {
    /// The room of a record's outputs.
    pub fn count(&mut self, record: &Record) -> Room {
        let blobs: BTreeSet<Digest> = record.outputs.iter().flat_map(|output| output.blobs()).collect();
        let bytes = blobs.iter().map(|blob| blob.size).sum();
        let own_bytes = blobs.into_iter().filter(|blob| self.seen.insert(*blob)).map(|blob| blob.size).sum();
        self.total += own_bytes;
        Room { bytes, own_bytes }
    }
}

/// Bytes of a store's files by folder, the largest first. A file that is linked
/// twice, as blobs are into views, counts once, where it is listed first.
pub fn of_store(store: &Store) -> Result<Vec<(String, u64)>> {
    let mut seen = BTreeSet::new();
    let mut rooms = Vec::new();
    let mut folders = inventory::entries(store.root())?;
    // Blobs before the views of them.
    folders.sort_by_key(|entry| entry.file_name() != "cas");
    for entry in folders {
        let mut bytes = 0;
        inventory::walk(&entry.path(), &mut |_, meta| {
            if meta.is_file() && (meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino()))) {
                bytes += meta.len();
            }
        })?;
        rooms.push((inventory::name(&entry.path()), bytes));
    }
    rooms.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(rooms)
}
