//! Confidence interval of a fraction (E. B. Wilson, Probable inference, the law of succession, and statistical inference,
//! JASA 22, 1927).

use super::Interval;

/// The 0.975 quantile of the standard normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// Wilson's score interval of a success rate at 95 %, without continuity correction, as a fraction in 0..=1.
///
/// `(p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n)` with `p = successes / trials`, `n = trials` and `z = 1.96`
/// (equation 3 of R. G. Newcombe, Statistics in Medicine 17, 1998). Counts may be weighted and so no whole numbers. None
/// where there are no trials or `successes` does not lie in `0..=trials`.
pub fn wilson(successes: f64, trials: f64) -> Option<Interval> {
    if !(trials > 0.0 && trials.is_finite() && (0.0..=trials).contains(&successes)) {
        return None;
    }
    let rate = successes / trials;
    let square = Z_95 * Z_95;
    let centre = rate + square / (2.0 * trials);
    let half = Z_95 * (rate * (1.0 - rate) / trials + square / (4.0 * trials * trials)).sqrt();
    let scale = 1.0 + square / trials;
    // Rounding must not push the ends of a sure thing past it.
    let low = if successes == 0.0 { 0.0 } else { (centre - half) / scale };
    let high = if successes == trials { 1.0 } else { (centre + half) / scale };
    Some(Interval { low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcombes_examples() {
        // Table I of the paper, method 3, which prints four digits.
        for (successes, trials, low, high) in [
            (81.0, 263.0, 0.2553, 0.3662),
            (15.0, 148.0, 0.0624, 0.1605),
            (0.0, 20.0, 0.0, 0.1611),
            (1.0, 29.0, 0.0061, 0.1718),
        ] {
            let interval = wilson(successes, trials).expect("trials");
            assert!((interval.low - low).abs() < 5e-5, "{successes}/{trials}: {interval:?}");
            assert!((interval.high - high).abs() < 5e-5, "{successes}/{trials}: {interval:?}");
        }
    }

    #[test]
    fn failures_mirror_successes() {
        let (few, many) = (wilson(3.0, 11.0).expect("trials"), wilson(8.0, 11.0).expect("trials"));
        assert!((few.low - (1.0 - many.high)).abs() < 1e-15 && (few.high - (1.0 - many.low)).abs() < 1e-15);
        assert_eq!(wilson(7.0, 7.0).expect("trials").high, 1.0);
    }

    #[test]
    fn no_trials_and_impossible_counts_have_no_interval() {
        for (successes, trials) in [(0.0, 0.0), (3.0, 2.0), (-1.0, 2.0), (f64::NAN, 2.0), (1.0, f64::INFINITY)] {
            assert_eq!(wilson(successes, trials), None, "{successes}/{trials}");
        }
    }
}
