//! Whether a store is whole: every blob against its name, records against
//! blobs and manifests, views against blobs, everything sealed against its
//! seal, every remembered row against its check.
//!
//! What a killed process leaves is no damage: it is counted, and the collector
//! removes it. With repair, what is damaged moves to `quarantine/`, where it
//! can be studied, and counts as a miss from then on; the whole rows of a
//! damaged segment of the row memo stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuseline_contract::{Digest, Key};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value as Json;

use crate::care::inventory::{self, Blob, entries, name};
use crate::error::{At, Error, Result};
use crate::ledger::RunEntry;
use crate::store::memo::care::{self as rows, Wrong};
use crate::store::{Manifest, OutputRecord, Record, Store, digest, seal};

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave the bytes of blobs unread: only that they are there, in the right size.
    pub fast: bool,
    /// Move aside what is damaged.
    pub repair: bool,
}

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// A blob whose bytes are not those that its name promises.
    BlobCorrupt,
    /// A file where only ours should be.
    Foreign,
    /// A record that cannot be read or stands in another's place.
    RecordUnreadable,
    /// A record whose blob is missing or has another size.
    RecordDangling,
    /// A record that says something else than the manifest of its output.
    RecordDisagrees,
    /// A view whose files are not those of its artifact.
    ViewWrong,
    /// A note of a key, a run, a file or a pin that cannot be read.
    Unreadable,
    /// A segment of the row memo with rows that are damaged.
    RowsDamaged,
    /// The index of a segment that does not lead to its rows.
    IndexWrong,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub damage: Damage,
    /// Where, from the store's root.
    pub path: PathBuf,
    /// What is wrong, and what it means.
    pub detail: String,
    /// It was moved aside; an index was made anew.
    pub repaired: bool,
}

/// What was looked at and found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Records.
    pub records: u64,
    /// Views.
    pub views: u64,
    /// Remembered rows.
    pub rows: u64,
    /// Runs in the ledger.
    pub runs: u64,
    /// Files that processes at work now or killed ones left, for the collector.
    pub scratch_files: u64,
    /// Files that were found damaged before.
    pub quarantined_files: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong, or nothing any more.
    pub fn is_whole(&self) -> bool {
        self.findings.iter().all(|finding| finding.repaired)
    }
}

/// Looks at everything in a store.
pub fn fsck(store: &Store, options: Options) -> Result<Report> {
    let mut check = Check { store, options, report: Report::default() };
    let corrupt = check.blobs()?;
    check.records(&corrupt)?;
    check.views()?;
    check.rows()?;
    check.notes()?;
    check.ledger()?;
    for folder in ["tmp", "work"] {
        check.report.scratch_files += inventory::extent(&store.root().join(folder))?.files;
    }
    check.report.quarantined_files = entries(&store.root().join("quarantine"))?.len() as u64;
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Store,
    options: Options,
    report: Report,
}

impl Check<'_> {
    /// Notes a finding; with repair, moves the path aside.
    fn found(&mut self, damage: Damage, path: &Path, detail: String) -> Result<()> {
        if self.options.repair {
            self.store.set_aside(path)?;
        }
        let path = path.strip_prefix(self.store.root()).unwrap_or(path).to_owned();
        self.report.findings.push(Finding { damage, path, detail, repaired: self.options.repair });
        Ok(())
    }

    /// Blobs against their names; gives the names of the bad ones.
    fn blobs(&mut self) -> Result<BTreeSet<String>> {
        let blobs = inventory::blobs(self.store)?;
        self.report.blobs = blobs.len() as u64;
        self.report.blob_bytes = blobs.iter().map(|blob| blob.meta.len()).sum();
        let fast = self.options.fast;
        let judged: Vec<_> = blobs.par_iter().map(|blob| judge(self.store, blob, fast)).collect();
        let mut corrupt = BTreeSet::new();
        for (blob, judgement) in blobs.iter().zip(judged) {
            if let Some((damage, detail)) = judgement? {
                self.found(damage, &blob.path, detail)?;
                corrupt.insert(blob.name.clone());
            }
        }
        Ok(corrupt)
    }

    /// Records against the blobs and manifests of their outputs.
    fn records(&mut self, corrupt: &BTreeSet<String>) -> Result<()> {
        for file in inventory::records(self.store)? {
            self.report.records += 1;
            let Some(record) = file.record else {
                let detail = "it cannot be read: its stage runs again";
                self.found(Damage::RecordUnreadable, &file.path, detail.to_owned())?;
                continue;
            };
            if let Some((damage, what)) = self.weigh(&record, corrupt) {
                let detail = format!("{what}: {} {} runs again", record.operator, record.key.short());
                self.found(damage, &file.path, detail)?;
            }
        }
        Ok(())
    }

    /// What is wrong with a record, if anything is.
    fn weigh(&self, record: &Record, corrupt: &BTreeSet<String>) -> Option<(Damage, String)> {
        for output in &record.outputs {
            let lost = |blob: &Digest| !self.store.has(blob) || corrupt.contains(&blob.hex());
            if let Some(blob) = output.blobs().find(lost) {
                let what = format!("blob {} of its output {} is missing or damaged", blob.short(), output.name);
                return Some((Damage::RecordDangling, what));
            }
            let manifest = fs::read(self.store.blob(&output.artifact)).ok().and_then(|bytes| Manifest::parse(&bytes));
            let agrees =
                manifest.is_some_and(|manifest| OutputRecord::new(&output.name, output.artifact, &manifest) == *output);
            if !agrees {
                let what = format!("it does not agree with the manifest of its output {}", output.name);
                return Some((Damage::RecordDisagrees, what));
            }
        }
        None
    }

    /// Views against the blobs of their artifacts.
    fn views(&mut self) -> Result<()> {
        for entry in entries(&self.store.root().join("views"))? {
            self.report.views += 1;
            let view = entry.path();
            // An artifact is named by its manifest's blob, whose size the name does not hold.
            let manifest = blob_named(self.store, &name(&view));
            let manifest = manifest.and_then(|path| Manifest::parse(&fs::read(path).ok()?));
            let right = manifest.is_some_and(|manifest| self.store.view_is_right(&view, &manifest));
            if !right && inventory::stat(&view)?.is_some() {
                let detail = "its files are not those of its model: it is made anew when it is asked for";
                self.found(Damage::ViewWrong, &view, detail.to_owned())?;
            }
        }
        Ok(())
    }

    /// The row memo, segment by segment.
    fn rows(&mut self) -> Result<()> {
        let fast = self.options.fast;
        let segments = rows::segments(self.store)?;
        let checked: Vec<_> = segments.par_iter().map(|segment| rows::check(segment, fast)).collect();
        for (segment, checked) in segments.iter().zip(checked) {
            let checked = checked?;
            self.report.rows += checked.rows;
            let (damage, detail) = match &checked.wrong {
                None => continue,
                Some(Wrong::Rows(detail)) => (Damage::RowsDamaged, detail.clone()),
                Some(Wrong::Index) => (Damage::IndexWrong, "its index does not lead to its rows".to_owned()),
            };
            let repaired = self.options.repair && rows::mend(self.store, segment)?;
            let path = segment.rows.strip_prefix(self.store.root()).unwrap_or(&segment.rows).to_owned();
            self.report.findings.push(Finding { damage, path, detail, repaired });
        }
        Ok(())
    }

    /// Preimages of keys, the index, pins: whether each can be read.
    fn notes(&mut self) -> Result<()> {
        let root = self.store.root().to_owned();
        for shelf in entries(&root.join("keys"))? {
            for entry in entries(&shelf.path())? {
                let path = entry.path();
                let key: Option<Key> = name(&path).strip_suffix(".json").and_then(|key| key.parse().ok());
                if key.is_none_or(|key| self.store.preimage(&key) != path || self.store.key_parts(&key).is_none()) {
                    let detail = "it cannot be read: a rerun of its stage cannot be explained";
                    self.found(Damage::Unreadable, &path, detail.to_owned())?;
                }
            }
        }
        for (folder, detail) in [
            ("index", "it cannot be read: reruns cannot be explained until the next run"),
            ("index/files", "it cannot be read: its files are hashed again"),
            ("index/blobs", "it cannot be read: its blob is read again"),
            ("roots", "it cannot be read: pin it again"),
        ] {
            for entry in entries(&root.join(folder))? {
                let path = entry.path();
                if path.is_file() && !is_sealed(&path) {
                    self.found(Damage::Unreadable, &path, detail.to_owned())?;
                }
            }
        }
        Ok(())
    }

    /// The ledger, line by line.
    fn ledger(&mut self) -> Result<()> {
        for entry in entries(&self.store.root().join("runs"))? {
            let (head, stages) = (entry.path().join("run.json"), entry.path().join("stages.ndjson"));
            let attempts = entry.path().join("attempts.ndjson");
            // Killed before it began.
            if !head.exists() {
                continue;
            }
            self.report.runs += 1;
            if !is_sealed(&head) {
                let detail = "it cannot be read: the run is not listed any more";
                self.found(Damage::Unreadable, &head, detail.to_owned())?;
            }
            // A last line without its end is a killed run's, unless the run ended.
            let ended = fs::read(&head).ok().and_then(|bytes| seal::unseal::<RunEntry>(&bytes));
            let ended = ended.is_some_and(|run| run.exit.is_some());
            if !stages.exists() {
                let detail = "it is gone: the run's stages are not listed any more";
                self.found(Damage::Unreadable, &stages, detail.to_owned())?;
            }
            for path in [stages, attempts].into_iter().filter(|path| path.exists()) {
                self.lines(&path, ended)?;
            }
        }
        Ok(())
    }

    /// A file of sealed lines, of a run that ended or was killed.
    fn lines(&mut self, path: &Path, ended: bool) -> Result<()> {
        let Ok(bytes) = fs::read(path) else {
            return self.found(
                Damage::Unreadable,
                path,
                "it cannot be read: its lines are not listed any more".to_owned(),
            );
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<&[u8]> = bytes[..whole].split_inclusive(|byte| *byte == b'\n').collect();
        let good = |line: &&[u8]| seal::unseal::<Json>(&line[..line.len() - 1]).is_some();
        let torn = ended && whole < bytes.len();
        let bad = lines.iter().filter(|line| !good(line)).count() + usize::from(torn);
        if bad > 0 {
            let all = lines.len() + usize::from(torn);
            let detail = format!("{bad} of {all} lines cannot be read: they are not listed any more");
            self.found(Damage::Unreadable, path, detail)?;
            if self.options.repair {
                let kept: Vec<u8> = lines.into_iter().filter(good).flatten().copied().collect();
                fs::write(path, kept).at("write", path)?;
            }
        }
        Ok(())
    }
}

/// What is wrong with a file in `cas/`, if anything is.
fn judge(store: &Store, blob: &Blob, fast: bool) -> Result<Option<(Damage, String)>> {
    if blob_named(store, &blob.name).as_ref() != Some(&blob.path) || !blob.meta.is_file() {
        return Ok(Some((Damage::Foreign, "it is no blob".to_owned())));
    }
    if fast {
        return Ok(None);
    }
    match digest::file(&blob.path) {
        Ok(digest) if digest.hex() == blob.name => Ok(None),
        Ok(_) => Ok(Some((Damage::BlobCorrupt, "it does not hold what its name promises".to_owned()))),
        Err(Error::External { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // A sector that cannot be read is damage, not a reason to stop.
        Err(Error::External { source, .. }) => Ok(Some((Damage::BlobCorrupt, format!("it cannot be read: {source}")))),
        Err(error) => Err(error),
    }
}

/// Where the blob of a name lies, if the name can be one.
fn blob_named(store: &Store, name: &str) -> Option<PathBuf> {
    let digest: Digest = format!("{name}-0").parse().ok()?;
    Some(store.blob(&digest))
}

fn is_sealed(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| seal::unseal::<Json>(&bytes).is_some())
}

#[cfg(test)]
mod tests;
