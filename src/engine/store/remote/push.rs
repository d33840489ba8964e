//! Sending results up: blobs first, each once, then what the key was made of,
//! then the record.

use std::fs::{self, File};
use std::io::Read;

use futures::stream::FuturesUnordered;
use object_store::{MultipartUpload, PutMode, PutOptions};

use super::*;

/// A blob larger than this goes up in parts of this size.
const PART: u64 = 16 << 20;
/// Parts of a blob in flight.
const PARTS_AT_ONCE: usize = 4;
/// How long a part may take on a slow line.
const UPLOAD: Duration = Duration::from_secs(600);

/// What went up for a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were not there.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The record was not there.
    pub is_new: bool,
}

impl Remote {
    /// Sends a record of a store with all its blobs, those that are not there yet.
    /// Every blob is compared with its name before it goes. A record or blob that is
    /// gone, taken by a collector say, is [`Error::BlobMissing`].
    pub fn push(&self, store: &Store, record: &Record) -> Result<Pushed> {
        if !store.rely_on(record) {
            let digest = store.lost(record).map_or(record.outputs[0].artifact, |(_, digest)| digest);
            return Err(Error::BlobMissing { digest });
        }
        record.outputs.iter().try_for_each(|output| store.verify_artifact(&output.artifact))?;
        let blobs: HashSet<Digest> = record.outputs.iter().flat_map(OutputRecord::blobs).collect();
        let pushed = self.runtime.block_on(async {
            let mut going = stream::iter(blobs)
                .map(|digest| async move {
                    let there = self.has(digest).await?;
                    if !there {
                        self.upload(store, &digest).await?;
                    }
                    Ok((digest, there))
                })
                .buffer_unordered(AT_ONCE);
            let mut pushed = Pushed::default();
            while let Some(result) = going.next().await {
                if let (digest, false) = result? {
                    pushed.blobs += 1;
                    pushed.bytes += digest.size;
                }
            }
            let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            if store.key_parts(&record.key).is_some()
                && let Ok(bytes) = fs::read(store.preimage(&record.key))
            {
                match patiently(self.objects.put_opts(&self.preimage(&record.key), bytes.into(), create())).await {
                    Ok(_) | Err(Fault::Exists) => {}
                    Err(fault) => return Err(fault),
                }
            }
            let bytes = record.bytes();
            let location = self.records(&record.key).join(format!("{}.rec", Digest::of_bytes(&bytes).hex()));
            pushed.is_new = match patiently(self.objects.put_opts(&location, bytes.into(), create())).await {
                Ok(_) => true,
                Err(Fault::Exists) => false,
                Err(fault) => return Err(fault),
            };
            Ok(pushed)
        });
        pushed.map_err(|fault| self.failure(fault))
    }

    /// What an explicit request says when it fails.
    fn failure(&self, fault: Fault) -> Error {
        let message = match fault {
            Fault::Here(error) => return error,
            Fault::Unreachable(message) => message,
            Fault::Absent => "there is no such bucket".to_owned(),
            Fault::Exists | Fault::Corrupt => "an object of another kind is in the way".to_owned(),
        };
        Error::Remote { url: self.url.clone(), message }
    }

    async fn upload(&self, store: &Store, digest: &Digest) -> Result<(), Fault> {
        let (from, location) = (store.blob(digest), self.blob(digest));
        let here = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Fault::Here(Error::BlobMissing { digest: *digest }),
            _ => Fault::Here(Error::io("read", &from, error)),
        };
        if digest.size <= PART {
            let bytes = fs::read(&from).map_err(here)?;
            return within(UPLOAD, self.objects.put(&location, bytes.into())).await.map(|_| ());
        }
        let file = File::open(&from).map_err(here)?;
        let mut upload = patiently(self.objects.put_multipart(&location)).await?;
        let sent = match send(upload.as_mut(), file, here).await {
            Ok(()) => within(UPLOAD, upload.complete()).await.map(|_| ()),
            Err(fault) => Err(fault),
        };
        if sent.is_err() {
            // Parts that are left behind cost money; if this fails too, the bucket's own rule clears them.
            let _ = patiently(upload.abort()).await;
        }
        sent
    }
}

/// Sends a file in parts, a few at once.
async fn send(
    upload: &mut dyn MultipartUpload,
    mut file: File,
    here: impl Fn(std::io::Error) -> Fault,
) -> Result<(), Fault> {
    let mut going = FuturesUnordered::new();
    loop {
        let mut part = Vec::new();
        let n = Read::take(&mut file, PART).read_to_end(&mut part).map_err(&here)?;
        if n > 0 {
            going.push(within(UPLOAD, upload.put_part(part.into())));
        }
        while going.len() >= PARTS_AT_ONCE || (n == 0 && !going.is_empty()) {
            going.next().await.transpose()?;
        }
        if n == 0 {
            return Ok(());
        }
    }
}
