//! JSON: a grid with the numbers behind it, or rows as objects.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use serde_json::{Map, Value, json};

use crate::cells::{Cells, Content};
use crate::error::{Error, Result};

/// Writes a grid: caption, label and a list of rows, each with its labels and
/// cells by heading. A cell has its value (fractions are not made percent), the
/// text that the other formats show, and what it is marked with. `notes` stand
/// below the table, if there are any.
pub fn render(cells: &Cells) -> String {
    let rows = cells.rows.iter().map(|row| {
        let labels: Map<String, Value> =
            cells.stubs.iter().cloned().zip(row.labels.iter().map(|label| json!(label))).collect();
        let grid = cells.headings.iter().cloned().zip(row.cells.iter().map(|cell| {
            let value = match &cell.content {
                Content::Missing => Value::Null,
                Content::Text(text) => json!(text),
                Content::Integer(integer) => json!(integer),
                Content::Number(number) => json!(number),
            };
            let mut out = json!({"value": value, "text": cells.shown(cell).joined()});
            for (name, number) in [("spread", cell.spread), ("difference", cell.difference)] {
                if let Some(number) = number {
                    out[name] = json!(number);
                }
            }
            if cell.stars > 0 {
                out["stars"] = json!(cell.stars);
            }
            for (name, mark) in [("bold", cell.bold), ("underline", cell.underline)] {
                if mark {
                    out[name] = json!(true);
                }
            }
            out
        }));
        json!({"labels": labels, "cells": grid.collect::<Map<_, _>>()})
    });
    let rows: Vec<Value> = rows.collect();
    let mut grid = json!({"caption": cells.caption, "label": cells.label, "rows": rows});
    if !cells.notes.is_empty() {
        grid["notes"] = json!(cells.notes);
    }
    format!("{grid:#}\n")
}

/// Every value of a column.
pub(crate) fn values(array: &ArrayRef) -> Result<Vec<Value>> {
    /// The one column's name.
    const NAME: &str = "value";
    let batch = RecordBatch::try_from_iter_with_nullable([(NAME, array.clone(), true)])?;
    Ok(objects(&batch)?.into_iter().map(|mut object| object[NAME].take()).collect())
}

/// The rows as objects. Nulls are written.
pub(super) fn objects(batch: &RecordBatch) -> Result<Vec<Value>> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    let objects = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>().collect::<Result<Vec<_>, _>>();
    objects.map_err(|error| Error::Internal { message: format!("a row is not JSON: {error}") })
}
