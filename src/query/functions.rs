//! Functions of SQL that DataFusion lacks: a hash that splits data, and the interval of a success rate.
//!
//! Stages are made of their results, so a function never changes what it gives: a better one takes a new name. They must
//! not know what the texts and counts mean.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use fuseline_metrics::stats::{Interval, wilson};

/// Keeps the hash apart from every other use of BLAKE3; part of the function's definition.
const HASH_CONTEXT: &str = "fuseline 2026 sql hash_fraction v1";

/// Every function, as it is called.
pub const ALL: &[&str] = &["hash_fraction(text)", "wilson_high(k, n)", "wilson_low(k, n)"];

/// A text's place in [0, 1), evenly spread and the same for ever.
///
/// The first eight bytes of BLAKE3 in key-derivation mode (context `fuseline 2026 sql hash_fraction v1`) over the text's
/// UTF-8 bytes, big-endian; their upper 53 bits divided by 2^53, so that the quotient is exact and below 1.
pub fn hash_fraction(text: &str) -> f64 {
    let digest = blake3::derive_key(HASH_CONTEXT, text.as_bytes());
    let bytes = digest.first_chunk::<8>().expect("a digest has 32 bytes");
    (u64::from_be_bytes(*bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Makes the functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    context.register_udf(hash_fraction_udf());
    context.register_udf(wilson_udf("wilson_low", |interval| interval.low));
    context.register_udf(wilson_udf("wilson_high", |interval| interval.high));
}

fn hash_fraction_udf() -> ScalarUDF {
    let run = |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let texts = arrays[0].as_string::<i32>();
        let fractions: Float64Array = texts.iter().map(|text| text.map(hash_fraction)).collect();
        Ok(ColumnarValue::Array(Arc::new(fractions) as ArrayRef))
    };
    create_udf("hash_fraction", vec![DataType::Utf8], DataType::Float64, Volatility::Immutable, Arc::new(run))
}

fn wilson_udf(name: &'static str, end: fn(Interval) -> f64) -> ScalarUDF {
    let run = move |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let (successes, trials) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
        let row = |(successes, trials): (Option<f64>, Option<f64>)| match (successes, trials) {
            (Some(successes), Some(trials)) if !(successes == 0.0 && trials == 0.0) => wilson(successes, trials)
                .map(|interval| Some(end(interval)))
                .ok_or_else(|| exec_datafusion_err!("{name}({successes}, {trials}): expected 0 <= k <= n")),
            _ => Ok(None),
        };
        let ends = successes.iter().zip(trials.iter()).map(row).collect::<Result<Float64Array>>()?;
        Ok(ColumnarValue::Array(Arc::new(ends) as ArrayRef))
    };
    let counts = vec![DataType::Float64, DataType::Float64];
    create_udf(name, counts, DataType::Float64, Volatility::Immutable, Arc::new(run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use fuseline_contract::Table;

    fn column(sql: &str) -> Vec<Option<f64>> {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("gsm8k/0000"), None, Some("größer")]));
        let (k, n) = (Int64Array::from(vec![81, 0, 1, 0]), Int64Array::from(vec![263, 20, 1, 0]));
        let columns = [("text", texts), ("k", Arc::new(k) as ArrayRef), ("n", Arc::new(n) as ArrayRef)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut session = Session::new(1).unwrap();
        session.register_table("t", Table::new(batch.schema(), vec![batch]));
        let table = session.sql(sql).unwrap();
        let batch = table.one_batch().unwrap();
        batch.column(0).as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn fractions_never_change() {
        // Frozen: a change would move rows between training and held-out parts of finished work.
        let frozen = [("", 0.11185532711334523), ("gsm8k/0000", 0.5395514695214177), ("größer", 0.9248019926748597)];
        for (text, fraction) in frozen {
            assert_eq!(hash_fraction(text), fraction, "{text:?}");
        }
        let [empty, id, long] = frozen.map(|(_, fraction)| Some(fraction));
        assert_eq!(column("SELECT hash_fraction(text) AS f FROM t"), [empty, id, None, long]);
        assert_eq!(column("SELECT hash_fraction('gsm8k/0000') AS f"), [id]);
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
        let low = column("SELECT wilson_low(k, n) AS x FROM t");
        assert_eq!(low, [Some(first.low), Some(none.low), Some(sure.low), None]);
        let high = column("SELECT wilson_high(k, n) AS x FROM t");
        assert_eq!(high, [Some(first.high), Some(none.high), Some(1.0), None]);
    }

    #[test]
    fn impossible_counts_are_named() {
        let session = Session::new(1).unwrap();
        let error = session.sql("SELECT wilson_low(3, 2) AS x").expect_err("three of two");
        assert!(error.to_string().contains("wilson_low(3, 2): expected 0 <= k <= n"), "{error}");
    }
}
