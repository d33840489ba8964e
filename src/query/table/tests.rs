//! Tests of tables from queries: pivots, averages, marks.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use serde_json::json;

use super::*;
use crate::render::{self, Format, Style};

/// `model, task, seed, value` lines; `-` is a null.
fn result(lines: &[&str]) -> Vec<(String, Table)> {
    let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let texts = |i: usize| Arc::new(fields.iter().map(|f| Some(f[i])).collect::<StringArray>()) as ArrayRef;
    let floats =
        |i: usize| Arc::new(fields.iter().map(|f| f[i].parse::<f64>().ok()).collect::<Float64Array>()) as ArrayRef;
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..lines.len() as i64));
    let columns = [("model", texts(0)), ("task", texts(1)), ("seed", texts(2)), ("value", floats(3)), ("n", n)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    vec![("evaluated".to_owned(), Table::new(batch.schema(), vec![batch]))]
}

const LINES: [&str; 7] = [
    "base  math 1 0.10",
    "base  code 1 0.20",
    "sft   math 1 0.3004",
    "wrpo  math 1 0.3001",
    "sft   code 1 0.15",
    "wrpo  code 1 0.40",
    "extra math 1 -",
];

fn spec(pivot: serde_json::Value) -> TableSpec {
    serde_json::from_value(json!({"sql": "SELECT * FROM evaluated ORDER BY n", "pivot": pivot})).unwrap()
}

fn text(pivot: serde_json::Value, lines: &[&str]) -> String {
    let cells = cells(&spec(pivot), result(lines)).expect("a grid");
    assert_eq!(Cells::from_table(&cells.to_table().unwrap()).unwrap(), cells);
    render::cells(&cells, Format::Text, &Style::default())
}

fn message(pivot: serde_json::Value, lines: &[&str]) -> String {
    cells(&spec(pivot), result(lines)).expect_err("wrong").to_string()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).collect()
}

#[test]
fn the_grid_of_a_paper() {
    let pivot = json!({"rows": "model", "columns": "task", "value": "value", "row_order": ["wrpo"],
        "column_order": ["code"], "average": "Mean", "bold": "max", "underline": true, "baseline": "base",
        "percent": true});
    let text = text(pivot, &LINES);
    assert_eq!(
        lines(&text),
        [
            "model           code           math           Mean",
            "-----  -------------  -------------  -------------",
            "wrpo   40.0 (+20.0)*  30.0 (+20.0)*  35.0 (+20.0)*",
            "base           20.0_          10.0_          15.0",
            "sft     15.0 (-5.0)   30.0 (+20.0)*   22.5 (+7.5)_",
            "extra             –              –              –",
        ]
    );
}

#[test]
fn an_ordered_row_without_data_is_a_row_of_missing_cells() {
    let text = text(
        json!({"rows": "model", "columns": "task", "value": "value", "row_order": ["none"], "digits": 1}),
        &LINES[..2],
    );
    assert_eq!(lines(&text), ["model  math  code", "-----  ----  ----", "none      –     –", "base    0.1   0.2"]);
}

#[test]
fn seeds_become_mean_and_deviation() {
    // Mean of 0.1, 0.2, 0.6 is 0.3; squares 0.04 + 0.01 + 0.09 = 0.14; /2 = 0.07; root 0.264575.
    let seeds = ["a math 1 0.1", "a math 2 0.2", "a math 3 0.6", "b math 1 0.5", "b math 2 -"];
    let pivot = json!({"rows": "model", "columns": "task", "value": "value"});
    assert_eq!(
        message(pivot.clone(), &seeds),
        "row \"a\", column \"math\" has 3 values: average them in the SQL, or say `spread: stddev` for their mean and deviation"
    );
    let mut with = pivot;
    with["spread"] = json!("stddev");
    assert_eq!(
        lines(&text(with, &seeds)),
        ["model           math", "-----  -------------", "a      0.300 ± 0.265", "b              0.500"]
    );
    let column = json!({"rows": ["model", "task"], "value": "value", "spread": {"column": "value"}, "digits": 1});
    let text = text(column, &seeds[..1]);
    assert_eq!(lines(&text), ["model  task      value", "-----  ----  ---------", "a      math  0.1 ± 0.1"]);
}

#[test]
fn columns_may_be_the_querys_own() {
    let spec: TableSpec = serde_json::from_value(json!({
        "sql": "SELECT model, avg(value) AS mean, count(*) AS n FROM evaluated GROUP BY model",
        "pivot": {"rows": "model", "value": ["n", "mean"], "bold": "min", "baseline": "sft"}
    }))
    .unwrap();
    let cells = cells(&spec, result(&LINES[..6])).unwrap();
    let text = render::cells(&cells, Format::Text, &Style::default());
    assert_eq!(
        lines(&text),
        [
            "model       n             mean",
            "-----  ------  ---------------",
            "base   2 (0)*  0.150 (-0.075)*",
            "sft        2*           0.225",
            "wrpo   2 (0)*  0.350 (+0.125)",
        ]
    );
}

#[test]
fn wrong_pivots_say_what_is_wrong() {
    let with = |key: &str, value: serde_json::Value| {
        let mut pivot = json!({"rows": "model", "columns": "task", "value": "value"});
        pivot[key] = value;
        message(pivot, &LINES)
    };
    assert_eq!(with("rows", json!("modle")), "column \"modle\" is missing; there are model, task, seed, value, n");
    assert_eq!(with("baseline", json!("bass")), "baseline \"bass\": no such row; did you mean \"base\"?");
    let texts = json!({"rows": "model", "columns": "task", "value": "seed", "bold": "max"});
    assert_eq!(
        message(texts, &LINES),
        "row \"base\", column \"math\" is not a number, so \"bold\" has no meaning there"
    );
    let wide = json!({"rows": "model", "value": "value", "column_order": ["valu"]});
    assert_eq!(message(wide, &LINES), "column_order \"valu\": no such column; did you mean \"value\"?");
}

#[test]
fn without_a_pivot_the_result_is_shown_as_it_is() {
    let spec: TableSpec = serde_json::from_value(
        json!({"sql": "SELECT model, value FROM evaluated WHERE task = 'math'", "caption": "All"}),
    )
    .unwrap();
    let cells = cells(&spec, result(&LINES)).unwrap();
    let text = render::cells(&cells, Format::Text, &Style::default());
    assert_eq!(
        lines(&text),
        [
            "All",
            "",
            "model   value",
            "-----  ------",
            "base      0.1",
            "extra       –",
            "sft    0.3004",
            "wrpo   0.3001"
        ]
    );
}

#[test]
fn stars_are_for_differences_that_hold_among_all_tests() {
    // Three tests: 0.0003 · 3 = 0.0009, 0.02 · 2 = 0.04, 0.04 · 1 is raised to 0.04.
    let tested = ["sft math 1 0.0003", "sft code 1 0.04", "wrpo math 1 0.02", "wrpo code 1 -", "base math 1 -"];
    let mut pivot = json!({"rows": "model", "columns": "task", "value": "n", "significance": {"p": "value"}});
    let all = text(pivot.clone(), &tested);
    let note = "note: * p < 0.05, ** p < 0.01, *** p < 0.001; 3 tests, corrected by Holm's method";
    assert_eq!(
        lines(&all),
        [
            "model   math  code",
            "-----  -----  ----",
            "sft    0^***   1^*",
            "wrpo     2^*     3",
            "base       4     –",
            "",
            note
        ]
    );
    pivot["significance"]["correction"] = json!("benjamini_hochberg");
    assert!(text(pivot.clone(), &tested).contains("0^***"));
    pivot["significance"]["correction"] = json!("none");
    assert!(text(pivot.clone(), &tested[..2]).contains("2 tests, not corrected"));
    let said = message(pivot, &["sft math 1 1.5"]);
    assert_eq!(said, "column \"value\" holds 1.5, which is no p-value: expected a number from 0 to 1");
    let seeds =
        json!({"rows": "model", "columns": "task", "value": "n", "spread": "stddev", "significance": {"p": "value"}});
    assert!(text(seeds.clone(), &["a math 1 0.01", "a math 2 0.01"]).contains("0.500^* ± 0.707"));
    let said = message(seeds, &["a math 1 0.01", "a math 2 0.02"]);
    assert!(said.contains("the p-values 0.01 and 0.02: give every row of the cell the same one"), "{said}");
}

#[test]
fn behind_a_cell_are_the_rows_that_it_was_made_of() {
    let tables = result(&["a math 1 0.1", "a math 2 0.3", "a code 1 0.5", "b math 1 0.7", "b code 1 -"]);
    let pivot = json!({"rows": "model", "columns": "task", "value": "value", "spread": "stddev", "average": true});
    let spec = spec(pivot);
    let grid = cells(&spec, tables.clone()).unwrap();
    let of = |row: &str, column: &str| behind(&spec, &grid, &tables[0].1, row, column);
    let found = of("a", "math").unwrap();
    assert_eq!((found.text.as_str(), found.rows.n_rows()), ("0.200 ± 0.141", 2));
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found.labels, [label("model", "a"), label("task", "math")]);
    let mean = of("a", "Average").unwrap();
    assert_eq!((mean.rows.n_rows(), mean.labels), (3, vec![label("model", "a")]));
    assert_eq!(of("a", "maths").unwrap_err().to_string(), "cell \"maths\": no such column; did you mean \"math\"?");
    assert!(of("c", "math").unwrap_err().to_string().starts_with("cell \"c\": no such row"));

    let plain: TableSpec = serde_json::from_value(json!({"sql": "SELECT * FROM evaluated"})).unwrap();
    let grid = of_result(&plain, &tables[0].1).unwrap();
    let of = |row: &str| behind(&plain, &grid, &tables[0].1, row, "value").unwrap();
    assert_eq!((of("4").text, of("b").text, of("b").labels), ("0.7".into(), "0.7".into(), vec![label("model", "b")]));
}
