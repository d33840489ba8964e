//! Standard errors where items come in clusters, such as several questions on one text (E. Miller, Adding Error Bars to Evals,
//! arXiv 2411.00640, §2.2).

use std::collections::BTreeMap;

use super::mean;

/// How the number of clusters is allowed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallSample {
    /// Not at all: `sqrt(Σ_c (Σ_i (x_ci − mean))²) / n`, the paper's formula.
    None,
    /// As statsmodels' `cov_type="cluster"` does for a mean: times `sqrt(G / (G − 1))`, with G clusters.
    Corrected,
}

/// The clustered standard error of the mean of values, each in the cluster of its label. None for no values, and, with a
/// correction, for fewer than two clusters.
pub fn clustered_standard_error<'a>(
    values: impl IntoIterator<Item = (f64, &'a str)>,
    correction: SmallSample,
) -> Option<f64> {
    let mut clusters: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (value, cluster) in values {
        clusters.entry(cluster).or_default().push(value);
    }
    let all: Vec<f64> = clusters.values().flatten().copied().collect();
    let mean = mean(&all)?;
    let squares: f64 = clusters.values().map(|values| values.iter().map(|v| v - mean).sum::<f64>().powi(2)).sum();
    let n_clusters = clusters.len() as f64;
    let factor = match correction {
        SmallSample::None => 1.0,
        SmallSample::Corrected if n_clusters < 2.0 => return None,
        SmallSample::Corrected => n_clusters / (n_clusters - 1.0),
    };
    Some((squares * factor).sqrt() / all.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::standard_error;

    #[test]
    fn two_clusters_by_hand() {
        // Mean 2; sums of deviations −3 + 0 and 1 + 2; 9 + 9 = 18; sqrt(18) / 4.
        let values = [(-1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "b")];
        let found = clustered_standard_error(values, SmallSample::None).expect("values");
        assert!((found - 18_f64.sqrt() / 4.0).abs() < 1e-15);
        let corrected = clustered_standard_error(values, SmallSample::Corrected).expect("two clusters");
        assert!((corrected - 6.0 / 4.0).abs() < 1e-15);
    }

    #[test]
    fn clusters_of_one_are_no_clusters() {
        let values = [0.5, 1.5, 4.0, -2.0];
        let labels = ["a", "b", "c", "d"];
        let found = clustered_standard_error(values.into_iter().zip(labels), SmallSample::Corrected).expect("values");
        assert!((found - standard_error(&values).expect("values")).abs() < 1e-15);
        assert_eq!(clustered_standard_error([(1.0, "a"), (2.0, "a")], SmallSample::Corrected), None);
        assert_eq!(clustered_standard_error([], SmallSample::None), None);
    }
}
