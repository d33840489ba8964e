//! A store elsewhere that several people share: a bucket or a folder, no server.
//!
//! ```text
//! v1/cas/ab/<64 hex>                       blobs
//! v1/keys/ab/<stage key>.json              what a key was made of
//! v1/ac/ab/<stage key>/<record digest>.rec action records
//! ```
//!
//! Blobs go up before the record that names them, and a record answers only if
//! all its blobs are there and its manifests say what it says. What comes down
//! is compared with its name; the server is never trusted with that. Whoever
//! may write records is trusted, as the writer of a local record is.
//!
//! Reading never fails: what cannot be had is a miss, and after the first
//! sign that nobody answers no more is asked. [`Remote::troubles`] says so, once.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuseline_contract::{Digest, Key};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::store::manifest::{Manifest, OutputRecord, Record};
use crate::store::{Store, publish};

mod address;
#[cfg(test)]
pub(crate) mod fake;
mod pull;
mod push;

pub use push::Pushed;

/// The layout's version, and the first folder.
const LAYOUT: &str = "v1";
/// Requests at once.
const AT_ONCE: usize = 8;
/// Without a byte for so long, nobody answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records of one key that are looked at; one or two is usual.
const MOST_RECORDS: usize = 64;
/// Records and manifests larger than this are none of ours.
const LARGEST_TEXT: u64 = 64 << 20;

/// A store elsewhere.
pub struct Remote {
    url: String,
    objects: Arc<dyn ObjectStore>,
    root: ObjectPath,
    runtime: Runtime,
    /// Nobody answers.
    is_off: AtomicBool,
    troubles: Mutex<Vec<String>>,
    /// Blobs that do not hold what their name promises, or are gone.
    bad: Mutex<HashSet<Digest>>,
    /// What was asked.
    asked: Mutex<BTreeMap<Key, Option<Record>>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.url).finish()
    }
}

/// Why something did not come or go.
#[derive(Debug)]
enum Fault {
    /// It is not there.
    Absent,
    /// It is there already.
    Exists,
    /// It is not what its name promises.
    Corrupt,
    /// Nobody answers, or refuses.
    Unreachable(String),
    /// It is this side's disk.
    Here(Error),
}

impl Remote {
    /// The store at an address: `s3://bucket/prefix`, `gs://…`, `az://…` or
    /// `file:///folder`. Credentials come from the environment, as the tools of
    /// each service read them. Nothing is asked yet.
    pub fn open(url: &str) -> Result<Self> {
        let (objects, root) = address::connect(url)?;
        Self::of(url, objects, root)
    }

    /// A store over any objects below a root.
    pub(crate) fn of(url: &str, objects: Arc<dyn ObjectStore>, root: ObjectPath) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("remote")
            .enable_all()
            .build()
            .map_err(|error| Error::Remote { url: url.to_owned(), message: error.to_string() })?;
        Ok(Self {
            url: url.to_owned(),
            objects,
            root,
            runtime,
            is_off: AtomicBool::new(false),
            troubles: Mutex::default(),
            bad: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// What went wrong since the last time this was asked, for people.
    pub fn troubles(&self) -> Vec<String> {
        std::mem::take(&mut *self.troubles.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, what: &str) {
        let text = format!("remote {}: {what}", self.url);
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn give_up(&self, message: &str) {
        if !self.is_off.swap(true, Ordering::Relaxed) {
            self.note(&format!("{message}; going on without it"));
        }
    }

    fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// The record that answers for a key, if all its blobs are there or here.
    pub(crate) fn find(&self, store: &Store, key: &Key) -> Option<Record> {
        if self.is_off() {
            return None;
        }
        let known = self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let record = match known {
            Some(record) => record,
            None => match self.runtime.block_on(self.look(store, key)) {
                Ok(record) => {
                    self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, record.clone());
                    record
                }
                Err(fault) => {
                    self.complain(fault);
                    None
                }
            },
        }?;
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = |digest: Digest| bad.contains(&digest) && !store.has(&digest);
        let lost = record.outputs.iter().flat_map(OutputRecord::blobs).any(is_lost);
        (!lost).then_some(record)
    }

    fn complain(&self, fault: Fault) {
        match fault {
            Fault::Absent | Fault::Exists => {}
            Fault::Corrupt => self.note("an object is damaged and left aside"),
            Fault::Unreachable(message) => self.give_up(&message),
            Fault::Here(error) => self.give_up(&error.to_string()),
        }
    }

    /// Of several records the first that was put there answers, unless a later
    /// one supersedes it, as in a local store.
    async fn look(&self, store: &Store, key: &Key) -> Result<Option<Record>, Fault> {
        let listing = self.objects.list(Some(&self.records(key))).take(MOST_RECORDS).try_collect();
        let mut listed: Vec<ObjectMeta> = patiently(listing).await?;
        listed.sort_by(|a, b| (a.last_modified, &a.location).cmp(&(b.last_modified, &b.location)));
        let mut chosen: Option<Record> = None;
        for meta in listed {
            let record = match self.record(key, &meta).await {
                Ok(record) => record,
                Err(Fault::Absent | Fault::Corrupt) => continue,
                Err(fault) => return Err(fault),
            };
            if (chosen.is_none() || record.supersedes) && self.is_whole(store, &record).await? {
                chosen = Some(record);
            }
        }
        Ok(chosen)
    }

    async fn record(&self, key: &Key, meta: &ObjectMeta) -> Result<Record, Fault> {
        let name = meta.location.filename().and_then(|name| name.strip_suffix(".rec")).ok_or(Fault::Absent)?;
        if meta.size > LARGEST_TEXT {
            return Err(Fault::Corrupt);
        }
        let bytes = self.bytes(&meta.location).await?;
        if Digest::of_bytes(&bytes).hex() != name {
            return Err(Fault::Corrupt);
        }
        Record::parse(&bytes).filter(|record| record.key == *key).ok_or(Fault::Corrupt)
    }

    /// Whether every blob of a record can be had, and its manifests agree with it.
    async fn is_whole(&self, store: &Store, record: &Record) -> Result<bool, Fault> {
        for output in &record.outputs {
            let manifest = match self.manifest(store, &output.artifact).await {
                Ok(manifest) => manifest,
                Err(Fault::Absent | Fault::Corrupt) => return Ok(false),
                Err(fault) => return Err(fault),
            };
            if OutputRecord::new(&output.name, output.artifact, &manifest) != *output {
                return Ok(false);
            }
        }
        let files = record.outputs.iter().flat_map(|output| output.files.iter().copied());
        let missing: HashSet<Digest> = files.filter(|digest| !store.has(digest)).collect();
        let mut heads = stream::iter(missing).map(|digest| self.has(digest)).buffer_unordered(AT_ONCE);
        while let Some(there) = heads.next().await {
            if !there? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn manifest(&self, store: &Store, artifact: &Digest) -> Result<Manifest, Fault> {
        let here = if store.has(artifact) { store.read_blob(artifact).ok() } else { None };
        let bytes = match here {
            Some(bytes) => bytes,
            None if artifact.size > LARGEST_TEXT => return Err(Fault::Corrupt),
            None => self.bytes(&self.blob(artifact)).await?,
        };
        if Digest::of_bytes(&bytes) != *artifact {
            return Err(Fault::Corrupt);
        }
        Manifest::parse(&bytes).ok_or(Fault::Corrupt)
    }

    /// Whether a blob is there, in the right size.
    async fn has(&self, digest: Digest) -> Result<bool, Fault> {
        match patiently(self.objects.head(&self.blob(&digest))).await {
            Ok(meta) => Ok(meta.size == digest.size),
            Err(Fault::Absent) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// A small object whole.
    async fn bytes(&self, location: &ObjectPath) -> Result<Vec<u8>, Fault> {
        let object = patiently(self.objects.get(location)).await?;
        if object.meta.size > LARGEST_TEXT {
            return Err(Fault::Corrupt);
        }
        Ok(patiently(object.bytes()).await?.to_vec())
    }

    /// Brings blobs into a store that are not in it. What cannot be had is left
    /// out; an error is one of this side's disk.
    pub(crate) fn fetch(&self, store: &Store, digests: &[Digest]) -> Result<()> {
        let missing: HashSet<Digest> = {
            let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
            digests.iter().copied().filter(|digest| !store.has(digest) && !bad.contains(digest)).collect()
        };
        if missing.is_empty() || self.is_off() {
            return Ok(());
        }
        store.prepare()?;
        self.runtime.block_on(async {
            let mut coming = stream::iter(missing)
                .map(|digest| async move { (digest, self.bring(store, digest).await) })
                .buffer_unordered(AT_ONCE);
            while let Some((digest, result)) = coming.next().await {
                match result {
                    Ok(()) => {}
                    Err(Fault::Here(error)) => return Err(error),
                    Err(Fault::Unreachable(message)) => self.give_up(&message),
                    Err(fault) => {
                        let what = match fault {
                            Fault::Absent => "is no longer there",
                            _ => "does not hold what its name promises",
                        };
                        self.note(&format!("blob {} {what}", digest.short()));
                        self.bad.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
                    }
                }
            }
            Ok(())
        })
    }

    /// One blob, tried twice if the connection breaks off.
    async fn bring(&self, store: &Store, digest: Digest) -> Result<(), Fault> {
        let part = store.temporary("fetch");
        let mut result = self.download(&digest, &part).await;
        if matches!(result, Err(Fault::Unreachable(_))) {
            result = self.download(&digest, &part).await;
        }
        let result = match result {
            Ok(()) => publish::receive(store, &part, &digest).map_err(Fault::Here),
            Err(fault) => Err(fault),
        };
        if result.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        result
    }

    /// Writes an object to a file and compares it with its name.
    async fn download(&self, digest: &Digest, to: &Path) -> Result<(), Fault> {
        use std::io::Write;
        let object = patiently(self.objects.get(&self.blob(digest))).await?;
        if object.meta.size != digest.size {
            return Err(Fault::Corrupt);
        }
        let here = |error| Fault::Here(Error::io("write", to, error));
        let mut file = std::fs::File::create(to).map_err(here)?;
        let mut hasher = blake3::Hasher::new();
        let (mut size, mut chunks) = (0, object.into_stream());
        while let Some(chunk) = patiently(chunks.try_next()).await? {
            size += chunk.len() as u64;
            if size > digest.size {
                return Err(Fault::Corrupt);
            }
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(here)?;
        }
        if (Digest { hash: *hasher.finalize().as_bytes(), size }) != *digest {
            return Err(Fault::Corrupt);
        }
        file.sync_all().map_err(here)
    }

    fn at(&self, parts: &[&str]) -> ObjectPath {
        parts.iter().fold(self.root.clone().join(LAYOUT), |path, part| path.join(*part))
    }

    fn blob(&self, digest: &Digest) -> ObjectPath {
        let hex = digest.hex();
        self.at(&["cas", &hex[..2], &hex])
    }

    fn preimage(&self, key: &Key) -> ObjectPath {
        let hex = key.to_string();
        self.at(&["keys", &hex[..2], &format!("{hex}.json")])
    }

    fn records(&self, key: &Key) -> ObjectPath {
        let hex = key.to_string();
        self.at(&["ac", &hex[..2], &hex])
    }
}

/// Waits for an answer, but not for ever.
async fn patiently<T>(answer: impl Future<Output = object_store::Result<T>>) -> Result<T, Fault> {
    within(PATIENCE, answer).await
}

async fn within<T>(limit: Duration, answer: impl Future<Output = object_store::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(object_store::Error::NotFound { .. })) => Err(Fault::Absent),
        Ok(Err(object_store::Error::AlreadyExists { .. })) => Err(Fault::Exists),
        Ok(Err(error)) => Err(Fault::Unreachable(shown(&error))),
        Err(_) => Err(Fault::Unreachable(format!("no answer for {} s", limit.as_secs()))),
    }
}

/// An error in one line, without the queries of addresses: they may be signed.
fn shown(error: &object_store::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let words = line.split(' ').map(|word| word.split_once('?').map_or(word, |(address, _)| address));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
