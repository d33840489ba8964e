//! Tests of questions to sessions over small files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// Writes a file whose name is a digest, as in a store.
fn write(folder: &Path, name: &str, batch: &RecordBatch) -> PathBuf {
    let path = folder.join(name);
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    path
}

fn part(path: PathBuf, axes: &[(&str, &str)]) -> Part {
    let axes = axes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
    Part { paths: vec![path], axes }
}

fn column(table: &Table, name: &str) -> Vec<String> {
    let batch = table.one_batch().unwrap();
    let array = batch.column_by_name(name).unwrap();
    let options = arrow::util::display::FormatOptions::default().with_null("null");
    let shown = arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options).unwrap();
    (0..array.len()).map(|row| shown.value(row).to_string()).collect()
}

fn message(session: &Session, sql: &str) -> String {
    session.sql(sql).expect_err("the query is wrong").to_string()
}

#[test]
fn instances_are_gathered_in_order_with_their_axes() {
    let folder = tempfile::tempdir().unwrap();
    // Names that glob and percent-decoding would misread, and no extension.
    let owl = write(folder.path(), "9a[1]", &batch(vec![("x", ints(&[3, 1])), ("only", texts(&["p", "q"]))]));
    let fox = write(folder.path(), "0b %20*", &batch(vec![("x", ints(&[2]))]));
    let mut session = Session::new(1).unwrap();
    let parts = vec![part(owl, &[("source", "owl"), ("round", "10")]), part(fox, &[("source", "fox"), ("round", "9")])];
    session.register_files("sampled", parts.clone());
    session.register_files("sampled.rejected", parts.clone());
    session.register_files("other.sampled.rejected", parts);
    let table = session.sql("SELECT * FROM sampled").unwrap();
    let names: Vec<_> = table.schema().fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    let (int, text) = (DataType::Int64, DataType::Utf8);
    assert_eq!(names, [("x", int.clone()), ("only", text.clone()), ("round", int), ("source", text)]);
    assert_eq!(column(&table, "x"), ["3", "1", "2"]);
    assert_eq!(column(&table, "only"), ["p", "q", "null"]);
    assert_eq!(column(&table, "round"), ["10", "10", "9"]);
    assert_eq!(column(&table, "source"), ["owl", "owl", "fox"]);
    let fox = session.sql("SELECT x FROM sampled.rejected WHERE source = 'fox' AND round = 9").unwrap();
    assert_eq!(column(&fox, "x"), ["2"]);
    let count =
        session.sql("SELECT count(*) AS n FROM other.sampled.rejected r, sampled WHERE r.x = sampled.x").unwrap();
    assert_eq!(column(&count, "n"), ["3"]);
    assert_eq!(
        column(&session.sql("SHOW TABLES").unwrap(), "table"),
        ["other.sampled.rejected", "sampled", "sampled.rejected"]
    );
}

#[test]
fn a_column_of_the_axis_name_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a", &batch(vec![("seed", texts(&["7", "7"]))]));
    let mut session = Session::new(1).unwrap();
    session.register_files("t", vec![part(path, &[("seed", "7")])]);
    let table = session.sql("SELECT * FROM t").unwrap();
    assert_eq!(table.schema().fields().len(), 1);
    assert_eq!(table.schema().field(0).data_type(), &DataType::Utf8);
}

#[test]
fn registering_touches_no_file_and_opening_says_which_is_missing() {
    let mut session = Session::new(1).unwrap();
    session.register_files("gone", vec![part(PathBuf::from("/nowhere/a"), &[])]);
    let said = message(&session, "SELECT * FROM gone");
    assert!(said.starts_with("table \"gone\": /nowhere/a: No such file"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    std::fs::write(&path, b"PAR1 and no more").unwrap();
    session.register_files("gone", vec![part(path, &[])]);
    let said = message(&session, "SELECT * FROM gone");
    assert!(said.contains("cut is not a whole Parquet file"), "{said}");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let a = write(folder.path(), "a", &batch(vec![("x", ints(&[1]))]));
    let b = write(folder.path(), "b", &batch(vec![("x", texts(&["1"]))]));
    let mut session = Session::new(1).unwrap();
    session.register_files("t", vec![part(a, &[]), part(b, &[])]);
    let said = message(&session, "SELECT * FROM t");
    assert!(said.starts_with("table \"t\": column \"x\" is Int64 in one file and Utf8 in "), "{said}");
}

fn small() -> Session<'static> {
    let mut session = Session::new(1).unwrap();
    let rows = batch(vec![
        ("model", texts(&["a", "b"])),
        ("Value", Arc::new(Float64Array::from(vec![0.5, 0.25])) as ArrayRef),
    ]);
    session.register_table("evaluated", Table::new(rows.schema(), vec![rows.clone()]));
    session.register_table("system.runs", Table::new(rows.schema(), vec![rows]));
    session
}

#[test]
fn wrong_names_come_with_right_ones_and_their_place() {
    let session = small();
    assert_eq!(
        message(&session, "SELECT * FROM evaluted"),
        "SQL: there is no table \"evaluted\"; did you mean \"evaluated\"?"
    );
    assert_eq!(
        message(&session, "SELECT * FROM zzz"),
        "SQL: there is no table \"zzz\"; the tables are evaluated, system.runs"
    );
    assert_eq!(
        message(&session, "SELECT model,\n  value FROM evaluated"),
        "SQL, line 2, column 3: there is no column \"value\"; did you mean \"Value\"?"
    );
    assert_eq!(
        message(&session, "SELECT e.nothing FROM evaluated e"),
        "SQL, line 1, column 8: there is no column \"e.nothing\"; the columns are model, Value"
    );
    let said = message(&session, "SELECT summ(Value) FROM evaluated");
    assert!(said.contains("summ") && said.contains("sum") && !said.contains("planning"), "{said}");
    assert_eq!(message(&session, "SELECT 1 +"), "SQL: expected an expression, found the end");
}

#[test]
fn nothing_can_be_written_or_read_from_outside() {
    let session = small();
    for sql in [
        "CREATE TABLE x AS SELECT 1",
        "COPY evaluated TO '/tmp/never.parquet'",
        "INSERT INTO evaluated SELECT 1",
        "DROP TABLE evaluated",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN ANALYZE INSERT INTO evaluated SELECT 1",
        "SELECT * INTO y FROM evaluated",
        "CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '/tmp'",
    ] {
        let error = session.sql(sql).expect_err(sql);
        assert!(matches!(error, Error::ReadOnly { .. } | Error::Meaning { .. }), "{sql}: {error}");
    }
    assert!(message(&session, "SELECT * FROM '/etc/passwd'").contains("there is no table"));
    assert!(!session.sql("EXPLAIN SELECT * FROM evaluated").unwrap().is_empty());
    assert_eq!(session.sql("DESCRIBE evaluated").unwrap().n_rows(), 2);
}

#[test]
fn results_hold_plain_types() {
    let session = small();
    let sql = "SELECT upper(model) AS u, CAST(1 AS VARCHAR) AS v, NULL AS n, row_number() OVER (ORDER BY model) AS r, \
               array_agg(model) OVER () AS l, substr(model, 1, 1) AS s, arrow_cast(model, 'Utf8View') AS w FROM evaluated";
    let table = session.sql(sql).unwrap();
    for field in table.schema().fields() {
        let said = field.data_type().to_string();
        assert!(
            !said.contains("View") && !said.contains("Large") && !said.contains("UInt"),
            "{}: {said}",
            field.name()
        );
    }
    let batch = table.one_batch().unwrap();
    assert_eq!(batch.column_by_name("r").unwrap().as_primitive::<Int64Type>().values(), &[1, 2]);
    assert_eq!(batch.column_by_name("n").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(session.sql("SELECT model FROM evaluated WHERE false").unwrap().schema().fields().len(), 1);
    assert_eq!(session.sql("SELECT * FROM generate_series(1, 3)").unwrap().n_rows(), 3);
}

#[test]
fn a_division_by_zero_is_a_message() {
    let said = message(&small(), "SELECT 1 / 0");
    assert!(said.to_lowercase().contains("divide by zero"), "{said}");
}

#[test]
fn a_table_may_be_replaced() {
    let mut session = small();
    assert_eq!(session.sql("SELECT * FROM evaluated").unwrap().n_rows(), 2);
    let rows = batch(vec![("model", texts(&["c"]))]);
    session.register_table("evaluated", Table::new(rows.schema(), vec![rows]));
    assert_eq!(column(&session.sql("SELECT model FROM evaluated").unwrap(), "model"), ["c"]);
}

#[test]
fn numbers_of_rows_are_plain_integers_and_too_large_ones_are_said() {
    let sql = "SELECT row_number() OVER (ORDER BY model) - 1 AS place, sum(arrow_cast(1, 'UInt64')) OVER () AS n FROM evaluated";
    let table = small().sql(sql).unwrap();
    for field in table.schema().fields() {
        assert_eq!(field.data_type(), &DataType::Int64, "{}", field.name());
    }
    let mut places = column(&table, "place");
    places.sort();
    assert_eq!(places, ["0", "1"]);
    let said = message(&small(), "SELECT arrow_cast(18446744073709551615, 'UInt64') AS much");
    assert!(said.contains("\"much\"") && said.contains("18446744073709551615"), "{said}");
}

#[test]
fn names_that_are_not_listed_may_still_be_known() {
    let mut session = small();
    session.set_unlisted(Box::new(|name| match name {
        "latest.evaluated" => {
            let rows = batch(vec![("model", texts(&["z"]))]);
            Some(Ok(Contents::Memory(Table::new(rows.schema(), vec![rows]))))
        }
        "later" => Some(Err(StageError::input("stage later has no result yet").hint("fuseline run p.yaml"))),
        _ => None,
    }));
    assert_eq!(column(&session.sql("SELECT * FROM latest.evaluated").unwrap(), "model"), ["z"]);
    assert!(message(&session, "SELECT * FROM earliest.evaluated").contains("there is no table"));
    let error = StageError::from(session.sql("SELECT * FROM later").expect_err("none yet"));
    assert_eq!(
        (error.message.as_str(), error.hint.as_deref()),
        ("stage later has no result yet", Some("fuseline run p.yaml"))
    );
    assert!(session.names().all(|name| !name.starts_with("late")));
    assert_eq!(session.columns("latest.evaluated").unwrap().fields().len(), 1);
}

/// A million rows of some 60 bytes, in no order: about 60 MB.
const MUCH: &str = "SELECT value, repeat(CAST(hash_fraction(CAST(value AS VARCHAR)) AS VARCHAR), 3) AS text \
                    FROM generate_series(1, 1000000)";

#[test]
fn what_does_not_fit_goes_through_files() {
    let folder = tempfile::tempdir().unwrap();
    let limits = |spill: bool| Limits {
        threads: 2,
        memory_bytes: Some(if spill { 32 << 20 } else { 1 << 20 }),
        spill: Some(folder.path().to_owned()),
        cancel: None,
    };
    let free = Session::new(2).unwrap();
    let tight = Session::with(limits(true)).unwrap();
    for sql in [
        format!("SELECT text FROM ({MUCH}) ORDER BY text"),
        format!("SELECT max(n) AS n, min(text) AS text FROM (SELECT text, count(*) AS n FROM ({MUCH}) GROUP BY text)"),
        format!("SELECT sum(place) AS n FROM (SELECT row_number() OVER (ORDER BY text) AS place FROM ({MUCH}))"),
    ] {
        let wanted = free.sql(&sql).unwrap();
        let found = tight.sql(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(found.one_batch().unwrap(), wanted.one_batch().unwrap(), "{sql}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a folder of this session");
    drop(tight);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its files go with it");
    let sorted = format!("SELECT array_agg(text ORDER BY text) AS l FROM ({MUCH})");
    let error = Session::with(limits(false)).unwrap().sql(&sorted).expect_err("one value cannot be split");
    assert!(matches!(error, Error::Resources { .. }), "{error}");
}

#[test]
fn a_query_can_be_broken_off() {
    let cancel = Arc::new(AtomicBool::new(false));
    let session = Session::with(Limits { threads: 2, cancel: Some(cancel.clone()), ..Limits::default() }).unwrap();
    let endless = "SELECT max(value) AS m FROM generate_series(1, 1000000000000)";
    let mut rows = session.stream(endless).unwrap();
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(rows.next(), Some(Err(Error::Cancelled))));
    drop(rows);
    assert_eq!(session.sql("SELECT 1 AS one").unwrap().n_rows(), 1, "the next one is not");
}
