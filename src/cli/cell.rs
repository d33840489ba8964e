//! `fuseline why PIPELINE --cell TABLE ROW COLUMN`: the rows, stages, parameters and files behind one number.

use std::collections::BTreeSet;
use std::fmt::Write;

use fuseline_contract::{Kind, StageError};
use fuseline_engine::decide::{Decision, key_of};
use fuseline_engine::graph::Graph;
use fuseline_engine::problem::nearest;
use fuseline_engine::store::Record;
use fuseline_query::render::{self, Format, Style};
use fuseline_query::table::{Behind, behind};
use fuseline_query::{Cells, Limits, Session, TableSpec};
use serde_json::{Value, json};

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::session::{self, part};
use crate::setting::Setting;

/// Rows of the table's query that are printed.
const MOST_ROWS: usize = 20;
/// Columns of one meaning: the label of a model, and what it was asked.
const SYNONYMS: [[&str; 2]; 2] = [["model", "source"], ["task", "domain"]];

/// Prints what is behind a cell, which is named by its table, its row's label and its column's heading.
pub fn why(location: &Location, pipeline: &Pipeline, cell: &[String], as_json: bool) -> anyhow::Result<u8> {
    let [table, row, column] = cell else {
        return Err(StageError::bug(format!("a cell has three names, not {}", cell.len())).into());
    };
    let setting = Setting::open(location, pipeline)?;
    let decisions = setting.decide();
    let place = table_named(&setting, table)?;
    let Some(record) = decisions[place].record() else {
        let error = StageError::input(format!("table {table:?} is not up to date"));
        return Err(error.hint(format!("fuseline run {}", pipeline.path.display())).into());
    };
    let node = &setting.plan.nodes[place];
    let spec: TableSpec = serde_json::from_value(node.resolved.params.clone())
        .map_err(|error| StageError::bug(format!("the parameters of {} are no table: {error}", node.id)))?;
    let cells = Cells::from_table(&setting.store.table(&record.outputs[0].artifact)?)?;
    let result = query(&setting, &decisions, place, &spec)?;
    let found = behind(&spec, &cells, &result, row, column)?;

    let upstream = stages(&setting, &decisions, place);
    let sources = sources(&setting, &decisions, place, &found)?;
    if as_json {
        let rows: Value = serde_json::from_str(&render::table(&found.rows, Format::Json, &Style::default())?)?;
        let sources: Vec<Value> = sources
            .iter()
            .map(|source| json!({"table": source.table, "rows": source.n_rows, "where": source.condition}))
            .collect();
        let all = json!({"table": table, "row": row, "column": column, "text": found.text, "rows": rows,
            "sources": sources, "stages": upstream});
        return exit::print(&format!("{all:#}\n"));
    }
    let mut text = format!("tables.{table}, row {row:?}, column {column:?}: {}\n\n", found.text);
    let n = found.rows.n_rows();
    let shown = found.rows.take(&(0..n.min(MOST_ROWS)).collect::<Vec<_>>())?;
    writeln!(text, "{n} {} of its query:\n", if n == 1 { "row" } else { "rows" })?;
    text.push_str(&render::table(&shown, Format::Text, &Style::default())?);
    if n > MOST_ROWS {
        writeln!(text, "… and {} more", n - MOST_ROWS)?;
    }
    if !sources.is_empty() {
        text.push_str("\nrows of the same labels in the tables behind it:\n");
    }
    for source in &sources {
        writeln!(text, "  {:>8}  SELECT * FROM {} WHERE {}", source.n_rows, source.table, source.condition)?;
    }
    text.push_str("\nmade by, from the last stage to the first:\n");
    for stage in &upstream {
        writeln!(
            text,
            "  {} ({}), key {}",
            shown_text(&stage["stage"]),
            shown_text(&stage["op"]),
            shown_text(&stage["key"])
        )?;
        if stage["with"] != json!({}) {
            writeln!(text, "    with {}", stage["with"])?;
        }
        for (parameter, file) in stage["files"].as_object().into_iter().flatten() {
            writeln!(text, "    file {parameter}: {} {}", shown_text(&file["path"]), file["digests"])?;
        }
    }
    exit::print(&text)
}

fn shown_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The place of a table in the plan.
fn table_named(setting: &Setting, table: &str) -> Result<usize, StageError> {
    let names = setting.plan.nodes.iter().map(|node| node.id.stage.strip_prefix("tables."));
    let names: Vec<Option<&str>> = names.collect();
    names.iter().position(|name| *name == Some(table)).ok_or_else(|| {
        let known: Vec<&str> = names.into_iter().flatten().collect();
        let hint = match nearest(table, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the pipeline has {}", known.join(", ")),
        };
        StageError::input(format!("the pipeline has no table {table:?}")).hint(hint)
    })
}

/// The result of a table's query, over what is bound to it.
fn query(
    setting: &Setting,
    decisions: &[Decision],
    place: usize,
    spec: &TableSpec,
) -> anyhow::Result<fuseline_contract::Table> {
    let mut session = Session::with(Limits { threads: 1, ..Limits::default() })?;
    for bound in &setting.plan.nodes[place].inputs {
        let mut parts = Vec::new();
        for source in &bound.from {
            let id = &setting.plan.nodes[source.node].id;
            let record = decisions[source.node]
                .record()
                .ok_or_else(|| StageError::input(format!("{id} has no result any more")))?;
            parts.push(part(&setting.store, &record.outputs[source.output].artifact, &id.axes)?);
        }
        session.register_files(&bound.port, parts);
    }
    Ok(fuseline_query::order::sql_stable(&session, &spec.sql)?)
}

/// A table behind the cell that has columns of its labels.
struct SourceRows {
    table: String,
    condition: String,
    n_rows: i64,
}

/// The tables behind a cell in which some of its labels are columns, with the rows that have all those labels.
fn sources(setting: &Setting, decisions: &[Decision], place: usize, found: &Behind) -> anyhow::Result<Vec<SourceRows>> {
    let session = session::open(setting, Limits::default(), String::new())?;
    let upstream = Graph::of(&setting.plan).upstream(&BTreeSet::from([place]));
    let mut seen = BTreeSet::new();
    let mut sources = Vec::new();
    for index in upstream.into_iter().rev().filter(|index| *index != place) {
        let node = &setting.plan.nodes[index];
        for (i, output) in node.resolved.ports.outputs.iter().enumerate() {
            let table = if i == 0 { node.id.stage.clone() } else { format!("{}.{}", node.id.stage, output.name) };
            if output.kind == Kind::Model || decisions[index].record().is_none() || !seen.insert(table.clone()) {
                continue;
            }
            // Instances may have made tables that cannot be read as one; those that the cell rests on directly were.
            let Ok(columns) = session.columns(&table) else { continue };
            let condition: Vec<String> = found
                .labels
                .iter()
                .filter_map(|(name, value)| {
                    let has = |name: &str| columns.field_with_name(name).is_ok().then(|| name.to_owned());
                    let other = SYNONYMS.iter().flat_map(|pair| [(pair[0], pair[1]), (pair[1], pair[0])]);
                    let column = has(name).or_else(|| other.filter(|(a, _)| a == name).find_map(|(_, b)| has(b)))?;
                    Some(format!("CAST(\"{column}\" AS VARCHAR) = '{}'", value.replace('\'', "''")))
                })
                .collect();
            if condition.is_empty() {
                continue;
            }
            let condition = condition.join(" AND ");
            let counted = session.sql(&format!("SELECT count(*) AS n FROM {table} WHERE {condition}"))?.one_batch()?;
            let n_rows = <i64 as fuseline_contract::rows::Cell>::read(counted.column(0), 0).unwrap_or_default();
            if n_rows > 0 {
                sources.push(SourceRows { table, condition, n_rows });
            }
        }
    }
    Ok(sources)
}

/// All that a table rests on, from the last to the first: operators, parameters, keys and files.
fn stages(setting: &Setting, decisions: &[Decision], place: usize) -> Vec<Value> {
    let upstream = Graph::of(&setting.plan).upstream(&BTreeSet::from([place]));
    let stage = |index: &usize| {
        let node = &setting.plan.nodes[*index];
        let parts = key_of(&setting.plan, &setting.store, decisions, *index);
        let digests = parts.map(|parts| parts.parts.to_json()["files"].clone()).unwrap_or_default();
        let file = |file: &fuseline_contract::ExternalFile| {
            let known = json!({"path": file.path, "digests": digests[&*file.parameter]});
            (file.parameter.to_string(), known)
        };
        let files: serde_json::Map<String, Value> = node.resolved.files.iter().map(file).collect();
        let made = decisions[*index].record().map(|record: &Record| &record.made);
        json!({"stage": node.id.to_string(), "op": node.entry.name, "with": node.resolved.params,
            "key": key(&decisions[*index]), "files": files,
            "run": made.map(|made| &made.run)})
    };
    upstream.iter().rev().map(stage).collect()
}

fn key(decision: &Decision) -> Option<String> {
    match decision {
        Decision::Hit { key, .. } | Decision::Accept { key, .. } | Decision::Run { key, .. } => {
            Some(key.short().to_string())
        }
        Decision::Maybe { .. } | Decision::Blocked { .. } => None,
    }
}
