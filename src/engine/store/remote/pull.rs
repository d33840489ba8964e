//! Taking results over: their blobs, the record, and what their key was made of.

use super::*;
use crate::store::{Preimage, seal};

/// How often a result is brought while collectors take it away.
const TRIES: usize = 20;

impl Store {
    /// Makes a record of the remote store one of this store, with all its
    /// blobs. False if something cannot be had.
    ///
    /// What was here before is touched before it is relied on, so that no
    /// collector takes it; what one took in that moment is brought again.
    pub fn pull(&self, record: &Record) -> Result<bool> {
        for _ in 0..TRIES {
            for blob in record.outputs.iter().flat_map(OutputRecord::blobs) {
                self.touch_blob(&blob);
            }
            let verified = record.outputs.iter().try_for_each(|output| self.verify_artifact(&output.artifact));
            match verified.and_then(|()| self.take_over(record)) {
                Ok(()) => {}
                // A damaged one is out of the way now.
                Err(Error::BlobMissing { .. } | Error::BlobCorrupt { .. }) => continue,
                // A collector has the folder of the key's records in its hands.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            if self.lookup(&record.key).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Remote {
    /// Brings what a key was made of. It only explains: without it nothing fails.
    pub(crate) fn bring_preimage(&self, store: &Store, key: &Key) {
        if self.is_off() || store.key_parts(key).is_some() {
            return;
        }
        match self.runtime.block_on(self.bytes(&self.preimage(key))) {
            Ok(bytes) => {
                if seal::unseal(&bytes).is_some_and(|preimage: Preimage| preimage.key == *key) {
                    let _ = store.write_replacing(&store.preimage(key), &bytes, "key-written");
                }
            }
            Err(fault) => self.complain(fault),
        }
    }
}
