//! Percentile bootstrap of a mean (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).

use super::mean;
use crate::Error;
use crate::rng::Rng;

/// A confidence interval, in the values' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Percentile interval of the mean: the values are drawn anew with replacement `n_resamples` times (a thousand is usual), and
/// the interval spans the quantiles (1 - level)/2 and (1 + level)/2 of those means, linear between neighbours.
///
/// `level` is a fraction such as 0.95. None for no values; a single value has an interval of no width.
/// Resample `i` draws from its own stream, so more resamples leave the first ones as they are.
pub fn bootstrap_mean(values: &[f64], level: f64, n_resamples: usize, seed: u64) -> Result<Option<Interval>, Error> {
    if !(level > 0.0 && level < 1.0) || n_resamples == 0 {
        return Err(Error::BadInterval { level, n_resamples });
    }
    if values.is_empty() {
        return Ok(None);
    }
    let mut means: Vec<f64> = (0..n_resamples)
        .filter_map(|resample| {
            let mut rng = Rng::labelled(seed, &format!("bootstrap/{resample}"));
            let drawn: Vec<f64> = values.iter().map(|_| values[rng.index(values.len())]).collect();
            mean(&drawn)
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Ok(Some(Interval { low: quantile(&means, (1.0 - level) / 2.0), high: quantile(&means, (1.0 + level) / 2.0) }))
}

/// The quantile of sorted values, at least one, at a fraction, linear between neighbours.
pub fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::standard_error;

    #[test]
    fn quantiles_by_hand() {
        // Place 0.25 * 3 = 0.75 between 1 and 2.
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.25), 1.75);
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 1.0), 8.0);
        assert_eq!(quantile(&[3.0], 0.5), 3.0);
    }

    #[test]
    fn the_interval_is_near_the_normal_one() {
        let mut rng = Rng::new(5);
        let values: Vec<f64> = (0..400).map(|_| rng.below(1000) as f64).collect();
        let interval = bootstrap_mean(&values, 0.95, 2000, 1).expect("valid").expect("values");
        let half = 1.96 * standard_error(&values).expect("values");
        let mean = mean(&values).expect("values");
        // The ends of 2000 resamples scatter by about 5 % of the half width; four of them.
        assert!((interval.low - (mean - half)).abs() < 0.2 * half, "{interval:?} {mean} {half}");
        assert!((interval.high - (mean + half)).abs() < 0.2 * half, "{interval:?} {mean} {half}");
        assert_eq!(bootstrap_mean(&values, 0.95, 2000, 1).expect("valid"), Some(interval));
        assert_ne!(bootstrap_mean(&values, 0.95, 2000, 2).expect("valid"), Some(interval));
    }

    #[test]
    fn edges() {
        assert_eq!(bootstrap_mean(&[], 0.9, 10, 0), Ok(None));
        assert_eq!(bootstrap_mean(&[2.5], 0.9, 10, 0), Ok(Some(Interval { low: 2.5, high: 2.5 })));
        assert!(bootstrap_mean(&[1.0], 1.0, 10, 0).is_err());
        assert!(bootstrap_mean(&[1.0], f64::NAN, 10, 0).is_err());
        assert!(bootstrap_mean(&[1.0], 0.5, 0, 0).is_err());
    }
}
