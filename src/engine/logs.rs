//! What attempts wrote to standard output and standard error: of those that ended, from the ledger and its blobs; of
//! one that runs, or whose driver was killed, from its folder.

use std::fs;
use std::path::{Path, PathBuf};

use fuseline_contract::{Key, StageId};
use serde::Deserialize;

use crate::error::Result;
use crate::ledger::{self, AttemptEntry};
use crate::store::{Record, Store};

/// An attempt with what it wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The attempt's id.
    pub attempt: String,
    /// Its run.
    pub run: String,
    /// Where its logs lie.
    pub at: Place,
}

/// Where the logs of an attempt lie.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// It ended.
    Ledger(Box<AttemptEntry>),
    /// It goes on, or was killed with its driver.
    Folder {
        /// Its folder.
        folder: PathBuf,
        /// The stage's key.
        key: Key,
    },
}

/// As much of an attempt's specification as is needed here, whatever wrote it.
#[derive(Deserialize)]
struct Brief {
    run: String,
    attempt: String,
    key: Key,
    stage: StageId,
}

/// The last attempt at an instance of a pipeline, in one of these runs; or else the one that made the record, which may
/// be of another pipeline's run.
pub fn last(store: &Store, runs: &[String], stage: &StageId, record: Option<&Record>) -> Result<Option<Log>> {
    let mut found: Vec<Log> = Vec::new();
    let log = |run: &str, entry: AttemptEntry| Log {
        attempt: entry.attempt.clone(),
        run: run.to_owned(),
        at: Place::Ledger(Box::new(entry)),
    };
    for run in runs {
        let entries = ledger::attempt_entries(store, run)?.into_iter();
        found.extend(entries.filter(|entry| entry.stage == *stage).map(|entry| log(run, entry)));
    }
    for (folder, brief) in open(store) {
        let known = found.iter().any(|log| log.attempt == brief.attempt);
        if brief.stage == *stage && runs.contains(&brief.run) && !known {
            found.push(Log { attempt: brief.attempt, run: brief.run, at: Place::Folder { folder, key: brief.key } });
        }
    }
    // Their ids are in the order of time.
    let last = found.into_iter().max_by(|a, b| a.attempt.cmp(&b.attempt));
    let Some(made) = record.map(|record| &record.made).filter(|_| last.is_none()) else { return Ok(last) };
    let entries = ledger::attempt_entries(store, &made.run)?;
    Ok(entries.into_iter().find(|entry| entry.attempt == made.attempt).map(|entry| log(&made.run, entry)))
}

/// The attempts that have a folder.
fn open(store: &Store) -> Vec<(PathBuf, Brief)> {
    let children = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let keys = children(&store.root().join("work"));
    let folders = keys.iter().flat_map(|key| children(key));
    let read = |folder: PathBuf| {
        let brief = serde_json::from_slice(&fs::read(folder.join("spec.json")).ok()?).ok()?;
        Some((folder, brief))
    };
    folders.filter_map(read).collect()
}

impl Log {
    /// What it has written so far to standard output and to standard error.
    pub fn read(&self, store: &Store) -> Result<[Vec<u8>; 2]> {
        match &self.at {
            Place::Ledger(entry) => {
                let read = |digest: Option<_>| digest.map_or(Ok(Vec::new()), |digest| store.read_blob(&digest));
                Ok([read(entry.stdout)?, read(entry.stderr)?])
            }
            Place::Folder { folder, .. } => {
                Ok(["stdout.log", "stderr.log"].map(|name| fs::read(folder.join(name)).unwrap_or_default()))
            }
        }
    }

    /// Whether it goes on: its folder is there and somebody has the right to its key.
    pub fn goes_on(&self, store: &Store) -> Result<bool> {
        match &self.at {
            Place::Ledger(_) => Ok(false),
            Place::Folder { folder, key } => {
                let name = key.to_string();
                Ok(folder.is_dir() && store.live_leases()?.iter().any(|(held, _)| *held == name))
            }
        }
    }
}
