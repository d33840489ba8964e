//! `fuseline verify`: compares a pipeline and its results with a lock without
//! computing anything, or runs stages again beside the store and compares.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use fuseline_contract::{Cause, Promise, StageError};
use fuseline_engine::explain::Replaced;
use fuseline_engine::lock::Deviation;
use fuseline_engine::rerun::{self, Means, Verdict};
use fuseline_engine::schedule::RunOptions;
use fuseline_engine::select::Selector;
use fuseline_engine::store::{ArtifactKind, Store};
use fuseline_query::diff;
use serde_json::json;

use crate::args::{Location, Pipeline};
use crate::progress::Display;
use crate::setting::Setting;
use crate::{exit, lock, run};

/// Compares a pipeline and its results with a lock.
pub fn compare(
    location: &Location,
    pipeline: &Pipeline,
    stages: &[String],
    file: Option<&Path>,
    as_json: bool,
) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let selected = selected(&setting, stages)?;
    let path = file.map_or_else(|| lock::beside(&pipeline.path), Path::to_owned);
    let lock = lock::read(&path)?;
    let mut deviations = lock.check_definitions(&setting.plan, &setting.store, selected.as_ref());
    deviations.extend(lock.check_results(&setting.plan, &setting.store, selected.as_ref()));
    let count = selected.map_or(setting.plan.nodes.len(), |selected| selected.len());
    report(&deviations, &[], as_json, &format!("as {} says: {}", path.display(), counted(count)))
}

/// Runs stages again beside the store and compares what they give.
pub fn rerun(location: &Location, pipeline: &Pipeline, stages: &[String], as_json: bool) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let selected = selected(&setting, stages)?.unwrap_or_default();
    let decisions = setting.decide();
    let cancel = run::cancel_on_signal();
    let display = Display::for_people();
    let on_event = |event| {
        if !as_json {
            display.show(&event);
        }
    };
    let means = Means {
        options: RunOptions::new(run::worker()?),
        runners: fuseline_operators::THREAD,
        cancel: &cancel,
        on_event: &on_event,
    };
    let (mut deviations, mut expected) = (Vec::new(), Vec::new());
    for &index in &selected {
        let rerun =
            rerun::rerun(&setting.plan, &setting.store, &decisions, index, &means).map_err(|error| {
                match error.hint {
                    None => error.hint(format!("fuseline run {}", pipeline.path.display())),
                    Some(_) => error,
                }
            })?;
        for (before, now, verdict) in rerun.outputs() {
            let what = match verdict {
                Verdict::Same => continue,
                Verdict::OtherBytes => format!("output {} has the same content in other bytes", before.name),
                Verdict::Differs => {
                    let stage = setting.plan.nodes[index].id.clone();
                    let replaced = Replaced { stage, before: before.clone(), now: now.clone() };
                    let words = difference(&setting.store, &rerun.store, &replaced)?;
                    format!("output {} differs: {words}", before.name)
                }
            };
            let node = &setting.plan.nodes[index];
            let stage = node.id.to_string();
            match setting.plan.traits(node).promise {
                Promise::Deterministic => deviations.push(Deviation { stage, what, cause: Cause::Work }),
                Promise::Sampled => {
                    let what = format!("{what}; its operator promises no equal bytes");
                    expected.push(Deviation { stage, what, cause: Cause::Work });
                }
            }
        }
    }
    let other: BTreeSet<&str> = expected.iter().map(|deviation| deviation.stage.as_str()).collect();
    let fine = format!("the same bytes again: {}", counted(selected.len() - other.len()));
    report(&deviations, &expected, as_json, &fine)
}

/// What a rerun's output has that the store's has not, in words.
fn difference(store: &Store, aside: &Store, replaced: &Replaced) -> anyhow::Result<String> {
    let (before, now) = (&replaced.before, &replaced.now);
    Ok(match now.kind {
        ArtifactKind::Table => {
            let (before, now) = (store.table(&before.artifact)?, aside.table(&now.artifact)?);
            let diff = diff::compare(&before, &now, &diff::Options::default()).map_err(StageError::from)?;
            if diff.is_empty() { "the same rows in another order".to_owned() } else { diff.words() }
        }
        ArtifactKind::Model => {
            let (before, now) = (store.manifest(&before.artifact)?, aside.manifest(&now.artifact)?);
            let others = now.files.iter().filter(|file| !before.files.contains(file));
            let gone = before.files.iter().filter(|file| !now.files.iter().any(|other| other.name == file.name));
            others.chain(gone).map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ")
        }
    })
}

fn selected(setting: &Setting, stages: &[String]) -> anyhow::Result<Option<BTreeSet<usize>>> {
    if stages.is_empty() {
        return Ok(None);
    }
    Ok(Some(Selector::new(&setting.plan, &setting.store).select(stages)?))
}

fn counted(stages: usize) -> String {
    if stages == 1 { "1 stage".to_owned() } else { format!("{stages} stages") }
}

/// Prints what deviates, and what does so as it may; the exit code is that of
/// the gravest of the first.
fn report(deviations: &[Deviation], expected: &[Deviation], as_json: bool, fine: &str) -> anyhow::Result<u8> {
    if as_json {
        let all = json!({"deviations": deviations, "expected": expected});
        exit::print(&serde_json::to_string_pretty(&all)?)?;
    } else {
        let mut text = String::new();
        for deviation in deviations.iter().chain(expected) {
            writeln!(text, "{}: {}", deviation.stage, deviation.what)?;
        }
        if deviations.is_empty() {
            writeln!(text, "{fine}")?;
        }
        exit::print(&text)?;
    }
    Ok(deviations.iter().map(|deviation| deviation.cause.exit_code()).max().unwrap_or(exit::DONE))
}
