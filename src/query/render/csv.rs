//! Comma-separated values, RFC 4180: lines end in CR LF, a field with a comma, a
//! quote or a line break stands in quotes.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::cells::{Cells, Content, texts};
use crate::error::Result;

/// Writes a grid. A missing cell is an empty field; marks are left out.
pub fn render(cells: &Cells) -> String {
    let mut out = line(cells.stubs.iter().chain(&cells.headings).map(String::as_str));
    for row in &cells.rows {
        let shown: Vec<String> = row
            .cells
            .iter()
            .map(|cell| match cell.content {
                Content::Missing => String::new(),
                _ => cells.shown(cell).joined(),
            })
            .collect();
        out.push_str(&line(row.labels.iter().chain(&shown).map(String::as_str)));
    }
    out
}

/// The names of the columns.
pub(super) fn head(schema: &Schema) -> String {
    line(schema.fields().iter().map(|field| field.name().as_str()))
}

/// Writes rows with all digits. A null is an empty field and an empty text is a
/// quoted one, so that they stay apart.
pub(super) fn batch(batch: &RecordBatch) -> Result<String> {
    let mut out = String::new();
    let columns = batch.columns().iter().map(texts).collect::<Result<Vec<_>>>()?;
    for row in 0..batch.num_rows() {
        let fields = columns.iter().map(|column| match &column[row] {
            None => String::new(),
            Some(text) if text.is_empty() => "\"\"".to_owned(),
            Some(text) => field(text),
        });
        out.push_str(&(fields.collect::<Vec<_>>().join(",") + "\r\n"));
    }
    Ok(out)
}

fn line<'a>(fields: impl Iterator<Item = &'a str>) -> String {
    fields.map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
