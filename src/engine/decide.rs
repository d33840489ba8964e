//! Decides what must run, and why. The plan shown to people and the run itself
//! use this one function, so they cannot disagree.

use std::cell::{OnceCell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use fuseline_contract::{Digest, Key, StageError};
use rayon::prelude::*;

use crate::error::Result;
use crate::key::{self, StageKey};
use crate::ledger::Latest;
use crate::plan::{Node, Plan, Source};
use crate::store::{Acceptance, Found, Miss, Record, Store, files};
use crate::why::{self, Change, Code, Reason};

/// What a user asks besides the plan itself, by index of the instance.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Instances that run whatever the store has.
    pub force: BTreeSet<usize>,
    /// Instances whose earlier result answers for their present key.
    pub accept: BTreeMap<usize, Accept>,
    /// Instances whose result is given; nothing that they need is looked at.
    pub given: BTreeMap<usize, Record>,
}

/// An earlier result and a person's word that it still holds.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The result.
    pub record: Record,
    /// The word.
    pub acceptance: Acceptance,
}

/// What will become of an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Its result is in the store.
    Hit {
        /// Its key.
        key: Key,
        /// What its key gave.
        record: Box<Record>,
        /// Its files are in this store, not only in the remote one.
        here: bool,
    },
    /// It will run.
    Run {
        /// Its key.
        key: Key,
        /// Why.
        reason: Reason,
    },
    /// An earlier result is accepted for its key.
    Accept {
        /// Its key.
        key: Key,
        /// What its key will give.
        record: Box<Record>,
        /// Why it would run otherwise.
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

impl Decision {
    /// What the instance gives, where that is known.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Hit { record, .. } | Self::Accept { record, .. } => Some(record),
            Self::Run { .. } | Self::Maybe { .. } | Self::Blocked { .. } => None,
        }
    }
}

/// Whether one instance, whose inputs are known, must run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Hit(Box<Found>),
    Accept(Box<Record>, Reason),
    Run(Reason),
}

/// Decides about the instances of one plan.
pub(crate) struct Decider<'a> {
    plan: &'a Plan,
    store: &'a Store,
    latest: Latest,
    overrides: &'a Overrides,
    trees: RefCell<HashMap<PathBuf, Digest>>,
    ahead: OnceCell<RefCell<HashMap<Key, Record>>>,
}

impl<'a> Decider<'a> {
    pub fn new(plan: &'a Plan, store: &'a Store, overrides: &'a Overrides) -> Self {
        let latest = Latest::read(store, &plan.name);
        Self { plan, store, latest, overrides, trees: RefCell::default(), ahead: OnceCell::new() }
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
        self.plan.nodes[node].uncacheable || self.overrides.force.contains(&node)
    }

    /// The record of a key. Most instances have the key that they had last, so
    /// the records of those are read ahead, on all processors; each is handed
    /// out once, so that whoever asks again sees the store as it is.
    fn find(&self, key: &Key) -> Result<Found, Miss> {
        let ahead = self.ahead.get_or_init(|| {
            let (latest, store) = (&self.latest, self.store);
            let last = self.plan.nodes.par_iter().filter_map(|node| latest.get(&node.id));
            RefCell::new(last.filter_map(|last| Some((last.key, store.lookup(&last.key).ok()?))).collect())
        });
        match ahead.borrow_mut().remove(key) {
            Some(record) => Ok(Found { record, here: true }),
            None => self.store.find(key),
        }
    }

    /// Decides about an instance from the contents of its inputs.
    pub fn decide(&self, index: usize, content_of: &dyn Fn(&Source) -> Digest) -> Result<(StageKey, Verdict)> {
        let node = &self.plan.nodes[index];
        let contents: Vec<Vec<Digest>> =
            node.inputs.iter().map(|bound| bound.from.iter().map(content_of).collect()).collect();
        let stage = key::stage(node, self.plan.salt.as_deref(), &contents, &self.trees(index)?);
        let verdict = if self.overrides.force.contains(&index) {
            Verdict::Run(Reason::plain(Code::Forced, "asked for"))
        } else if node.uncacheable {
            Verdict::Run(Reason::plain(Code::Uncacheable, "declared uncacheable"))
        } else {
            match self.find(&stage.key) {
                Ok(found) if has_outputs(&found.record, node) => Verdict::Hit(Box::new(found)),
                found => {
                    let reason = self.explain(index, &stage, &found.err().unwrap_or(Miss::NoRecord));
                    match self.overrides.accept.get(&index) {
                        Some(Accept { record, acceptance }) => {
                            Verdict::Accept(Box::new(record.accepted_for(stage.key, acceptance.clone())), reason)
                        }
                        None => Verdict::Run(reason),
                    }
                }
            }
        };
        Ok((stage, verdict))
    }

    fn explain(&self, index: usize, stage: &StageKey, miss: &Miss) -> Reason {
        if let Miss::Blob { output, digest } = miss {
            let (code, what) = match self.store.was_corrupt(digest) {
                true => (Code::BlobCorrupt, "damaged"),
                false => (Code::BlobMissing, "missing"),
            };
            return Reason::plain(code, format!("a file of its output {output} is {what} ({})", digest.short()));
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
            .and_then(|before| Reason::of(differences(&self.plan.nodes[index], &before, stage)))
            .unwrap_or_else(|| Reason::plain(Code::RecordMissing, "what it ran with before is no longer known"))
    }
}

/// What differs between the parts of an earlier key and those of a node's key.
pub(crate) fn differences(node: &Node, before: &serde_json::Value, now: &StageKey) -> Vec<Change> {
    let is_model =
        |port: &str| node.resolved.ports.inputs.iter().any(|input| input.name == port && input.kind.is_model());
    why::compare(before, &now.parts.to_json(), &is_model)
}

/// Whether a record has the outputs that the operator has now.
pub(crate) fn has_outputs(record: &Record, node: &Node) -> bool {
    let declared = node.resolved.ports.outputs.iter().map(|output| output.name.as_str());
    record.outputs.iter().map(|output| output.name.as_str()).eq(declared)
}

/// What will become of every instance, in the order of the plan, if the
/// pipeline is run now. Writes nothing but remembered digests of external files.
pub fn decide(plan: &Plan, store: &Store) -> Vec<Decision> {
    decide_with(plan, store, &Overrides::default())
}

/// As [`decide`], with what the user asks besides.
pub fn decide_with(plan: &Plan, store: &Store, overrides: &Overrides) -> Vec<Decision> {
    let decider = Decider::new(plan, store, overrides);
    let mut decisions: Vec<Decision> = Vec::with_capacity(plan.nodes.len());
    // Of instances with one key the first runs, and the others take what it gives.
    let mut first_to_run: HashMap<Key, usize> = HashMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        if let Some(record) = overrides.given.get(&index) {
            decisions.push(Decision::Hit { key: record.key, record: Box::new(record.clone()), here: true });
            continue;
        }
        let mut because = None;
        let mut blocked = None;
        for source in node.inputs.iter().flat_map(|bound| &bound.from) {
            match &decisions[source.node] {
                Decision::Hit { .. } | Decision::Accept { .. } => {}
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
                let content = |source: &Source| {
                    decisions[source.node].record().expect("every input is known").outputs[source.output].content
                };
                match decider.decide(index, &content) {
                    Ok((stage, Verdict::Hit(found))) => {
                        Decision::Hit { key: stage.key, record: Box::new(found.record), here: found.here }
                    }
                    Ok((stage, Verdict::Run(reason))) => match first_to_run.entry(stage.key) {
                        Entry::Occupied(first) if !decider.always_runs(index) => {
                            Decision::Maybe { because: *first.get() }
                        }
                        entry => {
                            entry.or_insert(index);
                            Decision::Run { key: stage.key, reason }
                        }
                    },
                    Ok((stage, Verdict::Accept(record, reason))) => Decision::Accept { key: stage.key, record, reason },
                    Err(error) => Decision::Blocked { error: error.into() },
                }
            }
        };
        decisions.push(decision);
    }
    decisions
}

/// The key of an instance whose inputs are known, with its parts.
pub fn key_of(plan: &Plan, store: &Store, decisions: &[Decision], index: usize) -> Option<StageKey> {
    let overrides = Overrides::default();
    let trees = Decider::new(plan, store, &overrides).trees(index).ok()?;
    let node = &plan.nodes[index];
    let content = |source: &Source| Some(decisions[source.node].record()?.outputs[source.output].content);
    let contents: Option<Vec<Vec<Digest>>> =
        node.inputs.iter().map(|bound| bound.from.iter().map(content).collect()).collect();
    Some(key::stage(node, plan.salt.as_deref(), &contents?, &trees))
}

/// The instances that would run for a cause of their own, and those that may
/// run and differ from how they ran last by more than their inputs.
pub(crate) fn changed(plan: &Plan, store: &Store) -> BTreeSet<usize> {
    let overrides = Overrides::default();
    let decider = Decider::new(plan, store, &overrides);
    let decisions = decide(plan, store);
    let changed = |index: &usize| match &decisions[*index] {
        Decision::Run { .. } => true,
        Decision::Maybe { .. } => decider.differs_itself(*index),
        Decision::Hit { .. } | Decision::Accept { .. } | Decision::Blocked { .. } => false,
    };
    (0..plan.nodes.len()).filter(changed).collect()
}

impl Decider<'_> {
    /// Whether more than what is bound differs from how an instance ran last.
    fn differs_itself(&self, index: usize) -> bool {
        let node = &self.plan.nodes[index];
        let before = self.latest.get(&node.id).and_then(|last| self.store.key_parts(&last.key));
        let (Some(before), Ok(trees)) = (before, self.trees(index)) else { return true };
        let unknown = Digest { hash: [0; 32], size: 0 };
        let contents: Vec<_> = node.inputs.iter().map(|bound| vec![unknown; bound.from.len()]).collect();
        let now = key::stage(node, self.plan.salt.as_deref(), &contents, &trees);
        differences(node, &before, &now).iter().any(|change| !change.code.is_input())
    }
}
