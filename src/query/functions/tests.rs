//! Every function against hand values, over columns with nulls and with several threads.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use fuseline_contract::Table;
use fuseline_metrics::stats::{bootstrap_mean, standard_error, wilson};

use super::*;
use crate::session::Session;

fn session() -> Session<'static> {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("gsm8k/0000"), None, Some("größer")]));
    let (k, n) = (Int64Array::from(vec![81, 0, 1, 0]), Int64Array::from(vec![263, 20, 1, 0]));
    let x = Float64Array::from(vec![Some(1.0), Some(2.0), None, Some(6.0)]);
    let vectors = ListArray::from_iter_primitive::<Float64Type, _, _>([
        Some(vec![Some(3.0), Some(4.0)]),
        Some(vec![Some(0.0), Some(0.0)]),
        None,
        Some(vec![Some(-6.0), Some(-8.0)]),
    ]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("text", texts), ("k", Arc::new(k)), ("n", Arc::new(n)), ("x", Arc::new(x)), ("v", Arc::new(vectors))];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let mut session = Session::new(2).unwrap();
    // A batch a row, so that states of several threads are merged.
    let rows = (0..4).map(|row| batch.slice(row, 1)).collect();
    session.register_table("t", Table::new(batch.schema(), rows));
    session
}

fn column(sql: &str) -> Vec<Option<f64>> {
    let table = session().sql(sql).expect(sql);
    let batch = table.one_batch().unwrap();
    batch.column(0).as_primitive::<Float64Type>().iter().collect()
}

fn one(expression: &str) -> Option<f64> {
    column(&format!("SELECT {expression} AS x"))[0]
}

fn said(sql: &str) -> String {
    session().sql(sql).expect_err(sql).to_string()
}

#[test]
fn the_list_is_sorted_and_says_what_each_gives() {
    assert!(ALL.is_sorted_by_key(|function| function.call));
    assert!(ALL.iter().all(|function| !function.doc.is_empty() && function.call.ends_with(')')));
    assert_eq!(ALL.iter().filter(|function| function.is_aggregate()).count(), 4);
}

#[test]
fn fractions_never_change() {
    // Frozen: a change would move rows between training and held-out parts of finished work.
    let frozen = [("", 0.11185532711334523), ("gsm8k/0000", 0.5395514695214177), ("größer", 0.9248019926748597)];
    for (text, fraction) in frozen {
        assert_eq!(hash_fraction(text), fraction, "{text:?}");
    }
    let [empty, id, long] = frozen.map(|(_, fraction)| Some(fraction));
    assert_eq!(column("SELECT hash_fraction(text) AS f FROM t ORDER BY k DESC, n DESC, text"), [empty, None, id, long]);
    assert_eq!(one("hash_fraction('gsm8k/0000')"), id);
}

#[test]
fn fractions_are_even() {
    let mut tenths = [0; 10];
    for i in 0..10_000 {
        tenths[(hash_fraction(&format!("prompt {i}")) * 10.0) as usize] += 1;
    }
    // A thousand each with a deviation of 30; five of them.
    assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
}

#[test]
fn intervals_are_those_of_the_metrics() {
    let (first, sure) = (wilson(81.0, 263.0).unwrap(), wilson(1.0, 1.0).unwrap());
    let none = wilson(0.0, 20.0).unwrap();
    let low = column("SELECT wilson_low(k, n) AS x FROM t ORDER BY k DESC, n DESC");
    assert_eq!(low, [Some(first.low), Some(sure.low), Some(none.low), None]);
    let high = column("SELECT wilson_high(k, n) AS x FROM t ORDER BY k DESC, n DESC");
    assert_eq!(high, [Some(first.high), Some(1.0), Some(none.high), None]);
    assert!(said("SELECT wilson_low(3, 2) AS x").contains("wilson_low(3, 2): expected 0 <= k <= n"));
}

#[test]
fn answers_are_what_verify_finds() {
    let answer = |call: &str| {
        let table = session().sql(&format!("SELECT {call} AS x")).expect(call);
        let batch = table.one_batch().unwrap();
        batch.column(0).as_string::<i32>().iter().next().flatten().map(str::to_owned)
    };
    assert_eq!(answer("extract_answer('so 3 + 4 = 7. The answer is 1,200 dollars')").as_deref(), Some("1200"));
    assert_eq!(answer("extract_answer('nothing here')"), None);
    assert_eq!(answer("extract_answer(' New  York. ', 'exact')").as_deref(), Some("new york"));
    assert_eq!(answer("extract_answer(NULL)"), None);
    let error = said("SELECT extract_answer(text, 'guess') AS x FROM t");
    assert!(error.contains("extract_answer") && error.contains("exact, numeric"), "{error}");
}

#[test]
fn likeness_of_texts_by_hand() {
    let table = session().sql("SELECT edit_distance('kitten', 'sitting') AS d").unwrap();
    assert_eq!(table.one_batch().unwrap().column(0).as_primitive::<Int64Type>().value(0), 3);
    assert_eq!(one("edit_similarity('kitten', 'sitting')"), Some(1.0 - 3.0 / 7.0));
    assert_eq!(one("edit_similarity('kitten', NULL)"), None);
    // Pairs: the cat, cat sat; once the, the cat, cat sat, sat on, on the.
    assert_eq!(one("ngram_overlap('The cat sat.', 'Once the cat sat on the cat', 2)"), Some(1.0));
    assert_eq!(one("ngram_jaccard('The cat sat.', 'Once the cat sat on the cat', 2)"), Some(2.0 / 5.0));
    assert_eq!(one("ngram_overlap('one', 'one', 2)"), None);
    assert!(said("SELECT ngram_jaccard('a', 'b', 0) AS x").contains("n is 0"));
    // Columns of other kinds of text are brought to the one that is taken.
    assert_eq!(one("edit_similarity(arrow_cast('ab', 'Utf8View'), arrow_cast('ab', 'LargeUtf8'))"), Some(1.0));
}

#[test]
fn cosines_by_hand() {
    // (3, 4)·(4, 3) = 24 over 5 · 5.
    assert_eq!(one("cosine_similarity([3, 4], [4.0, 3.0])"), Some(24.0 / 25.0));
    let of_column = column("SELECT cosine_similarity(v, [3, 4]) AS c FROM t ORDER BY k DESC, n DESC");
    assert_eq!(of_column, [Some(1.0), None, None, Some(-1.0)]);
    assert_eq!(one("cosine_similarity(arrow_cast([1, 0], 'FixedSizeList(2, Float32)'), [1, 0])"), Some(1.0));
    assert_eq!(one("cosine_similarity([1, NULL], [1, 2])"), None);
    assert!(said("SELECT cosine_similarity([1, 2], [1]) AS x").contains("lists of 2 and 1 numbers"));
    assert!(said("SELECT cosine_similarity('ab', [1]) AS x").contains("no list of numbers"));
}

#[test]
fn win_rates_by_hand() {
    // k against n / 20: 81 > 13.15, 0 < 1, 1 > 0.05, 0 = 0: two wins and a tie of four.
    assert_eq!(column("SELECT win_rate(k, n / 20.0) AS w FROM t"), [Some(2.5 / 4.0)]);
    assert_eq!(column("SELECT win_rate(x, 2) AS w FROM t"), [Some(1.5 / 3.0)]);
    assert_eq!(column("SELECT win_rate(x, NULL) AS w FROM t"), [None]);
    assert!(said("SELECT win_rate(DISTINCT k, n) AS w FROM t").contains("no DISTINCT"));
}

#[test]
fn errors_of_means_are_those_of_the_metrics() {
    // Values 1, 2 and 6: deviation sqrt(7), over sqrt(3).
    let found = column("SELECT stderr_mean(x) AS s FROM t")[0].expect("three values");
    assert!((found - standard_error(&[1.0, 2.0, 6.0]).expect("three values")).abs() < 1e-12, "{found}");
    assert_eq!(column("SELECT stderr_mean(x) AS s FROM t WHERE x = 1"), [None]);
}

#[test]
fn bootstraps_are_those_of_the_metrics_in_any_order() {
    let of = |seed| bootstrap_mean(&[1.0, 2.0, 6.0], 0.95, 1000, seed).expect("valid").expect("values");
    for order in ["x", "x DESC", "k"] {
        let from = format!("FROM (SELECT * FROM t ORDER BY {order})");
        assert_eq!(column(&format!("SELECT bootstrap_mean_low(x) AS b {from}")), [Some(of(0).low)]);
        assert_eq!(column(&format!("SELECT bootstrap_mean_high(x, 7) AS b {from}")), [Some(of(7).high)]);
    }
    assert_eq!(column("SELECT bootstrap_mean_low(x) AS b FROM t WHERE x > 9"), [None]);
    assert!(said("SELECT bootstrap_mean_low(x, k) AS b FROM t").contains("written out"));
}
