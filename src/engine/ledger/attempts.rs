//! Every attempt at a stage, as `system.attempts`: how it ended, where, and what it wrote. A stage that was tried again
//! has several.

use std::fs;
use std::io::{ErrorKind, Write};

use fuseline_contract::{Class, Digest, Key, StageId, Table, Usage};
use serde::{Deserialize, Serialize};

use super::tables::{floats, numbers, table, texts, times};
use super::{Ledger, run_entries};
use crate::error::{At, Error, Result};
use crate::store::{Store, seal};

const FILE: &str = "attempts.ndjson";

/// The end of an attempt, as a line of `attempts.ndjson`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEntry {
    /// Its id, a ULID.
    pub attempt: String,
    /// The instance.
    pub stage: StageId,
    /// The stage's key.
    pub key: Key,
    /// Which attempt of its run at this instance, from one.
    pub number: u32,
    /// Of which class its failure was; none if it succeeded.
    pub class: Option<Class>,
    /// Its failure.
    pub error: Option<String>,
    /// How its process ended: `exit 0`, `SIGKILL`; none for one on a thread.
    pub exit: Option<String>,
    /// Where it ran.
    pub host: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Peak memory of its process in bytes.
    pub peak_bytes: Option<u64>,
    /// The steps that an earlier attempt had done, if it went on from its checkpoint.
    pub resumed_at_step: Option<u64>,
    /// What it consumed, where its operator tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it ran on: `cpu`, or what its GPUs are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The energy that its GPUs drew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
    /// What it wrote to standard output, as a blob.
    pub stdout: Option<Digest>,
    /// What it wrote to standard error, as a blob.
    pub stderr: Option<Digest>,
}

impl Ledger {
    /// Notes the end of an attempt.
    pub fn attempt(&self, entry: &AttemptEntry) -> Result<()> {
        let mut line = seal::seal(entry);
        line.push(b'\n');
        let path = self.folder.join(FILE);
        let mut file = fs::File::options().create(true).append(true).open(&path).at("open", &path)?;
        // One write, so that lines of stages that end at once do not mix.
        file.write_all(&line).at("write", &path)
    }
}

/// The attempts that ended in a run, in that order. A torn or damaged line is left out.
pub fn attempt_entries(store: &Store, run: &str) -> Result<Vec<AttemptEntry>> {
    let path = store.root().join("runs").join(run).join(FILE);
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes.split(|byte| *byte == b'\n').filter_map(seal::unseal).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", &path, error)),
    }
}

/// `system.attempts`: a row an attempt, the latest run first.
pub fn attempts(store: &Store) -> Result<Table> {
    let mut rows = Vec::new();
    for run in run_entries(store)? {
        rows.extend(attempt_entries(store, &run.run)?.into_iter().map(|attempt| (run.clone(), attempt)));
    }
    let attempts = || rows.iter().map(|(_, attempt)| attempt);
    table(vec![
        ("run", "the run's id", texts(rows.iter().map(|(run, _)| Some(&run.run)))),
        ("pipeline", "the pipeline's name", texts(rows.iter().map(|(run, _)| Some(&run.pipeline)))),
        ("stage", "the stage", texts(attempts().map(|attempt| Some(&attempt.stage.stage)))),
        ("instance", "the stage with its axes", texts(attempts().map(|attempt| Some(attempt.stage.to_string())))),
        ("key", "the stage's key", texts(attempts().map(|attempt| Some(attempt.key.to_string())))),
        ("attempt", "the attempt's id", texts(attempts().map(|attempt| Some(&attempt.attempt)))),
        (
            "number",
            "which attempt of its run at this instance, from 1",
            numbers(attempts().map(|attempt| Some(attempt.number.into()))),
        ),
        (
            "class",
            "of which class its failure was: config, contract, code, resource, transient, cancelled or lost; null if it succeeded",
            texts(attempts().map(|attempt| attempt.class.map(Class::name))),
        ),
        ("error", "why it failed; null if it did not", texts(attempts().map(|attempt| attempt.error.as_ref()))),
        (
            "exit",
            "how its process ended: `exit 0`, `SIGKILL`; null for work on a thread of the run",
            texts(attempts().map(|attempt| attempt.exit.as_ref())),
        ),
        ("host", "the machine that it ran on", texts(attempts().map(|attempt| Some(&attempt.host)))),
        ("started", "when it began", times(attempts().map(|attempt| attempt.started_ms))),
        ("seconds", "wall time", floats(attempts().map(|attempt| Some(attempt.seconds)))),
        (
            "peak_bytes",
            "peak memory of its process, or of the largest that it started; null as `exit`, and after a kill",
            numbers(attempts().map(|attempt| attempt.peak_bytes)),
        ),
        (
            "resumed_at_step",
            "the steps that an earlier attempt had done; null unless it went on from a checkpoint",
            numbers(attempts().map(|attempt| attempt.resumed_at_step)),
        ),
        (
            "tokens_in",
            "tokens that models read; null unless its operator tells and there were any",
            numbers(attempts().map(|attempt| attempt.usage.map(|usage| usage.tokens_in))),
        ),
        (
            "tokens_out",
            "tokens that models generated; null as `tokens_in`",
            numbers(attempts().map(|attempt| attempt.usage.map(|usage| usage.tokens_out))),
        ),
        (
            "price_usd",
            "US dollars; null unless its operator knows",
            floats(attempts().map(|attempt| attempt.usage?.price_usd)),
        ),
        (
            "device",
            "cpu, or what the GPUs that it held are called",
            texts(attempts().map(|attempt| attempt.device.as_ref())),
        ),
        (
            "energy_joules",
            "what those GPUs drew; null without GPUs whose driver counts it (NVIDIA's, from Volta on)",
            floats(attempts().map(|attempt| attempt.energy_joules)),
        ),
        (
            "stdout",
            "the blob of what it wrote to standard output; null if it wrote nothing",
            texts(attempts().map(|attempt| attempt.stdout.map(|digest| digest.hex()))),
        ),
        (
            "stderr",
            "the blob of what it wrote to standard error; null if it wrote nothing",
            texts(attempts().map(|attempt| attempt.stderr.map(|digest| digest.hex()))),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_a_table_and_a_torn_line_is_left_out() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path()).expect("opens");
        store.prepare().expect("prepares");
        let ledger = Ledger::begin(&store, "toy", 1, Default::default()).expect("begins");
        let mut entry = AttemptEntry {
            attempt: "A".into(),
            stage: StageId::plain("a"),
            key: Key([1; 32]),
            number: 1,
            class: Some(Class::Lost),
            error: Some("gone".into()),
            exit: Some("SIGKILL".into()),
            host: "here".into(),
            started_ms: 5,
            seconds: 0.5,
            peak_bytes: None,
            resumed_at_step: None,
            usage: None,
            device: None,
            energy_joules: None,
            stdout: None,
            stderr: None,
        };
        ledger.attempt(&entry).expect("noted");
        (entry.number, entry.class) = (2, None);
        ledger.attempt(&entry).expect("noted");
        let path = ledger.folder.join(FILE);
        fs::File::options().append(true).open(path).expect("opens").write_all(b"{\"att").expect("torn");
        let read = attempt_entries(&store, ledger.run()).expect("read");
        assert_eq!(
            read.iter().map(|entry| (entry.number, entry.class)).collect::<Vec<_>>(),
            [(1, Some(Class::Lost)), (2, None)]
        );
        assert_eq!(attempts(&store).expect("a table").n_rows(), 2);
    }
}
