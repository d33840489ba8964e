//! Artifacts and the records of how they were made.
//!
//! ```text
//! format                     one line: layout version and hash name
//! cas/ab/<64 hex>            blobs, read only; a manifest is a blob too
//! views/<artifact>/          an artifact as a folder with its real file names (hard links)
//! ac/ab/<stage key>/<n>.rec  action records; more than one only if a rerun gave other bytes
//! keys/ab/<stage key>.json   the key's own preimage, readable
//! memo/<row function>/       results of single rows (see [`memo`])
//! runs/<ulid>/               what was asked and done (see the ledger)
//! index/                     rebuildable: the last key of each stage, digests of external files, large blobs that were verified
//! work/<stage key>/<attempt>/ scratch of a running attempt
//! locks/ leases/             who works on what
//! roots/                     pins: names whose results are kept
//! tmp/ trash/ quarantine/
//! ```
//!
//! A blob verifies itself by its name; records, preimages, the ledger and the
//! index are sealed (see [`seal`]), and a damaged one counts as absent. A record
//! is trusted otherwise; one whose blobs are gone is a miss. Opening a store writes nothing; [`Store::prepare`] makes it
//! ready to be written to. Several processes may share a store.
//!
//! Must not know stages' names, operators or plans.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fuseline_contract::{Digest, Key, Table};
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

pub mod adopt;
pub mod content;
pub mod digest;
pub(crate) mod disk;
pub mod fault;
pub mod files;
mod fresh;
pub mod lease;
pub mod manifest;
pub mod memo;
pub mod model;
pub mod publish;
pub(crate) mod remote;
pub mod seal;
pub mod staging;
pub mod table;
pub(crate) mod touch;
mod verified;
mod view;

pub use fault::Faults;
pub use manifest::{Acceptance, ArtifactKind, InputRecord, Manifest, OutputRecord, Record};
pub use remote::{Pushed, Remote};

const FORMAT: &str = "fuseline store 1 blake3";
const FOLDERS: [&str; 14] = [
    "cas",
    "views",
    "ac",
    "keys",
    memo::FOLDER,
    "runs",
    "index",
    "roots",
    "work",
    "locks",
    "leases",
    "tmp",
    "trash",
    "quarantine",
];

/// A store on a local or shared file system. Clones share what is known.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    known: Arc<Known>,
}

/// What this process knows of a store.
#[derive(Debug, Default)]
struct Known {
    /// Blobs whose bytes were compared with their name.
    verified: Mutex<HashSet<Digest>>,
    /// The root, held open so that no failed write after that goes unnoticed.
    folder: OnceLock<File>,
    faults: Faults,
    leases: lease::Leases,
    /// Whether a collection went on when this process first looked.
    collecting: OnceLock<bool>,
    /// Where to look for what is not here.
    remote: OnceLock<Remote>,
    fresh: fresh::Held,
}

/// A record that answers for a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// Its blobs are all here; else they come from the remote store when they
    /// are needed.
    pub here: bool,
}

/// What a key was made of, for people and for `why`.
#[derive(Serialize, Deserialize)]
struct Preimage {
    key: Key,
    parts: serde_json::Value,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// There is none.
    NoRecord,
    /// A blob is not there, or has another size; the output it belongs to.
    Blob {
        /// The output's name.
        output: String,
        /// The blob.
        digest: Digest,
    },
}

impl Store {
    /// A store at a folder, which need not exist yet. Nothing is written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::with_faults(root, Faults::from_env())
    }

    /// As [`Store::open`], failing on purpose where told to.
    pub fn with_faults(root: impl Into<PathBuf>, faults: Faults) -> Result<Self> {
        let root: PathBuf = root.into();
        let root = std::path::absolute(&root).map_err(|error| Error::io("find", &root, error))?;
        let store = Self { root, known: Arc::new(Known { faults, ..Known::default() }) };
        store.check_format()?;
        Ok(store)
    }

    /// Whether the store exists and is ours.
    fn check_format(&self) -> Result<bool> {
        let path = self.root.join("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.strip_suffix('\n') == Some(FORMAT) => Ok(true),
            Ok(text) => Err(Error::Format {
                root: self.root.clone(),
                found: text.lines().next().unwrap_or_default().to_owned(),
                expected: FORMAT.to_owned(),
            }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// Makes the folders and checks that they can be written to.
    pub fn prepare(&self) -> Result<()> {
        if !self.check_format()? {
            fs::create_dir_all(&self.root).at("create the store", &self.root)?;
            let mut entries = fs::read_dir(&self.root).at("read", &self.root)?;
            let foreign = entries
                .any(|entry| entry.is_ok_and(|entry| !FOLDERS.contains(&entry.file_name().to_string_lossy().as_ref())));
            // Another process may be preparing the same store.
            if foreign && !self.check_format()? {
                return Err(Error::NotAStore { root: self.root.clone() });
            }
        }
        for folder in FOLDERS {
            let path = self.root.join(folder);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create", &path, error));
                }
                _ => {}
            }
        }
        self.folder()?;
        let temporary = self.temporary("prepare");
        let mut file = File::create_new(&temporary).at("write to the store", &self.root)?;
        if !self.check_format()? {
            writeln!(file, "{FORMAT}").and_then(|()| file.sync_all()).at("write", &temporary)?;
            publish::create_only(&temporary, &self.root.join("format"))?;
            disk::settle(self, std::slice::from_ref(&self.root))?;
        } else {
            let _ = fs::remove_file(&temporary);
        }
        Ok(())
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The root, open since this process first needed it.
    pub(crate) fn folder(&self) -> Result<&File> {
        if self.known.folder.get().is_none() {
            let _ = self.known.folder.set(File::open(&self.root).at("open", &self.root)?);
        }
        Ok(self.known.folder.get().expect("set above"))
    }

    /// Where to fail on purpose.
    pub(crate) fn faults(&self) -> &Faults {
        &self.known.faults
    }

    /// What this process works on.
    pub(crate) fn leases(&self) -> &lease::Leases {
        &self.known.leases
    }

    /// A new path in `tmp/`; nothing is made there.
    pub(crate) fn temporary(&self, what: &str) -> PathBuf {
        self.root.join("tmp").join(format!("{what}-{}", ulid::Ulid::new()))
    }

    /// Where a blob lies.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("cas").join(&hex[..2]).join(hex)
    }

    /// Where the preimage of a key lies.
    pub fn preimage(&self, key: &Key) -> PathBuf {
        let hex = key.to_string();
        self.root.join("keys").join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// The folder of the records of a key.
    pub(crate) fn records(&self, key: &Key) -> PathBuf {
        let hex = key.to_string();
        self.root.join("ac").join(&hex[..2]).join(hex)
    }

    /// The record that answers for a key: the first that was published, unless
    /// a forced rerun supersedes it. Whether its blobs are there is not looked at.
    pub fn record(&self, key: &Key) -> Option<Record> {
        self.all_records(key)
            .into_iter()
            .map(|(_, record)| record)
            .reduce(|chosen, record| if record.supersedes { record } else { chosen })
    }

    /// Every readable record of a key with its number, in order.
    pub(crate) fn all_records(&self, key: &Key) -> Vec<(u32, Record)> {
        let folder = self.records(key);
        let read = |number: u32| fs::read(folder.join(format!("{number}.rec")));
        // Numbers have no gap: the records of a key are swept together.
        let numbered = (1..).map_while(|number| Some((number, read(number).ok()?)));
        let parsed = numbered.filter_map(|(number, bytes)| Some((number, Record::parse(&bytes)?)));
        parsed.filter(|(_, record)| record.key == *key).collect()
    }

    /// The record of a key whose blobs are all there, in the right size.
    pub fn lookup(&self, key: &Key) -> Result<Record, Miss> {
        let record = self.record(key).ok_or(Miss::NoRecord)?;
        match self.lost(&record) {
            Some((output, digest)) => Err(Miss::Blob { output: output.name.clone(), digest }),
            None => Ok(record),
        }
    }

    /// The first blob of a record that is not here, with the output it belongs to.
    pub(crate) fn lost<'r>(&self, record: &'r Record) -> Option<(&'r OutputRecord, Digest)> {
        let blobs = record.outputs.iter().flat_map(|output| output.blobs().map(move |digest| (output, digest)));
        blobs.into_iter().find(|(_, digest)| !self.has(digest))
    }

    /// As [`Store::lookup`], also in the remote store if there is one. A record
    /// that is here comes first.
    pub fn find(&self, key: &Key) -> Result<Found, Miss> {
        let miss = match self.lookup(key) {
            Ok(record) => return Ok(Found { record, here: true }),
            Err(miss) => miss,
        };
        let record = self.remote().and_then(|remote| remote.find(self, key)).ok_or(miss)?;
        Ok(Found { record, here: false })
    }

    /// Looks in a remote store, from now on, for what is not here.
    pub fn attach(&self, remote: Remote) {
        // A store has one remote; it is given right after opening.
        let _ = self.known.remote.set(remote);
    }

    /// The remote store.
    pub fn remote(&self) -> Option<&Remote> {
        self.known.remote.get()
    }

    /// Brings blobs from the remote store that are not here, as far as they can be had.
    fn bring(&self, digests: &[Digest]) -> Result<()> {
        self.remote().map_or(Ok(()), |remote| remote.fetch(self, digests))
    }

    /// Makes a remote store's record one of this store, once all its blobs are here.
    pub fn take_over(&self, record: &Record) -> Result<()> {
        let Some(remote) = self.remote().filter(|_| self.lost(record).is_none()) else { return Ok(()) };
        remote.bring_preimage(self, &record.key);
        match self.record(&record.key) {
            Some(known) if known.same_outputs(record) => Ok(()),
            known => {
                let mut record = record.clone();
                record.supersedes |= known.is_some_and(|known| self.lost(&known).is_some());
                adopt::adopt(self, &record)
            }
        }
    }

    /// Whether a blob is there, in the right size.
    pub fn has(&self, digest: &Digest) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == digest.size)
    }

    /// Whether a blob that is not whole was there: it has another size now, or
    /// was moved aside because its bytes were wrong.
    pub fn was_corrupt(&self, digest: &Digest) -> bool {
        let hex = digest.hex();
        let aside = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(&hex))
        };
        self.blob(digest).exists() || fs::read_dir(self.root.join("quarantine")).is_ok_and(|mut all| all.any(aside))
    }

    /// Compares a blob's bytes with its name, once a process, a large one only
    /// if it changed since. A bad one is moved aside, so that it counts as a miss.
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        if self.known.verified.lock().unwrap_or_else(PoisonError::into_inner).contains(digest) {
            return Ok(());
        }
        self.bring(&[*digest])?;
        if self.was_verified(digest) {
            self.mark_verified(digest);
            return Ok(());
        }
        let before = self.stat_of_large(digest);
        let path = self.blob(digest);
        let found = digest::file(&path).map_err(|error| match error {
            Error::External { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::BlobMissing { digest: *digest }
            }
            Error::External { path, source } => Error::io("read", &path, source),
            other => other,
        })?;
        self.judge(digest, found)?;
        if before.is_some() && before == self.stat_of_large(digest) {
            self.remember_verified(digest);
        }
        Ok(())
    }

    fn judge(&self, digest: &Digest, found: Digest) -> Result<()> {
        if found != *digest {
            return Err(Error::BlobCorrupt { digest: *digest, quarantine: self.quarantine(digest)? });
        }
        self.mark_verified(digest);
        Ok(())
    }

    /// Moves a bad blob aside and says where it lies now.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<PathBuf> {
        self.set_aside(&self.blob(digest))
    }

    /// Moves a file to `quarantine/`, for study, and says where it lies now.
    pub(crate) fn set_aside(&self, path: &Path) -> Result<PathBuf> {
        let folder = self.root.join("quarantine");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = folder.join(format!("{name}-{}", ulid::Ulid::new()));
        fs::create_dir_all(&folder).at("create", &folder)?;
        match fs::rename(path, &to) {
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(to),
            moved => moved.at("move aside", path).map(|()| to),
        }
    }

    pub(crate) fn mark_verified(&self, digest: &Digest) {
        self.known.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest);
    }

    /// Reads a small blob whole; its bytes are compared with its name.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.bring(&[*digest])?;
        let path = self.blob(digest);
        let mut bytes = Vec::with_capacity(usize::try_from(digest.size).unwrap_or(0));
        match File::open(&path) {
            Ok(mut file) => file.read_to_end(&mut bytes).at("read", &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::BlobMissing { digest: *digest });
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        self.judge(digest, Digest::of_bytes(&bytes))?;
        Ok(bytes)
    }

    /// The manifest of an artifact.
    pub fn manifest(&self, artifact: &Digest) -> Result<Manifest> {
        if let Some(manifest) = self.fresh_manifest(artifact) {
            return Ok(manifest);
        }
        let bytes = self.read_blob(artifact)?;
        Manifest::parse(&bytes)
            .ok_or_else(|| Error::Damaged { path: self.blob(artifact), detail: "not a manifest".to_owned() })
    }

    /// The files of an artifact: real names, and where their blobs lie.
    pub fn files(&self, artifact: &Digest) -> Result<Vec<(String, PathBuf)>> {
        let manifest = self.manifest(artifact)?;
        Ok(manifest.files.into_iter().map(|file| (file.name, self.blob(&file.digest))).collect())
    }

    /// Compares all bytes of an artifact with its manifest, once a process.
    pub fn verify_artifact(&self, artifact: &Digest) -> Result<()> {
        if self.is_lent(artifact) {
            return Ok(());
        }
        let files: Vec<Digest> = self.manifest(artifact)?.files.iter().map(|file| file.digest).collect();
        self.bring(&files)?;
        files.iter().try_for_each(|file| self.verify(file))
    }

    /// Reads a table artifact.
    pub fn table(&self, artifact: &Digest) -> Result<Table> {
        if let Some(table) = self.fresh_table(artifact) {
            return Ok(table);
        }
        let manifest = self.manifest(artifact)?;
        let mut tables = Vec::new();
        for file in &manifest.files {
            self.verify(&file.digest)?;
            tables.push(table::read(&self.blob(&file.digest))?);
        }
        match tables.len() {
            1 => Ok(tables.remove(0)),
            _ => Ok(Table::concat(&tables)?),
        }
    }

    /// The parts of a key as they were written when it was first asked for.
    pub fn key_parts(&self, key: &Key) -> Option<serde_json::Value> {
        let bytes = fs::read(self.preimage(key)).ok()?;
        let preimage: Preimage = seal::unseal(&bytes)?;
        (preimage.key == *key).then_some(preimage.parts)
    }

    /// Remembers the parts of a key.
    pub(crate) fn remember_key(&self, key: &crate::key::StageKey) -> Result<()> {
        let path = self.preimage(&key.key);
        if self.key_parts(&key.key).is_some() {
            return Ok(());
        }
        let preimage = Preimage { key: key.key, parts: key.parts.to_json() };
        self.write_replacing(&path, &seal::seal(&preimage), "key-written")
    }

    /// Writes a file beside and renames it into place; for what is no result. Nothing is left of
    /// a failure.
    pub(crate) fn write_replacing(&self, path: &Path, bytes: &[u8], point: &'static str) -> Result<()> {
        let folder = path.parent().expect("a file in the store");
        fs::create_dir_all(folder).at("create", folder)?;
        let temporary = self.temporary("note");
        let written = fs::write(&temporary, bytes)
            .and_then(|()| self.faults().pass_file(point, &temporary))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.at("write", path)
    }

    /// The folder of an attempt.
    pub(crate) fn attempt(&self, key: &Key, attempt: &str) -> PathBuf {
        self.work(key).join(attempt)
    }

    /// The folder of all attempts at a key.
    pub(crate) fn work(&self, key: &Key) -> PathBuf {
        self.root.join("work").join(key.to_string())
    }

    /// The folder in which a stage of a key keeps its state from one attempt to
    /// the next.
    pub(crate) fn checkpoint(&self, key: &Key) -> PathBuf {
        self.work(key).join("checkpoint")
    }

    /// Keys that have a folder of attempts.
    pub(crate) fn worked_on(&self) -> BTreeSet<Key> {
        let entries = fs::read_dir(self.root.join("work")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_writes_nothing_and_preparing_twice_is_fine() {
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().join("deep/store");
        let store = Store::open(&root).expect("opens");
        assert!(!root.exists());
        store.prepare().expect("prepares");
        store.prepare().expect("prepares again");
        assert_eq!(fs::read_to_string(root.join("format")).expect("format").trim(), FORMAT);
        assert_eq!(fs::read_dir(root.join("tmp")).expect("tmp").count(), 0);
    }

    #[test]
    fn foreign_folders_and_versions_are_refused() {
        let home = tempfile::tempdir().expect("a folder");
        fs::write(home.path().join("thesis.tex"), "x").expect("written");
        let error = Store::open(home.path()).expect("opens").prepare().expect_err("not ours");
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
        fs::write(home.path().join("format"), "fuseline store 9 sha\n").expect("written");
        let error = Store::open(home.path()).expect_err("another version");
        assert!(error.to_string().contains("fuseline store 9"), "{error}");
    }

    #[test]
    fn an_unwritable_store_is_the_environments_fault() {
        let home = tempfile::tempdir().expect("a folder");
        let file = home.path().join("file");
        fs::write(&file, "x").expect("written");
        for root in [file.join("store"), PathBuf::from("/proc/fuseline-store")] {
            let error = match Store::open(&root) {
                Ok(store) => store.prepare().expect_err("cannot be made"),
                Err(error) => error,
            };
            assert_eq!(error.cause(), fuseline_contract::Cause::Environment, "{error}");
        }
    }
}
