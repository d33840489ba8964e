//! Decides what must run, and why. The plan shown to people and the run itself
//! use this one function, so they cannot disagree.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use fuseline_contract::{Digest, Key, StageError};

use crate::error::Result;
use crate::key::{self, StageKey};
use crate::ledger::Latest;
use crate::plan::Plan;
use crate::store::{Miss, Record, Store, files};
use crate::why::{self, Code, Reason};

/// What will become of an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Its result is in the store.
    Hit {
        /// Its key.
        key: Key,
        /// What its key gave.
        record: Box<Record>,
    },
    /// It will run.
    Run {
        /// Its key.
        key: Key,
        /// Why.
        reason: Reason,
    },
    /// It runs unless what runs before it gives what it gave before.
    Maybe {
        /// The first cause: the index of an instance before it that will run.
        because: usize,
    },
    /// It cannot run as things are: a file is missing.
    Blocked {
        /// Why.
        error: StageError,
    },
}

/// Whether one instance, whose inputs are known, must run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Hit(Box<Record>),
    Run(Reason),
}

/// Decides about the instances of one plan.
pub(crate) struct Decider<'a> {
    plan: &'a Plan,
    store: &'a Store,
    latest: Latest,
    force: BTreeSet<usize>,
    trees: RefCell<HashMap<PathBuf, Digest>>,
}

impl<'a> Decider<'a> {
    pub fn new(plan: &'a Plan, store: &'a Store, force: BTreeSet<usize>) -> Self {
        let latest = Latest::read(store, &plan.name);
        Self { plan, store, latest, force, trees: RefCell::default() }
    }

    fn tree(&self, path: &Path) -> Result<Digest> {
        if let Some(digest) = self.trees.borrow().get(path) {
            return Ok(*digest);
        }
        let digest = files::tree(self.store, path)?;
        self.trees.borrow_mut().insert(path.to_owned(), digest);
        Ok(digest)
    }

    /// The digests of the external files of an instance.
    pub fn trees(&self, node: usize) -> Result<Vec<Digest>> {
        self.plan.nodes[node].resolved.files.iter().map(|file| self.tree(&file.path)).collect()
    }

    /// Whether the user asked for this instance to run whatever the store has.
    pub fn always_runs(&self, node: usize) -> bool {
        self.plan.nodes[node].uncacheable || self.force.contains(&node)
    }

    /// Decides about an instance from the contents of its inputs.
    pub fn decide(
        &self,
        index: usize,
        content_of: &dyn Fn(&crate::plan::Source) -> Digest,
    ) -> Result<(StageKey, Verdict)> {
        let node = &self.plan.nodes[index];
        let contents: Vec<Vec<Digest>> =
            node.inputs.iter().map(|bound| bound.from.iter().map(content_of).collect()).collect();
        let stage = key::stage(node, &contents, &self.trees(index)?);
        let verdict = if self.force.contains(&index) {
            Verdict::Run(Reason::plain(Code::Forced, "asked for"))
        } else if node.uncacheable {
            Verdict::Run(Reason::plain(Code::Uncacheable, "declared uncacheable"))
        } else {
            match self.store.lookup(&stage.key) {
                Ok(record) if has_outputs(&record, node) => Verdict::Hit(Box::new(record)),
                Ok(_) => Verdict::Run(self.explain(index, &stage, &Miss::NoRecord)),
                Err(miss) => Verdict::Run(self.explain(index, &stage, &miss)),
            }
        };
        Ok((stage, verdict))
    }

    fn explain(&self, index: usize, stage: &StageKey, miss: &Miss) -> Reason {
        if let Miss::Blob { output, digest } = miss {
            let text = format!("a file of its output {output} is missing or damaged ({})", digest.short());
            return Reason::plain(Code::BlobMissing, text);
        }
        let Some(last) = self.latest.get(&self.plan.nodes[index].id) else {
            return Reason::plain(Code::NeverRun, "never run");
        };
        if last.key == stage.key {
            return match last.failed {
                true => Reason::plain(Code::PreviousFailed, "failed in the last run"),
                false => Reason::plain(Code::RecordMissing, "its record is no longer in the store"),
            };
        }
        let before = self.store.key_parts(&last.key);
        before
            .and_then(|before| Reason::of(why::compare(&before, &stage.parts.to_json())))
            .unwrap_or_else(|| Reason::plain(Code::RecordMissing, "what it ran with before is no longer known"))
    }
}

/// Whether a record has the outputs that the operator has now.
fn has_outputs(record: &Record, node: &crate::plan::Node) -> bool {
    let declared = node.resolved.ports.outputs.iter().map(|output| output.name.as_str());
    record.outputs.iter().map(|output| output.name.as_str()).eq(declared)
}

/// What will become of every instance, in the order of the plan, if the
/// pipeline is run now. Writes nothing but remembered digests of external files.
pub fn decide(plan: &Plan, store: &Store) -> Vec<Decision> {
    decide_forced(plan, store, BTreeSet::new())
}

/// As [`decide`], where some instances run whatever the store has.
pub fn decide_forced(plan: &Plan, store: &Store, force: BTreeSet<usize>) -> Vec<Decision> {
    let decider = Decider::new(plan, store, force);
    let mut decisions: Vec<Decision> = Vec::with_capacity(plan.nodes.len());
    for (index, node) in plan.nodes.iter().enumerate() {
        let mut because = None;
        let mut blocked = None;
        for source in node.inputs.iter().flat_map(|bound| &bound.from) {
            match &decisions[source.node] {
                Decision::Hit { .. } => {}
                Decision::Run { .. } => because = because.or(Some(source.node)),
                Decision::Maybe { because: first } => because = because.or(Some(*first)),
                Decision::Blocked { error } => blocked = Some(error.clone()),
            }
        }
        let decision = match (blocked, because) {
            (Some(error), _) => Decision::Blocked { error },
            (None, Some(because)) => match decider.trees(index) {
                Ok(_) => Decision::Maybe { because },
                Err(error) => Decision::Blocked { error: error.into() },
            },
            (None, None) => {
                let content = |source: &crate::plan::Source| match &decisions[source.node] {
                    Decision::Hit { record, .. } => record.outputs[source.output].content,
                    _ => unreachable!("every input is a hit"),
                };
                match decider.decide(index, &content) {
                    Ok((stage, Verdict::Hit(record))) => Decision::Hit { key: stage.key, record },
                    Ok((stage, Verdict::Run(reason))) => Decision::Run { key: stage.key, reason },
                    Err(error) => Decision::Blocked { error: error.into() },
                }
            }
        };
        decisions.push(decision);
    }
    decisions
}

/// The parts of the keys of instances whose keys are known, for `why`.
pub fn key_parts(plan: &Plan, store: &Store, decisions: &[Decision], index: usize) -> Option<StageKey> {
    let decider = Decider::new(plan, store, BTreeSet::new());
    let content = |source: &crate::plan::Source| match &decisions[source.node] {
        Decision::Hit { record, .. } => Some(record.outputs[source.output].content),
        _ => None,
    };
    let node = &plan.nodes[index];
    let contents: Option<Vec<Vec<Digest>>> =
        node.inputs.iter().map(|bound| bound.from.iter().map(content).collect()).collect();
    Some(key::stage(node, &contents?, &decider.trees(index).ok()?))
}
