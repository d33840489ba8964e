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
Markdown, LaTeX, CSV or JSON.";
    const EXAMPLE: &'static str = "op: table\nwith:\n  sql: SELECT model, task, value FROM evaluated\n  \
        pivot: {rows: model, columns: task, value: value, bold: max}\n  caption: Accuracy by skill\n";
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
