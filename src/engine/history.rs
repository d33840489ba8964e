//! What stages gave and cost in earlier runs. Read out of the ledger when a
//! plan or an explanation asks, never while a pipeline runs.

use std::cell::OnceCell;
use std::collections::HashMap;

use fuseline_contract::{Digest, Key, StageId, Usage};
use serde::Serialize;
use serde_json::Value as Json;

use crate::decide::{Decider, Decision, Overrides};
use crate::definition::Definitions;
use crate::error::Result;
use crate::ledger::{self, RunEntry, StageEntry};
use crate::plan::{Node, Plan};
use crate::store::Store;

/// So many runs are looked at, the latest first.
const RUNS: usize = 200;
/// After so many runs a forecast is content with what it has found.
const ENOUGH: usize = 20;

/// The latest runs of a store; each is read when it is first looked at.
pub struct History<'s> {
    store: &'s Store,
    runs: Vec<(RunEntry, OnceCell<Vec<StageEntry>>)>,
}

impl<'s> History<'s> {
    /// Finds the runs of a store.
    pub fn of(store: &'s Store) -> Result<Self> {
        let runs = ledger::run_entries(store)?.into_iter().take(RUNS).map(|run| (run, OnceCell::new())).collect();
        Ok(Self { store, runs })
    }

    /// The runs with the instances that ended in each, the latest first.
    fn runs(&self) -> impl Iterator<Item = (&RunEntry, &[StageEntry])> {
        self.runs.iter().map(|(run, stages)| {
            let stages = stages.get_or_init(|| ledger::stage_entries(self.store, &run.run).unwrap_or_default());
            (run, stages.as_slice())
        })
    }

    /// Every instance that ended in a run, those of the latest run first.
    pub fn entries(&self) -> impl Iterator<Item = (&RunEntry, &StageEntry)> {
        self.runs().flat_map(|(run, stages)| stages.iter().map(move |stage| (run, stage)))
    }

    /// The latest end of an instance of a pipeline that has a key.
    pub fn latest(&self, pipeline: &str, id: &StageId) -> Option<(&RunEntry, &StageEntry)> {
        self.entries().find(|(run, stage)| run.pipeline == pipeline && stage.id == *id && stage.key.is_some())
    }

    /// How an instance ran in a run.
    pub fn ran(&self, run: &str, key: &Key) -> Option<(&RunEntry, &StageEntry)> {
        self.entries().find(|(entry, stage)| entry.run == run && stage.key == Some(*key) && stage.outcome == "ran")
    }

    /// Who gave a content, of a pipeline's instance first.
    pub fn maker(&self, pipeline: &str, id: &StageId, content: &Digest) -> Option<(&RunEntry, &StageEntry)> {
        let gave = |stage: &StageEntry| stage.key.is_some() && stage.outputs.iter().any(|out| out.content == *content);
        self.entries()
            .find(|(run, stage)| run.pipeline == pipeline && stage.id == *id && gave(stage))
            .or_else(|| self.entries().find(|(_, stage)| gave(stage)))
    }
}

/// What a forecast rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// An instance with the same definition ran.
    Definition,
    /// The stage ran with other parameters or inputs.
    Stage,
}

/// What an instance will probably cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Wall time.
    pub seconds: f64,
    /// GPUs times hours.
    pub gpu_hours: f64,
    /// Rows that it will make.
    pub rows: Option<u64>,
    /// Those of them that must be computed; all unless more is known.
    pub rows_to_compute: Option<u64>,
    /// Whether its operator remembers rows one by one.
    pub remembers: bool,
    /// What it will consume, where its operator told that of the earlier one.
    pub usage: Option<Usage>,
    /// What this rests on.
    pub basis: Basis,
}

impl Forecast {
    /// The forecast where only a share of the rows is not remembered.
    #[must_use]
    pub fn of_share(self, share: f64) -> Self {
        if !self.remembers {
            return self;
        }
        let part = |count: u64| (count as f64 * share).ceil() as u64;
        Self {
            seconds: self.seconds * share,
            gpu_hours: self.gpu_hours * share,
            rows_to_compute: self.rows.map(part),
            usage: self.usage.map(|usage| usage.times(share)),
            ..self
        }
    }
}

/// Forecasts of what will or may run, by index; none for what never ran.
///
/// An instance of the same definition counts as it was. Otherwise the stage's
/// latest instance counts, scaled by the rows that it read then and would now.
pub fn forecast(plan: &Plan, history: &History<'_>, decisions: &[Decision]) -> Vec<Option<Forecast>> {
    let mut forecasts: Vec<Option<Forecast>> = vec![None; plan.nodes.len()];
    let runs = |index: &usize| matches!(decisions[*index], Decision::Run { .. } | Decision::Maybe { .. });
    let ahead: Vec<usize> = (0..plan.nodes.len()).filter(runs).collect();
    if ahead.is_empty() {
        return forecasts;
    }
    let overrides = Overrides::default();
    let decider = Decider::new(plan, history.store, &overrides);
    let definitions = Definitions::new(plan);
    let wanted: Vec<(&Node, Option<Key>)> =
        ahead.iter().map(|index| (&plan.nodes[*index], definitions.of(*index, &decider))).collect();
    let known = Known::read(history, &wanted);
    for (index, (node, definition)) in ahead.into_iter().zip(wanted) {
        let same = definition.and_then(|key| known.by_definition.get(&key));
        let (entry, basis) = match same {
            Some(entry) => (*entry, Basis::Definition),
            None => match known.of_stage(&node.id, node.entry.name) {
                Some(entry) => (entry, Basis::Stage),
                None => continue,
            },
        };
        let scale = match basis {
            Basis::Definition => 1.0,
            Basis::Stage => {
                let rows = |source: &crate::plan::Source| match decisions[source.node].record() {
                    Some(record) => record.outputs[source.output].rows,
                    None => forecasts[source.node].as_ref().filter(|_| source.output == 0)?.rows,
                };
                let now: Option<u64> =
                    node.inputs.iter().flat_map(|bound| &bound.from).filter(|s| makes_rows(plan, s)).map(rows).sum();
                let then =
                    entry.key.and_then(|key| history.store.key_parts(&key)).map(|parts| rows_read(&parts, plan, index));
                match (now, then) {
                    (Some(now), Some(then)) if then > 0 => now as f64 / then as f64,
                    _ => 1.0,
                }
            }
        };
        // What was remembered then took no time: the rows that were computed count.
        let computed = entry.memo.filter(|rows| rows.fresh > 0);
        let whole = computed.map_or(1.0, |rows| (rows.fresh + rows.reused) as f64 / rows.fresh as f64);
        let seconds = entry.seconds * scale * whole;
        let rows = entry.outputs.iter().find_map(|output| output.rows);
        let scaled = |count: u64| (count as f64 * scale).round() as u64;
        forecasts[index] = Some(Forecast {
            seconds,
            gpu_hours: seconds * f64::from(node.resources.gpus) / 3600.0,
            rows: rows.map(scaled),
            rows_to_compute: rows.map(scaled),
            remembers: node.memo && entry.memo.is_some(),
            usage: entry.usage.map(|usage| usage.times(scale * whole)),
            basis,
        });
    }
    forecasts
}

/// Whether what is bound is a table.
fn makes_rows(plan: &Plan, source: &crate::plan::Source) -> bool {
    !plan.nodes[source.node].resolved.ports.outputs[source.output].kind.is_model()
}

/// The rows of the tables in the parts of a key: a table's content digest has
/// them as its size.
fn rows_read(parts: &Json, plan: &Plan, index: usize) -> u64 {
    let tables = plan.nodes[index].inputs.iter().filter(|b| b.from.iter().all(|source| makes_rows(plan, source)));
    let bound = tables.filter_map(|bound| parts["inputs"][&bound.port].as_array()).flatten();
    let digests = bound.filter_map(|part| part["content"].as_str()?.parse::<Digest>().ok());
    digests.map(|digest| digest.size).sum()
}

/// What ran, by what it was.
struct Known<'h> {
    by_definition: HashMap<Key, &'h StageEntry>,
    by_instance: HashMap<(String, &'h str), &'h StageEntry>,
    by_stage: HashMap<(&'h str, &'h str), &'h StageEntry>,
}

impl<'h> Known<'h> {
    /// Reads runs until all that is wanted is known by its definition, or
    /// enough runs were read and all is known somehow.
    fn read(history: &'h History<'_>, wanted: &[(&Node, Option<Key>)]) -> Self {
        let mut known = Self { by_definition: HashMap::new(), by_instance: HashMap::new(), by_stage: HashMap::new() };
        for (number, (_, stages)) in history.runs().enumerate() {
            for stage in stages.iter().filter(|stage| stage.outcome == "ran") {
                if let Some(definition) = stage.definition {
                    known.by_definition.entry(definition).or_insert(stage);
                }
                known.by_instance.entry((stage.id.to_string(), &stage.operator)).or_insert(stage);
                known.by_stage.entry((&stage.id.stage, &stage.operator)).or_insert(stage);
            }
            let found = |(node, definition): &(&Node, Option<Key>)| {
                definition.is_some_and(|key| known.by_definition.contains_key(&key))
                    || (number + 1 >= ENOUGH && known.of_stage(&node.id, node.entry.name).is_some())
            };
            if wanted.iter().all(found) {
                break;
            }
        }
        known
    }

    fn of_stage(&self, id: &StageId, operator: &str) -> Option<&'h StageEntry> {
        let instance = self.by_instance.get(&(id.to_string(), operator) as &(String, &str));
        instance.or_else(|| self.by_stage.get(&(id.stage.as_str(), operator))).copied()
    }
}
