//! Figures that aggregates make of sorted values, or of sorted differences of two models on the same rows.

use fuseline_metrics::stats::{Interval, PairedBootstrap, bootstrap_mean, mcnemar_exact, paired_bootstrap, sign_flip};

/// Share of the resamples that an interval spans.
const LEVEL: f64 = 0.95;
/// How many means `bootstrap_mean_low` and `bootstrap_mean_high` are made of.
const MEANS: usize = 1000;
/// How many resamples or flips a comparison of two models is made of: p-values down to one in ten thousand.
const COMPARISONS: usize = 10_000;

/// The outcome of a figure.
type Outcome = Result<Option<f64>, String>;

fn of_mean(values: &[f64], seed: u64, end: fn(Interval) -> f64) -> Outcome {
    let interval = bootstrap_mean(values, LEVEL, MEANS, seed).map_err(|error| error.to_string())?;
    Ok(interval.map(end))
}

/// `bootstrap_mean_low`.
pub(super) fn mean_low(values: &[f64], seed: u64) -> Outcome {
    of_mean(values, seed, |interval| interval.low)
}

/// `bootstrap_mean_high`.
pub(super) fn mean_high(values: &[f64], seed: u64) -> Outcome {
    of_mean(values, seed, |interval| interval.high)
}

fn of_pairs(differences: &[f64], seed: u64, figure: fn(PairedBootstrap) -> f64) -> Outcome {
    let found = paired_bootstrap(differences, LEVEL, COMPARISONS, seed).map_err(|error| error.to_string())?;
    Ok(found.map(figure))
}

/// `paired_bootstrap_low`.
pub(super) fn paired_low(differences: &[f64], seed: u64) -> Outcome {
    of_pairs(differences, seed, |found| found.interval.low)
}

/// `paired_bootstrap_high`.
pub(super) fn paired_high(differences: &[f64], seed: u64) -> Outcome {
    of_pairs(differences, seed, |found| found.interval.high)
}

/// `paired_bootstrap_p`.
pub(super) fn paired_p(differences: &[f64], seed: u64) -> Outcome {
    of_pairs(differences, seed, |found| found.p_value)
}

/// `sign_flip_p`.
pub(super) fn sign_flip_p(differences: &[f64], seed: u64) -> Outcome {
    Ok((!differences.is_empty()).then(|| sign_flip(differences, COMPARISONS, seed)))
}

/// `mcnemar_p`; its figures do not depend on a seed.
pub(super) fn mcnemar_p(differences: &[f64], _seed: u64) -> Outcome {
    if let Some(other) = differences.iter().find(|d| ![-1.0, 0.0, 1.0].contains(*d)) {
        return Err(format!("a difference is {other}; verdicts are true or false, 1 or 0: use sign_flip_p"));
    }
    let count = |wanted: f64| differences.iter().filter(|d| **d == wanted).count() as u64;
    Ok((!differences.is_empty()).then(|| mcnemar_exact(count(1.0), count(-1.0))))
}
