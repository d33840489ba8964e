//! The ledger as SQL's tables: `system.runs`, `system.stages` and
//! `system.artifacts`; `system.attempts` is made beside its entries. Every
//! column says what it holds and when it is null.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::Field;
use fuseline_contract::Table;

use super::{RunEntry, StageEntry, run_entries, stage_entries};
use crate::error::Result;
use crate::store::Store;

/// Under which name a column's field says what the column holds.
pub const DOC: &str = "doc";

/// `system.runs`: a row a run, the latest first.
pub fn runs(store: &Store) -> Result<Table> {
    let runs = run_entries(store)?;
    let count = |of: fn(&RunEntry) -> usize| numbers(runs.iter().map(|run| Some(of(run) as u64)));
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    table(vec![
        ("run", "the run's id", texts(runs.iter().map(|run| Some(&run.run)))),
        ("pipeline", "the pipeline's name", texts(runs.iter().map(|run| Some(&run.pipeline)))),
        ("started", "when it began", times(runs.iter().map(|run| run.started_ms))),
        (
            "seconds",
            "wall time; null while it goes on and if it was killed",
            floats(runs.iter().map(|run| run.seconds)),
        ),
        ("exit", "the exit code; null as `seconds`", numbers(runs.iter().map(|run| run.exit.map(u64::from)))),
        ("instances", "stage instances that were asked for, with those they need", count(|run| run.instances)),
        ("ran", "instances that ran", count(|run| run.ran)),
        ("hits", "instances whose result was there", count(|run| run.hits)),
        ("failed", "instances that failed", count(|run| run.failed)),
        ("skipped", "instances left out because of a failure", count(|run| run.skipped)),
        ("user", "who asked for it: the login's name", texts(runs.iter().map(|run| run.caller.user.as_ref()))),
        ("host", "the machine that drove it", texts(runs.iter().map(|run| Some(&run.host)))),
        (
            "command",
            "what was typed; values of secrets are left out",
            texts(runs.iter().map(|run| said(&run.caller.command))),
        ),
        ("version", "fuseline's version", texts(runs.iter().map(|run| Some(&run.version)))),
        (
            "git_commit",
            "the commit that the working directory had checked out; null outside of a git repository",
            texts(runs.iter().map(|run| run.caller.commit.as_ref())),
        ),
    ])
}

/// Every run's stages, the latest run first; or those of one run.
fn all_stages(store: &Store, run: Option<&str>) -> Result<Vec<(RunEntry, StageEntry)>> {
    let mut rows = Vec::new();
    for entry in run_entries(store)?.into_iter().filter(|entry| run.is_none_or(|run| entry.run == run)) {
        rows.extend(stage_entries(store, &entry.run)?.into_iter().map(|stage| (entry.clone(), stage)));
    }
    Ok(rows)
}

/// `system.stages`: a row an instance and run; of one run if it is given.
pub fn stages(store: &Store, run: Option<&str>) -> Result<Table> {
    let rows = all_stages(store, run)?;
    let stages = || rows.iter().map(|(_, stage)| stage);
    table(vec![
        ("run", "the run's id", texts(rows.iter().map(|(run, _)| Some(&run.run)))),
        ("pipeline", "the pipeline's name", texts(rows.iter().map(|(run, _)| Some(&run.pipeline)))),
        ("stage", "the stage", texts(stages().map(|stage| Some(&stage.id.stage)))),
        ("instance", "the stage with its axes", texts(stages().map(|stage| Some(stage.id.to_string())))),
        (
            "axes",
            "the axes and their values, as JSON",
            texts(stages().map(|stage| Some(serde_json::json!(stage.id.axes).to_string()))),
        ),
        ("operator", "the operator", texts(stages().map(|stage| Some(&stage.operator)))),
        (
            "operator_version",
            "the operator's version",
            numbers(stages().map(|stage| Some(stage.operator_version.into()))),
        ),
        (
            "key",
            "the key; null for a stage that was skipped before its inputs were known",
            texts(stages().map(|stage| stage.key.map(|key| key.to_string()))),
        ),
        ("outcome", "hit, ran, failed or skipped", texts(stages().map(|stage| Some(&stage.outcome)))),
        (
            "reason",
            "why it ran, or who accepted its result; null for other hits and what was skipped",
            texts(stages().map(|stage| stage.reason.as_ref())),
        ),
        (
            "started",
            "when it began; when it was decided, if it did not run",
            times(stages().map(|stage| stage.started_ms)),
        ),
        (
            "seconds",
            "wall time of all attempts with the pauses between them",
            floats(stages().map(|stage| Some(stage.seconds))),
        ),
        (
            "rows",
            "rows of its first table; null without a table",
            numbers(stages().map(|stage| stage.outputs.iter().find_map(|output| output.rows))),
        ),
        (
            "rows_reused",
            "rows that were remembered; null unless it ran and its operator remembers rows",
            numbers(stages().map(|stage| stage.memo.map(|rows| rows.reused))),
        ),
        (
            "rows_fresh",
            "rows that were computed; null as `rows_reused`",
            numbers(stages().map(|stage| stage.memo.map(|rows| rows.fresh))),
        ),
        (
            "tokens_in",
            "tokens that models read, in all attempts; null unless its operator tells and there were any",
            numbers(stages().map(|stage| stage.usage.map(|usage| usage.tokens_in))),
        ),
        (
            "tokens_out",
            "tokens that models generated; null as `tokens_in`",
            numbers(stages().map(|stage| stage.usage.map(|usage| usage.tokens_out))),
        ),
        (
            "price_usd",
            "US dollars, in all attempts; null unless its operator knows, as a program of `command` may",
            floats(stages().map(|stage| stage.usage?.price_usd)),
        ),
        (
            "device",
            "cpu, or what the GPUs that it held are called; null unless it ran",
            texts(stages().map(|stage| stage.device.as_ref())),
        ),
        (
            "energy_joules",
            "what those GPUs drew in all attempts; null without GPUs whose driver counts it (NVIDIA's, from Volta on)",
            floats(stages().map(|stage| stage.energy_joules)),
        ),
        (
            "peak_bytes",
            "peak memory of its last process, or of the largest that it started; null for work on a thread of the run, and after a kill",
            numbers(stages().map(|stage| stage.peak_bytes)),
        ),
        ("host", "the machine that it ran on; null unless it ran", texts(stages().map(|stage| stage.host.as_ref()))),
        (
            "params",
            "its parameters with defaults, as JSON",
            texts(stages().map(|stage| Some(stage.params.to_string()))),
        ),
        ("seed", "its seed", numbers(stages().map(|stage| Some(stage.seed)))),
        (
            "error",
            "why it failed; null if it did not",
            texts(stages().map(|stage| stage.error.as_ref().map(|error| &error.message))),
        ),
    ])
}

/// `system.artifacts`: a row an output, instance and content, from the latest
/// run that used it.
pub fn artifacts(store: &Store) -> Result<Table> {
    let mut seen = std::collections::BTreeSet::new();
    let mut rows = Vec::new();
    for (run, stage) in all_stages(store, None)? {
        for output in &stage.outputs {
            if seen.insert((run.pipeline.clone(), stage.id.clone(), output.name.clone(), output.artifact)) {
                rows.push((run.clone(), stage.clone(), output.clone()));
            }
        }
    }
    let outputs = || rows.iter().map(|(_, _, output)| output);
    let present = outputs().map(|output| Some(output.blobs().all(|blob| store.has(&blob)))).collect::<BooleanArray>();
    table(vec![
        ("run", "the latest run that used it", texts(rows.iter().map(|(run, ..)| Some(&run.run)))),
        ("pipeline", "the pipeline's name", texts(rows.iter().map(|(run, ..)| Some(&run.pipeline)))),
        ("stage", "the stage", texts(rows.iter().map(|(_, stage, _)| Some(&stage.id.stage)))),
        ("instance", "the stage with its axes", texts(rows.iter().map(|(_, stage, _)| Some(stage.id.to_string())))),
        ("output", "the output", texts(outputs().map(|output| Some(&output.name)))),
        ("kind", "table or model", texts(outputs().map(|output| Some(format!("{:?}", output.kind).to_lowercase())))),
        ("key", "the key that gave it", texts(rows.iter().map(|(_, stage, _)| stage.key.map(|key| key.to_string())))),
        ("artifact", "the digest of its files", texts(outputs().map(|output| Some(output.artifact.to_string())))),
        ("content", "the digest of what they hold", texts(outputs().map(|output| Some(output.content.to_string())))),
        ("rows", "rows of a table; null for a model", numbers(outputs().map(|output| output.rows))),
        ("bytes", "the size of its files", numbers(outputs().map(|output| Some(output.size_bytes())))),
        ("present", "whether its files are in this store", Arc::new(present)),
    ])
}

/// A table of columns: name, what it holds, values.
pub(super) fn table(columns: Vec<(&str, &str, ArrayRef)>) -> Result<Table> {
    let column = |(name, doc, array): (&str, &str, ArrayRef)| {
        let field = Field::new(name, array.data_type().clone(), true);
        (field.with_metadata(HashMap::from([(DOC.to_owned(), doc.to_owned())])), array)
    };
    Ok(Table::of_columns(columns.into_iter().map(column).collect())?)
}

pub(super) fn texts<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(super) fn numbers(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.collect::<UInt64Array>())
}

pub(super) fn floats(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

pub(super) fn times(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values.map(|ms| ms as i64)).with_timezone("+00:00"))
}
