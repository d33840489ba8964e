//! What was asked, done, and when: one folder a run under `runs/`.
//!
//! `run.json` is written when the run begins and again when it ends;
//! `stages.ndjson` gets a line as each instance ends. [`tables`] makes SQL's
//! tables of them. Nothing here
//! decides what runs; `index/` holds the last key of each stage, so that a
//! rerun can be explained, and may be deleted.

mod attempts;
mod tables;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fuseline_contract::{Digest, Key, RowCounts, StageError, StageId, Usage};
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::here::{host, now_ms};
use crate::plan::Resources;
use crate::store::{OutputRecord, Store, seal};

pub use attempts::{AttemptEntry, attempt_entries, attempts};
pub use tables::{DOC, artifacts, runs, stages};

/// Who asked for a run, as the caller tells; none of it decides anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The login's name.
    #[serde(default)]
    pub user: Option<String>,
    /// What was typed, as a shell would take it.
    #[serde(default)]
    pub command: String,
    /// The git commit of the working directory, if it is in a repository.
    #[serde(default)]
    pub commit: Option<String>,
}

/// A run, as in `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// Its id, a ULID.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Wall time in seconds; none while it goes on, and if it was killed.
    pub seconds: Option<f64>,
    /// The host.
    pub host: String,
    /// fuseline's version.
    pub version: String,
    /// Who asked for it.
    #[serde(default)]
    pub caller: Caller,
    /// Instances that were asked for, with those they need.
    pub instances: usize,
    /// Instances that ran.
    pub ran: usize,
    /// Instances whose result was there.
    pub hits: usize,
    /// Instances that failed.
    pub failed: usize,
    /// Instances left out.
    pub skipped: usize,
    /// The exit code; none while it goes on.
    pub exit: Option<u8>,
}

/// The end of an instance, as a line of `stages.ndjson`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageEntry {
    /// The instance.
    pub id: StageId,
    /// The operator.
    pub operator: String,
    /// Its version.
    pub operator_version: u32,
    /// Its key, if it was known.
    pub key: Option<Key>,
    /// Its definition key, if it ran or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Key>,
    /// `hit`, `ran`, `failed` or `skipped`.
    pub outcome: String,
    /// Why it ran.
    pub reason: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Wall time in seconds; zero for a hit.
    pub seconds: f64,
    /// Peak memory of its last attempt's process in bytes.
    pub peak_bytes: Option<u64>,
    /// Where it ran.
    pub host: Option<String>,
    /// Its parameters, resolved.
    pub params: serde_json::Value,
    /// Its seed.
    pub seed: u64,
    /// What it might use.
    #[serde(default)]
    pub resources: Resources,
    /// Its outputs.
    pub outputs: Vec<OutputRecord>,
    /// Why it failed.
    pub error: Option<StageError>,
    /// What it wrote to standard output, as a blob.
    pub stdout: Option<Digest>,
    /// What it wrote to standard error, as a blob.
    pub stderr: Option<Digest>,
    /// Rows that were remembered and rows that were computed, where its
    /// operator remembers rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<RowCounts>,
    /// What all attempts consumed, where its operator tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What its last attempt ran on: `cpu`, or what its GPUs are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The energy that its GPUs drew during all attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

/// The ledger of a run that goes on.
pub struct Ledger {
    store: Store,
    folder: PathBuf,
    entry: RunEntry,
    stages: Mutex<BufWriter<File>>,
}

impl Ledger {
    /// Begins a run.
    pub fn begin(store: &Store, pipeline: &str, instances: usize, caller: Caller) -> Result<Self> {
        let run = ulid::Ulid::new().to_string();
        let folder = store.root().join("runs").join(&run);
        fs::create_dir(&folder).at("create", &folder)?;
        let entry = RunEntry {
            run,
            pipeline: pipeline.to_owned(),
            started_ms: now_ms(),
            seconds: None,
            host: host(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caller,
            instances,
            ran: 0,
            hits: 0,
            failed: 0,
            skipped: 0,
            exit: None,
        };
        let path = folder.join("stages.ndjson");
        let stages = Mutex::new(BufWriter::new(File::create(&path).at("create", &path)?));
        let ledger = Self { store: store.clone(), folder, entry, stages };
        ledger.write()?;
        Ok(ledger)
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.entry.run
    }

    fn write(&self) -> Result<()> {
        let point = if self.entry.exit.is_none() { "ledger-begun" } else { "ledger-ended" };
        self.store.write_replacing(&self.folder.join("run.json"), &seal::seal(&self.entry), point)
    }

    /// Notes the end of an instance. Hits may come in thousands, and wait in
    /// memory for the next that is none, or for [`Ledger::flush`].
    pub fn stage(&self, entry: &StageEntry) -> Result<()> {
        let mut line = seal::seal(entry);
        line.push(b'\n');
        let mut file = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(&line).and_then(|()| if entry.outcome == "hit" { Ok(()) } else { file.flush() });
        written.and_then(|()| self.store.faults().pass("ledger-noted")).at("write", &self.folder.join("stages.ndjson"))
    }

    /// Writes what waits in memory.
    pub fn flush(&self) -> Result<()> {
        let mut file = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().at("write", &self.folder.join("stages.ndjson"))
    }

    /// Ends the run.
    pub fn end(mut self, counts: [usize; 4], seconds: f64, exit: u8) -> Result<()> {
        self.flush()?;
        [self.entry.ran, self.entry.hits, self.entry.failed, self.entry.skipped] = counts;
        (self.entry.seconds, self.entry.exit) = (Some(seconds), Some(exit));
        self.write()
    }
}

/// Every run in the store, the latest first.
pub fn run_entries(store: &Store) -> Result<Vec<RunEntry>> {
    let folder = store.root().join("runs");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &folder, error)),
    };
    let read = |path: PathBuf| seal::unseal(&fs::read(path.join("run.json")).ok()?);
    let mut runs: Vec<RunEntry> = entries.flatten().filter_map(|entry| read(entry.path())).collect();
    runs.sort_by(|a, b| b.run.cmp(&a.run));
    Ok(runs)
}

/// The run that a text names: its id or a beginning that no other has.
pub fn find_run(store: &Store, text: &str) -> Result<RunEntry, StageError> {
    let runs = run_entries(store)?;
    let wanted = text.to_ascii_uppercase();
    let mut found = runs.into_iter().filter(|run| !wanted.is_empty() && run.run.starts_with(&wanted));
    let unknown = || StageError::input(format!("no run is {text:?}")).hint("`fuseline runs` lists them");
    let first = found.next().ok_or_else(unknown)?;
    let others: Vec<String> = found.map(|run| run.run).collect();
    if others.is_empty() {
        return Ok(first);
    }
    let message = format!("{text:?} begins the names of {} runs", others.len() + 1);
    let some: Vec<&str> = std::iter::once(&first.run).chain(&others).take(4).map(String::as_str).collect();
    let more = if others.len() >= some.len() { ", …" } else { "" };
    Err(StageError::input(message).hint(format!("write more of it: {}{more}", some.join(", "))))
}

/// The instances that ended in a run, in that order. A torn last line, left by
/// a killed run, is left out, and so is a damaged one.
pub fn stage_entries(store: &Store, run: &str) -> Result<Vec<StageEntry>> {
    let path = store.root().join("runs").join(run).join("stages.ndjson");
    let bytes = fs::read(&path).at("read", &path)?;
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(seal::unseal).collect())
}

/// How a stage of a pipeline ended last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// Its key.
    pub key: Key,
    /// Whether it failed.
    pub failed: bool,
}

/// The last key of every instance of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    stages: BTreeMap<String, Last>,
}

impl Latest {
    fn path(store: &Store, pipeline: &str) -> PathBuf {
        let name = Digest::of_bytes(pipeline.as_bytes()).short();
        store.root().join("index").join(format!("last-{name}.json"))
    }

    /// Reads the index of a pipeline; empty where there is none.
    pub fn read(store: &Store, pipeline: &str) -> Self {
        let bytes = fs::read(Self::path(store, pipeline)).ok();
        bytes.and_then(|bytes| seal::unseal(&bytes)).unwrap_or_default()
    }

    /// How an instance ended last.
    pub fn get(&self, stage: &StageId) -> Option<&Last> {
        self.stages.get(&stage.to_string())
    }

    /// Adds what ended in a run to the index as it is now.
    pub fn update(store: &Store, pipeline: &str, ended: impl IntoIterator<Item = (StageId, Last)>) -> Result<()> {
        let before = Self::read(store, pipeline);
        let mut now = before.clone();
        now.stages.extend(ended.into_iter().map(|(stage, last)| (stage.to_string(), last)));
        if now == before {
            return Ok(());
        }
        let bytes = seal::seal(&now);
        store.write_replacing(&Self::path(store, pipeline), &bytes, "index-written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_shows_in_the_tables_and_a_torn_line_does_not() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path()).expect("opens");
        assert!(runs(&store).expect("no runs").is_empty());
        store.prepare().expect("prepares");
        let ledger = Ledger::begin(&store, "toy", 1, Caller::default()).expect("begins");
        let run = ledger.run().to_owned();
        let entry = StageEntry {
            id: StageId::plain("a"),
            operator: "toy".into(),
            operator_version: 1,
            key: Some(Key([1; 32])),
            definition: None,
            outcome: "ran".into(),
            reason: Some("never run".into()),
            started_ms: 5,
            seconds: 0.5,
            peak_bytes: None,
            host: None,
            params: serde_json::json!({}),
            seed: 7,
            resources: Resources::default(),
            outputs: vec![],
            error: None,
            stdout: None,
            stderr: None,
            memo: None,
            usage: Some(Usage { tokens_in: 5, tokens_out: 3, price_usd: None }),
            device: Some("cpu".into()),
            energy_joules: None,
        };
        ledger.stage(&entry).expect("noted");
        ledger.stages.lock().expect("free").write_all(b"{\"id\": ").expect("torn");
        ledger.end([1, 0, 0, 0], 0.5, 0).expect("ends");
        assert_eq!(stage_entries(&store, &run).expect("entries"), [entry]);
        let name = |text: &str| find_run(&store, text).map(|run| run.run);
        assert_eq!(name(&run.to_lowercase()[..25]), Ok(run.clone()));
        assert!(name("").is_err() && name("0zzz").is_err());
        let second = Ledger::begin(&store, "toy", 1, Caller::default()).expect("begins").run().to_owned();
        let common = run.chars().zip(second.chars()).take_while(|(a, b)| a == b).count();
        let error = name(&run[..common]).expect_err("two runs");
        assert!(error.hint.is_some_and(|hint| hint.contains(&run) && hint.contains(&second)));
        fs::remove_dir_all(store.root().join("runs").join(&second)).expect("removed");
        assert_eq!(runs(&store).expect("a table").n_rows(), 1);
        assert_eq!(stages(&store, None).expect("a table").n_rows(), 1);
        assert_eq!(stages(&store, Some("other")).expect("a table").n_rows(), 0);
        assert_eq!(artifacts(&store).expect("a table").n_rows(), 0);
    }
}
