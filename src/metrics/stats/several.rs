//! Many tests at once: p-values corrected so that a table of comparisons does not find differences by chance alone.

/// Holm's step-down correction (S. Holm, Scand. J. Statist. 6, 1979), in the order given: the family-wise error rate is held
/// whatever the tests' dependence.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let n = p_values.len();
    let mut corrected = vec![f64::NAN; n];
    let mut largest: f64 = 0.0;
    for (rank, i) in ascending(p_values).into_iter().enumerate() {
        largest = largest.max(p_values[i] * (n - rank) as f64).min(1.0);
        corrected[i] = largest;
    }
    corrected
}

/// Benjamini and Hochberg's correction (J. R. Statist. Soc. B 57, 1995): the rate of false discoveries is held for tests that are
/// independent or positively dependent.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let n = p_values.len();
    let mut corrected = vec![f64::NAN; n];
    let mut smallest: f64 = 1.0;
    for (rank, i) in ascending(p_values).into_iter().enumerate().rev() {
        smallest = smallest.min(p_values[i] * n as f64 / (rank + 1) as f64);
        corrected[i] = smallest;
    }
    corrected
}

fn ascending(p_values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_tests_by_hand() {
        let p = [0.01, 0.04, 0.03, 0.005];
        let near = |found: Vec<f64>, expected: [f64; 4]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?}");
        };
        // Sorted 0.005 · 4, 0.01 · 3, 0.03 · 2, then 0.04 · 1 raised to 0.06.
        near(holm(&p), [0.03, 0.06, 0.06, 0.02]);
        // 0.04 · 4/4, 0.03 · 4/3, 0.01 · 4/2, 0.005 · 4/1.
        near(benjamini_hochberg(&p), [0.02, 0.04, 0.04, 0.02]);
        assert_eq!(holm(&[0.7, 0.9]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty() && benjamini_hochberg(&[]).is_empty());
    }
}
