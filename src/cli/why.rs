//! `fuseline why` and `why-not`: the first cause of a rerun with every
//! difference behind it, or what a result was made of and why it still counts.

use std::fmt::Write;

use fuseline_engine::decide::{Decision, key_of};
use fuseline_engine::explain::{Difference, Explainer, Explanation};
use fuseline_engine::graph;
use fuseline_engine::origin::Origins;
use fuseline_engine::why::{Change, Reason};
use serde_json::{Value, json};

use crate::args::{Location, Pipeline};
use crate::listing::span;
use crate::setting::{Setting, now_ms};
use crate::{exit, replaced};

/// Prints the state of a stage's instances, its cause, and what is behind it.
pub fn why(location: &Location, pipeline: &Pipeline, stage: &str, as_json: bool) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let plan = &setting.plan;
    let decisions = setting.decide();
    let explainer = Explainer::new(plan, &setting.store, &decisions, Some(Origins::of(&pipeline.path, &pipeline.sets)));
    let mut text = String::new();
    let mut listed = Vec::new();
    for (index, _) in graph::outputs(plan, stage)? {
        let id = &plan.nodes[index].id;
        let mut entry = json!({"stage": id.to_string()});
        match &decisions[index] {
            Decision::Hit { key, .. } | Decision::Accept { key, .. } => {
                writeln!(text, "{id}: cached, key {}", key.short())?;
                entry["state"] = "hit".into();
                made(&setting, &explainer, &decisions, index, &mut text, &mut entry)?;
            }
            Decision::Run { key, reason } => {
                writeln!(text, "{id}: will run, key {}", key.short())?;
                writeln!(text, "  because {reason}")?;
                entry["state"] = "run".into();
                entry["code"] = json!(reason.code);
                entry["why"] = reason.text.as_str().into();
                let explanation = explainer.explain(index)?;
                describe(&setting, &explanation, &mut text)?;
                entry["explanation"] = explained(&setting, &explanation)?;
            }
            Decision::Maybe { because } => {
                writeln!(text, "{id}: may run")?;
                let first = match &decisions[*because] {
                    Decision::Run { reason, .. } => {
                        format!(", because {}", full(&setting, &explainer, *because, reason)?)
                    }
                    _ => String::new(),
                };
                let cause = format!("if {} gives another result; it will run{first}", plan.nodes[*because].id);
                writeln!(text, "  {cause}")?;
                entry["state"] = "maybe".into();
                entry["why"] = cause.into();
            }
            Decision::Blocked { error } => {
                writeln!(text, "{id}: cannot run: {error}")?;
                entry["state"] = "blocked".into();
                entry["why"] = error.to_string().into();
            }
        }
        inputs(&setting, index, &mut text)?;
        listed.push(entry);
    }
    if as_json { exit::print(&serde_json::to_string_pretty(&listed)?) } else { exit::print(&text) }
}

/// Prints why the results of a stage's instances are used as they are.
pub fn why_not(location: &Location, pipeline: &Pipeline, stage: &str, as_json: bool) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let plan = &setting.plan;
    let decisions = setting.decide();
    let explainer = Explainer::new(plan, &setting.store, &decisions, None);
    let mut text = String::new();
    let mut listed = Vec::new();
    for (index, _) in graph::outputs(plan, stage)? {
        let id = &plan.nodes[index].id;
        let mut entry = json!({"stage": id.to_string()});
        let Decision::Hit { key, .. } = &decisions[index] else {
            writeln!(text, "{id}: no result is used; `fuseline why` tells the cause")?;
            entry["state"] = "none".into();
            listed.push(entry);
            continue;
        };
        writeln!(text, "{id}: a hit: every part of its key {} is as it was", key.short())?;
        entry["state"] = "hit".into();
        entry["key"] = json!(key);
        made(&setting, &explainer, &decisions, index, &mut text, &mut entry)?;
        let since = explainer.changed_since(index)?;
        not_causes("changed since, but not in the key", &since, &mut text)?;
        entry["not_causes"] = json!(since);
        listed.push(entry);
    }
    if as_json { exit::print(&serde_json::to_string_pretty(&listed)?) } else { exit::print(&text) }
}

/// How a result was made, who accepted it, and what decides it.
fn made(
    setting: &Setting,
    explainer: &Explainer<'_>,
    decisions: &[Decision],
    index: usize,
    text: &mut String,
    entry: &mut Value,
) -> anyhow::Result<()> {
    let Some(record) = decisions[index].record() else { return Ok(()) };
    let made = &record.made;
    writeln!(text, "  made in {:.1} s on {} by run {}", made.seconds, made.host, made.run)?;
    for origin in &made.origins {
        writeln!(text, "  out of {origin}")?;
    }
    entry["made"] = json!(made);
    if let Some((run, stage)) = explainer.made(index)? {
        if stage.id != setting.plan.nodes[index].id || run.pipeline != setting.plan.name {
            writeln!(text, "  as {} of pipeline {}", stage.id, run.pipeline)?;
        }
        if let Some(reason) = &stage.reason {
            writeln!(text, "  it ran because: {reason}")?;
            entry["why"] = reason.as_str().into();
        }
    }
    if let Some(word) = &record.accepted {
        let ago = span(now_ms().saturating_sub(word.when_ms) / 1000);
        writeln!(text, "  accepted by {} {ago} ago: {} (made for key {})", word.who, word.why, word.from.short())?;
        entry["accepted"] = json!(word);
    }
    if let Some(parts) = key_of(&setting.plan, &setting.store, decisions, index) {
        writeln!(text, "  what decides its result:")?;
        let parts = parts.parts.to_json();
        for line in serde_json::to_string_pretty(&parts)?.lines() {
            writeln!(text, "    {line}")?;
        }
        entry["parts"] = parts;
    }
    Ok(())
}

/// What an instance takes.
fn inputs(setting: &Setting, index: usize, text: &mut String) -> anyhow::Result<()> {
    for bound in &setting.plan.nodes[index].inputs {
        for source in &bound.from {
            let producer = &setting.plan.nodes[source.node];
            let output = &producer.resolved.ports.outputs[source.output].name;
            writeln!(text, "  input {}: {}.{output}", bound.port, producer.id)?;
        }
    }
    Ok(())
}

fn describe(setting: &Setting, explanation: &Explanation, text: &mut String) -> anyhow::Result<()> {
    if let Some(against) = &explanation.against {
        let run = against
            .run
            .as_ref()
            .map(|(run, started)| format!(", run {run}, {} ago", span(now_ms().saturating_sub(*started) / 1000)));
        let what = if against.same_stage { "its last key" } else { "the likest key that has a result" };
        writeln!(text, "  compared with {what} ({}{})", against.key.short(), run.unwrap_or_default())?;
    }
    let rows: Vec<[String; 3]> = explanation.differences.iter().map(|difference| line(setting, difference)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [what, change, from] in &rows {
        writeln!(text, "{}", format!("    {what:first$}  {change:second$}  {from}").trim_end())?;
    }
    not_causes("not causes (changed, but not in the key)", &explanation.not_causes, text)
}

/// What differs, how, and where it comes from.
fn line(setting: &Setting, difference: &Difference) -> [String; 3] {
    let change = &difference.change;
    let how = match (&change.from, &change.to) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        (None, Some(to)) => format!("{to} added"),
        (Some(from), None) => format!("{from} removed"),
        (None, None) => words(setting, difference).unwrap_or_else(|| "changed".to_owned()),
    };
    let because = difference.because.as_ref().map(|because| format!("because {because}"));
    let from = difference.place.clone().or(because).unwrap_or_default();
    [change.what.clone(), how, from]
}

/// What differs in the inputs behind a difference.
fn words(setting: &Setting, difference: &Difference) -> Option<String> {
    let several = difference.replaced.len() > 1;
    let one = |replaced: &fuseline_engine::explain::Replaced| {
        let words = replaced::words(&setting.store, replaced)?;
        Some(if several { format!("{}: {words}", replaced.stage) } else { words })
    };
    let all: Vec<String> = difference.replaced.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn not_causes(head: &str, changes: &[Change], text: &mut String) -> anyhow::Result<()> {
    if !changes.is_empty() {
        writeln!(text, "  {head}")?;
    }
    let width = changes.iter().map(|change| change.what.chars().count()).max().unwrap_or(0);
    for change in changes {
        let how = change.to_string();
        let how = how.strip_prefix(&change.what).unwrap_or(&how).trim_start();
        writeln!(text, "    {:width$}  {how}", change.what)?;
    }
    Ok(())
}

fn explained(setting: &Setting, explanation: &Explanation) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(explanation)?;
    for (shown, difference) in value["differences"].as_array_mut().into_iter().flatten().zip(&explanation.differences) {
        if let Some(words) = words(setting, difference) {
            shown["words"] = words.into();
        }
    }
    Ok(value)
}

/// A reason with what differs in an input, and the first cause of that.
pub fn full(setting: &Setting, explainer: &Explainer<'_>, index: usize, reason: &Reason) -> anyhow::Result<String> {
    if !reason.code.is_input() {
        return Ok(reason.text.clone());
    }
    let explanation = explainer.explain(index)?;
    let Some(difference) = explanation.differences.iter().find(|d| Some(&d.change) == reason.changes.first()) else {
        return Ok(reason.text.clone());
    };
    let port = difference.change.what.strip_prefix("input ").unwrap_or(&difference.change.what);
    let mut text = match words(setting, difference) {
        Some(words) => format!("{port}: {words}"),
        None => difference.change.to_string(),
    };
    if let Some(because) = &difference.because {
        write!(text, ", because {because}")?;
    }
    if reason.changes.len() > 1 {
        write!(text, " (and {} more)", reason.changes.len() - 1)?;
    }
    Ok(text)
}
