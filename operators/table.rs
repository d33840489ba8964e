//! `table`: a paper's table, as every entry of a pipeline's `tables` makes one.

use fuseline_contract::{Execute, Kind, Operator, Output, Part, Ports, Problems, Run, StageError};
use fuseline_query::TableSpec;

use crate::sql::{PARTS, inputs, tables};

/// See [`Operator::MANUAL`].
pub struct TableOperator;

impl Operator for TableOperator {
    const NAME: &'static str = "table";
    const VERSION: u32 = 2;
    const PARTS: &'static [Part] = PARTS;
    const MANUAL: &'static str = "\
Makes a paper's table: a query, its pivot, and marks.

Every entry of a pipeline's `tables` is a stage of this operator. Its result
holds the cells with their marks; `fuseline table` renders it as text,
Markdown, LaTeX, HTML, CSV or JSON.

A pivot may mark the best (`bold`, `underline`), differences to a `baseline`, and
`significance: {p: COLUMN}`, stars for p-values that the query gives, corrected for the
number of tests in the table by Holm's method unless `correction` says otherwise.";
    const EXAMPLE: &'static str = "op: table\nwith:\n  sql: SELECT model, task, value, p FROM tested\n  \
        pivot: {rows: model, columns: task, value: value, bold: max, significance: {p: p}}\n  caption: Accuracy by skill\n";
    type Config = TableSpec;

    fn ports(config: &TableSpec) -> Ports {
        Ports { inputs: inputs(&config.sql), outputs: vec![Output::new("cells", Kind::AnyTable, "cells with marks")] }
    }

    fn check(config: &TableSpec, problems: &mut Problems) {
        config.check(problems);
    }
}

impl Execute for TableOperator {
    fn run(config: &TableSpec, run: &dyn Run) -> Result<(), StageError> {
        let cells = fuseline_query::table::cells(config, tables(&config.sql, run)?).map_err(StageError::from)?;
        run.write("cells", cells.to_table().map_err(StageError::from)?)
    }
}
