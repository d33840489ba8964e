//! Rows as text while they come: what is too large to be held is never held.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::{csv, json};
use crate::error::Result;

/// Formats in which rows can follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// RFC 4180.
    Csv,
    /// A list of objects, one a line.
    Json,
}

/// Writes rows batch by batch.
#[derive(Debug)]
pub struct Stream {
    format: RowFormat,
    any: bool,
}

impl Stream {
    /// Begins, with the text that stands before all rows.
    pub fn begin(format: RowFormat, schema: &Schema) -> (Self, String) {
        let head = match format {
            RowFormat::Csv => csv::head(schema),
            RowFormat::Json => "[".to_owned(),
        };
        (Self { format, any: false }, head)
    }

    /// The text of more rows.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<String> {
        if self.format == RowFormat::Csv {
            return csv::batch(batch);
        }
        let mut out = String::new();
        for object in json::objects(batch)? {
            out.push_str(if self.any { ",\n" } else { "\n" });
            out.push_str(&object.to_string());
            self.any = true;
        }
        Ok(out)
    }

    /// The text that stands behind all rows.
    pub fn end(self) -> &'static str {
        match (self.format, self.any) {
            (RowFormat::Csv, _) => "",
            (RowFormat::Json, true) => "\n]\n",
            (RowFormat::Json, false) => "]\n",
        }
    }
}
