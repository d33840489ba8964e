//! Intervals of success rates, p-values of counts, and how much can be seen: functions of numbers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use fuseline_metrics::stats::{
    Interval, clopper_pearson, mcnemar_corrected, mcnemar_exact, minimum_detectable_difference, wilson,
};

use super::scalar::Scalar;

const COUNTS: &[&[DataType]] = &[&[DataType::Float64, DataType::Float64]];

/// The share that exact intervals cover at least.
const LEVEL: f64 = 0.95;
/// The error rates that a difference is seen under, the usual ones.
const ALPHA: f64 = 0.05;
const POWER: f64 = 0.8;

/// `wilson_low(k, n)`.
pub(super) fn wilson_low(name: &'static str) -> Scalar {
    counts(name, |arrays| ends("wilson_low", arrays, wilson, |interval| interval.low))
}

/// `wilson_high(k, n)`.
pub(super) fn wilson_high(name: &'static str) -> Scalar {
    counts(name, |arrays| ends("wilson_high", arrays, wilson, |interval| interval.high))
}

/// `clopper_pearson_low(k, n)`.
pub(super) fn clopper_pearson_low(name: &'static str) -> Scalar {
    counts(name, |arrays| ends("clopper_pearson_low", arrays, exact, |interval| interval.low))
}

/// `clopper_pearson_high(k, n)`.
pub(super) fn clopper_pearson_high(name: &'static str) -> Scalar {
    counts(name, |arrays| ends("clopper_pearson_high", arrays, exact, |interval| interval.high))
}

/// `mcnemar_exact(b, c)`.
pub(super) fn mcnemar_exact_function(name: &'static str) -> Scalar {
    counts(name, |arrays| mcnemar("mcnemar_exact", arrays, mcnemar_exact))
}

/// `mcnemar_corrected(b, c)`.
pub(super) fn mcnemar_corrected_function(name: &'static str) -> Scalar {
    counts(name, |arrays| mcnemar("mcnemar_corrected", arrays, mcnemar_corrected))
}

/// `minimum_detectable_difference(sd, n)`.
pub(super) fn minimum_detectable(name: &'static str) -> Scalar {
    counts(name, |arrays| {
        each(arrays, |deviation, n| {
            if n == 0.0 {
                return Ok(None);
            }
            let found = minimum_detectable_difference(deviation, n, ALPHA, POWER);
            found.map(Some).ok_or_else(|| {
                exec_datafusion_err!(
                    "minimum_detectable_difference({deviation}, {n}): expected numbers that are not negative"
                )
            })
        })
    })
}

fn counts(name: &'static str, run: fn(&[ArrayRef]) -> Result<ArrayRef>) -> Scalar {
    Scalar::new(name, COUNTS, DataType::Float64, run)
}

fn exact(successes: f64, trials: f64) -> Option<Interval> {
    clopper_pearson(whole(successes)?, whole(trials)?, LEVEL)
}

/// A count as a whole number.
fn whole(count: f64) -> Option<u64> {
    (count >= 0.0 && count.fract() == 0.0 && count < 2_f64.powi(53)).then_some(count as u64)
}

fn mcnemar(name: &str, arrays: &[ArrayRef], test: fn(u64, u64) -> f64) -> Result<ArrayRef> {
    each(arrays, |b, c| match (whole(b), whole(c)) {
        (Some(b), Some(c)) => Ok(Some(test(b, c))),
        _ => Err(exec_datafusion_err!("{name}({b}, {c}): expected two counts")),
    })
}

fn ends(
    name: &str,
    arrays: &[ArrayRef],
    interval: fn(f64, f64) -> Option<Interval>,
    end: fn(Interval) -> f64,
) -> Result<ArrayRef> {
    each(arrays, |successes, trials| {
        if successes == 0.0 && trials == 0.0 {
            return Ok(None);
        }
        let found = interval(successes, trials).map(|interval| Some(end(interval)));
        found.ok_or_else(|| exec_datafusion_err!("{name}({successes}, {trials}): expected 0 <= k <= n"))
    })
}

/// A function of two numbers, NULL where one of them is.
fn each(arrays: &[ArrayRef], of: impl Fn(f64, f64) -> Result<Option<f64>>) -> Result<ArrayRef> {
    let (first, second) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
    let row = |(first, second): (Option<f64>, Option<f64>)| match first.zip(second) {
        Some((first, second)) => of(first, second),
        None => Ok(None),
    };
    Ok(Arc::new(first.iter().zip(second.iter()).map(row).collect::<Result<Float64Array>>()?))
}
