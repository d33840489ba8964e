//! The lock of a pipeline: every digest behind its tables, in a file that a
//! person can read and that goes beside the paper.
//!
//! A lock says what was asked (keys, operators' versions, external files) and
//! what came out (artifacts, contents). Whether a pipeline still asks for the
//! same is seen without running anything: each stage's key is made from the
//! locked contents of its inputs and from the files as they are now.

use std::collections::{BTreeMap, BTreeSet};

use fuseline_contract::{Cause, Digest, Key, StageError};
use serde::{Deserialize, Serialize};

use crate::decide::{Decider, Decision, Overrides, differences};
use crate::key;
use crate::plan::{Node, Plan, Source};
use crate::store::{Record, Store};

/// The format of locks.
const FORMAT: u32 = 1;

/// The digests behind a pipeline's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// See [`FORMAT`].
    pub format: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// The version of fuseline that wrote it; it decides nothing.
    pub fuseline: String,
    /// Every instance, in an order in which inputs come first.
    pub stages: Vec<LockedStage>,
}

/// An instance in a lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// The instance, written as an input is.
    pub stage: String,
    /// Its operator.
    pub operator: String,
    /// The operator's version.
    pub version: u32,
    /// Shared code by name, with its version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, u32>,
    /// The seed, where it uses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The numerics class, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// Files and folders outside the store by parameter: their digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Vec<Digest>>,
    /// What is bound, by port: `stage.output`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Vec<String>>,
    /// Its key.
    pub key: Key,
    /// Why its result counts though it was not made under this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// What it gave, by output.
    pub outputs: BTreeMap<String, LockedOutput>,
}

/// An output in a lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedOutput {
    /// The manifest: identity of the bytes.
    pub artifact: Digest,
    /// The logical content, which keys hold.
    pub content: Digest,
    /// Rows of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// Something that is not as the lock says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deviation {
    /// Which instance.
    pub stage: String,
    /// What, in words.
    pub what: String,
    /// Who can act.
    pub cause: Cause,
}

impl Lock {
    /// The lock of a pipeline all of whose results are there.
    pub fn of(plan: &Plan, store: &Store, decisions: &[Decision]) -> Result<Self, StageError> {
        let overrides = Overrides::default();
        let decider = Decider::new(plan, store, &overrides);
        let mut stages = Vec::with_capacity(plan.nodes.len());
        for (index, (node, decision)) in plan.nodes.iter().zip(decisions).enumerate() {
            if node.uncacheable {
                let error =
                    StageError::input(format!("stage {} is uncacheable: nothing holds it to a result", node.id));
                return Err(error.hint("lock a pipeline whose stages keep their results"));
            }
            let Decision::Hit { key, record, .. } = decision else {
                return Err(StageError::input(format!("stage {} has no result to lock", node.id)));
            };
            stages.push(locked(plan, node, *key, record, &decider.trees(index)?));
        }
        let fuseline = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { format: FORMAT, pipeline: plan.name.clone(), fuseline, stages })
    }

    /// As YAML.
    pub fn to_yaml(&self) -> String {
        let body = serde_yaml::to_string(self).expect("plain data");
        format!("# The digests behind the results of {}. `fuseline verify` compares with them.\n{body}", self.pipeline)
    }

    /// Reads a lock; what is wrong with it is in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lock: Self = serde_yaml::from_str(text).map_err(|error| format!("not a lock: {error}"))?;
        match lock.format {
            FORMAT => Ok(lock),
            other => Err(format!("the lock has format {other}, this program reads {FORMAT}")),
        }
    }

    fn by_name(&self) -> BTreeMap<&str, &LockedStage> {
        self.stages.iter().map(|stage| (stage.stage.as_str(), stage)).collect()
    }

    /// Whether a pipeline asks for what the lock says: stages, parameters,
    /// versions and files. Looks at no result.
    pub fn check_definitions(&self, plan: &Plan, store: &Store, only: Option<&BTreeSet<usize>>) -> Vec<Deviation> {
        let overrides = Overrides::default();
        let decider = Decider::new(plan, store, &overrides);
        let known = self.by_name();
        let names: Vec<String> = plan.nodes.iter().map(|node| node.id.to_string()).collect();
        let mut deviations = Vec::new();
        let mut add = |stage: String, what: String, cause| deviations.push(Deviation { stage, what, cause });
        for (index, node) in plan.nodes.iter().enumerate() {
            if only.is_some_and(|only| !only.contains(&index)) {
                continue;
            }
            let name = names[index].clone();
            let Some(locked) = known.get(name.as_str()) else {
                add(name, "is not in the lock".to_owned(), Cause::Input);
                continue;
            };
            let content = |source: &Source| {
                let producer = &plan.nodes[source.node];
                let output = &producer.resolved.ports.outputs[source.output].name;
                Some(known.get(names[source.node].as_str())?.outputs.get(output)?.content)
            };
            let contents: Option<Vec<Vec<Digest>>> =
                node.inputs.iter().map(|bound| bound.from.iter().map(content).collect()).collect();
            let Some(contents) = contents else {
                add(name, "has an input that is not in the lock".to_owned(), Cause::Input);
                continue;
            };
            let trees = match decider.trees(index) {
                Ok(trees) => trees,
                Err(error) => {
                    add(name, error.to_string(), error.cause());
                    continue;
                }
            };
            let now = key::stage(node, plan.salt.as_deref(), &contents, &trees);
            if now.key != locked.key {
                add(name, deviation(store, node, locked, &now, &trees), Cause::Input);
            }
        }
        if only.is_none() {
            let planned: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            for locked in self.stages.iter().filter(|locked| !planned.contains(locked.stage.as_str())) {
                add(locked.stage.clone(), "is in the lock and not in the pipeline".to_owned(), Cause::Input);
            }
        }
        deviations
    }

    /// Whether results are the locked ones. A stage that is not in the lock is
    /// not judged.
    pub fn check_records<'r>(&self, records: impl Iterator<Item = (String, &'r Record)>) -> Vec<Deviation> {
        let known = self.by_name();
        let judge = |(name, record): (String, &Record)| match known.get(name.as_str()) {
            Some(locked) => locked.check(record),
            None => Vec::new(),
        };
        records.flat_map(judge).collect()
    }

    /// Whether the locked results are in the store, every byte as it was.
    pub fn check_results(&self, plan: &Plan, store: &Store, only: Option<&BTreeSet<usize>>) -> Vec<Deviation> {
        let mut deviations = Vec::new();
        let named: Option<BTreeSet<String>> =
            only.map(|only| only.iter().map(|index| plan.nodes[*index].id.to_string()).collect());
        for stage in self.stages.iter().filter(|stage| named.as_ref().is_none_or(|named| named.contains(&stage.stage)))
        {
            let mut add = |what, cause| deviations.push(Deviation { stage: stage.stage.clone(), what, cause });
            for (name, output) in &stage.outputs {
                match store.verify_artifact(&output.artifact) {
                    Ok(()) => {}
                    Err(error) => add(format!("output {name}: {error}"), error.cause()),
                }
            }
        }
        deviations
    }
}

impl LockedStage {
    fn check(&self, record: &Record) -> Vec<Deviation> {
        let mut deviations = Vec::new();
        let mut add = |what| deviations.push(Deviation { stage: self.stage.clone(), what, cause: Cause::Work });
        for output in &record.outputs {
            match self.outputs.get(&output.name) {
                Some(locked) if locked.content != output.content => add(format!(
                    "output {} is {}, the lock has {}",
                    output.name,
                    output.content.short(),
                    locked.content.short()
                )),
                Some(locked) if locked.artifact != output.artifact => {
                    add(format!("output {} has the locked content in other bytes", output.name));
                }
                Some(_) => {}
                None => add(format!("output {} is not in the lock", output.name)),
            }
        }
        deviations
    }
}

fn locked(plan: &Plan, node: &Node, key: Key, record: &Record, trees: &[Digest]) -> LockedStage {
    let mut files: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for (file, tree) in node.resolved.files.iter().zip(trees) {
        files.entry(file.parameter.to_string()).or_default().push(*tree);
    }
    let source = |source: &Source| {
        let producer = &plan.nodes[source.node];
        format!("{}.{}", producer.id, producer.resolved.ports.outputs[source.output].name)
    };
    let outputs = record.outputs.iter().map(|output| {
        let locked = LockedOutput { artifact: output.artifact, content: output.content, rows: output.rows };
        (output.name.clone(), locked)
    });
    LockedStage {
        stage: node.id.to_string(),
        operator: node.entry.name.to_owned(),
        version: node.entry.version,
        parts: node.entry.parts.iter().map(|part| (part.name.to_owned(), part.version)).collect(),
        seed: node.entry.traits.uses_seed.then_some(node.seed),
        numerics: node.entry.traits.numerics.map(str::to_owned),
        files,
        inputs: node.inputs.iter().map(|bound| (bound.port.clone(), bound.from.iter().map(source).collect())).collect(),
        key,
        accepted: record.accepted.as_ref().map(|word| format!("{}: {}", word.who, word.why)),
        outputs: outputs.collect(),
    }
}

/// What differs between a locked stage and what the pipeline asks for now.
fn deviation(store: &Store, node: &Node, locked: &LockedStage, now: &key::StageKey, trees: &[Digest]) -> String {
    if let Some(before) = store.key_parts(&locked.key) {
        let changes: Vec<String> = differences(node, &before, now).iter().map(ToString::to_string).collect();
        if !changes.is_empty() {
            return changes.join(", ");
        }
    }
    // The store does not know the locked key: what the lock itself says must do.
    let mut changes = Vec::new();
    let mut differs = |what: &str, before: String, now: String| {
        if before != now {
            changes.push(format!("{what} {before} → {now}"));
        }
    };
    let text = |value: Option<&dyn std::fmt::Display>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    differs("operator", locked.operator.clone(), node.entry.name.to_owned());
    differs("operator version", locked.version.to_string(), node.entry.version.to_string());
    for part in node.entry.parts {
        let before = locked.parts.get(part.name);
        let name = format!("version of {}", part.name);
        differs(&name, text(before.map(|version| version as _)), part.version.to_string());
    }
    let seed = node.entry.traits.uses_seed.then_some(node.seed);
    differs("seed", text(locked.seed.as_ref().map(|seed| seed as _)), text(seed.as_ref().map(|seed| seed as _)));
    let numerics = node.entry.traits.numerics.unwrap_or("none");
    differs("numerics", locked.numerics.clone().unwrap_or_else(|| "none".to_owned()), numerics.to_owned());
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, tree) in node.resolved.files.iter().zip(trees) {
        let number = seen.entry(&*file.parameter).or_default();
        let before = locked.files.get(&*file.parameter).and_then(|digests| digests.get(*number));
        *number += 1;
        let name = format!("file of {}", file.parameter);
        differs(&name, before.map_or_else(|| "none".to_owned(), Digest::short), tree.short());
    }
    match changes.is_empty() {
        true => "its parameters or what is bound to it differ".to_owned(),
        false => changes.join(", "),
    }
}
