//! What differs between two tables: rows added, removed and changed by key, the
//! schema's drift apart. Row order does not count, and floats may differ by a
//! tolerance, so that neither another order nor a last bit is a difference.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use fuseline_contract::Table;
use fuseline_contract::table::TableError;

/// What tells rows of the known row types apart: the first set whose first
/// column both tables have; of the others those that both have.
const IDENTITIES: &[&[&str]] = &[
    &["chosen", "prompt_id"],
    &["text_id", "model"],
    &["metric", "model", "task", "seed"],
    &["step", "name"],
    &["prompt_id", "source", "sample", "candidate", "scorer", "seed"],
];
/// A pair of answers is known by its prompt, not by its texts.
const PAIRS: &str = "chosen";

/// How two tables are compared.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The columns that tell rows apart; those of the row type if empty.
    pub keys: Vec<String>,
    /// How far two floats may be apart, absolutely or relative to the larger.
    pub tolerance: f64,
}

/// What differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// The columns that told rows apart; none if whole rows were compared.
    pub keys: Vec<String>,
    /// Columns added, removed and of another type, in words.
    pub drift: Vec<String>,
    /// Rows before and now.
    pub rows: (usize, usize),
    /// Rows of the table now that were not there.
    pub added: Vec<usize>,
    /// Rows of the table before that are gone.
    pub removed: Vec<usize>,
    /// Rows whose other columns changed.
    pub changed: Vec<Changed>,
}

/// A row that is in both tables and differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The row before.
    pub before: usize,
    /// The row now.
    pub now: usize,
    /// The columns that differ.
    pub columns: Vec<String>,
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.drift.is_empty() && self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// `12 rows added, 3 changed, column x added`.
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        let mut unit = " rows";
        for (count, what) in
            [(self.added.len(), "added"), (self.removed.len(), "removed"), (self.changed.len(), "changed")]
        {
            if count > 0 {
                let unit = if count == 1 && unit == " rows" { " row" } else { unit };
                parts.push(format!("{count}{unit} {what}"));
            }
            if !parts.is_empty() {
                unit = "";
            }
        }
        parts.extend(self.drift.iter().cloned());
        if parts.is_empty() { "the same rows".to_owned() } else { parts.join(", ") }
    }
}

/// Compares two tables.
pub fn compare(before: &Table, now: &Table, options: &Options) -> Result<Diff, TableError> {
    let (left, right) = (before.one_batch()?, now.one_batch()?);
    let (drift, common) = drift(left.schema_ref(), right.schema_ref());
    let keys = match options.keys.is_empty() {
        true => identity(&common),
        false => options.keys.clone(),
    };
    for key in &keys {
        if !common.contains(key) {
            return Err(TableError::MissingColumn { column: key.clone(), found: common });
        }
    }
    let by = if keys.is_empty() { &common } else { &keys };
    let (left_keys, right_keys) = (rows(&left, by)?, rows(&right, by)?);
    // The nth row of a key is compared with its nth row before.
    let mut known: HashMap<&[u8], VecDeque<usize>> = HashMap::new();
    let left_keys: Vec<_> = (0..left.num_rows()).map(|row| left_keys.row(row)).collect();
    for (row, key) in left_keys.iter().enumerate() {
        known.entry(key.as_ref()).or_default().push_back(row);
    }
    let mut diff = Diff {
        keys: keys.clone(),
        drift,
        rows: (left.num_rows(), right.num_rows()),
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
    };
    let mut pairs = Vec::new();
    for row in 0..right.num_rows() {
        match known.get_mut(right_keys.row(row).as_ref()).and_then(VecDeque::pop_front) {
            Some(before) => pairs.push((before, row)),
            None => diff.added.push(row),
        }
    }
    diff.removed = known.into_values().flatten().collect();
    diff.removed.sort_unstable();
    let mut columns: Vec<Vec<String>> = vec![Vec::new(); pairs.len()];
    for name in common.iter().filter(|name| !by.contains(name)) {
        let equal = equality(&left, &right, name, options.tolerance)?;
        for (columns, (before, now)) in columns.iter_mut().zip(&pairs) {
            if !equal(*before, *now) {
                columns.push(name.clone());
            }
        }
    }
    let changed = pairs.into_iter().zip(columns).filter(|(_, columns)| !columns.is_empty());
    diff.changed = changed.map(|((before, now), columns)| Changed { before, now, columns }).collect();
    Ok(diff)
}

/// The schema's drift in words, and the columns that both tables have alike.
fn drift(before: &Schema, now: &Schema) -> (Vec<String>, Vec<String>) {
    let mut drift = Vec::new();
    let mut common = Vec::new();
    for field in now.fields() {
        match before.field_with_name(field.name()) {
            Err(_) => drift.push(format!("column {} added ({})", field.name(), field.data_type())),
            Ok(old) if old.data_type() != field.data_type() => {
                drift.push(format!("column {} {} → {}", field.name(), old.data_type(), field.data_type()));
            }
            Ok(_) => common.push(field.name().clone()),
        }
    }
    let gone = before.fields().iter().filter(|field| now.field_with_name(field.name()).is_err());
    drift.extend(gone.map(|field| format!("column {} removed ({})", field.name(), field.data_type())));
    (drift, common)
}

fn identity(common: &[String]) -> Vec<String> {
    let has = |name: &&str| common.iter().any(|column| column == name);
    let set = IDENTITIES.iter().find(|set| has(&set[0])).copied().unwrap_or_default();
    set.iter().filter(|name| has(name) && **name != PAIRS).map(|name| (*name).to_owned()).collect()
}

/// Some columns in a form whose bytes are equal where the values are.
fn rows(batch: &RecordBatch, columns: &[String]) -> Result<Rows, TableError> {
    let arrays: Vec<ArrayRef> =
        columns.iter().map(|name| batch.column_by_name(name).expect("both have it").clone()).collect();
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    if arrays.is_empty() {
        // A table without columns has nothing to tell rows apart by.
        let nulls: ArrayRef = Arc::new(arrow::array::NullArray::new(batch.num_rows()));
        let converter = RowConverter::new(vec![SortField::new(DataType::Null)])?;
        return Ok(converter.convert_columns(&[nulls])?);
    }
    Ok(RowConverter::new(fields)?.convert_columns(&arrays)?)
}

/// Tells whether a column's value in a row before equals that in a row now.
fn equality<'a>(
    left: &'a RecordBatch,
    right: &'a RecordBatch,
    name: &str,
    tolerance: f64,
) -> Result<Box<dyn Fn(usize, usize) -> bool + 'a>, TableError> {
    let (a, b) = (left.column_by_name(name).expect("common"), right.column_by_name(name).expect("common"));
    if tolerance > 0.0 && has_floats(a.data_type()) {
        return Ok(Box::new(move |before, now| close(a, before, b, now, tolerance)));
    }
    let column = [name.to_owned()];
    let (a, b) = (rows(left, &column)?, rows(right, &column)?);
    Ok(Box::new(move |before, now| a.row(before).as_ref() == b.row(now).as_ref()))
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(item) => has_floats(item.data_type()),
        _ => false,
    }
}

/// Whether two floats, or lists of them, are near.
fn close(a: &dyn Array, i: usize, b: &dyn Array, j: usize, tolerance: f64) -> bool {
    if a.is_null(i) || b.is_null(j) {
        return a.is_null(i) && b.is_null(j);
    }
    let near = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
    };
    match a.data_type() {
        DataType::Float32 => {
            near(a.as_primitive::<Float32Type>().value(i).into(), b.as_primitive::<Float32Type>().value(j).into())
        }
        DataType::Float64 => near(a.as_primitive::<Float64Type>().value(i), b.as_primitive::<Float64Type>().value(j)),
        _ => {
            let (a, b) = (a.as_list::<i32>().value(i), b.as_list::<i32>().value(j));
            a.len() == b.len() && (0..a.len()).all(|k| close(&a, k, &b, k, tolerance))
        }
    }
}

/// A value of a table as text; a null is `null`.
pub fn cell(table: &Table, column: &str, row: usize) -> Result<String, TableError> {
    let mut row = row;
    for batch in table.batches() {
        if row < batch.num_rows() {
            let Some(array) = batch.column_by_name(column) else { break };
            let options = FormatOptions::new().with_null("null");
            return Ok(ArrayFormatter::try_new(array, &options)?.value(row).to_string());
        }
        row -= batch.num_rows();
    }
    Ok(String::new())
}

/// Two texts cut down to where they differ, each at most about `width` long.
pub fn shorten(before: &str, now: &str, width: usize) -> (String, String) {
    let (a, b): (Vec<char>, Vec<char>) = (before.chars().collect(), now.chars().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let start = if a.len().max(b.len()) <= width { 0 } else { same.saturating_sub(width / 3) };
    let cut = |text: &[char]| {
        let end = text.len().min(start + width);
        let middle: String = text[start.min(end)..end].iter().collect::<String>().replace('\n', "\\n");
        format!("{}{middle}{}", if start > 0 { "…" } else { "" }, if end < text.len() { "…" } else { "" })
    };
    (cut(&a), cut(&b))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    fn table(ids: &[&str], rewards: &[f64], texts: &[&str]) -> Table {
        let columns: Vec<(Field, ArrayRef)> = vec![
            (Field::new("prompt_id", DataType::Utf8, false), Arc::new(StringArray::from(ids.to_vec()))),
            (Field::new("reward", DataType::Float64, true), Arc::new(Float64Array::from(rewards.to_vec()))),
            (Field::new("text", DataType::Utf8, true), Arc::new(StringArray::from(texts.to_vec()))),
        ];
        Table::of_columns(columns).expect("a table")
    }

    #[test]
    fn rows_are_matched_by_identity_whatever_their_order() {
        let before = table(&["a", "b", "c", "d"], &[1.0, 2.0, 3.0, 4.0], &["x", "y", "z", "w"]);
        let now = table(&["e", "c", "b", "a"], &[5.0, 3.0, 2.5, 1.0], &["v", "z", "y", "X"]);
        let diff = compare(&before, &now, &Options::default()).expect("compared");
        assert_eq!(diff.keys, ["prompt_id"]);
        assert_eq!((diff.added.as_slice(), diff.removed.as_slice()), ([0].as_slice(), [3].as_slice()));
        let changed = |before, now, column: &str| Changed { before, now, columns: vec![column.to_owned()] };
        assert_eq!(diff.changed, [changed(1, 2, "reward"), changed(0, 3, "text")]);
        assert_eq!(diff.words(), "1 row added, 1 removed, 2 changed");
    }

    #[test]
    fn the_last_bits_of_floats_count_only_without_a_tolerance() {
        let before = table(&["a"], &[0.1 + 0.2], &["x"]);
        let now = table(&["a"], &[0.3], &["x"]);
        assert_eq!(compare(&before, &now, &Options::default()).expect("compared").changed.len(), 1);
        let options = Options { tolerance: 1e-9, ..Options::default() };
        assert!(compare(&before, &now, &options).expect("compared").is_empty());
        let far = table(&["a"], &[0.3001], &["x"]);
        assert_eq!(compare(&before, &far, &options).expect("compared").changed.len(), 1);
    }

    #[test]
    fn drift_of_the_schema_is_told_apart_from_rows() {
        let before = table(&["a"], &[1.0], &["x"]);
        let mut columns: Vec<(Field, ArrayRef)> = vec![
            (Field::new("prompt_id", DataType::Utf8, false), Arc::new(StringArray::from(vec!["a"]))),
            (Field::new("reward", DataType::Int64, true), Arc::new(Int64Array::from(vec![1]))),
        ];
        columns.push((Field::new("length", DataType::Int64, true), Arc::new(Int64Array::from(vec![1]))));
        let now = Table::of_columns(columns).expect("a table");
        let diff = compare(&before, &now, &Options::default()).expect("compared");
        let drift = ["column reward Float64 → Int64", "column length added (Int64)", "column text removed (Utf8)"];
        assert_eq!(diff.drift, drift);
        assert_eq!((diff.added.len(), diff.removed.len(), diff.changed.len()), (0, 0, 0));
    }

    #[test]
    fn equal_rows_are_counted_and_without_an_identity_whole_rows_are_compared() {
        let numbers = |values: &[i64]| {
            let array: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            Table::of_columns(vec![(Field::new("x", DataType::Int64, false), array)]).expect("a table")
        };
        let diff = compare(&numbers(&[1, 1, 2]), &numbers(&[2, 1, 3, 3]), &Options::default()).expect("compared");
        assert!(diff.keys.is_empty());
        assert_eq!((diff.added, diff.removed), (vec![2, 3], vec![1]));
        let wrong = Options { keys: vec!["y".to_owned()], tolerance: 0.0 };
        let error = compare(&numbers(&[1]), &numbers(&[1]), &wrong).expect_err("no such column");
        assert!(error.to_string().contains("\"y\""), "{error}");
    }

    #[test]
    fn long_texts_are_cut_to_where_they_differ() {
        let long = |end: &str| "a".repeat(100) + end + &"b".repeat(100);
        let (before, now) = shorten(&long("one"), &long("two"), 30);
        assert!(before.starts_with("…aaaaaaaaaaone") && before.ends_with('…'), "{before}");
        assert!(now.contains("two") && now.chars().count() <= 32, "{now}");
        assert_eq!(shorten("x", "y", 30), ("x".to_owned(), "y".to_owned()));
    }
}
