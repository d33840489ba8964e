//! `fuseline ls`, `path` and `runs`: what is there.

use std::fmt::Write;
use std::path::Path;

use fuseline_contract::StageError;
use fuseline_engine::decide::Decision;
use fuseline_engine::store::Store;
use fuseline_engine::{graph, ledger};
use serde_json::json;

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::setting::{Setting, now_ms};

/// Lists the instances of a pipeline.
pub fn ls(location: &Location, pipeline: &Pipeline, as_json: bool) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let now = now_ms();
    let mut rows = vec![["stage", "operator", "state", "rows", "size", "age", "took"].map(str::to_owned)];
    let mut listed = Vec::new();
    for (node, decision) in setting.plan.nodes.iter().zip(setting.decide()) {
        let stage = node.id.to_string();
        let operator = node.entry.name.to_owned();
        match decision {
            Decision::Hit { key, record, here } => {
                let state = if here { "cached" } else { "remote" };
                let bytes: u64 = record.outputs.iter().map(|output| output.size_bytes()).sum();
                let age = now.saturating_sub(record.made.started_ms) / 1000;
                listed.push(json!({
                    "stage": stage, "operator": operator, "state": state, "key": key.to_string(),
                    "rows": record.rows(), "bytes": bytes, "age_seconds": age, "seconds": record.made.seconds,
                }));
                let n_rows = record.rows().map(|rows| rows.to_string()).unwrap_or_default();
                let took = format!("{:.1} s", record.made.seconds);
                rows.push([stage, operator, state.into(), n_rows, size(bytes), span(age), took]);
            }
            other => {
                let state = match other {
                    Decision::Maybe { .. } => "maybe",
                    Decision::Blocked { .. } => "blocked",
                    _ => "to run",
                };
                listed.push(json!({"stage": stage, "operator": operator, "state": state}));
                let nothing = String::new;
                rows.push([stage, operator, state.into(), nothing(), nothing(), nothing(), nothing()]);
            }
        }
    }
    if as_json {
        return exit::print(&serde_json::to_string_pretty(&listed)?);
    }
    exit::print(&columns(&rows)?)
}

/// Prints the folder of a stage's output.
pub fn path(location: &Location, pipeline: &Pipeline, stage: &str) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let decisions = setting.decide();
    let mut text = String::new();
    for (node, output) in graph::outputs(&setting.plan, stage)? {
        let Decision::Hit { record, .. } = &decisions[node] else {
            let id = &setting.plan.nodes[node].id;
            let run = format!("fuseline run {} --target '{id}'", pipeline.path.display());
            return Err(StageError::input(format!("stage {id} has no result yet")).hint(run).into());
        };
        writeln!(text, "{}", setting.store.view(&record.outputs[output].artifact)?.display())?;
    }
    exit::print(&text)
}

/// Lists the runs of the store.
pub fn runs(store: &Path, as_json: bool) -> anyhow::Result<u8> {
    let entries = ledger::run_entries(&Store::open(store)?)?;
    if as_json {
        return exit::print(&serde_json::to_string_pretty(&entries)?);
    }
    let mut rows = vec![["run", "pipeline", "ran", "cached", "failed", "took", "exit"].map(str::to_owned)];
    for entry in entries {
        rows.push([
            entry.run,
            entry.pipeline,
            entry.ran.to_string(),
            entry.hits.to_string(),
            entry.failed.to_string(),
            entry.seconds.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default(),
            entry.exit.map_or_else(|| "unfinished".to_owned(), |code| code.to_string()),
        ]);
    }
    exit::print(&columns(&rows)?)
}

/// Columns as wide as their widest cell, two spaces apart.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> anyhow::Result<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ")?;
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}

/// Bytes for people, in powers of 1000.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Seconds for people.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_for_people() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500_000), "1.5 MB");
        assert_eq!(span(119), "119 s");
        assert_eq!(span(7_300), "2 h");
    }
}
