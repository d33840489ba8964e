//! Tests and intervals of the difference of two models on the same items: pairs, never two separate samples, because what one
//! model finds hard the other does, too.

use rayon::prelude::*;

use super::exact::binomial_below;
use super::special::chi_square_tail;
use super::{Interval, mean, quantile};
use crate::Error;
use crate::rng::Rng;

/// Up to so many items that differ, the sign-flip test goes through all flips.
const ALL_FLIPS: u32 = 16;
/// Resamples that one task makes; the result does not depend on it.
const CHUNK: usize = 256;

/// The p-value of McNemar's exact test, two-sided, from the items that only the first and only the second model gets right.
///
/// `min(1, 2 · P(X ≤ min(b, c)))` with X binomial of `b + c` at one half (Q. McNemar, Psychometrika 12, 1947); 1 where the
/// models never differ.
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    (2.0 * binomial_below(only_first.min(only_second), only_first + only_second, 0.5)).min(1.0)
}

/// The p-value of McNemar's test with Edwards' continuity correction, `(|b − c| − 1)² / (b + c)` against chi-square of one
/// degree; 1 where the models never differ. As statsmodels has it, the correction also counts where `|b − c|` is below one.
pub fn mcnemar_corrected(only_first: u64, only_second: u64) -> f64 {
    let both = only_first + only_second;
    if both == 0 {
        return 1.0;
    }
    let excess = only_first.abs_diff(only_second) as f64 - 1.0;
    chi_square_tail(excess * excess / both as f64, 1.0)
}

/// What resampling says of a mean difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedBootstrap {
    /// The mean difference, first minus second.
    pub difference: f64,
    /// Its percentile interval.
    pub interval: Interval,
    /// Two-sided p-value: twice the smaller share of resamples on either side of zero, those at zero on both, each count and
    /// the total plus one (A. Davison, D. Hinkley, Bootstrap Methods and their Application, §4.2); at most 1.
    pub p_value: f64,
}

/// Bootstraps the mean of paired differences: items are drawn anew with replacement `n_resamples` times.
///
/// Every resample has a stream of random numbers of its own, so that the result is the same on any number of threads. None for
/// no differences.
pub fn paired_bootstrap(
    differences: &[f64],
    level: f64,
    n_resamples: usize,
    seed: u64,
) -> Result<Option<PairedBootstrap>, Error> {
    if !(level > 0.0 && level < 1.0) || n_resamples == 0 {
        return Err(Error::BadInterval { level, n_resamples });
    }
    let Some(difference) = mean(differences) else { return Ok(None) };
    let key = Rng::labelled(seed, "paired").bits();
    let mut means = vec![0.0; n_resamples];
    means.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, means)| {
        for (i, mean) in means.iter_mut().enumerate() {
            *mean = resampled_mean(differences, Rng::new(key ^ crate::rng::mix((chunk * CHUNK + i) as u64 + 1)));
        }
    });
    let (below, above) = (means.iter().filter(|m| **m <= 0.0).count(), means.iter().filter(|m| **m >= 0.0).count());
    means.par_sort_unstable_by(f64::total_cmp);
    let p_value = (2.0 * (below.min(above) + 1) as f64 / (n_resamples + 1) as f64).min(1.0);
    let interval = Interval { low: quantile(&means, (1.0 - level) / 2.0), high: quantile(&means, (1.0 + level) / 2.0) };
    Ok(Some(PairedBootstrap { difference, interval, p_value }))
}

/// The mean of as many draws as there are values. Two draws are made of 64 bits; with fewer than 2^32 values none is
/// favoured by more than one in 2^32 / n.
fn resampled_mean(values: &[f64], mut rng: Rng) -> f64 {
    let n = values.len() as u64;
    let pick = |half: u64| values[((half * n) >> 32) as usize];
    let (mut one, mut two) = (0.0, 0.0);
    for _ in 0..values.len() / 2 {
        let bits = rng.bits();
        one += pick(bits & 0xffff_ffff);
        two += pick(bits >> 32);
    }
    if values.len() % 2 == 1 {
        one += pick(rng.bits() >> 32);
    }
    (one + two) / values.len() as f64
}

/// The p-value of the sign-flip permutation test of a mean difference, two-sided: how often random signs give a sum of the
/// differences that is at least as far from zero.
///
/// All flips are gone through where no more than sixteen items differ; else `n_flips` random ones, the observed one counted
/// among them (B. Phipson, G. Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010). 1 where nothing differs.
pub fn sign_flip(differences: &[f64], n_flips: usize, seed: u64) -> f64 {
    let moved: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    // Sums of equal parts in another order must not count as nearer.
    let observed = moved.iter().sum::<f64>().abs() * (1.0 - 1e-12);
    let at_least = |signs: &mut dyn FnMut(usize) -> bool| {
        let sum: f64 = moved.iter().enumerate().map(|(i, d)| if signs(i) { -d } else { *d }).sum();
        sum.abs() >= observed
    };
    if moved.len() <= ALL_FLIPS as usize {
        let all = 1_u64 << moved.len();
        return (0..all).filter(|flips| at_least(&mut |i| flips >> i & 1 == 1)).count() as f64 / all as f64;
    }
    let key = Rng::labelled(seed, "signs").bits();
    let extreme = (0..n_flips).into_par_iter().filter(|flip| {
        let mut rng = Rng::new(key ^ crate::rng::mix(*flip as u64 + 1));
        let mut bits = 0;
        at_least(&mut |i| {
            if i % 64 == 0 {
                bits = rng.bits();
            }
            bits >> (i % 64) & 1 == 1
        })
    });
    (extreme.count() + 1) as f64 / (n_flips + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_by_hand() {
        // 1 and 5: 2 (1 + 6) / 64.
        assert!((mcnemar_exact(1, 5) - 14.0 / 64.0).abs() < 1e-15);
        assert_eq!((mcnemar_exact(0, 0), mcnemar_exact(4, 4)), (1.0, 1.0));
        // 30 and 12: (18 − 1)² / 42 = 6.88.
        assert!((mcnemar_corrected(30, 12) - chi_square_tail(289.0 / 42.0, 1.0)).abs() < 1e-15);
        assert_eq!(mcnemar_corrected(0, 0), 1.0);
    }

    #[test]
    fn flips_by_hand() {
        // 1, 1, 1: all eight flips, two of them as far from zero.
        assert_eq!(sign_flip(&[1.0, 1.0, 0.0, 1.0], 10, 0), 0.25);
        assert_eq!(sign_flip(&[0.0; 30], 10, 0), 1.0);
        // 1, 2: sums 3, 1, −1, −3.
        assert_eq!(sign_flip(&[1.0, 2.0], 10, 0), 0.5);
    }

    #[test]
    fn drawn_flips_are_near_the_exact_test() {
        // 17 to 5 of ones is McNemar's exact test; p = 0.0169, and 20,000 flips scatter by 0.001.
        let differences: Vec<f64> = (0..22).map(|i| if i < 17 { 1.0 } else { -1.0 }).collect();
        assert!((sign_flip(&differences, 20_000, 3) - mcnemar_exact(17, 5)).abs() < 0.004);
    }

    #[test]
    fn the_bootstrap_is_the_same_on_any_number_of_threads() {
        let differences: Vec<f64> = (0..301).map(|i| f64::from(i % 7) - 2.9).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| paired_bootstrap(&differences, 0.95, 3000, 1)).expect("valid").expect("values")
        };
        let found = with(1);
        assert_eq!(found, with(3));
        let half = 1.96 * crate::stats::standard_error(&differences).expect("values");
        assert!((found.interval.high - found.difference - half).abs() < 0.15 * half, "{found:?} {half}");
        assert!(found.p_value > 0.3, "{found:?}");
        assert_ne!(paired_bootstrap(&differences, 0.95, 3000, 2).expect("valid"), Some(found));
        assert_eq!(paired_bootstrap(&[], 0.95, 10, 1), Ok(None));
        assert!(paired_bootstrap(&[1.0], 0.95, 0, 1).is_err());
    }

    #[test]
    fn an_interval_of_95_percent_covers_so_often() {
        // 5,000 samples of 300 draws of an even variable of mean 1/2; the share scatters by 0.3 points.
        let mut covered = 0;
        for trial in 0..5000 {
            let mut rng = Rng::labelled(11, &trial.to_string());
            let sample: Vec<f64> = (0..300).map(|_| (rng.bits() >> 11) as f64 / (1_u64 << 53) as f64).collect();
            let interval = paired_bootstrap(&sample, 0.95, 1000, trial).expect("valid").expect("values").interval;
            covered += u32::from(interval.low <= 0.5 && 0.5 <= interval.high);
        }
        let share = f64::from(covered) / 5000.0;
        assert!((0.94..=0.96).contains(&share), "{share}");
    }
}
