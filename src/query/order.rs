//! SQL whose result becomes an artifact: its rows must stand in an order that
//! does not depend on chance, so that its bytes do not.
//!
//! * With an ORDER BY at the top, rows that it leaves equal are ordered by the
//!   other columns (those of plain types, ascending, nulls last).
//! * Without one, rows are sorted by all columns, from left to right, ascending,
//!   nulls first.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, Limit, LogicalPlan, Projection, Sort, SortExpr};
use fuseline_contract::Table;

use crate::error::Result;
use crate::names::query;
use crate::session::Session;

/// Rows in a batch of a sorted result.
const BATCH: usize = 8192;

/// Runs a query over tables, on one thread, with a stable order of rows.
pub fn sql_stage(sql: &str, tables: Vec<(String, Table)>) -> Result<Table> {
    let mut session = Session::lent()?;
    for (name, table) in tables {
        session.register_table(&name, table);
    }
    sql_stable(&session, sql)
}

/// As [`sql_stage`], over tables that a session has; it should be of one thread.
pub fn sql_stable(session: &Session, sql: &str) -> Result<Table> {
    let plan = session.plan(query(sql)?)?;
    match with_ties_broken(&plan)? {
        Some(plan) => session.execute(plan),
        None => sorted(&session.execute(plan)?),
    }
}

/// The plan with a longer ORDER BY, if it has one at the top.
fn with_ties_broken(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Sort(sort) => {
            let mut expr = sort.expr.clone();
            for (relation, field) in sort.input.schema().iter() {
                let column = Expr::Column(Column::new(relation.cloned(), field.name()));
                if is_plain(field.data_type()) && !expr.iter().any(|known| known.expr == column) {
                    expr.push(SortExpr::new(column, true, false));
                }
            }
            Some(LogicalPlan::Sort(Sort { expr, input: sort.input.clone(), fetch: sort.fetch }))
        }
        LogicalPlan::Projection(projection) => match with_ties_broken(&projection.input)? {
            Some(input) => {
                Some(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(input))?))
            }
            None => None,
        },
        LogicalPlan::Limit(limit) => with_ties_broken(&limit.input)?.map(|input| {
            LogicalPlan::Limit(Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input: Arc::new(input) })
        }),
        _ => None,
    })
}

fn is_plain(data_type: &DataType) -> bool {
    data_type.is_primitive() || matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::Boolean)
}

/// The rows sorted by every column that has an order.
fn sorted(table: &Table) -> Result<Table> {
    let fields = table.schema().fields();
    let keys: Vec<usize> = (0..fields.len())
        .filter(|i| RowConverter::supports_fields(&[SortField::new(fields[*i].data_type().clone())]))
        .collect();
    if keys.is_empty() || table.n_rows() < 2 {
        return Ok(table.clone());
    }
    let converter = RowConverter::new(keys.iter().map(|i| SortField::new(fields[*i].data_type().clone())).collect())?;
    let rows = |batch: &RecordBatch| -> Result<Rows> {
        let columns: Vec<_> = keys.iter().map(|i| batch.column(*i).clone()).collect();
        Ok(converter.convert_columns(&columns)?)
    };
    let rows = table.batches().iter().map(rows).collect::<Result<Vec<_>>>()?;
    let mut order: Vec<(usize, usize)> =
        rows.iter().enumerate().flat_map(|(b, rows)| (0..rows.num_rows()).map(move |row| (b, row))).collect();
    order.sort_by(|a, b| rows[a.0].row(a.1).cmp(&rows[b.0].row(b.1)));
    let batches: Vec<&RecordBatch> = table.batches().iter().collect();
    let sorted = order.chunks(BATCH).map(|chunk| interleave_record_batch(&batches, chunk));
    Ok(Table::new(table.schema().clone(), sorted.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    fn tables() -> Vec<(String, Table)> {
        let x: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), Some(1), None, Some(1)]));
        let y: ArrayRef = Arc::new(StringArray::from(vec!["d", "c", "b", "a"]));
        let batch = RecordBatch::try_from_iter([("x", x), ("y", y)]).unwrap();
        vec![("t".to_owned(), Table::new(batch.schema(), vec![batch.slice(0, 3), batch.slice(3, 1)]))]
    }

    fn ys(sql: &str) -> String {
        let table = sql_stage(sql, tables()).expect(sql);
        let batch = table.one_batch().unwrap();
        let column = batch.column_by_name("y").unwrap().as_string::<i32>().clone();
        column.iter().map(|y| y.unwrap_or("-")).collect()
    }

    #[test]
    fn a_query_without_order_is_sorted_by_all_columns() {
        assert_eq!(ys("SELECT x, y FROM t"), "bacd");
        assert_eq!(ys("SELECT y, x FROM t"), "abcd");
    }

    #[test]
    fn an_order_is_kept_and_its_ties_are_broken() {
        assert_eq!(ys("SELECT y, x FROM t ORDER BY x DESC NULLS LAST"), "dacb");
        assert_eq!(ys("SELECT y FROM t ORDER BY x"), "acdb");
        assert_eq!(ys("SELECT y FROM t ORDER BY x LIMIT 2"), "ac");
        assert_eq!(ys("SELECT y FROM t ORDER BY x LIMIT 2 OFFSET 1"), "cd");
        assert_eq!(ys("SELECT y FROM t ORDER BY length(y), x DESC NULLS FIRST"), "bdac");
    }

    #[test]
    fn nested_columns_and_single_rows_pass() {
        let table = sql_stage("SELECT x, make_array(y, 'z') AS l, named_struct('y', y) AS s FROM t", tables()).unwrap();
        assert_eq!(table.n_rows(), 4);
        let one = sql_stage("SELECT sum(x) AS n FROM t", tables()).unwrap();
        assert_eq!(one.one_batch().unwrap().column(0).as_primitive::<Int64Type>().value(0), 4);
    }

    #[test]
    fn only_a_query_makes_an_artifact() {
        let error = sql_stage("EXPLAIN SELECT 1", vec![]).expect_err("no rows of its own");
        assert_eq!(error.to_string(), "only queries can be run here, found EXPLAIN SELECT");
        assert!(sql_stage("SELECT * FROM system.runs", tables()).is_err());
    }
}
