//! The weighted average of models. Must not know a base: what it is given counts.

use super::kernel::{Inputs, Kernel, each};
use super::method::Settings;

/// Averages the models.
///
/// **Shapes**: every tensor `[n]`, flattened; `w: [J]`. **Formula**: `sum_j w_j theta_j`, divided by `sum_j w_j` if
/// `normalize`. **Source**: Model soups, arXiv 2203.05482; arcee-ai/mergekit `merge_methods/linear.py`.
pub(super) fn kernel<'a>(settings: &Settings, inputs: &Inputs<'a>) -> Result<Kernel<'a>, String> {
    let total: f64 = settings.weights.iter().sum();
    let divisor = if settings.normalize { total } else { 1.0 };
    if divisor == 0.0 {
        return Err("the weights sum to 0, so their average does not exist\n\
                    hint: change weights, or set normalize: false"
            .to_owned());
    }
    let weights = settings.weights.clone();
    let models = inputs.models.clone();
    Ok(each(move |i| {
        let weighted = models.iter().zip(&weights).map(|(theta, w)| w * theta.at(i));
        weighted.sum::<f64>() / divisor
    }))
}

#[cfg(test)]
mod tests {
    use crate::methods::golden;

    #[test]
    fn golden_linear() {
        golden::check("linear", include_str!("../../../tests/golden/merge_linear.json"), 4, &[]);
    }

    #[test]
    fn two_values_by_hand() {
        // (1 * 2 + 3 * 6) / (1 + 3) = 20 / 4
        let merged = golden::merge(r#"{"method": "linear", "weights": [1, 3]}"#, None, &[&[2.0], &[6.0]]);
        assert_eq!(merged.unwrap(), [5.0]);
        let zero = golden::merge(r#"{"method": "linear", "weights": [1, -1]}"#, None, &[&[2.0], &[6.0]]);
        assert!(zero.unwrap_err().contains("sum to 0"));
    }
}
