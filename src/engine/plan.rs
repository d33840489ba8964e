//! What will be computed: instances with typed parameters, checked ports and
//! bound inputs, in an order in which every input comes before its consumer.
//!
//! After this nobody handles YAML or an operator's name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fuseline_contract::{Entry, Kind, Place, Promise, StageId, Traits, operator::Resolved};
use serde::{Deserialize, Serialize};

/// A whole pipeline, checked.
#[derive(Clone)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// Enters every key, so that results made without it are not used.
    pub salt: Option<String>,
    /// Every instance; inputs come before their consumers.
    pub nodes: Vec<Node>,
    /// Things the user should know: stages left out by `when`, say.
    pub notes: Vec<String>,
    /// Instances that are in the file but not in the plan.
    pub left_out: Vec<LeftOut>,
}

impl Plan {
    /// Whether what is bound is a model that answers elsewhere.
    pub fn is_endpoint(&self, source: &Source) -> bool {
        self.nodes[source.node].resolved.ports.outputs[source.output].kind == Kind::Endpoint
    }

    /// What an instance is like where it matters what is bound to it: work that only asks endpoints needs no process
    /// of its own, and nobody promises what they answer.
    pub fn traits(&self, node: &Node) -> Traits {
        let model = |port: &str| node.resolved.ports.inputs.iter().any(|i| i.name == port && i.kind == Kind::AnyModel);
        let mut models = node.inputs.iter().filter(|bound| model(&bound.port)).flat_map(|bound| &bound.from).peekable();
        let traits = node.entry.traits;
        match models.peek().is_some() && models.all(|source| self.is_endpoint(source)) {
            true => Traits { place: Place::Thread, promise: Promise::Sampled, ..traits },
            false => traits,
        }
    }
}

/// An instance that is left out of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The instance.
    pub id: StageId,
    /// Why: its `when` is false, or so is that of all it would take.
    pub why: String,
}

/// One instance of a stage.
#[derive(Clone)]
pub struct Node {
    /// Its name and axis values.
    pub id: StageId,
    /// The operator.
    pub entry: &'static Entry,
    /// Parameters, ports and external files; shared by instances for which they are equal.
    pub resolved: Arc<Resolved>,
    /// The effective seed: of the axis `seed`, the stage or the pipeline.
    pub seed: u64,
    /// What is bound, a value for every bound port, in the order of the ports.
    pub inputs: Vec<Bound>,
    /// What it may use.
    pub resources: Resources,
    /// Tags, for selection.
    pub tags: Vec<String>,
    /// When a failed attempt is tried again.
    pub retry: Retry,
    /// Always runs, even if its key has a record.
    pub uncacheable: bool,
    /// Whether rows may be remembered one by one.
    pub memo: bool,
    /// The file in which the stage stands, if not in the pipeline's own.
    pub file: Option<Arc<Path>>,
    /// Line of the stage in its file, from one.
    pub line: usize,
}

/// What is bound to one port.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The port's name.
    pub port: String,
    /// The artifacts, in order: as listed, and gathered axes by value.
    pub from: Vec<Source>,
}

/// An output of an earlier node, as bound to a port.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Index in [`Plan::nodes`].
    pub node: usize,
    /// Index in the node's output ports.
    pub output: usize,
    /// The label under which its results are known, if there is one.
    pub label: Option<String>,
    /// Axes the consumer lacks: a gathered table gets them as columns.
    pub axes: BTreeMap<String, String>,
}

/// How often and after what pause an attempt that failed for a reason of the
/// moment is tried again. It is not in the key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// More attempts after the first.
    pub times: u32,
    /// Seconds before the second attempt; the pause doubles with each further one.
    pub backoff_seconds: f64,
}

/// A preempted or killed worker is worth two more attempts.
impl Default for Retry {
    fn default() -> Self {
        Self { times: 2, backoff_seconds: 1.0 }
    }
}

/// What a stage may use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resources {
    /// Threads.
    pub cpus: u32,
    /// GPUs.
    pub gpus: u32,
    /// Memory in bytes, if stated.
    pub mem_bytes: Option<u64>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpus: 1, gpus: 0, mem_bytes: None }
    }
}
