//! What is asked of a plan besides the file: which instances are wanted, which
//! run anyway, whose earlier result is accepted, and which inputs are taken as
//! they are. `plan` and `run` read the command line through this one function,
//! so that they cannot disagree.

use std::collections::{BTreeMap, BTreeSet};

use fuseline_contract::StageError;

use crate::decide::{Accept, Decision, Overrides, decide, has_outputs};
use crate::ledger;
use crate::plan::{Node, Plan};
use crate::problem::{Place, Problem, Problems};
use crate::schedule::needed;
use crate::select::Selector;
use crate::store::{Acceptance, Record, Store};

/// What was typed.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Selections of what is wanted with all that it needs; all if there is none.
    pub targets: Vec<String>,
    /// Selections of what alone may run.
    pub only: Vec<String>,
    /// Selections of what runs whatever the store has.
    pub force: Vec<String>,
    /// Selections of what keeps its earlier result.
    pub accept: Vec<String>,
    /// Who accepts, and why.
    pub accepts: Option<Word>,
    /// The run that inputs which are not selected are taken from.
    pub defer: Option<String>,
}

/// Who accepts earlier results, when and why.
#[derive(Debug, Clone)]
pub struct Word {
    /// Who.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub when_ms: u64,
    /// Why.
    pub why: String,
}

/// What follows from it for the instances of a plan.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// What is named; all if nothing is.
    pub targets: Option<BTreeSet<usize>>,
    /// What is wanted, with all that it needs.
    pub wanted: BTreeSet<usize>,
    /// What runs anyway, is accepted or is given.
    pub overrides: Overrides,
}

impl Choice {
    /// Reads what was typed. Everything that is wrong is said.
    pub fn of(plan: &Plan, store: &Store, asked: &Asked) -> Result<Self, Problems> {
        let selector = Selector::new(plan, store);
        let mut problems = Vec::new();
        let mut select = |selections: &[String]| {
            selector.select(selections).unwrap_or_else(|found| {
                problems.extend(found.0);
                BTreeSet::new()
            })
        };
        let named = if asked.only.is_empty() { &asked.targets } else { &asked.only };
        let targets = (!named.is_empty()).then(|| select(named));
        let force = select(&asked.force);
        let accepted = select(&asked.accept);
        let mut given = BTreeMap::new();
        if let Some(text) = &asked.defer {
            let place = Place::Argument(format!("--defer {text}"));
            match (&targets, ledger::find_run(store, text)) {
                (None, _) => problems.push(Problem {
                    place,
                    message: "every stage is selected, so none is taken from the run".to_owned(),
                    help: Some("select some with --target or --only".to_owned()),
                }),
                (_, Err(error)) => problems.push(Problem { place, message: error.message, help: error.hint }),
                (Some(selected), Ok(run)) => {
                    let outside = |index: &usize| !selected.contains(index);
                    let made = results(store, &run.run).unwrap_or_default();
                    let record = |index: usize| {
                        let record = made.get(&plan.nodes[index].id.to_string())?;
                        usable(store, record, &plan.nodes[index]).then(|| (index, record.clone()))
                    };
                    given.extend((0..plan.nodes.len()).filter(outside).filter_map(record));
                }
            }
        }
        if let (false, Some(selected)) = (asked.only.is_empty(), &targets) {
            problems.extend(keep_inputs(plan, store, selected, &mut given));
        }
        let accept = accept(plan, store, asked, &accepted, &force, &mut problems);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let overrides = Overrides { force, accept, given };
        let wanted = needed(plan, targets.as_ref(), &overrides);
        Ok(Self { targets, wanted, overrides })
    }
}

/// Gives what the selected instances take from others as it is in the store;
/// what is not there is a problem.
fn keep_inputs(
    plan: &Plan,
    store: &Store,
    selected: &BTreeSet<usize>,
    given: &mut BTreeMap<usize, Record>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let decisions = decide(plan, store);
    let mut asked = BTreeSet::new();
    for &index in selected {
        let id = &plan.nodes[index].id;
        for source in plan.nodes[index].inputs.iter().flat_map(|bound| &bound.from) {
            let input = &plan.nodes[source.node].id;
            if selected.contains(&source.node) || given.contains_key(&source.node) || !asked.insert(source.node) {
                continue;
            }
            let why = match &decisions[source.node] {
                Decision::Hit { record, .. } | Decision::Accept { record, .. } => {
                    given.insert(source.node, (**record).clone());
                    continue;
                }
                Decision::Run { reason, .. } => reason.to_string(),
                Decision::Maybe { because } => format!("{} will run", plan.nodes[*because].id),
                Decision::Blocked { error } => error.to_string(),
            };
            problems.push(Problem {
                place: Place::Argument(format!("--only {id}")),
                message: format!("its input {input} is not there as the pipeline asks for it: {why}"),
                help: Some(format!(
                    "--target {id} makes it first; --only +{id} allows all that it needs; --defer RUN takes it from a run"
                )),
            });
        }
    }
    problems
}

/// What a run gave, by instance.
fn results(store: &Store, run: &str) -> Result<BTreeMap<String, Record>, StageError> {
    let entries = ledger::stage_entries(store, run)?;
    let record = |entry: ledger::StageEntry| {
        let key = entry.key.filter(|_| matches!(entry.outcome.as_str(), "hit" | "ran"))?;
        let same = |record: &Record| record.outputs == entry.outputs;
        let known = store.all_records(&key).into_iter().map(|(_, record)| record).find(same);
        Some((entry.id.to_string(), known?))
    };
    Ok(entries.into_iter().filter_map(record).collect())
}

/// Whether a record can stand for an instance.
fn usable(store: &Store, record: &Record, node: &Node) -> bool {
    has_outputs(record, node) && store.lost(record).is_none()
}

/// The earlier results that are accepted; what has none is a problem.
fn accept(
    plan: &Plan,
    store: &Store,
    asked: &Asked,
    accepted: &BTreeSet<usize>,
    force: &BTreeSet<usize>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<usize, Accept> {
    let mut accept = BTreeMap::new();
    let Some(word) = asked.accepts.as_ref().filter(|_| !accepted.is_empty()) else { return accept };
    let mut missing: BTreeSet<usize> = accepted.clone();
    let runs = ledger::run_entries(store).unwrap_or_default();
    for run in runs.iter().filter(|run| run.pipeline == plan.name) {
        if missing.is_empty() {
            break;
        }
        let made = results(store, &run.run).unwrap_or_default();
        missing.retain(|&index| {
            let node = &plan.nodes[index];
            let Some(record) = made.get(&node.id.to_string()).filter(|record| usable(store, record, node)) else {
                return true;
            };
            let acceptance = Acceptance {
                who: word.who.clone(),
                when_ms: word.when_ms,
                why: word.why.clone(),
                from: record.accepted.as_ref().map_or(record.key, |earlier| earlier.from),
            };
            accept.insert(index, Accept { record: record.clone(), acceptance });
            false
        });
    }
    if !missing.is_empty() {
        let decisions = decide(plan, store);
        missing.retain(|index| !matches!(decisions[*index], Decision::Hit { .. }));
    }
    for &index in accepted {
        let node = &plan.nodes[index];
        let (message, help) = if force.contains(&index) {
            ("it is forced as well", "leave out --force or --accept".to_owned())
        } else if node.uncacheable {
            ("it is uncacheable, so it always runs", "select others".to_owned())
        } else if missing.contains(&index) {
            ("no earlier run of this pipeline has its result", format!("make it: --target {}", node.id))
        } else {
            continue;
        };
        let place = Place::Argument(format!("--accept {}", node.id));
        problems.push(Problem { place, message: message.to_owned(), help: Some(help) });
    }
    accept
}
