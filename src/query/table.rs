//! A query's rows made a grid: pivot, mean and deviation, average column,
//! difference to a baseline, marks.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{ArrayRef, RecordBatch};
use fuseline_contract::Table;
use fuseline_contract::table::TableError;
use fuseline_metrics::stats::{benjamini_hochberg, holm};

use crate::cells::{Cell, Cells, Content, MISSING, Row, number, texts};
use crate::error::{Error, Result, nearest};
use crate::order::sql_stage;
use crate::spec::{Best, Correction, Pivot, Significance, Spread, TableSpec};

/// What joins several labels of a row into one name.
const JOIN: &str = " / ";
/// Below the first a corrected p-value has one star, below the second two, below the third three.
const STARS_BELOW: [f64; 3] = [0.05, 0.01, 0.001];

/// Runs a table's query over the tables that it names, and makes its grid.
pub fn cells(spec: &TableSpec, tables: Vec<(String, Table)>) -> Result<Cells> {
    of_result(spec, &sql_stage(&spec.sql, tables)?)
}

/// Makes the grid of a query's result.
pub fn of_result(spec: &TableSpec, result: &Table) -> Result<Cells> {
    let mut cells = match &spec.pivot {
        None => Cells::of_table(result, spec.digits)?,
        Some(pivot) => pivoted(pivot, &result.one_batch()?)?,
    };
    cells.caption = spec.caption.clone();
    cells.label = spec.label.clone();
    Ok(cells)
}

fn pivoted(pivot: &Pivot, batch: &RecordBatch) -> Result<Cells> {
    let (mut cells, p_values) = grid(pivot, batch)?;
    if let Some(significance) = &pivot.significance {
        add_stars(&mut cells, significance, &p_values)?;
    }
    if let Some(heading) = &pivot.average {
        add_average(&mut cells, heading)?;
    }
    if let Some(baseline) = &pivot.baseline {
        add_differences(&mut cells, baseline)?;
    }
    if let Some(best) = pivot.bold {
        mark(&mut cells, best, pivot.underline)?;
    }
    Ok(cells)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        let found = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
        TableError::MissingColumn { column: name.to_owned(), found }.into()
    })
}

/// Labels in order of first appearance, after those whose order was given.
struct Axis<T> {
    items: Vec<T>,
    positions: HashMap<T, usize>,
}

impl<T: Clone + Eq + std::hash::Hash> Axis<T> {
    fn new(ordered: impl IntoIterator<Item = T>) -> Self {
        let mut axis = Self { items: Vec::new(), positions: HashMap::new() };
        for item in ordered {
            axis.position(item);
        }
        axis
    }

    fn position(&mut self, item: T) -> usize {
        let next = self.items.len();
        *self.positions.entry(item).or_insert_with_key(|item| {
            self.items.push(item.clone());
            next
        })
    }
}

/// p-values by row and column of the grid.
type PValues = BTreeMap<(usize, usize), f64>;

/// The rows and columns with their contents and deviations, and the p-values behind them.
fn grid(pivot: &Pivot, batch: &RecordBatch) -> Result<(Cells, PValues)> {
    let stubs = &pivot.rows.0;
    let label_columns = stubs.iter().map(|name| texts(column(batch, name)?)).collect::<Result<Vec<_>>>()?;
    let heads = pivot.columns.as_ref().map(|name| texts(column(batch, name)?)).transpose()?;
    let values = pivot.value.0.iter().map(|name| Content::of_array(column(batch, name)?));
    let values = values.collect::<Result<Vec<_>>>()?;
    let spreads = match &pivot.spread {
        Some(Spread::Column(name)) => Some(Content::of_array(column(batch, name)?)?),
        Some(Spread::Stddev) | None => None,
    };

    let tested = match &pivot.significance {
        Some(significance) => Some(Content::of_array(column(batch, &significance.p)?)?),
        None => None,
    };
    let mut p_values = PValues::new();

    let mut rows = Axis::new(ordered_rows(pivot)?);
    let mut columns = Axis::new(pivot.column_order.iter().cloned());
    if heads.is_none() {
        if let Some(name) = pivot.column_order.iter().find(|name| !pivot.value.0.contains(name)) {
            return Err(unknown("column_order", "column", name, pivot.value.0.clone()));
        }
        for name in &pivot.value.0 {
            columns.position(name.clone());
        }
    }
    let mut found: BTreeMap<(usize, usize), Vec<(Content, Option<f64>)>> = BTreeMap::new();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| MISSING.to_owned());
    for i in 0..batch.num_rows() {
        let row = rows.position(label_columns.iter().map(|labels| text(&labels[i])).collect());
        for (name, values) in pivot.value.0.iter().zip(&values) {
            let heading = heads.as_ref().map_or_else(|| name.clone(), |heads| text(&heads[i]));
            let spread = spreads.as_ref().and_then(|spreads| spreads[i].number());
            let place = (row, columns.position(heading));
            if let Some(p) = tested.as_ref().and_then(|tested| tested[i].number()) {
                // Values of one cell, such as those of several seeds, are tested together.
                let first = *p_values.entry(place).or_insert(p);
                if first.to_bits() != p.to_bits() {
                    let (row, column) = (rows.items[row].join(JOIN), columns.items[place.1].clone());
                    return Err(Error::SeveralTests { row, column, one: first, other: p });
                }
            }
            found.entry(place).or_default().push((values[i].clone(), spread));
        }
    }

    let stddev = pivot.spread == Some(Spread::Stddev);
    let mut cells = Cells {
        stubs: stubs.clone(),
        headings: columns.items,
        digits: Some(pivot.digits()),
        percent: pivot.percent,
        ..Cells::default()
    };
    for (i, labels) in rows.items.into_iter().enumerate() {
        let mut row = Row { labels, cells: Vec::new() };
        for (j, heading) in cells.headings.iter().enumerate() {
            let values = found.remove(&(i, j)).unwrap_or_default();
            let place = || (row.labels.join(JOIN), heading.clone());
            row.cells.push(if stddev { mean_and_deviation(&values, place)? } else { only(values, place)? });
        }
        cells.rows.push(row);
    }
    Ok((cells, p_values))
}

/// Stars for corrected p-values, and a note of what they mean.
fn add_stars(cells: &mut Cells, significance: &Significance, p_values: &PValues) -> Result<()> {
    let given: Vec<f64> = p_values.values().copied().collect();
    if let Some(p) = given.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::NotProbability { column: significance.p.clone(), value: *p });
    }
    let (corrected, how) = match significance.correction {
        Correction::Holm => (holm(&given), "corrected by Holm's method"),
        Correction::BenjaminiHochberg => (benjamini_hochberg(&given), "corrected by Benjamini and Hochberg's method"),
        Correction::None => (given.clone(), "not corrected"),
    };
    for ((row, column), p) in p_values.keys().zip(corrected) {
        cells.rows[*row].cells[*column].stars = STARS_BELOW.iter().filter(|bound| p < **bound).count() as u8;
    }
    let [one, two, three] = STARS_BELOW;
    let tests = if given.len() == 1 { "1 test".to_owned() } else { format!("{} tests", given.len()) };
    cells.notes.push(format!("* p < {one}, ** p < {two}, *** p < {three}; {tests}, {how}"));
    Ok(())
}

/// The rows whose order was given, as lists of labels.
fn ordered_rows(pivot: &Pivot) -> Result<Vec<Vec<String>>> {
    let n = pivot.rows.0.len();
    let labels = |name: &String| -> Vec<String> {
        if n == 1 { vec![name.clone()] } else { name.split(JOIN).map(str::to_owned).collect() }
    };
    let rows: Vec<Vec<String>> = pivot.row_order.iter().map(labels).collect();
    match rows.iter().zip(&pivot.row_order).find(|(labels, _)| labels.len() != n) {
        None => Ok(rows),
        Some((_, name)) => {
            Err(unknown("row_order", "row", name, vec![format!("expected {}", pivot.rows.0.join(JOIN))]))
        }
    }
}

fn unknown(option: &'static str, what: &'static str, name: &str, known: Vec<String>) -> Error {
    Error::UnknownLabel { option, what, nearest: nearest(name, &known), name: name.to_owned(), known }
}

/// The one value of a cell, if it has one.
fn only(mut values: Vec<(Content, Option<f64>)>, place: impl Fn() -> (String, String)) -> Result<Cell> {
    if values.len() > 1 {
        let (row, column) = place();
        return Err(Error::NotUnique { row, column, n: values.len() });
    }
    let (content, spread) = values.pop().unwrap_or_default();
    Ok(Cell { content, spread, ..Cell::default() })
}

/// Mean and sample standard deviation (n − 1) of a cell's values; nulls are left
/// out, and a single value has no deviation.
fn mean_and_deviation(values: &[(Content, Option<f64>)], place: impl Fn() -> (String, String)) -> Result<Cell> {
    let present = || values.iter().map(|(content, _)| content).filter(|content| **content != Content::Missing);
    let numbers: Vec<f64> = present().filter_map(Content::number).collect();
    if numbers.len() < present().count() {
        let (row, column) = place();
        return Err(Error::NotNumber { row, column, option: "spread: stddev" });
    }
    if numbers.is_empty() {
        return Ok(Cell::default());
    }
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>();
    let spread = (numbers.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
    Ok(Cell { content: Content::Number(mean), spread, ..Cell::default() })
}

/// Refuses texts where an option needs numbers.
fn numbers(cells: &Cells, option: &'static str) -> Result<()> {
    for row in &cells.rows {
        if let Some(column) = row.cells.iter().position(|cell| matches!(cell.content, Content::Text(_))) {
            let (row, column) = (row.labels.join(JOIN), cells.headings[column].clone());
            return Err(Error::NotNumber { row, column, option });
        }
    }
    Ok(())
}

/// The unweighted mean over the columns, where none is missing.
fn add_average(cells: &mut Cells, heading: &str) -> Result<()> {
    numbers(cells, "average")?;
    for row in &mut cells.rows {
        let numbers: Vec<f64> = row.cells.iter().filter_map(|cell| cell.content.number()).collect();
        let whole = numbers.len() == row.cells.len() && !numbers.is_empty();
        let content =
            if whole { Content::Number(numbers.iter().sum::<f64>() / numbers.len() as f64) } else { Content::Missing };
        row.cells.push(Cell { content, ..Cell::default() });
    }
    cells.headings.push(heading.to_owned());
    Ok(())
}

fn add_differences(cells: &mut Cells, baseline: &str) -> Result<()> {
    numbers(cells, "baseline")?;
    let names: Vec<String> = cells.rows.iter().map(|row| row.labels.join(JOIN)).collect();
    let Some(position) = names.iter().position(|name| name == baseline) else {
        return Err(unknown("baseline", "row", baseline, names));
    };
    let base: Vec<Option<f64>> = cells.rows[position].cells.iter().map(|cell| cell.content.number()).collect();
    for (i, row) in cells.rows.iter_mut().enumerate() {
        for (cell, base) in row.cells.iter_mut().zip(&base).filter(|_| i != position) {
            cell.difference = cell.content.number().zip(*base).map(|(value, base)| value - base);
        }
    }
    Ok(())
}

/// Marks the best, and if asked the second best, of each column that has at
/// least two numbers; what looks the same is equally good.
fn mark(cells: &mut Cells, best: Best, underline: bool) -> Result<()> {
    numbers(cells, "bold")?;
    for column in 0..cells.headings.len() {
        let rounded: Vec<Option<f64>> = cells.rows.iter().map(|row| rounded(cells, &row.cells[column])).collect();
        let mut ranking: Vec<f64> = rounded.iter().copied().flatten().collect();
        if ranking.len() < 2 {
            continue;
        }
        ranking.sort_by(f64::total_cmp);
        if best == Best::Max {
            ranking.reverse();
        }
        ranking.dedup();
        for (row, value) in cells.rows.iter_mut().zip(rounded) {
            let cell = &mut row.cells[column];
            cell.bold = value.is_some() && value == ranking.first().copied();
            cell.underline = underline && value.is_some() && value == ranking.get(1).copied();
        }
    }
    Ok(())
}

/// A cell's number as it is shown.
fn rounded(cells: &Cells, cell: &Cell) -> Option<f64> {
    let value = cell.content.number().filter(|value| !value.is_nan())?;
    match cell.content {
        Content::Integer(_) => Some(value),
        _ => number(value * if cells.percent { 100.0 } else { 1.0 }, cells.digits).parse().ok(),
    }
}

/// What is behind a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// The cell as shown.
    pub text: String,
    /// The rows of the table's query that it was made of.
    pub rows: Table,
    /// The columns of the query that label the cell, with their values.
    pub labels: Vec<(String, String)>,
}

/// The rows of a query's result behind the cell of a row (its labels, joined by ` / `) and a column (its heading). In a column of
/// means these are all rows of the row. A table without a pivot has no labels: the value in its first column counts as one, or
/// the row's number, from one.
pub fn behind(spec: &TableSpec, cells: &Cells, result: &Table, row: &str, column: &str) -> Result<Behind> {
    let batch = result.one_batch()?;
    let heading = cells.headings.iter().position(|heading| heading == column);
    let heading = heading.ok_or_else(|| unknown("cell", "column", column, cells.headings.clone()))?;
    let Some(pivot) = &spec.pivot else {
        let names: Vec<String> = cells
            .rows
            .iter()
            .map(|row| row.cells.first().map_or_else(String::new, |c| cells.shown(c).joined()))
            .collect();
        let number = row.parse().ok().filter(|number| (1..=names.len()).contains(number));
        let place = names.iter().position(|name| name == row).or(number.map(|number| number - 1));
        let place = place.ok_or_else(|| unknown("cell", "row", row, names.clone()))?;
        let labels = vec![(cells.headings[0].clone(), names[place].clone())];
        let text = cells.shown(&cells.rows[place].cells[heading]).joined();
        return Ok(Behind { text, rows: result.take(&[place])?, labels });
    };
    let names: Vec<String> = cells.rows.iter().map(|row| row.labels.join(JOIN)).collect();
    let place = names.iter().position(|name| name == row).ok_or_else(|| unknown("cell", "row", row, names.clone()))?;
    let wanted = &cells.rows[place].labels;
    let mut labels: Vec<(String, String)> = pivot.rows.0.iter().cloned().zip(wanted.iter().cloned()).collect();
    let mut tests: Vec<(Vec<Option<String>>, &str)> = Vec::new();
    for (name, label) in pivot.rows.0.iter().zip(wanted) {
        tests.push((texts(self::column(&batch, name)?)?, label));
    }
    // The column of means stands behind those of the query.
    let is_average = pivot.average.is_some() && heading + 1 == cells.headings.len();
    if let Some(name) = pivot.columns.as_ref().filter(|_| !is_average) {
        tests.push((texts(self::column(&batch, name)?)?, column));
        labels.push((name.clone(), column.to_owned()));
    }
    let matches = |i: &usize| tests.iter().all(|(values, label)| values[*i].as_deref().unwrap_or(MISSING) == *label);
    let rows: Vec<usize> = (0..batch.num_rows()).filter(matches).collect();
    let text = cells.shown(&cells.rows[place].cells[heading]).joined();
    Ok(Behind { text, rows: result.take(&rows)?, labels })
}

#[cfg(test)]
mod tests;
