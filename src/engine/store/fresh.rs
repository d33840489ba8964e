//! Results of this process on their way to the disk. Small tables among them
//! are handed from memory to stages of this process, so that these need not
//! wait for the disk; no record says anything of a result before it is there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fuseline_contract::{Digest, Table};

use crate::store::Store;
use crate::store::manifest::Manifest;
use crate::store::publish::Pending;

/// A table that takes more memory waits for the disk.
const MOST_BYTES: usize = 256 << 10;

/// Small tables that are not published yet, by artifact.
pub(super) type Held = Mutex<HashMap<Digest, Entry>>;

/// One of them, with how many results consist of it.
#[derive(Debug)]
pub(super) struct Entry {
    holders: usize,
    manifest: Manifest,
    table: Table,
}

/// A result that can be read while this lives.
pub(crate) struct Fresh<'a> {
    store: &'a Store,
    artifacts: Vec<Digest>,
}

/// Keeps a table that is to be written, if it is small.
pub(super) fn kept(table: &Table) -> Option<Table> {
    let bytes: usize = table.batches().iter().map(|batch| batch.get_array_memory_size()).sum();
    (bytes <= MOST_BYTES).then(|| table.clone())
}

impl Store {
    /// Makes a result readable in this process before it is published; none if
    /// it is not made of small tables alone.
    pub(crate) fn lend(&self, result: &Pending) -> Option<Fresh<'_>> {
        let outputs: Option<Vec<_>> = result
            .outputs()
            .map(|(output, staged)| Some((output.artifact, staged.manifest.clone(), staged.table.clone()?)))
            .collect();
        let mut held = self.held();
        let lend = |(artifact, manifest, table)| {
            held.entry(artifact).or_insert(Entry { holders: 0, manifest, table }).holders += 1;
            artifact
        };
        let artifacts = outputs?.into_iter().map(lend).collect();
        Some(Fresh { store: self, artifacts })
    }

    /// Whether an artifact is in memory.
    pub(super) fn is_lent(&self, artifact: &Digest) -> bool {
        self.held().contains_key(artifact)
    }

    /// The manifest of an artifact that is in memory.
    pub(super) fn fresh_manifest(&self, artifact: &Digest) -> Option<Manifest> {
        self.held().get(artifact).map(|entry| entry.manifest.clone())
    }

    /// An artifact that is in memory.
    pub(super) fn fresh_table(&self, artifact: &Digest) -> Option<Table> {
        self.held().get(artifact).map(|entry| entry.table.clone())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Entry>> {
        self.known.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        let mut held = self.store.held();
        for artifact in &self.artifacts {
            if let Some(entry) = held.get_mut(artifact) {
                entry.holders -= 1;
                if entry.holders == 0 {
                    held.remove(artifact);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};
    use fuseline_contract::Key;

    use super::*;
    use crate::error::Error;
    use crate::store::Record;
    use crate::store::manifest::Made;
    use crate::store::publish::publish;
    use crate::store::staging::stage_table;

    fn pending(store: &Store, rows: i64) -> Pending {
        let column = Arc::new(Int64Array::from_iter_values(0..rows));
        let table = Table::of_columns(vec![(Field::new("x", DataType::Int64, false), column)]).expect("a table");
        let staged = vec![("rows".to_owned(), stage_table(&table, &store.temporary("attempt")).expect("staged"))];
        Pending::new(Record::new(Key([1; 32]), "toy", Vec::new(), false, Made::default()), staged)
    }

    #[test]
    fn a_small_result_is_read_before_it_is_published_and_as_what_is_published() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path()).expect("opens");
        store.prepare().expect("prepares");
        let (first, second) = (pending(&store, 5), pending(&store, 5));
        let artifact = first.record().outputs[0].artifact;
        let missing = |store: &Store| matches!(store.table(&artifact), Err(Error::BlobMissing { .. }));
        assert!(missing(&store));
        let (one, other) = (store.lend(&first).expect("small"), store.lend(&second).expect("small"));
        let table = store.table(&artifact).expect("in memory");
        store.verify_artifact(&artifact).expect("whole");
        let manifest = store.manifest(&artifact).expect("in memory");
        drop(one);
        assert_eq!(store.table(&artifact).expect("in memory"), table);
        drop(other);
        assert!(missing(&store));
        publish(&store, first).expect("published");
        assert_eq!(store.table(&artifact).expect("on disk"), table);
        assert_eq!(store.manifest(&artifact).expect("on disk"), manifest);
        assert!(store.lend(&pending(&store, 100_000)).is_none(), "too large");
    }
}
