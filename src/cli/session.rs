//! A SQL session over what a pipeline has made: every stage's tables under the
//! stage's name, those of earlier runs under the run's, and the ledger under
//! `system`. Nothing is read before a query asks for it.

use std::collections::BTreeMap;
use std::rc::Rc;

use fuseline_contract::{Digest, StageError};
use fuseline_engine::decide::Decision;
use fuseline_engine::ledger::{self, RunEntry};
use fuseline_engine::store::{ArtifactKind, Store};
use fuseline_query::{Contents, Limits, Part, Session};

use crate::setting::Setting;

/// The name of the pipeline's latest run.
const LATEST: &str = "latest";

/// Every table output of a name: the instance and the output, by their places.
type Outputs = BTreeMap<String, Vec<(usize, usize)>>;

/// Opens a session. `run` is how the pipeline is run, for hints.
pub fn open(setting: &Setting, limits: Limits, run: String) -> anyhow::Result<Session<'_>> {
    let decisions = Rc::new(setting.decide());
    let (mut made, mut unmade) = (Outputs::new(), Outputs::new());
    for (name, outputs) in tables(setting) {
        let any = outputs.iter().any(|(node, _)| decisions[*node].record().is_some());
        (if any { &mut made } else { &mut unmade }).insert(name, outputs);
    }
    let mut session = Session::with(limits)?;
    for (name, outputs) in made {
        let decisions = decisions.clone();
        session.register(&name, Box::new(move || of_stage(setting, &decisions, &outputs)));
    }
    let store = &setting.store;
    session.register("system.runs", Box::new(|| Ok(Contents::Memory(ledger::runs(store)?))));
    session.register("system.stages", Box::new(|| Ok(Contents::Memory(ledger::stages(store, None)?))));
    session.register("system.attempts", Box::new(|| Ok(Contents::Memory(ledger::attempts(store)?))));
    session.register("system.artifacts", Box::new(|| Ok(Contents::Memory(ledger::artifacts(store)?))));
    session.set_unlisted(Box::new(move |name| {
        if let Some(outputs) = unmade.get(name) {
            let id = &setting.plan.nodes[outputs[0].0].id;
            let error = StageError::input(format!("stage {} has no result yet", id.stage)).hint(run.clone());
            return Some(Err(error));
        }
        let (wanted, table) = name.split_once('.')?;
        of_run(setting, wanted, table)
    }));
    Ok(session)
}

/// The tables that the stages of the plan make.
fn tables(setting: &Setting) -> Outputs {
    let mut tables = Outputs::new();
    for (node, instance) in setting.plan.nodes.iter().enumerate() {
        for (output, port) in instance.resolved.ports.outputs.iter().enumerate() {
            if port.kind.is_model() {
                continue;
            }
            if output == 0 {
                tables.entry(instance.id.stage.clone()).or_default().push((node, output));
            }
            tables.entry(format!("{}.{}", instance.id.stage, port.name)).or_default().push((node, output));
        }
    }
    tables
}

fn of_stage(setting: &Setting, decisions: &[Decision], outputs: &[(usize, usize)]) -> Result<Contents, StageError> {
    let mut parts = Vec::new();
    for (node, output) in outputs {
        let id = &setting.plan.nodes[*node].id;
        match decisions[*node].record() {
            Some(record) => {
                parts.push(part(&setting.store, &record.outputs[*output].artifact, &id.axes)?);
            }
            None => eprintln!("note: {id} has no result yet and is left out"),
        }
    }
    Ok(Contents::Files(parts))
}

/// A table of an earlier run; none if the name is not that of a run.
fn of_run(setting: &Setting, wanted: &str, table: &str) -> Option<Result<Contents, StageError>> {
    let run = match wanted {
        LATEST => latest(setting),
        // A run's id begins with a digit; no stage does.
        _ if wanted.starts_with(|c: char| c.is_ascii_digit()) => ledger::find_run(&setting.store, wanted),
        _ => return None,
    };
    Some(run.and_then(|run| in_run(&setting.store, &run, table)))
}

fn latest(setting: &Setting) -> Result<RunEntry, StageError> {
    let mut runs = ledger::run_entries(&setting.store)?.into_iter();
    let name = &setting.plan.name;
    runs.find(|run| run.pipeline == *name).ok_or_else(|| StageError::input(format!("pipeline {name} has not run yet")))
}

fn in_run(store: &Store, run: &RunEntry, table: &str) -> Result<Contents, StageError> {
    let mut parts = BTreeMap::new();
    let mut known = Vec::new();
    for entry in ledger::stage_entries(store, &run.run)? {
        for (index, output) in entry.outputs.iter().enumerate() {
            if output.kind != ArtifactKind::Table {
                continue;
            }
            let names =
                [Some(format!("{}.{}", entry.id.stage, output.name)), (index == 0).then(|| entry.id.stage.clone())];
            if names.iter().flatten().any(|name| name == table) {
                // An instance may end twice in a run: its input was lost and it was made anew.
                parts.insert(entry.id.clone(), part(store, &output.artifact, &entry.id.axes)?);
            }
            known.extend(names.into_iter().flatten());
        }
    }
    if parts.is_empty() {
        let near = fuseline_query::error::nearest(table, &known);
        let error = StageError::input(format!("run {} ({}) made no table {table:?}", run.run, run.pipeline));
        return Err(match near.first() {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => error,
        });
    }
    Ok(Contents::Files(parts.into_values().collect()))
}

/// The files of an artifact, with the axes of the instance that made it.
pub fn part(store: &Store, artifact: &Digest, axes: &BTreeMap<String, String>) -> Result<Part, StageError> {
    store.verify_artifact(artifact)?;
    let files = store.files(artifact)?;
    Ok(Part { paths: files.into_iter().map(|(_, path)| path).collect(), axes: axes.clone() })
}
