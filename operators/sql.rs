//! `sql`: a table made from tables by a query.

use fuseline_contract::{Execute, Input, Kind, Operator, Output, Ports, Problems, Run, StageError, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::rows::RowsName;

/// Parameters of `sql`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One SELECT over stages, by name: `scored`, `pairs.dropped`.
    pub sql: String,
    /// The row type to bring the result to. Without it the columns stay as they are.
    #[serde(default, rename = "as")]
    pub rows: Option<RowsName>,
}

/// See [`Operator::MANUAL`].
pub struct Sql;

impl Operator for Sql {
    const NAME: &'static str = "sql";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "\
Makes a table from tables by a query.

The query is one SELECT in DataFusion's dialect. A table in it is the stage of
that name, or what `inputs` binds to that name. Rows keep the order of the
query's ORDER BY; without one they are sorted by all columns, so that the
result does not depend on threads.";
    const EXAMPLE: &'static str =
        "op: sql\nwith:\n  sql: SELECT source, avg(reward) AS reward FROM scored GROUP BY source ORDER BY source\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let kind = config.rows.map_or(Kind::AnyTable, |rows| Kind::Rows(rows.row_type()));
        Ports { inputs: inputs(&config.sql), outputs: vec![Output::new("rows", kind, "the query's result")] }
    }

    fn check(config: &Config, problems: &mut Problems) {
        check(&config.sql, problems);
    }
}

/// A port a table that the query names. A text that is no query has none; `check` says why.
pub fn inputs(sql: &str) -> Vec<Input> {
    let names = fuseline_query::tables_of(sql).unwrap_or_default();
    names.iter().map(|name| Input::one(name, Kind::AnyTable, "a table of the query").implicit()).collect()
}

/// Notes what is wrong with a query's text.
pub fn check(sql: &str, problems: &mut Problems) {
    if let Err(error) = fuseline_query::tables_of(sql) {
        problems.add("sql", error.to_string());
    }
}

/// Reads the tables of a query.
pub fn tables(sql: &str, run: &dyn Run) -> Result<Vec<(String, Table)>, StageError> {
    inputs(sql).into_iter().map(|input| Ok((input.name.clone(), run.table(&input.name)?))).collect()
}

impl Execute for Sql {
    type Operator = Self;

    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = fuseline_query::sql_stage(&config.sql, tables(&config.sql, run)?).map_err(StageError::from)?;
        if table.is_empty() {
            run.note("the query gave no rows".to_owned());
        }
        run.write("rows", table)
    }
}
