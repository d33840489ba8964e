//! Mean, deviation and standard error.

/// Mean of the values, in their unit; none for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation, sqrt(sum (x - mean)^2 / (n - 1)), in the values' unit; none for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Standard error of the mean, s / sqrt(n) with the sample deviation s; none for fewer than two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    Some(standard_deviation(values)? / (values.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_values_by_hand() {
        // Mean 3; squares 4 + 1 + 9 = 14, over 2 is 7.
        let values = [1.0, 2.0, 6.0];
        assert_eq!(mean(&values), Some(3.0));
        assert_eq!(standard_deviation(&values), Some(7_f64.sqrt()));
        assert!((standard_error(&values).expect("three values") - (7.0_f64 / 3.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn too_few_values_have_no_figure() {
        assert_eq!(mean(&[]), None);
        assert_eq!(standard_deviation(&[1.0]), None);
        assert_eq!(standard_error(&[]), None);
        assert_eq!(standard_error(&[2.0, 2.0]), Some(0.0));
    }
}
