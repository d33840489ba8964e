//! Exact interval and test of a fraction (C. Clopper, E. Pearson, Biometrika 26, 1934).

use super::Interval;
use super::special::{beta_quantile, incomplete_beta};

/// Clopper and Pearson's interval of a success rate, which covers with at least the probability `level`, as a fraction.
///
/// None where there are no trials, `successes > trials`, or `level` does not lie between 0 and 1.
pub fn clopper_pearson(successes: u64, trials: u64, level: f64) -> Option<Interval> {
    if trials == 0 || successes > trials || !(level > 0.0 && level < 1.0) {
        return None;
    }
    let (k, n, tail) = (successes as f64, trials as f64, (1.0 - level) / 2.0);
    let low = if successes == 0 { 0.0 } else { beta_quantile(k, n - k + 1.0, tail) };
    let high = if successes == trials { 1.0 } else { beta_quantile(k + 1.0, n - k, 1.0 - tail) };
    Some(Interval { low, high })
}

/// The probability of at most `successes` of `trials` at the rate `rate`.
pub fn binomial_below(successes: u64, trials: u64, rate: f64) -> f64 {
    if successes >= trials {
        return 1.0;
    }
    incomplete_beta((trials - successes) as f64, successes as f64 + 1.0, 1.0 - rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_counts_by_hand() {
        // 0 of n: the upper end solves (1 − p)^n = 0.025.
        let none = clopper_pearson(0, 10, 0.95).expect("trials");
        assert_eq!(none.low, 0.0);
        assert!((none.high - (1.0 - 0.025_f64.powf(0.1))).abs() < 1e-14);
        let all = clopper_pearson(10, 10, 0.95).expect("trials");
        assert!((all.low - 0.025_f64.powf(0.1)).abs() < 1e-14 && all.high == 1.0);
        // (1 + 4 + 6) / 16.
        assert!((binomial_below(2, 4, 0.5) - 11.0 / 16.0).abs() < 1e-15);
        assert_eq!((binomial_below(4, 4, 0.1), clopper_pearson(0, 0, 0.95)), (1.0, None));
        assert_eq!((clopper_pearson(3, 2, 0.95), clopper_pearson(1, 2, 1.0)), (None, None));
    }
}
