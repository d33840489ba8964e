//! Grids and tables as text. Every format shows the same numbers; only marks and
//! escapes differ. Nothing here knows a terminal: its width and colours are
//! given.

pub mod csv;
pub mod html;
pub mod json;
pub mod latex;
pub mod markdown;
mod stream;
pub mod text;

use std::str::FromStr;

use fuseline_contract::Table;

use crate::cells::Cells;
use crate::error::Result;
pub use stream::{RowFormat, Stream};
pub use text::Style;

/// What a grid or a table is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Aligned columns for a terminal.
    #[default]
    Text,
    /// A GitHub-flavoured Markdown table.
    Markdown,
    /// A LaTeX table with booktabs.
    Latex,
    /// An HTML table.
    Html,
    /// RFC 4180.
    Csv,
    /// JSON.
    Json,
}

impl Format {
    /// The words of the command line.
    pub const NAMES: [&str; 6] = ["text", "md", "latex", "html", "csv", "json"];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "md" | "markdown" => Ok(Self::Markdown),
            "latex" | "tex" => Ok(Self::Latex),
            "html" => Ok(Self::Html),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is not one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Writes a grid. The style is for [`Format::Text`] alone.
pub fn cells(cells: &Cells, format: Format, style: &Style) -> String {
    match format {
        Format::Text => text::render(cells, style),
        Format::Markdown => markdown::render(cells),
        Format::Latex => latex::render(cells),
        Format::Html => html::render(cells),
        Format::Csv => csv::render(cells),
        Format::Json => json::render(cells),
    }
}

/// Writes any table: nested values as JSON text, floats with all their digits,
/// JSON as a list of rows.
pub fn table(table: &Table, format: Format, style: &Style) -> Result<String> {
    let rows = match format {
        Format::Json => RowFormat::Json,
        Format::Csv => RowFormat::Csv,
        other => return Ok(cells(&Cells::of_table(table, None)?, other, style)),
    };
    let (mut stream, mut out) = Stream::begin(rows, table.schema());
    for batch in table.batches() {
        out.push_str(&stream.rows(batch)?);
    }
    Ok(out + stream.end())
}

#[cfg(test)]
mod tests;
