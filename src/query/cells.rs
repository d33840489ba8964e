//! A grid of typed cells with their marks: what every renderer starts from, and
//! what the artifact of a table of results holds, so that it is shown without
//! running its query again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use fuseline_contract::Table;

use crate::error::{Error, Result};

/// How a missing cell is shown.
pub const MISSING: &str = "–";

/// A grid with labels on the left and headings above.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cells {
    /// What the table shows.
    pub caption: Option<String>,
    /// The LaTeX label.
    pub label: Option<String>,
    /// Headings of the label columns.
    pub stubs: Vec<String>,
    /// Headings of the cells' columns.
    pub headings: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Digits after the point of floats; none: as many as there are.
    pub digits: Option<u8>,
    /// Numbers are fractions and shown times 100.
    pub percent: bool,
    /// What stands below the table: what marks mean. Whoever shows the cells adds what is to be said of how they came to be.
    pub notes: Vec<String>,
}

/// A row: as many labels as stubs, as many cells as headings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// The labels.
    pub labels: Vec<String>,
    /// The cells.
    pub cells: Vec<Cell>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cell {
    /// What it holds.
    pub content: Content,
    /// Deviation, in the unit of the content.
    pub spread: Option<f64>,
    /// Difference to the baseline, in the unit of the content.
    pub difference: Option<f64>,
    /// The best of its column.
    pub bold: bool,
    /// The second best of its column.
    pub underline: bool,
    /// How significant its difference is, in stars.
    pub stars: u8,
}

/// What a cell holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Content {
    /// Nothing.
    #[default]
    Missing,
    /// A text, or anything that is no number.
    Text(String),
    /// An integer, shown without a point.
    Integer(i64),
    /// A float.
    Number(f64),
}

impl Content {
    /// As a float, if it is a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(int) => Some(*int as f64),
            Self::Number(number) => Some(*number),
            Self::Missing | Self::Text(_) => None,
        }
    }

    /// Every value of a column.
    pub fn of_array(array: &ArrayRef) -> Result<Vec<Self>> {
        let data_type = array.data_type();
        if data_type.is_integer() {
            let cast = compute::cast(array, &DataType::Int64)?;
            return Ok(cast
                .as_primitive::<Int64Type>()
                .iter()
                .map(|v| v.map_or(Self::Missing, Self::Integer))
                .collect());
        }
        if data_type.is_numeric() {
            let cast = compute::cast(array, &DataType::Float64)?;
            return Ok(cast
                .as_primitive::<Float64Type>()
                .iter()
                .map(|v| v.map_or(Self::Missing, Self::Number))
                .collect());
        }
        Ok(texts(array)?.into_iter().map(|text| text.map_or(Self::Missing, Self::Text)).collect())
    }
}

/// Every value of a column as text; nested ones as JSON.
pub(crate) fn texts(array: &ArrayRef) -> Result<Vec<Option<String>>> {
    let nested = array.data_type().is_nested();
    let json = if nested { crate::render::json::values(array)? } else { Vec::new() };
    let options = FormatOptions::default();
    let shown = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let text = |row| match (array.is_null(row), nested) {
        (true, _) => None,
        (false, true) => Some(json[row].to_string()),
        (false, false) => Some(shown.value(row).to_string()),
    };
    Ok((0..array.len()).map(text).collect())
}

/// A cell's numbers as text, the same in every format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The content.
    pub value: String,
    /// The deviation.
    pub spread: Option<String>,
    /// The difference, with its sign.
    pub difference: Option<String>,
    /// As many stars as the cell has.
    pub stars: String,
}

impl Shown {
    /// All in one: `71.2^** ± 0.4 (+1.3)`. The caret says that stars are raised; a star alone marks the best in plain text.
    pub fn joined(&self) -> String {
        let spread = self.spread.as_ref().map(|spread| format!(" ± {spread}")).unwrap_or_default();
        let difference = self.difference.as_ref().map(|difference| format!(" ({difference})")).unwrap_or_default();
        let raised = if self.stars.is_empty() { String::new() } else { format!("^{}", self.stars) };
        format!("{}{raised}{spread}{difference}", self.value)
    }
}

impl Cells {
    /// A grid of a table's columns, without labels and marks.
    pub fn of_table(table: &Table, digits: Option<u8>) -> Result<Self> {
        let headings: Vec<String> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut rows = Vec::new();
        for batch in table.batches() {
            let columns = batch.columns().iter().map(Content::of_array).collect::<Result<Vec<_>>>()?;
            rows.extend((0..batch.num_rows()).map(|row| {
                let cells = columns.iter().map(|column| Cell { content: column[row].clone(), ..Cell::default() });
                Row { labels: Vec::new(), cells: cells.collect() }
            }));
        }
        Ok(Self { headings, rows, digits, ..Self::default() })
    }

    /// A cell as text.
    pub fn shown(&self, cell: &Cell) -> Shown {
        let scale = if self.percent { 100.0 } else { 1.0 };
        let digits = match cell.content {
            Content::Integer(_) if !self.percent => Some(0),
            _ => self.digits,
        };
        let value = match &cell.content {
            Content::Missing => MISSING.to_owned(),
            Content::Text(text) => text.clone(),
            Content::Integer(int) if !self.percent => int.to_string(),
            Content::Integer(int) => number(*int as f64 * scale, digits),
            Content::Number(value) => number(value * scale, digits),
        };
        // The deviation of whole numbers is no whole number.
        let spread = cell.spread.map(|spread| number(spread * scale, self.digits));
        let difference = cell.difference.map(|difference| {
            let text = number(difference * scale, digits);
            let signed = text.starts_with('-') || text.chars().all(|c| matches!(c, '0' | '.')) || text == "nan";
            if signed { text } else { format!("+{text}") }
        });
        Shown { value, spread, difference, stars: "*".repeat(usize::from(cell.stars)) }
    }

    /// Whether a column holds numbers, and so stands to the right.
    pub fn is_numeric(&self, column: usize) -> bool {
        let contents = || self.rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| &cell.content);
        contents().any(|content| content.number().is_some()) && contents().all(|c| !matches!(c, Content::Text(_)))
    }

    /// A table that holds everything: a line each for caption, label and format
    /// (`kind`), for each heading and label, and for each cell. A cell has its
    /// place (`row`, `column` from zero), the names of both, its `text` as shown
    /// and the numbers behind it.
    pub fn to_table(&self) -> Result<Table> {
        let mut lines = Vec::new();
        let single = |kind, text: Option<String>, integer| Line { kind, text, integer, ..Line::default() };
        lines.extend(self.caption.clone().map(|text| single(CAPTION, Some(text), None)));
        lines.extend(self.label.clone().map(|text| single(LABEL, Some(text), None)));
        lines.extend(self.digits.map(|digits| single(DIGITS, None, Some(i64::from(digits)))));
        lines.push(single(PERCENT, None, Some(i64::from(self.percent))));
        lines.extend(self.notes.iter().map(|note| single(NOTE, Some(note.clone()), None)));
        for (kind, texts) in [(STUB, &self.stubs), (HEADING, &self.headings)] {
            let line = |(column, text): (usize, &String)| Line {
                column: Some(column as i64),
                ..single(kind, Some(text.clone()), None)
            };
            lines.extend(texts.iter().enumerate().map(line));
        }
        for (i, row) in self.rows.iter().enumerate() {
            // Also where there are neither labels nor cells, the row is there.
            lines.push(Line { row: Some(i as i64), ..single(ROW, None, None) });
            for (j, label) in row.labels.iter().enumerate() {
                let place = Line { row: Some(i as i64), column: Some(j as i64), ..Line::default() };
                lines.push(Line { kind: ROW_LABEL, text: Some(label.clone()), ..place });
            }
            for (j, cell) in row.cells.iter().enumerate() {
                lines.push(Line {
                    kind: CELL,
                    row: Some(i as i64),
                    column: Some(j as i64),
                    row_name: Some(row.labels.join(" / ")).filter(|name| !name.is_empty()),
                    column_name: self.headings.get(j).cloned(),
                    text: (cell.content != Content::Missing).then(|| match &cell.content {
                        Content::Text(text) => text.clone(),
                        _ => self.shown(cell).joined(),
                    }),
                    number: if let Content::Number(number) = cell.content { Some(number) } else { None },
                    integer: if let Content::Integer(integer) = cell.content { Some(integer) } else { None },
                    spread: cell.spread,
                    difference: cell.difference,
                    bold: Some(cell.bold),
                    underline: Some(cell.underline),
                    stars: Some(i64::from(cell.stars)).filter(|stars| *stars > 0),
                });
            }
        }
        table_of(&lines)
    }

    /// The grid that [`Cells::to_table`] wrote.
    pub fn from_table(table: &Table) -> Result<Self> {
        let batch = table.one_batch()?;
        let columns = Columns::of(&batch)?;
        let mut cells = Self::default();
        for i in 0..batch.num_rows() {
            let wrong = |what: &str| Error::NotCells { message: format!("line {i} {what}") };
            let text = || columns.text("text", i);
            let needed = || text().ok_or_else(|| wrong("has no text"));
            let kind = columns.text("kind", i).ok_or_else(|| wrong("has no kind"))?;
            let last = cells.rows.last_mut();
            match kind.as_str() {
                CAPTION => cells.caption = text(),
                LABEL => cells.label = text(),
                DIGITS => cells.digits = columns.integer("integer", i).and_then(|digits| u8::try_from(digits).ok()),
                NOTE => cells.notes.push(needed()?),
                PERCENT => cells.percent = columns.integer("integer", i) == Some(1),
                STUB => cells.stubs.push(needed()?),
                HEADING => cells.headings.push(needed()?),
                ROW => cells.rows.push(Row::default()),
                ROW_LABEL => last.ok_or_else(|| wrong("is a label before any row"))?.labels.push(needed()?),
                CELL => last.ok_or_else(|| wrong("is a cell before any row"))?.cells.push(Cell {
                    content: match (columns.number("number", i), columns.integer("integer", i)) {
                        (Some(number), _) => Content::Number(number),
                        (None, Some(integer)) => Content::Integer(integer),
                        (None, None) => text().map_or(Content::Missing, Content::Text),
                    },
                    spread: columns.number("spread", i),
                    difference: columns.number("difference", i),
                    bold: columns.truth("bold", i),
                    underline: columns.truth("underline", i),
                    stars: columns.integer(STARS, i).and_then(|stars| u8::try_from(stars).ok()).unwrap_or(0),
                }),
                other => return Err(wrong(&format!("is of kind {other:?}"))),
            }
        }
        match cells
            .rows
            .iter()
            .position(|row| row.labels.len() != cells.stubs.len() || row.cells.len() != cells.headings.len())
        {
            None => Ok(cells),
            Some(row) => Err(Error::NotCells { message: format!("row {row} is not as long as the headings") }),
        }
    }
}

const CAPTION: &str = "caption";
const LABEL: &str = "label";
const DIGITS: &str = "digits";
const PERCENT: &str = "percent";
const NOTE: &str = "note";
const STUB: &str = "stub";
const HEADING: &str = "heading";
const ROW: &str = "row";
const ROW_LABEL: &str = "row_label";
const CELL: &str = "cell";
/// A column that only tables with stars have, so that all others keep their bytes.
const STARS: &str = "stars";

/// A line of the table that holds a grid.
#[derive(Default)]
struct Line {
    kind: &'static str,
    row: Option<i64>,
    column: Option<i64>,
    row_name: Option<String>,
    column_name: Option<String>,
    text: Option<String>,
    number: Option<f64>,
    integer: Option<i64>,
    spread: Option<f64>,
    difference: Option<f64>,
    bold: Option<bool>,
    underline: Option<bool>,
    stars: Option<i64>,
}

fn table_of(lines: &[Line]) -> Result<Table> {
    let texts = |of: fn(&Line) -> Option<&str>| Arc::new(lines.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let ints = |of: fn(&Line) -> Option<i64>| Arc::new(lines.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let floats = |of: fn(&Line) -> Option<f64>| Arc::new(lines.iter().map(of).collect::<Float64Array>()) as ArrayRef;
    let truths = |of: fn(&Line) -> Option<bool>| Arc::new(lines.iter().map(of).collect::<BooleanArray>()) as ArrayRef;
    let mut columns = vec![
        ("kind", texts(|line| Some(line.kind))),
        ("row", ints(|line| line.row)),
        ("column", ints(|line| line.column)),
        ("row_name", texts(|line| line.row_name.as_deref())),
        ("column_name", texts(|line| line.column_name.as_deref())),
        ("text", texts(|line| line.text.as_deref())),
        ("number", floats(|line| line.number)),
        ("integer", ints(|line| line.integer)),
        ("spread", floats(|line| line.spread)),
        ("difference", floats(|line| line.difference)),
        ("bold", truths(|line| line.bold)),
        ("underline", truths(|line| line.underline)),
    ];
    if lines.iter().any(|line| line.stars.is_some()) {
        columns.push((STARS, ints(|line| line.stars)));
    }
    let columns = columns.into_iter().map(|(name, array)| {
        let field = Field::new(name, array.data_type().clone(), name != "kind");
        (field, array)
    });
    Ok(Table::of_columns(columns.collect())?)
}

/// The columns of such a table, typed.
struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let expected = table_of(&[])?;
        for field in expected.schema().fields() {
            let found = batch.schema_ref().field_with_name(field.name()).map(Field::data_type);
            if found.ok() != Some(field.data_type()) {
                let message = format!("column {:?} of type {} is missing", field.name(), field.data_type());
                return Err(Error::NotCells { message });
            }
        }
        Ok(Self(batch))
    }

    fn array(&self, name: &str, row: usize) -> Option<&'a ArrayRef> {
        self.0.column_by_name(name).filter(|array| array.is_valid(row))
    }

    fn text(&self, name: &str, row: usize) -> Option<String> {
        self.array(name, row).map(|array| array.as_string::<i32>().value(row).to_owned())
    }

    fn number(&self, name: &str, row: usize) -> Option<f64> {
        self.array(name, row).map(|array| array.as_primitive::<Float64Type>().value(row))
    }

    fn integer(&self, name: &str, row: usize) -> Option<i64> {
        self.array(name, row).map(|array| array.as_primitive::<Int64Type>().value(row))
    }

    fn truth(&self, name: &str, row: usize) -> bool {
        self.array(name, row).is_some_and(|array| array.as_boolean().value(row))
    }
}

/// A float with so many digits after the point (half to even), or with as many
/// as it needs to be read back the same. Minus zero is zero.
pub(crate) fn number(value: f64, digits: Option<u8>) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    let text = match digits {
        Some(digits) => format!("{value:.*}", usize::from(digits)),
        None => format!("{value:?}"),
    };
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_text() {
        assert_eq!(number(0.125, Some(2)), "0.12");
        assert_eq!(number(-0.0004, Some(3)), "0.000");
        assert_eq!(number(-0.0, None), "0.0");
        assert_eq!(number(1e300, None), "1e300");
        assert_eq!(number(f64::NAN, Some(1)), "nan");
        assert_eq!(number(f64::NEG_INFINITY, Some(1)), "-inf");
    }

    #[test]
    fn a_cell_is_shown_with_deviation_and_difference() {
        let cells = Cells { digits: Some(1), percent: true, ..Cells::default() };
        let cell = |content, spread, difference| Cell { content, spread, difference, ..Cell::default() };
        let shown = |cell: Cell| cells.shown(&cell).joined();
        assert_eq!(shown(cell(Content::Number(0.7123), Some(0.004), Some(0.0131))), "71.2 ± 0.4 (+1.3)");
        assert_eq!(shown(cell(Content::Number(0.7123), None, Some(-0.0131))), "71.2 (-1.3)");
        assert_eq!(shown(cell(Content::Number(0.7123), None, Some(-0.0001))), "71.2 (0.0)");
        assert_eq!(shown(cell(Content::Integer(1), None, None)), "100.0");
        assert_eq!(shown(cell(Content::Missing, None, None)), "–");
        let whole = Cells { digits: Some(3), ..Cells::default() };
        assert_eq!(whole.shown(&cell(Content::Integer(12), None, Some(-2.0))).joined(), "12 (-2)");
    }

    #[test]
    fn a_grid_survives_its_table() {
        let row = |labels: [&str; 2], cells: Vec<Cell>| Row { labels: labels.map(str::to_owned).to_vec(), cells };
        let number = Cell {
            content: Content::Number(0.1 + 0.2),
            spread: Some(1e-300),
            difference: Some(-0.5),
            bold: true,
            underline: false,
            stars: 3,
        };
        let text = Cell { content: Content::Text(String::new()), underline: true, ..Cell::default() };
        let int = Cell { content: Content::Integer(i64::MIN), ..Cell::default() };
        let cells = Cells {
            caption: Some("of \"all\"".to_owned()),
            label: None,
            stubs: vec!["family".to_owned(), "model".to_owned()],
            headings: vec!["a".to_owned(), "b".to_owned()],
            rows: vec![row(["x", ""], vec![number, Cell::default()]), row(["y", "z"], vec![text, int])],
            digits: Some(2),
            percent: true,
            notes: vec!["* p < 0.05".to_owned()],
        };
        let table = cells.to_table().unwrap();
        assert_eq!(Cells::from_table(&table).unwrap(), cells);
        assert_eq!(Cells::from_table(&Cells::default().to_table().unwrap()).unwrap(), Cells::default());
        let other = table.without("spread").unwrap();
        let said = Cells::from_table(&other).expect_err("a column is missing").to_string();
        assert_eq!(said, "not a table of cells: column \"spread\" of type Float64 is missing");
    }
}
