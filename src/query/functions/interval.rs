//! Intervals of success rates.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use fuseline_metrics::stats::{Interval, wilson};

use super::scalar::Scalar;

const COUNTS: &[&[DataType]] = &[&[DataType::Float64, DataType::Float64]];

/// `wilson_low(k, n)`.
pub(super) fn wilson_low(name: &'static str) -> Scalar {
    Scalar::new(name, COUNTS, DataType::Float64, |arrays| ends("wilson_low", arrays, |interval| interval.low))
}

/// `wilson_high(k, n)`.
pub(super) fn wilson_high(name: &'static str) -> Scalar {
    Scalar::new(name, COUNTS, DataType::Float64, |arrays| ends("wilson_high", arrays, |interval| interval.high))
}

fn ends(name: &str, arrays: &[ArrayRef], end: fn(Interval) -> f64) -> Result<ArrayRef> {
    let (successes, trials) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
    let row = |(successes, trials): (Option<f64>, Option<f64>)| match (successes, trials) {
        (Some(successes), Some(trials)) if !(successes == 0.0 && trials == 0.0) => wilson(successes, trials)
            .map(|interval| Some(end(interval)))
            .ok_or_else(|| exec_datafusion_err!("{name}({successes}, {trials}): expected 0 <= k <= n")),
        _ => Ok(None),
    };
    Ok(Arc::new(successes.iter().zip(trials.iter()).map(row).collect::<Result<Float64Array>>()?))
}
