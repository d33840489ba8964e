//! What differs between two runs: stages whose keys differ and by what, stages
//! that only one of them has, and results that differ under one key.

use std::collections::{BTreeMap, BTreeSet};

use fuseline_contract::StageId;
use serde::Serialize;

use crate::error::Result;
use crate::ledger::{self, StageEntry};
use crate::store::Store;
use crate::why::{self, Change};

/// How an instance differs between two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// Only the first run has it.
    Removed,
    /// Only the second run has it.
    Added,
    /// Its keys differ, by this; by nothing that is known where the list is empty.
    Key {
        /// The differences, the likeliest first cause first.
        changes: Vec<Change>,
    },
    /// Its key is the same and its result is not.
    Result,
    /// It came to another end: how it ended in each.
    End {
        /// In the first run.
        before: String,
        /// In the second run.
        now: String,
    },
}

/// An instance in two runs.
#[derive(Debug, Clone)]
pub struct StageDiff {
    /// Which.
    pub id: StageId,
    /// How it ended in the first run.
    pub before: Option<StageEntry>,
    /// How it ended in the second run.
    pub now: Option<StageEntry>,
    /// What differs, if anything.
    pub difference: Option<Difference>,
}

/// Compares two runs, instance by instance, in the order in which they ended in
/// the second one; those that only the first one has come last.
pub fn compare(store: &Store, before: &str, now: &str) -> Result<Vec<StageDiff>> {
    // An instance that was made again ended twice; the last end counts.
    let by_id = |run: &str| -> Result<BTreeMap<StageId, (usize, StageEntry)>> {
        let entries = ledger::stage_entries(store, run)?.into_iter().enumerate();
        Ok(entries.map(|(number, entry)| (entry.id.clone(), (number, entry))).collect())
    };
    let (mut before, mut now) = (by_id(before)?, by_id(now)?);
    let ids: BTreeSet<StageId> = before.keys().chain(now.keys()).cloned().collect();
    let mut diffs: Vec<(usize, StageDiff)> = ids
        .into_iter()
        .map(|id| {
            let (before, now) = (before.remove(&id), now.remove(&id));
            let number = now.as_ref().map_or(usize::MAX, |(number, _)| *number);
            let (before, now) = (before.map(|(_, entry)| entry), now.map(|(_, entry)| entry));
            let difference = difference(store, before.as_ref(), now.as_ref());
            (number, StageDiff { id, before, now, difference })
        })
        .collect();
    diffs.sort_by_key(|(number, _)| *number);
    Ok(diffs.into_iter().map(|(_, diff)| diff).collect())
}

fn difference(store: &Store, before: Option<&StageEntry>, now: Option<&StageEntry>) -> Option<Difference> {
    let (before, now) = match (before, now) {
        (Some(before), Some(now)) => (before, now),
        (Some(_), None) => return Some(Difference::Removed),
        (None, _) => return Some(Difference::Added),
    };
    if let (Some(first), Some(second)) = (before.key, now.key)
        && first != second
    {
        let parts = store.key_parts(&first).zip(store.key_parts(&second));
        let changes = parts.map(|(first, second)| why::compare(&first, &second, &|_| false));
        return Some(Difference::Key { changes: changes.unwrap_or_default() });
    }
    let done = |entry: &StageEntry| matches!(entry.outcome.as_str(), "hit" | "ran");
    if done(before) != done(now) {
        return Some(Difference::End { before: before.outcome.clone(), now: now.outcome.clone() });
    }
    let contents = |entry: &StageEntry| entry.outputs.iter().map(|output| output.content).collect::<Vec<_>>();
    (contents(before) != contents(now)).then_some(Difference::Result)
}
