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
    assert_eq!(ALL.iter().filter(|function| function.is_aggregate()).count(), 13);
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

#[test]
fn comparisons_are_those_of_the_metrics() {
    use fuseline_metrics::stats::{mcnemar_exact, paired_bootstrap, sign_flip};
    let rows = "(VALUES (true, false), (true, true), (false, true), (true, false), (NULL, true)) AS v(a, b)";
    let of = |call: &str| column(&format!("SELECT {call} AS p FROM {rows}"))[0].expect(call);
    assert_eq!(of("mcnemar_p(a, b)"), mcnemar_exact(2, 1));
    let differences = [-1.0, 0.0, 1.0, 1.0];
    assert_eq!(of("sign_flip_p(a, b)"), sign_flip(&differences, 10_000, 0));
    let bootstrap = paired_bootstrap(&differences, 0.95, 10_000, 5).expect("valid").expect("rows");
    assert_eq!(of("paired_bootstrap_p(a, b, 5)"), bootstrap.p_value);
    assert_eq!(of("paired_bootstrap_low(a, b, 5)"), bootstrap.interval.low);
    assert_eq!(of("paired_bootstrap_high(CAST(a AS DOUBLE), CAST(b AS INT), 5)"), bootstrap.interval.high);
    assert_eq!(column(&format!("SELECT mcnemar_p(a, b) AS p FROM {rows} WHERE a IS NULL")), [None]);
    assert!(said("SELECT mcnemar_p(x, 0) AS p FROM t").contains("use sign_flip_p"));
}

#[test]
fn figures_of_counts_are_those_of_the_metrics() {
    use fuseline_metrics::stats::{clopper_pearson, mcnemar_corrected, mcnemar_exact, minimum_detectable_difference};
    let exact = clopper_pearson(81, 263, 0.95).expect("trials");
    assert_eq!(one("clopper_pearson_low(81, 263)"), Some(exact.low));
    assert_eq!(one("clopper_pearson_high(81, 263)"), Some(exact.high));
    assert_eq!(one("clopper_pearson_high(0, 0)"), None);
    assert!(said("SELECT clopper_pearson_low(0.5, 2) AS x").contains("expected 0 <= k <= n"));
    assert_eq!(one("mcnemar_exact(5, 1)"), Some(mcnemar_exact(5, 1)));
    assert_eq!(one("mcnemar_corrected(30, 12)"), Some(mcnemar_corrected(30, 12)));
    assert!(said("SELECT mcnemar_exact(-1, 1) AS x").contains("expected two counts"));
    assert_eq!(one("minimum_detectable_difference(0.5, 100)"), minimum_detectable_difference(0.5, 100.0, 0.05, 0.8));
    assert_eq!(one("minimum_detectable_difference(0.5, 0)"), None);
}

#[test]
fn clusters_are_those_of_the_metrics_in_any_order() {
    use fuseline_metrics::stats::{SmallSample, clustered_standard_error};
    let values = [(-1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "b")];
    let expected = clustered_standard_error(values, SmallSample::Corrected);
    for order in ["x", "x DESC", "c, x"] {
        let rows = "(VALUES (-1.0, 'a'), (2.0, 'a'), (3.0, 'b'), (4.0, 'b'), (NULL, 'c')) AS v(x, c)";
        let from = format!("FROM (SELECT * FROM {rows} ORDER BY {order})");
        assert_eq!(column(&format!("SELECT clustered_stderr(x, c) AS s {from}")), [expected]);
    }
}

#[test]
fn corrections_keep_the_rows_where_they_are() {
    let rows = "(VALUES ('a', 0.01), ('a', 0.04), ('b', 0.04), ('a', NULL), ('a', 0.03)) AS v(task, p)";
    let of = |call: &str| column(&format!("SELECT {call} OVER (PARTITION BY task) AS q FROM {rows} ORDER BY task, p"));
    assert_eq!(of("holm(p)"), [Some(0.03), Some(0.06), Some(0.06), None, Some(0.04)]);
    assert_eq!(of("benjamini_hochberg(p)"), [Some(0.03), Some(0.04), Some(0.04), None, Some(0.04)]);
    let wrong = said("SELECT holm(p) OVER () AS q FROM (VALUES (1.5)) AS v(p)");
    assert!(wrong.contains("1.5 is no probability"), "{wrong}");
}

#[test]
fn judges_are_understood() {
    assert_eq!(one("judge_rating('Rating: [[7]]')"), Some(7.0));
    assert_eq!(one("judge_rating('none')"), None);
    assert_eq!(one("arena_score(arena_verdict('so: [[B>>A]].'))"), Some(0.0));
    assert_eq!(one("arena_score(arena_verdict('[[A>B]] or [[B>A]]'))"), None);
    assert_eq!(one("CASE pair_verdict('[[C]]') WHEN 'C' THEN 0.5 END"), Some(0.5));
    assert_eq!(one("reward_bench_weight('math-prm')"), Some(984.0));
    assert_eq!(one("CASE reward_bench_section('hep-go') WHEN 'Reasoning' THEN 1.0 END"), Some(1.0));
    let text = "'# a' || chr(10) || '- b' || chr(10) || '- **c**'";
    for (what, n) in [("headers", 1.0), ("list_items", 2.0), ("bold", 1.0)] {
        assert_eq!(one(&format!("CAST(count_markdown({text}, '{what}') AS DOUBLE)")), Some(n), "{what}");
    }
    assert!(said("SELECT count_markdown('a', 'tables') AS x").contains("none of bold, headers, list_items"));
}

#[test]
fn estimates_of_passing_are_exact_and_bounded() {
    assert!((one("pass_at_k(5, 2, 2)").expect("a number") - 0.7).abs() < 1e-12);
    assert_eq!([one("pass_at_k(3, 3, 1)"), one("pass_at_k(3, NULL, 1)")], [Some(1.0), None]);
    for wrong in ["pass_at_k(2, 1, 3)", "pass_at_k(2, 3, 1)", "pass_at_k(2, -1, 1)", "pass_at_k(2, 1, 0)"] {
        assert!(said(&format!("SELECT {wrong}")).contains("expected 0 <= c <= n and 1 <= k <= n"), "{wrong}");
    }
}

#[test]
fn the_best_choice_is_the_first_of_the_greatest() {
    let best = |list: &str| one(&format!("CAST(best_choice({list}) AS DOUBLE)"));
    assert_eq!(best("make_array(-3.5, -1.25, -1.25, -9)"), Some(1.0));
    assert_eq!([best("make_array(2)"), best("make_array(1, NULL)")], [Some(0.0), None]);
    assert_eq!(
        column("SELECT CAST(best_choice(v) AS DOUBLE) FROM t ORDER BY k DESC, n DESC, text"),
        [Some(1.0), None, Some(0.0), Some(0.0)]
    );
    assert!(said("SELECT best_choice('a')").contains("best_choice: Utf8 is no list of numbers"));
}

#[test]
fn votes_are_counted_and_weighed() {
    let text = |sql: &str| {
        let table = session().sql(sql).expect(sql);
        let batch = table.one_batch().unwrap();
        batch.column(0).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    let votes = "(VALUES ('b', 1.0), ('a', 0.5), ('b', 0.25), ('a', 0.25), ('c', 9.0), (NULL, 99.0), ('c', NULL)) AS v(answer, weight)";
    assert_eq!(text(&format!("SELECT majority(answer) FROM {votes} WHERE answer <> 'c'")), [Some("a".into())]);
    assert_eq!(text(&format!("SELECT weighted_majority(answer, weight) FROM {votes}")), [Some("c".into())]);
    assert_eq!(text(&format!("SELECT majority(answer) FROM {votes} WHERE answer IS NULL")), [None]);
    // Over batches of a row and two threads.
    assert_eq!(text("SELECT majority(text) FROM t WHERE text <> ''"), [Some("größer".into())]);
    assert!(said("SELECT weighted_majority('a', CAST('NaN' AS DOUBLE))").contains("is NaN"));
}

#[test]
fn overlap_is_that_of_the_metrics() {
    use fuseline_metrics::text::{BleuCounts, rouge_l, rouge_n};
    let (a, b) = ("the cat sat on the mat today", "the cat sat on a mat");
    assert_eq!(one(&format!("rouge_1('{a}', '{b}')")), Some(rouge_n(a, b, 1)));
    assert_eq!(one(&format!("rouge_2('{a}', '{b}')")), Some(rouge_n(a, b, 2)));
    assert_eq!(one(&format!("rouge_l('{a}', '{b}')")), Some(rouge_l(a, b)));
    assert_eq!(one(&format!("sentence_bleu('{a}', '{b}')")), Some(BleuCounts::of(a, b).sentence()));
    assert_eq!(one("sentence_bleu(NULL, 'a')"), None);
    let mut counts = BleuCounts::of(a, b);
    counts.add(&BleuCounts::of("gsm8k/0000", "gsm8k/0001"));
    let rows = format!("(VALUES ('{a}', '{b}'), ('gsm8k/0000', 'gsm8k/0001'), (NULL, 'x')) AS r(t, u)");
    assert_eq!(column(&format!("SELECT corpus_bleu(t, u) FROM {rows}")), [Some(counts.corpus())]);
    let itself = column(&format!("SELECT corpus_bleu(t, t) FROM {rows}"))[0].expect("two rows");
    assert!((itself - 100.0).abs() < 1e-9, "{itself}");
    assert_eq!(column("SELECT corpus_bleu(text, text) FROM t WHERE text IS NULL"), [None]);
}

#[test]
fn entity_f1_is_a_query() {
    // North is in both, cheap only here, the restaurant only there: F1 is 2 / (2 + 1 + 1). A reference without a value is left out.
    let sql = "SELECT 2.0 * sum(hits) / sum(2 * hits + extra + missed) AS f1 FROM (
                 SELECT cardinality(array_intersect(p, r)) AS hits, cardinality(array_except(p, r)) AS extra,
                        cardinality(array_except(r, p)) AS missed
                 FROM (SELECT find_entities(t, make_array('north', 'pizza hut', 'cheap'), 'camrest') AS p,
                              find_entities(u, make_array('north', 'pizza hut', 'cheap'), 'camrest') AS r
                       FROM (VALUES ('a cheap place north', 'Pizza Hut is north'), ('cheap', 'bye')) AS v(t, u))
                 WHERE cardinality(r) > 0)";
    assert_eq!(column(sql), [Some(0.5)]);
    let wrong = said("SELECT find_entities('a', make_array('a'), 'woz')");
    assert!(wrong.contains("the rules are camrest, smd, multiwoz"), "{wrong}");
}
