//! How large a difference must be to be seen (E. Miller, Adding Error Bars to Evals, arXiv 2411.00640, §5).

use super::special::normal_quantile;

/// The smallest true mean difference that a two-sided test at `alpha` finds with the probability `power`, for `n` paired
/// differences of this standard deviation: `(z_{1 − α/2} + z_power) · deviation / √n`, in the deviation's unit.
///
/// None where n is zero or a probability does not lie between 0 and 1.
pub fn minimum_detectable_difference(deviation: f64, n: f64, alpha: f64, power: f64) -> Option<f64> {
    let inside = |p: f64| p > 0.0 && p < 1.0;
    if !(inside(alpha) && inside(power) && n > 0.0 && deviation >= 0.0) {
        return None;
    }
    Some((normal_quantile(1.0 - alpha / 2.0) + normal_quantile(power)) * deviation / n.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_error_rates_by_hand() {
        // 1.959964 + 0.841621 = 2.801585; over 10 deviations of one.
        let found = minimum_detectable_difference(1.0, 100.0, 0.05, 0.8).expect("valid");
        assert!((found - 0.280_158_5).abs() < 1e-7, "{found}");
        assert_eq!(minimum_detectable_difference(0.5, 0.0, 0.05, 0.8), None);
        assert_eq!(minimum_detectable_difference(0.5, 10.0, 1.0, 0.8), None);
        assert_eq!(minimum_detectable_difference(f64::NAN, 10.0, 0.05, 0.8), None);
    }
}
