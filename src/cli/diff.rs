//! `fuseline diff`: what differs between two runs: stages and why, metrics; of
//! one stage its rows.

use std::fmt::Write;
use std::path::Path;

use fuseline_contract::{StageError, Table};
use fuseline_engine::ledger::{self, RunEntry, StageEntry};
use fuseline_engine::problem::nearest;
use fuseline_engine::reference::Reference;
use fuseline_engine::rundiff::{self, Difference, StageDiff};
use fuseline_engine::store::{ArtifactKind, OutputRecord, Store};
use fuseline_query::diff::{self as rows, Changed};
use serde_json::{Value, json};

use crate::exit;

/// Texts are cut to about this many characters.
const WIDTH: usize = 60;
/// The columns of a table of metrics.
const METRIC: [&str; 4] = ["model", "task", "metric", "value"];

/// How runs are compared.
pub struct Options<'a> {
    /// The columns that tell rows apart.
    pub keys: &'a [String],
    /// How far floats may be apart.
    pub tolerance: f64,
    /// How many rows of each kind are shown.
    pub limit: usize,
    /// JSON instead of text.
    pub json: bool,
}

/// Compares two runs, or a stage in both.
pub fn diff(store: &Path, before: &str, now: &str, stage: Option<&str>, options: &Options) -> anyhow::Result<u8> {
    let store = Store::open(store)?;
    let (before, now) = (ledger::find_run(&store, before)?, ledger::find_run(&store, now)?);
    let diffs = rundiff::compare(&store, &before.run, &now.run)?;
    match stage {
        None => runs(&store, &before, &now, &diffs, options),
        Some(stage) => one_stage(&store, &diffs, stage, options),
    }
}

fn runs(
    store: &Store,
    before: &RunEntry,
    now: &RunEntry,
    diffs: &[StageDiff],
    options: &Options,
) -> anyhow::Result<u8> {
    let mut text = format!("{} ({}) → {} ({})\n", before.run, before.pipeline, now.run, now.pipeline);
    let mut stages = Vec::new();
    for diff in diffs {
        let Some(difference) = &diff.difference else { continue };
        let words = match difference {
            Difference::Removed => "only in the first run".to_owned(),
            Difference::Added => "only in the second run".to_owned(),
            Difference::Key { changes } if changes.is_empty() => {
                "another key, made of parts no longer known".to_owned()
            }
            Difference::Key { changes } => changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Difference::Result => "another result for the same key".to_owned(),
            Difference::End { before, now } => format!("{before} → {now}"),
        };
        writeln!(text, "  {}: {words}", diff.id)?;
        stages.push(json!({"stage": diff.id.to_string(), "difference": difference}));
    }
    if stages.is_empty() {
        writeln!(text, "  no stage differs")?;
    }
    let metrics = metrics(store, diffs)?;
    if !metrics.is_empty() {
        writeln!(text, "metrics")?;
    }
    for metric in &metrics {
        writeln!(text, "  {}: {} {} → {}", metric.stage, metric.name, shown(metric.before), shown(metric.now))?;
    }
    if options.json {
        let metrics: Vec<Value> = metrics
            .iter()
            .map(|m| json!({"stage": m.stage, "metric": m.name, "before": m.before, "now": m.now}))
            .collect();
        let all = json!({"before": before, "now": now, "stages": stages, "metrics": metrics});
        return exit::print(&serde_json::to_string_pretty(&all)?);
    }
    exit::print(&text)
}

struct MetricDiff {
    stage: String,
    name: String,
    before: Option<f64>,
    now: Option<f64>,
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("{value}"))
}

/// The metrics that differ, of stages that make tables of them.
fn metrics(store: &Store, diffs: &[StageDiff]) -> anyhow::Result<Vec<MetricDiff>> {
    let mut found = Vec::new();
    for diff in diffs {
        let first = |entry: &Option<StageEntry>| entry.as_ref()?.outputs.first().cloned();
        let (before, now) = (first(&diff.before), first(&diff.now));
        if before.as_ref().map(|o| o.content) == now.as_ref().map(|o| o.content) {
            continue;
        }
        let table = |output: Option<OutputRecord>| -> anyhow::Result<Option<Table>> {
            match output.filter(|output| output.kind == ArtifactKind::Table) {
                // What gc took is no reason not to compare the rest.
                Some(output) => Ok(store.table(&output.artifact).ok().filter(is_metrics)),
                None => Ok(None),
            }
        };
        let (before, now) = (table(before)?, table(now)?);
        let (Some(before), Some(now)) = (before, now) else { continue };
        let values = |table: &Table, row: usize| -> anyhow::Result<(String, Option<f64>)> {
            let cell = |column: &str| rows::cell(table, column, row).map_err(StageError::from);
            Ok((format!("{} {} {}", cell("model")?, cell("task")?, cell("metric")?), cell("value")?.parse().ok()))
        };
        let stage = diff.id.to_string();
        let compared = rows::compare(&before, &now, &rows::Options::default()).map_err(StageError::from)?;
        for changed in compared.changed.iter().filter(|changed| changed.columns.iter().any(|name| name == "value")) {
            let ((name, before), (_, now)) = (values(&before, changed.before)?, values(&now, changed.now)?);
            found.push(MetricDiff { stage: stage.clone(), name, before, now });
        }
        for &row in &compared.removed {
            let (name, before) = values(&before, row)?;
            found.push(MetricDiff { stage: stage.clone(), name, before, now: None });
        }
        for &row in &compared.added {
            let (name, now) = values(&now, row)?;
            found.push(MetricDiff { stage: stage.clone(), name, before: None, now });
        }
    }
    Ok(found)
}

fn is_metrics(table: &Table) -> bool {
    METRIC.iter().all(|column| table.has(column))
}

/// Compares the rows of a stage's output in two runs.
fn one_stage(store: &Store, diffs: &[StageDiff], stage: &str, options: &Options) -> anyhow::Result<u8> {
    let reference: Reference = stage.parse().map_err(|error| StageError::input(format!("{error}")))?;
    let named = |diff: &&StageDiff| {
        diff.id.stage == reference.stage
            && reference.point.iter().all(|(axis, value)| diff.id.axes.get(axis) == Some(value))
    };
    let chosen: Vec<&StageDiff> = diffs.iter().filter(named).collect();
    if chosen.is_empty() {
        let error = StageError::input(format!("neither run has a stage {stage:?}"));
        let near = nearest(&reference.stage, diffs.iter().map(|diff| diff.id.stage.as_str()));
        let hint = near
            .map_or_else(|| "`fuseline ls PIPELINE` lists them".to_owned(), |near| format!("did you mean {near:?}?"));
        return Err(error.hint(hint).into());
    }
    let mut text = String::new();
    let mut listed = Vec::new();
    for diff in chosen {
        let output = |entry: &Option<StageEntry>, which: &str| -> anyhow::Result<OutputRecord> {
            let outputs = entry.as_ref().map(|entry| entry.outputs.as_slice()).unwrap_or_default();
            let found = match &reference.output {
                Some(name) => outputs.iter().find(|output| output.name == *name),
                None => outputs.first(),
            };
            let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            found.cloned().ok_or_else(|| {
                let error = StageError::input(format!("{} has no such output in the {which} run", diff.id));
                match names.is_empty() {
                    true => error,
                    false => error.hint(format!("it has {}", names.join(", "))),
                }
                .into()
            })
        };
        let (before, now) = (output(&diff.before, "first")?, output(&diff.now, "second")?);
        if before.kind == ArtifactKind::Model || now.kind == ArtifactKind::Model {
            let error = StageError::input(format!("{}.{} is a model; rows of tables are compared", diff.id, now.name));
            return Err(error.hint("`fuseline diff RUN RUN` says whether models differ").into());
        }
        let (before, now) = (store.table(&before.artifact)?, store.table(&now.artifact)?);
        let how = rows::Options { keys: options.keys.to_vec(), tolerance: options.tolerance };
        let compared = rows::compare(&before, &now, &how).map_err(StageError::from)?;
        if options.json {
            listed.push(as_json(&diff.id.to_string(), &before, &now, &compared, options.limit)?);
        } else {
            describe(&mut text, &diff.id.to_string(), &before, &now, &compared, options.limit)?;
        }
    }
    match options.json {
        true => exit::print(&serde_json::to_string_pretty(&listed)?),
        false => exit::print(&text),
    }
}

/// The name of a row: the values of its keys, or its number.
fn name(table: &Table, keys: &[String], row: usize) -> Result<String, StageError> {
    if keys.is_empty() {
        return Ok(format!("row {row}"));
    }
    let value = |key: &String| -> Result<String, StageError> {
        let (value, _) = rows::shorten(&rows::cell(table, key, row)?, "", WIDTH);
        Ok(format!("{key}={value}"))
    };
    Ok(keys.iter().map(value).collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// The columns of a changed row, before and now, cut to where they differ.
fn cells(before: &Table, now: &Table, changed: &Changed) -> Result<Vec<(String, String, String)>, StageError> {
    let cell = |column: &String| -> Result<_, StageError> {
        let (a, b) = (rows::cell(before, column, changed.before)?, rows::cell(now, column, changed.now)?);
        let (a, b) = rows::shorten(&a, &b, WIDTH);
        Ok((column.clone(), a, b))
    };
    changed.columns.iter().map(cell).collect()
}

fn describe(
    text: &mut String,
    stage: &str,
    before: &Table,
    now: &Table,
    compared: &rows::Diff,
    limit: usize,
) -> anyhow::Result<()> {
    let (was, is) = compared.rows;
    writeln!(text, "{stage}: {was} rows → {is}: {}", compared.words())?;
    let by = if compared.keys.is_empty() { "whole rows".to_owned() } else { compared.keys.join(", ") };
    writeln!(text, "  compared by {by}")?;
    for drift in &compared.drift {
        writeln!(text, "  schema: {drift}")?;
    }
    for (sign, table, found) in [("+", now, &compared.added), ("-", before, &compared.removed)] {
        for &row in found.iter().take(limit) {
            writeln!(text, "  {sign} {}", name(table, &compared.keys, row)?)?;
        }
        rest(text, found.len(), limit)?;
    }
    for changed in compared.changed.iter().take(limit) {
        writeln!(text, "  ~ {}", name(now, &compared.keys, changed.now)?)?;
        for (column, before, now) in cells(before, now, changed)? {
            writeln!(text, "      {column}: {before} → {now}")?;
        }
    }
    rest(text, compared.changed.len(), limit)
}

fn rest(text: &mut String, count: usize, limit: usize) -> anyhow::Result<()> {
    if count > limit {
        writeln!(text, "    … {} more; --limit N shows more", count - limit)?;
    }
    Ok(())
}

fn as_json(stage: &str, before: &Table, now: &Table, compared: &rows::Diff, limit: usize) -> anyhow::Result<Value> {
    let names = |table: &Table, found: &[usize]| -> Result<Vec<String>, StageError> {
        found.iter().take(limit).map(|row| name(table, &compared.keys, *row)).collect()
    };
    let mut changed = Vec::new();
    for row in compared.changed.iter().take(limit) {
        let cells = cells(before, now, row)?;
        let cells: Vec<Value> = cells
            .into_iter()
            .map(|(column, before, now)| json!({"column": column, "before": before, "now": now}))
            .collect();
        changed.push(json!({"row": name(now, &compared.keys, row.now)?, "cells": cells}));
    }
    Ok(json!({
        "stage": stage, "keys": compared.keys, "schema": compared.drift,
        "rows": {"before": compared.rows.0, "now": compared.rows.1},
        "added": compared.added.len(), "removed": compared.removed.len(), "changed": compared.changed.len(),
        "shown": {"added": names(now, &compared.added)?, "removed": names(before, &compared.removed)?, "changed": changed},
    }))
}
