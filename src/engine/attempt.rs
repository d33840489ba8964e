//! What is handed to whoever runs a stage ([`Spec`]) and what comes back
//! ([`Outcome`]); one form for threads, child processes and, later, schedulers
//! of clusters.
//!
//! An attempt's folder holds `spec.json`, `events.ndjson`, `stdout.log`,
//! `stderr.log`, `result.json` (written last), `out/` and `scratch/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fuseline_contract::rows::{self, RowType};
use fuseline_contract::{Arity, Digest, Key, Kind, Progress, RowCounts, StageError, StageId, Usage};
use serde::{Deserialize, Serialize};

use crate::plan::{Node, Plan};
use crate::secrets;
use crate::store::{InputRecord, Record};

/// The protocol between driver and worker.
pub const PROTOCOL: u32 = 1;

/// A kind of port by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// A table of this row type.
    Rows(String),
    /// Any table.
    AnyTable,
    /// A model.
    Model,
}

impl From<Kind> for PortKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rows(rows) => Self::Rows(rows.name.to_owned()),
            Kind::AnyTable => Self::AnyTable,
            Kind::Model | Kind::Endpoint | Kind::AnyModel => Self::Model,
        }
    }
}

impl PortKind {
    /// The row type, if there is one.
    pub(crate) fn rows(&self) -> Option<&'static RowType> {
        match self {
            Self::Rows(name) => rows::ALL.iter().copied().find(|rows| rows.name == name),
            _ => None,
        }
    }
}

/// An artifact bound to a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// The artifact.
    pub artifact: Digest,
    /// Who made it, for messages only.
    pub from: StageId,
    /// Its label.
    pub label: Option<String>,
    /// Axes that become columns.
    pub axes: BTreeMap<String, String>,
    /// The parameters of the stage that made it, if it is an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<serde_json::Value>,
}

/// An input port with what is bound to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// The port's name.
    pub port: String,
    /// What it takes.
    pub kind: PortKind,
    /// Whether it takes one artifact at most.
    pub single: bool,
    /// What is bound, in order.
    pub sources: Vec<SourceSpec>,
}

/// An external file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// The parameter that names it.
    pub parameter: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What it held when the key was made.
    pub tree: Digest,
}

/// What an attempt may do with the row memo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoUse {
    /// Takes what is remembered and remembers what is new.
    On,
    /// Computes every row, and what it remembers replaces what was there: the
    /// rerun was asked for.
    Renew,
    /// Leaves it alone.
    Off,
}

/// Everything an attempt needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// fuseline's version; driver and worker must be of one.
    pub version: String,
    /// The store.
    pub store: PathBuf,
    /// The run.
    pub run: String,
    /// The attempt.
    pub attempt: String,
    /// The stage's key.
    pub key: Key,
    /// The instance, for messages only.
    pub stage: StageId,
    /// The operator.
    pub operator: String,
    /// Parameters with defaults.
    pub params: serde_json::Value,
    /// Bound inputs.
    pub inputs: Vec<InputSpec>,
    /// Outputs that must be written: names and kinds.
    pub outputs: Vec<(String, PortKind)>,
    /// External files.
    pub files: Vec<FileSpec>,
    /// Names of environment variables that its process is given.
    pub environment: Vec<String>,
    /// The seed.
    pub seed: u64,
    /// Threads it may use.
    pub threads: u32,
    /// The rerun was asked for, so its record supersedes earlier ones.
    pub supersedes: bool,
    /// What it may do with the row memo.
    pub memo: MemoUse,
    /// The salt of the plan, which is in the keys of rows too.
    pub salt: Option<String>,
    /// The driver holds the worker's standard input open: its end means that
    /// the driver died, a line `cancel` that the stage should stop.
    pub attended: bool,
}

impl Spec {
    /// The names of all secrets that the stage may ask for: its own, and those of the endpoints that it takes.
    pub(crate) fn secrets(&self) -> BTreeSet<String> {
        let sources = self.inputs.iter().flat_map(|input| &input.sources);
        let endpoints = sources.filter_map(|source| source.endpoint.as_ref());
        endpoints.chain([&self.params]).flat_map(secrets::names).collect()
    }

    /// The inputs as a record names them.
    pub(crate) fn made_from(&self) -> Vec<InputRecord> {
        let sources = self.inputs.iter().flat_map(|input| input.sources.iter().map(|source| (&input.port, source)));
        sources.map(|(port, source)| InputRecord { port: port.clone(), artifact: source.artifact }).collect()
    }
}

/// What [`spec`] needs besides the plan.
pub(crate) struct Given<'a> {
    pub store: &'a std::path::Path,
    pub run: &'a str,
    pub attempt: &'a str,
    pub key: Key,
    pub trees: &'a [Digest],
    /// The record of every finished node.
    pub records: &'a dyn Fn(usize) -> Record,
    pub threads: u32,
    pub supersedes: bool,
    pub memo: MemoUse,
    pub attended: bool,
}

/// The specification of an attempt at a node.
pub(crate) fn spec(plan: &Plan, node: &Node, given: &Given<'_>) -> Spec {
    let inputs = node.inputs.iter().map(|bound| {
        let port = node.resolved.ports.inputs.iter().find(|port| port.name == bound.port);
        let sources = bound.from.iter().map(|source| SourceSpec {
            artifact: (given.records)(source.node).outputs[source.output].artifact,
            from: plan.nodes[source.node].id.clone(),
            label: source.label.clone(),
            axes: source.axes.clone(),
            endpoint: plan.is_endpoint(source).then(|| plan.nodes[source.node].resolved.params.clone()),
        });
        InputSpec {
            port: bound.port.clone(),
            kind: port.map_or(PortKind::AnyTable, |port| port.kind.into()),
            single: port.is_some_and(|port| port.arity != Arity::Many),
            sources: sources.collect(),
        }
    });
    let files = node.resolved.files.iter().zip(given.trees).map(|(file, tree)| FileSpec {
        parameter: file.parameter.clone().into_owned(),
        path: std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone()),
        tree: *tree,
    });
    Spec {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: given.store.to_owned(),
        run: given.run.to_owned(),
        attempt: given.attempt.to_owned(),
        key: given.key,
        stage: node.id.clone(),
        operator: node.entry.name.to_owned(),
        params: node.resolved.params.clone(),
        inputs: inputs.collect(),
        outputs: node.resolved.ports.outputs.iter().map(|output| (output.name.clone(), output.kind.into())).collect(),
        files: files.collect(),
        environment: node.resolved.environment.clone(),
        seed: node.seed,
        threads: given.threads,
        supersedes: given.supersedes,
        memo: given.memo,
        salt: plan.salt.clone(),
        attended: given.attended,
    }
}

/// What a running stage says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// How far it is.
    Progress(Progress),
    /// Something for the user.
    Note(String),
    /// Rows that were remembered and rows that were paid for so far.
    Rows(RowCounts),
    /// What was consumed so far.
    Usage(Usage),
    /// It gave another result than is there for its key; that one is kept.
    Differed,
}

/// What was paid by an attempt, or by all attempts at a stage, besides time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spent {
    /// Rows that were remembered and rows that were computed.
    pub rows: Option<RowCounts>,
    /// What was consumed.
    pub usage: Option<Usage>,
    /// What its GPUs drew.
    pub energy_joules: Option<f64>,
}

impl Spent {
    /// This and what a later attempt spent. Rows that the later one remembered
    /// because the earlier one had computed them were computed.
    pub fn then(self, later: Self) -> Self {
        let rows = match (self.rows, later.rows) {
            (Some(earlier), Some(later)) => {
                let fresh = earlier.fresh + later.fresh;
                Some(RowCounts { fresh, reused: (later.reused + later.fresh).saturating_sub(fresh) })
            }
            (one, None) | (None, one) => one,
        };
        let usage = match (self.usage, later.usage) {
            (Some(mut sum), Some(later)) => {
                sum += later;
                Some(sum)
            }
            (one, None) | (None, one) => one,
        };
        let energy_joules = match (self.energy_joules, later.energy_joules) {
            (Some(earlier), Some(later)) => Some(earlier + later),
            (one, None) | (None, one) => one,
        };
        Self { rows, usage, energy_joules }
    }
}

/// The end of an attempt, as in `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The record that answers for the key, or why there is none.
    pub result: Result<Record, StageError>,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Peak resident memory of the process, in bytes.
    pub peak_bytes: Option<u64>,
    /// The host.
    pub host: String,
    /// How its process ended, if it had one: `exit 0`, `SIGKILL`. The driver
    /// knows it, the process itself does not.
    #[serde(skip)]
    pub exit: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_attempts_spent_adds_up_and_rows_are_computed_once() {
        let spent = |reused, fresh, tokens| Spent {
            rows: Some(RowCounts { reused, fresh }),
            usage: Some(Usage { tokens_in: tokens, tokens_out: 1, price_usd: None }),
            energy_joules: Some(0.5),
        };
        // The second attempt remembers the 92 rows of the first.
        let both = spent(0, 92, 920).then(spent(92, 8, 80));
        let usage = Some(Usage { tokens_in: 1000, tokens_out: 2, price_usd: None });
        assert_eq!(both, Spent { usage, energy_joules: Some(1.0), ..spent(0, 100, 0) });
        assert_eq!(both.then(Spent::default()), both);
        assert_eq!(Spent::default().then(both), both);
        let mut priced = Usage { price_usd: Some(0.5), ..Usage::default() };
        priced += Usage::read(3);
        priced += Usage { price_usd: Some(0.25), ..Usage::default() };
        assert_eq!(priced, Usage { tokens_in: 3, tokens_out: 0, price_usd: Some(0.75) });
    }
}
