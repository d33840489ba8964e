//! `fuseline fsck`, `gc`, `du`, `pin`, `pins` and `unpin`: care of a store.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use fuseline_contract::{Cause, StageError};
use fuseline_engine::care::fsck::Damage;
use fuseline_engine::care::gc::{self, Amount};
use fuseline_engine::care::usage::{self, Counter};
use fuseline_engine::care::{fsck, pins};
use fuseline_engine::decide::Decision;
use fuseline_engine::graph;
use fuseline_engine::store::memo::care as rows;
use fuseline_engine::store::{Record, Store};
use serde_json::json;

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::listing::{columns, size, span};
use crate::setting::Setting;

/// Results of a collection that are named one by one.
const NAMED: usize = 20;

/// Checks a store; exit code 3 if something is wrong and stays so.
pub fn fsck(store: &Path, options: fsck::Options, as_json: bool) -> anyhow::Result<u8> {
    let report = fsck::fsck(&there(store)?, options)?;
    let code = if report.is_whole() { exit::DONE } else { Cause::Environment.exit_code() };
    if as_json {
        exit::print(&serde_json::to_string_pretty(&report)?)?;
        return Ok(code);
    }
    let mut text = String::new();
    for finding in &report.findings {
        let done = match (finding.repaired, finding.damage) {
            (false, _) => "damaged",
            (true, Damage::IndexWrong | Damage::RowsDamaged) => "mended",
            (true, _) => "moved to quarantine/",
        };
        writeln!(text, "{done}: {}: {}", finding.path.display(), finding.detail)?;
    }
    let bytes = if options.fast { "only their sizes" } else { "every byte" };
    writeln!(
        text,
        "checked {} blobs ({}, {bytes}), {} records, {} views, {} remembered rows, {} runs",
        report.blobs,
        size(report.blob_bytes),
        report.records,
        report.views,
        report.rows,
        report.runs
    )?;
    if report.quarantined_files > 0 {
        writeln!(
            text,
            "quarantine/ holds {} files for study; fuseline gc removes them in time",
            report.quarantined_files
        )?;
    }
    match (report.findings.len(), report.is_whole()) {
        (0, _) => writeln!(text, "the store is whole")?,
        (_, true) => writeln!(text, "the store is whole again: run the pipelines to make what is missing")?,
        (n, false) => {
            writeln!(text, "{n} damaged; to move them aside, so that their stages run again: fuseline fsck --repair")?
        }
    }
    exit::print(&text)?;
    Ok(code)
}

/// Collects garbage, or says what would go.
pub fn gc(store: &Path, options: &gc::Options, really: bool, as_json: bool) -> anyhow::Result<u8> {
    let report = gc::gc(&there(store)?, options, really)?;
    if as_json {
        return exit::print(&serde_json::to_string_pretty(&report)?);
    }
    let mut text = String::new();
    if !report.records.is_empty() {
        let mut rows = vec![["pipeline", "stage", "operator", "size", "unused for"].map(str::to_owned)];
        for dropped in report.records.iter().take(NAMED) {
            rows.push([
                dropped.pipeline.clone().unwrap_or_default(),
                dropped.stage.clone().unwrap_or_else(|| dropped.key.short()),
                dropped.operator.clone(),
                size(dropped.bytes),
                span(dropped.idle_seconds),
            ]);
        }
        text = columns(&rows)?;
        if report.records.len() > NAMED {
            writeln!(text, "and {} more", report.records.len() - NAMED)?;
        }
    }
    let amount = |amount: Amount| format!("{} files, {}", amount.files, size(amount.bytes));
    let verb = if report.done { "moved to trash/" } else { "would go" };
    writeln!(
        text,
        "{verb}: {} results, {} of blobs ({} files), {} of leftovers ({} files); {} of blobs stay",
        report.records.len(),
        size(report.blobs.bytes),
        report.blobs.files,
        size(report.scratch.bytes),
        report.scratch.files,
        size(report.kept.bytes)
    )?;
    for gone in &report.rows {
        writeln!(text, "{verb}: {} remembered rows of {}, {}", gone.rows, gone.function, size(gone.bytes))?;
    }
    if report.done {
        writeln!(
            text,
            "deleted from earlier collections: {}; the next one deletes this one's",
            amount(report.emptied)
        )?;
    } else {
        writeln!(text, "nothing was changed; to do it: the same with --yes")?;
    }
    exit::print(&text)
}

/// The room that a pipeline's results take, stage by stage.
pub fn du(location: &Location, pipeline: &Pipeline, as_json: bool) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let mut counter = Counter::default();
    let mut lines = vec![["stage", "size", "not shared"].map(str::to_owned)];
    let mut listed = Vec::new();
    for (node, decision) in setting.plan.nodes.iter().zip(setting.decide()) {
        let Decision::Hit { record, .. } = decision else { continue };
        let (stage, room) = (node.id.to_string(), counter.count(&record));
        listed.push(json!({"stage": stage, "bytes": room.bytes, "own_bytes": room.own_bytes}));
        lines.push([stage, size(room.bytes), size(room.own_bytes)]);
    }
    let folders = usage::of_store(&setting.store)?;
    let total: u64 = folders.iter().map(|(_, bytes)| bytes).sum();
    let rows = rows::remembered(&setting.store)?;
    if as_json {
        let folders: serde_json::Map<_, _> = folders.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
        let report =
            json!({"stages": listed, "bytes": counter.total, "store_bytes": total, "folders": folders, "memo": rows});
        return exit::print(&serde_json::to_string_pretty(&report)?);
    }
    lines.push(["all of the pipeline".into(), size(counter.total), String::new()]);
    lines.push(["all of the store".into(), size(total), String::new()]);
    for (name, bytes) in folders.into_iter().filter(|(_, bytes)| *bytes > 0) {
        lines.push([format!("  {name}"), size(bytes), String::new()]);
        for of in rows.iter().filter(|of| name == "memo" && of.rows > 0) {
            lines.push([format!("    {}, {} rows", of.function, of.rows), size(of.bytes), String::new()]);
        }
    }
    exit::print(&columns(&lines)?)
}

/// Keeps the results of a stage under a name.
pub fn pin(location: &Location, name: &str, pipeline: &Pipeline, stage: &str) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let decisions = setting.decide();
    let mut nodes: Vec<usize> = graph::outputs(&setting.plan, stage)?.into_iter().map(|(node, _)| node).collect();
    nodes.dedup();
    let mut records: Vec<Record> = Vec::new();
    for node in nodes {
        let Decision::Hit { record, .. } = &decisions[node] else {
            let id = &setting.plan.nodes[node].id;
            let run = format!("fuseline run {} --target '{id}'", pipeline.path.display());
            return Err(StageError::input(format!("stage {id} has no result yet")).hint(run).into());
        };
        records.push((**record).clone());
    }
    pins::pin(&setting.store, name, &setting.plan.name, stage, &records)?;
    let results = if records.len() == 1 { "its result".to_owned() } else { format!("its {} results", records.len()) };
    exit::print(&format!("{name} keeps {stage} of {}: {results} and what was needed to make it", setting.plan.name))
}

/// Frees a name.
pub fn unpin(store: &Path, name: &str) -> anyhow::Result<u8> {
    pins::unpin(&there(store)?, name)?;
    exit::print(&format!("{name} is free; fuseline gc may take what it kept once it is unused for long"))
}

/// Lists the pins.
pub fn pins(store: &Path, as_json: bool) -> anyhow::Result<u8> {
    let pins = pins::pins(&there(store)?)?;
    if as_json {
        return exit::print(&serde_json::to_string_pretty(&pins)?);
    }
    let mut rows = vec![["pin", "pipeline", "stage", "results"].map(str::to_owned)];
    rows.extend(pins.into_iter().map(|pin| [pin.name, pin.pipeline, pin.stage, pin.keys.len().to_string()]));
    exit::print(&columns(&rows)?)
}

/// A store that must be there: a mistyped folder is not an empty store.
fn there(store: &Path) -> anyhow::Result<Store> {
    if !store.join("format").exists() {
        let error = StageError::input(format!("there is no store at {}", store.display()));
        return Err(error.hint("name it with --store DIR or FUSELINE_STORE").into());
    }
    Ok(Store::open(store)?)
}

/// Reads a time as `14d`, `36h`, `90m`, `30s` or `0`.
pub fn age(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("d", 24 * 3600), ("h", 3600), ("m", 60), ("s", 1)];
    let found = UNITS.iter().find_map(|(unit, seconds)| {
        text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*seconds).map(Duration::from_secs)
    });
    found.or((text == "0").then_some(Duration::ZERO)).ok_or_else(|| "write a time as in 14d, 36h, 90m or 0".to_owned())
}

/// Reads bytes as `500MB`, `20 GB`, `1TB`, `2GiB` or a plain number.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let found = UNITS.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some((number * *factor as f64) as u64)
    });
    found.or_else(|| text.parse().ok()).ok_or_else(|| "write a size as in 500MB, 20GB, 2GiB or 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_read_with_their_units() {
        assert_eq!(age("14d"), Ok(Duration::from_secs(14 * 24 * 3600)));
        assert_eq!(age("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(age("0"), Ok(Duration::ZERO));
        assert!(["", "d", "14", "-1d", "1y", "99999999999999999999d"].iter().all(|text| age(text).is_err()));
        assert_eq!(bytes("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(bytes("2KiB"), Ok(2048));
        assert_eq!(bytes("12"), Ok(12));
        assert!(["", "GB", "-1GB", "nanGB", "1XB", "infGB"].iter().all(|text| bytes(text).is_err()));
    }
}
