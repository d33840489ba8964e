//! The special functions behind exact tests and intervals: incomplete beta and gamma functions, the normal distribution.
//!
//! Methods are the usual ones (W. Press and others, Numerical Recipes, chapter 6; C. Lanczos, SIAM J. Numer. Anal. 1, 1964);
//! quantiles are found by bisection to the last digit, because they are few and must not depend on a starting point. Held
//! against SciPy in `tests/golden/statistics.json`.

/// Terms after which a continued fraction or series is given up; a few hundred suffice for the counts of a benchmark.
const MOST_TERMS: usize = 100_000;
/// Relative size of a term that no longer counts.
const NEGLIGIBLE: f64 = 1e-16;

/// `ln Γ(x)` for x > 0, by Lanczos' approximation with g = 607/128 and fifteen terms.
#[allow(clippy::excessive_precision, reason = "the coefficients as they were published")]
pub fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 15] = [
        0.99999999999999709182,
        57.156235665862923517,
        -59.597960355475491248,
        14.136097974741747174,
        -0.49191381609762019978,
        0.33994649984811888699e-4,
        0.46523628927048575665e-4,
        -0.98374475304879564677e-4,
        0.15808870322491248884e-3,
        -0.21026444172410488319e-3,
        0.21743961811521264320e-3,
        -0.16431810653676389022e-3,
        0.84418223983852743293e-4,
        -0.26190838401581408670e-4,
        0.36899182659531622704e-5,
    ];
    let shifted = x + 607.0 / 128.0 - 0.5;
    let sum: f64 = COEFFICIENTS[1..].iter().enumerate().map(|(i, c)| c / (x + i as f64)).sum();
    let series = COEFFICIENTS[0] + sum;
    (x - 0.5) * shifted.ln() - shifted + (series * (2.0 * std::f64::consts::PI).sqrt()).ln()
}

/// The regularised incomplete beta function `I_x(a, b)`, the distribution function of Beta(a, b), for a, b > 0.
pub fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side of the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let term = |i: usize| {
        let m = (i / 2) as f64;
        if i == 0 {
            1.0
        } else if i.is_multiple_of(2) {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        }
    };
    front * fraction(term, |_| 1.0)
}

/// `term(0) / (of(0) + term(1) / (of(1) + …))` by Lentz's method.
fn fraction(term: impl Fn(usize) -> f64, of: impl Fn(usize) -> f64) -> f64 {
    let kept = |x: f64| if x.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { x };
    let (mut value, mut c, mut d) = (f64::MIN_POSITIVE, f64::MIN_POSITIVE, 0.0);
    for i in 0..MOST_TERMS {
        d = 1.0 / kept(of(i) + term(i) * d);
        c = kept(of(i) + term(i) / c);
        let factor = c * d;
        value *= factor;
        if (factor - 1.0).abs() < NEGLIGIBLE && i > 0 {
            break;
        }
    }
    value
}

/// The x with `I_x(a, b) = probability`.
pub fn beta_quantile(a: f64, b: f64, probability: f64) -> f64 {
    bisect(0.0, 1.0, |x| incomplete_beta(a, b, x) < probability)
}

/// The place between two where `below` turns from true to false, to the last digit.
fn bisect(mut low: f64, mut high: f64, below: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// The regularised upper incomplete gamma function `Q(a, x)` for a > 0, x >= 0.
pub fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut sum, mut term) = (1.0 / a, 1.0 / a);
        for i in 1..MOST_TERMS {
            term *= x / (a + i as f64);
            sum += term;
            if term < sum * NEGLIGIBLE {
                break;
            }
        }
        return 1.0 - front * sum;
    }
    let term = |i: usize| if i == 0 { 1.0 } else { -(i as f64) * (i as f64 - a) };
    front * fraction(term, |i| x + 2.0 * i as f64 + 1.0 - a)
}

/// The probability that a chi-square variable of `freedom` degrees exceeds `x`.
pub fn chi_square_tail(x: f64, freedom: f64) -> f64 {
    upper_gamma(freedom / 2.0, x / 2.0)
}

/// The probability that a standard normal variable exceeds `z`.
pub fn normal_tail(z: f64) -> f64 {
    let one_side = upper_gamma(0.5, z * z / 2.0) / 2.0;
    if z >= 0.0 { one_side } else { 1.0 - one_side }
}

/// The z that a standard normal variable stays below with this probability, which lies between 0 and 1.
pub fn normal_quantile(probability: f64) -> f64 {
    if probability > 0.5 {
        return -normal_quantile(1.0 - probability);
    }
    // Beyond 40 deviations no f64 above zero is left.
    -bisect(0.0, 40.0, |z| normal_tail(z) > probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_known() {
        // Γ(5) = 24, Γ(1/2) = √π.
        assert!((ln_gamma(5.0) - 24_f64.ln()).abs() < 1e-13);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-13);
        // Beta(1, 1) is uniform; I_x(2, 1) = x²; I_x(1, 3) = 1 − (1 − x)³.
        assert!((incomplete_beta(1.0, 1.0, 0.3) - 0.3).abs() < 1e-15);
        assert!((incomplete_beta(2.0, 1.0, 0.3) - 0.09).abs() < 1e-15);
        assert!((incomplete_beta(1.0, 3.0, 0.9) - 0.999).abs() < 1e-15);
        assert!((beta_quantile(2.0, 1.0, 0.49) - 0.7).abs() < 1e-15);
        // Q(1, x) = exp(−x).
        for x in [0.1_f64, 1.0, 3.0, 30.0] {
            assert!((upper_gamma(1.0, x) / (-x).exp() - 1.0).abs() < 1e-13, "{x}");
        }
        assert_eq!(normal_tail(0.0), 0.5);
        assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-14);
        assert!((normal_quantile(0.5)).abs() < 1e-15);
    }

    #[test]
    fn edges() {
        assert_eq!((incomplete_beta(2.0, 3.0, -1.0), incomplete_beta(2.0, 3.0, 1.0)), (0.0, 1.0));
        assert_eq!((upper_gamma(0.5, 0.0), normal_tail(-50.0)), (1.0, 1.0));
        assert!(beta_quantile(1e-3, 1e6, 0.5) >= 0.0);
    }
}
