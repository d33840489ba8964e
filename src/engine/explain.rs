//! Why an instance runs, in full: every difference to the key that it had
//! before, where each was written, what made an input another one, and what
//! changed without being a cause. Costs reading the ledger; a run never asks.

use std::cell::OnceCell;
use std::fs;

use fuseline_contract::{Digest, Key, StageId};
use serde::Serialize;
use serde_json::Value as Json;

use crate::decide::{Decision, differences, key_of};
use crate::error::Result;
use crate::here;
use crate::history::History;
use crate::key::StageKey;
use crate::ledger::{Latest, RunEntry, StageEntry};
use crate::origin::Origins;
use crate::plan::Plan;
use crate::store::{OutputRecord, Store};
use crate::why::{self, Change, Code};

/// Explains the instances of a plan.
pub struct Explainer<'a> {
    plan: &'a Plan,
    store: &'a Store,
    decisions: &'a [Decision],
    origins: Option<Origins>,
    history: OnceCell<History<'a>>,
}

/// Everything that can be said about why an instance runs.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// What it is compared with; nothing where there is nothing like it.
    pub against: Option<Against>,
    /// The differences, the first cause first.
    pub differences: Vec<Difference>,
    /// What changed and is not in the key.
    pub not_causes: Vec<Change>,
}

/// The earlier key that an instance is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// The key.
    pub key: Key,
    /// The run and when it began, if it is known.
    pub run: Option<(String, u64)>,
    /// The instance had this key; else it is the likest of all that have a result.
    pub same_stage: bool,
}

/// A difference with where it comes from.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// What differs.
    pub change: Change,
    /// Where its value was written.
    pub place: Option<String>,
    /// Why an input is another one: what made it, and the first cause of that.
    pub because: Option<String>,
    /// Inputs that were replaced.
    pub replaced: Vec<Replaced>,
}

/// An artifact that stands where another stood.
#[derive(Debug, Clone, Serialize)]
pub struct Replaced {
    /// Who makes it.
    pub stage: StageId,
    /// What it was.
    pub before: OutputRecord,
    /// What it is.
    pub now: OutputRecord,
}

impl<'a> Explainer<'a> {
    /// An explainer of decisions about a plan.
    pub fn new(plan: &'a Plan, store: &'a Store, decisions: &'a [Decision], origins: Option<Origins>) -> Self {
        Self { plan, store, decisions, origins, history: OnceCell::new() }
    }

    fn history(&self) -> Result<&History<'a>> {
        if self.history.get().is_none() {
            let _ = self.history.set(History::of(self.store)?);
        }
        Ok(self.history.get().expect("set above"))
    }

    /// Explains an instance whose key is known: against the key that it had
    /// last, or else the likest that has a result.
    pub fn explain(&self, index: usize) -> Result<Explanation> {
        let node = &self.plan.nodes[index];
        let mut explanation = Explanation { against: None, differences: Vec::new(), not_causes: Vec::new() };
        let last = self.history()?.latest(&self.plan.name, &node.id);
        if let Some((run, entry)) = last {
            explanation.not_causes = self.not_causes(index, run, entry);
        }
        let Some(now) = key_of(self.plan, self.store, self.decisions, index) else { return Ok(explanation) };
        let latest = Latest::read(self.store, &self.plan.name).get(&node.id).map(|last| last.key);
        let before = latest.and_then(|key| Some((key, self.store.key_parts(&key)?)));
        let same_stage = before.is_some();
        let Some((key, before)) = before.or_else(|| nearest(self.store, &now)) else { return Ok(explanation) };
        let run = last.filter(|_| same_stage).map(|(run, _)| (run.run.clone(), run.started_ms));
        explanation.against = Some(Against { key, run, same_stage });
        for change in differences(node, &before, &now) {
            explanation.differences.push(self.difference(index, change, &before, &now.parts.to_json())?);
        }
        let caused = |change: &Change| explanation.differences.iter().any(|other| other.change.what == change.what);
        let not_causes = std::mem::take(&mut explanation.not_causes);
        explanation.not_causes = not_causes.into_iter().filter(|change| !caused(change)).collect();
        Ok(explanation)
    }

    /// How the result of a hit was made, if the ledger still has it.
    pub fn made(&self, index: usize) -> Result<Option<(&RunEntry, &StageEntry)>> {
        let Some(record) = self.decisions[index].record() else { return Ok(None) };
        let key = record.accepted.as_ref().map_or(record.key, |word| word.from);
        Ok(self.history()?.ran(&record.made.run, &key))
    }

    /// What is another now than when the result of a hit was made, and did not matter.
    pub fn changed_since(&self, index: usize) -> Result<Vec<Change>> {
        Ok(self.made(index)?.map(|(run, entry)| self.not_causes(index, run, entry)).unwrap_or_default())
    }

    fn difference(&self, index: usize, change: Change, before: &Json, now: &Json) -> Result<Difference> {
        let node = &self.plan.nodes[index];
        let place = self.origins.as_ref().and_then(|origins| match change.code {
            Code::Param => origins.parameter(node, &change.what),
            Code::File => origins.parameter(node, change.what.strip_prefix("file of ")?),
            _ => None,
        });
        let mut difference = Difference { change, place, because: None, replaced: Vec::new() };
        if let Some(port) = difference.change.what.strip_prefix("input ").map(str::to_owned) {
            (difference.because, difference.replaced) = self.because(index, &port, before, now)?;
        }
        Ok(difference)
    }

    /// Why what is bound to a port is another than before.
    fn because(&self, index: usize, port: &str, before: &Json, now: &Json) -> Result<(Option<String>, Vec<Replaced>)> {
        let parts = |parts: &Json| parts["inputs"][port].as_array().cloned().unwrap_or_default();
        let (before, now) = (parts(before), parts(now));
        let mut because = None;
        let mut replaced = Vec::new();
        if before.len() != now.len() {
            because = Some(format!("{} bound before, {} now", before.len(), now.len()));
        }
        let bound = self.plan.nodes[index].inputs.iter().find(|bound| bound.port == port);
        let sources = bound.map(|bound| bound.from.as_slice()).unwrap_or_default();
        for ((source, before), now) in sources.iter().zip(&before).zip(&now) {
            let content = |part: &Json| part["content"].as_str().and_then(|text| text.parse::<Digest>().ok());
            let (Some(then), Some(record)) = (content(before), self.decisions[source.node].record()) else { continue };
            if content(now) == Some(then) {
                let words = || format!("label or axis {} → {}", shown_label(before), shown_label(now));
                because = because.or_else(|| (before != now).then(words));
                continue;
            }
            let id = &self.plan.nodes[source.node].id;
            let output = &record.outputs[source.output];
            let Some((_, entry)) = self.history()?.maker(&self.plan.name, id, &then) else {
                because = because.or_else(|| Some(format!("what {id} gave before is no longer known")));
                continue;
            };
            if let Some(before) = entry.outputs.iter().find(|output| output.content == then) {
                replaced.push(Replaced { stage: id.clone(), before: before.clone(), now: output.clone() });
            }
            if because.is_none() {
                because = Some(self.origin_of(source.node, entry)?);
            }
        }
        Ok((because, replaced))
    }

    /// Why an instance gives something else than an earlier one gave.
    fn origin_of(&self, node: usize, before: &StageEntry) -> Result<String> {
        let id = &self.plan.nodes[node].id;
        if before.id != *id {
            return Ok(format!("{id} is bound instead of {}", before.id));
        }
        let parts = before.key.and_then(|key| self.store.key_parts(&key));
        let (Some(parts), Some(now)) = (parts, key_of(self.plan, self.store, self.decisions, node)) else {
            return Ok(format!("{id} ran"));
        };
        let Some(first) = differences(&self.plan.nodes[node], &parts, &now).into_iter().next() else {
            return Ok(format!("{id} ran again and gave another result for the same key"));
        };
        if first.code.is_input() {
            let difference = self.difference(node, first.clone(), &parts, &now.parts.to_json())?;
            if let Some(because) = difference.because {
                return Ok(format!("{id} ran, because {because}"));
            }
        }
        Ok(format!("{id} ran: {first}"))
    }

    /// What is another now than at an earlier end of an instance, without being
    /// in its key.
    fn not_causes(&self, index: usize, run: &RunEntry, before: &StageEntry) -> Vec<Change> {
        let node = &self.plan.nodes[index];
        let mut changes = Vec::new();
        let mut note = |what: &str, from: String, to: String| {
            if from != to {
                changes.push(Change { code: Code::Param, what: what.to_owned(), from: Some(from), to: Some(to) });
            }
        };
        let mem = |bytes: Option<u64>| bytes.map_or_else(|| "not stated".to_owned(), |bytes| format!("{bytes} bytes"));
        note("resources.cpus", before.resources.cpus.to_string(), node.resources.cpus.to_string());
        note("resources.gpus", before.resources.gpus.to_string(), node.resources.gpus.to_string());
        note("resources.mem", mem(before.resources.mem_bytes), mem(node.resources.mem_bytes));
        note("fuseline", run.version.clone(), env!("CARGO_PKG_VERSION").to_owned());
        note("host", before.host.clone().unwrap_or_else(|| run.host.clone()), here::host());
        if !node.entry.traits.uses_seed {
            note("seed", before.seed.to_string(), node.seed.to_string());
        }
        let wrap = |params: &Json| serde_json::json!({"params": params});
        changes.extend(why::compare(&wrap(&before.params), &wrap(&node.resolved.params), &|_| false));
        changes
    }
}

/// The label or the axes of a bound artifact.
fn shown_label(part: &Json) -> String {
    match part["label"].as_str() {
        Some(label) => label.to_owned(),
        None => part["axes"].to_string(),
    }
}

/// Of the keys of the same operator that have a result the one that has most
/// parts in common with a key.
fn nearest(store: &Store, now: &StageKey) -> Option<(Key, Json)> {
    let parts = now.parts.to_json();
    let folders = fs::read_dir(store.root().join("keys")).ok()?.flatten();
    let files = folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
    let keys = files.filter_map(|file| file.path().file_stem()?.to_str()?.parse::<Key>().ok());
    let found = keys.filter(|key| *key != now.key).filter_map(|key| {
        let before = store.key_parts(&key)?;
        if before["operator"]["name"] != parts["operator"]["name"] || store.record(&key).is_none() {
            return None;
        }
        Some((why::common(&before, &parts), key, before))
    });
    found.max_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1))).map(|(_, key, before)| (key, before))
}
