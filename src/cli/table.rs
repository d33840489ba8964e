//! `fuseline table`: renders a pipeline's tables from their cached cells.

use std::io::IsTerminal;
use std::path::Path;

use fuseline_contract::StageError;
use fuseline_engine::decide::Decision;
use fuseline_engine::footnotes::footnotes;
use fuseline_engine::graph::Graph;
use fuseline_engine::problem::nearest;
use fuseline_engine::store::Record;
use fuseline_query::Cells;
use fuseline_query::render::{self, Format, Style};

use crate::args::{Location, Pipeline, TableFormat};
use crate::exit;
use crate::setting::Setting;

/// Prints one table of a pipeline, or all.
pub fn table(
    location: &Location,
    pipeline: &Pipeline,
    name: Option<&str>,
    format: TableFormat,
    output: Option<&Path>,
) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let stages: Vec<&str> =
        setting.plan.nodes.iter().filter_map(|node| node.id.stage.strip_prefix("tables.")).collect();
    if let Some(name) = name.filter(|name| !stages.contains(name)) {
        let hint = match nearest(name, stages.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the pipeline has {}", stages.join(", ")),
        };
        return Err(StageError::input(format!("the pipeline has no table {name:?}")).hint(hint).into());
    }
    let records: Vec<Option<Record>> = setting
        .decide()
        .into_iter()
        .map(|decision| match decision {
            Decision::Hit { record, .. } => Some(*record),
            _ => None,
        })
        .collect();
    for (node, record) in setting.plan.nodes.iter().zip(&records) {
        let asked = node.id.stage.strip_prefix("tables.").filter(|table| name.is_none_or(|name| name == *table));
        if let (Some(table), None) = (asked, record) {
            return Err(StageError::input(format!("table {table:?} is not up to date"))
                .hint(format!("fuseline run {}", pipeline.path.display()))
                .into());
        }
    }
    note_accepted(&setting, &records, name);
    exit::write(render(&setting, &records, format, name)?.as_bytes(), output)
}

/// Says on which accepted results the tables rest; only those of one table if
/// it is named.
pub fn note_accepted(setting: &Setting, records: &[Option<Record>], name: Option<&str>) {
    let word = |record: &Option<Record>| record.as_ref()?.accepted.clone();
    if !records.iter().any(|record| word(record).is_some()) {
        return;
    }
    let shown = |table: &str| name.is_none_or(|name| name == table);
    let nodes = setting.plan.nodes.iter().enumerate();
    let tables = nodes.filter(|(_, node)| node.id.stage.strip_prefix("tables.").is_some_and(shown));
    let behind = Graph::of(&setting.plan).upstream(&tables.map(|(index, _)| index).collect());
    for index in behind {
        if let Some(word) = word(&records[index]) {
            let id = &setting.plan.nodes[index].id;
            eprintln!("note: the tables rest on the result of {id} that {} accepted: {}", word.who, word.why);
        }
    }
}

/// Renders the tables whose records are known; only one if it is named.
pub fn render(
    setting: &Setting,
    records: &[Option<Record>],
    format: TableFormat,
    name: Option<&str>,
) -> anyhow::Result<String> {
    let format = match format {
        TableFormat::Text => Format::Text,
        TableFormat::Md => Format::Markdown,
        TableFormat::Latex => Format::Latex,
        TableFormat::Html => Format::Html,
        TableFormat::Csv => Format::Csv,
        TableFormat::Json => Format::Json,
    };
    let style = Style { ansi: std::io::stdout().is_terminal(), ..Style::default() };
    let mut parts = Vec::new();
    for (index, (node, record)) in setting.plan.nodes.iter().zip(records).enumerate() {
        let Some(table) = node.id.stage.strip_prefix("tables.") else { continue };
        if let (Some(record), true) = (record, name.is_none_or(|name| name == table)) {
            let mut cells = Cells::from_table(&setting.store.table(&record.outputs[0].artifact)?)?;
            setting.store.take_over(record)?;
            cells.notes.extend(footnotes(&setting.plan, &setting.store, records, index));
            if format == Format::Csv {
                // It has no place for them.
                cells.notes.iter().for_each(|note| eprintln!("note: {table}: {note}"));
            }
            parts.push(render::cells(&cells, format, &style));
        }
    }
    Ok(parts.join("\n"))
}
