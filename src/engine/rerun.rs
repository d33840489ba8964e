//! Runs one instance again beside the store and compares what it gives with
//! what it gave: whether its operator keeps its promise that one key gives one
//! result. Nothing that is there is read but its inputs, nor anything replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::AtomicBool;

use fuseline_contract::{Event, Runner, StageError};

use crate::decide::{Decision, Overrides};
use crate::error::At;
use crate::plan::Plan;
use crate::schedule::{self, RunOptions};
use crate::store::{OutputRecord, Record, Store};

/// What a rerun gave.
pub struct Rerun {
    /// What was there.
    pub before: Record,
    /// What the rerun gave.
    pub now: Record,
    /// The store of the rerun; its folder goes away with this value.
    pub store: Store,
    _folder: Scratch,
}

/// A folder that is removed when it is no longer needed.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How an output of a rerun compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same bytes.
    Same,
    /// The same content in other bytes.
    OtherBytes,
    /// Another content.
    Differs,
}

impl Rerun {
    /// Each output, as it was and as it is, with how they compare.
    pub fn outputs(&self) -> impl Iterator<Item = (&OutputRecord, &OutputRecord, Verdict)> {
        self.before.outputs.iter().zip(&self.now.outputs).map(|(before, now)| {
            let verdict = if before.artifact == now.artifact {
                Verdict::Same
            } else if before.content == now.content {
                Verdict::OtherBytes
            } else {
                Verdict::Differs
            };
            (before, now, verdict)
        })
    }
}

/// By what a rerun is done.
pub struct Means<'a> {
    /// How stages run; targets and overrides are set here.
    pub options: RunOptions,
    /// The operators that run on threads.
    pub runners: &'a [Runner],
    /// Set to stop it.
    pub cancel: &'a AtomicBool,
    /// Who hears of it.
    pub on_event: &'a (dyn Fn(Event) + Sync),
}

/// Runs an instance that has a result again, in a store of its own that has the
/// inputs by hard links.
pub fn rerun(
    plan: &Plan,
    store: &Store,
    decisions: &[Decision],
    index: usize,
    means: &Means<'_>,
) -> Result<Rerun, StageError> {
    let node = &plan.nodes[index];
    let Decision::Hit { record: before, .. } = &decisions[index] else {
        return Err(StageError::input(format!("stage {} has no result to compare with", node.id)));
    };
    let folder = Scratch(store.temporary("verify"));
    let aside = Store::open(&folder.0)?;
    aside.prepare()?;
    let mut given = BTreeMap::new();
    for source in node.inputs.iter().flat_map(|bound| &bound.from).map(|source| source.node) {
        let record = decisions[source].record().expect("the inputs of a hit are hits");
        for blob in record.outputs.iter().flat_map(OutputRecord::blobs) {
            let (from, to) = (store.blob(&blob), aside.blob(&blob));
            let parent = to.parent().expect("inside the store");
            fs::create_dir_all(parent).at("create", parent)?;
            if !to.exists() && fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).at("copy", &from)?;
            }
        }
        given.insert(source, record.clone());
    }
    let overrides = Overrides { given, ..Overrides::default() };
    let options = RunOptions { targets: Some(BTreeSet::from([index])), overrides, ..means.options.clone() };
    let mut summary = schedule::run(plan, &aside, &options, means.runners, means.cancel, means.on_event)?;
    if let Some((_, error)) = summary.failed.pop() {
        return Err(error);
    }
    let now = summary.records.swap_remove(index).ok_or_else(StageError::interrupted)?;
    Ok(Rerun { before: (**before).clone(), now, store: aside, _folder: folder })
}
