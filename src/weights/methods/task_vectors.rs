//! The family of task vectors: differences from a base are thinned out, weighted, perhaps filtered by an elected
//! sign, summed and added back. A method of this family is a [`Pipeline`]; a new combination is a new constant here
//! and a row in the table. Must not know which tensor it works on.

use super::election::Election;
use super::kernel::{Deltas, Inputs, Kernel, each};
use super::method::{Consensus, Settings};
use super::select::{TopK, top_k};

/// Below this absolute value a sum of weights is not divided by (arcee-ai/mergekit
/// `merge_methods/generalized_task_arithmetic.py`).
const MIN_WEIGHT_SUM: f64 = 1e-8;

/// The steps that tell the members of the family apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pipeline {
    /// How each delta is thinned out.
    sparsify: Sparsify,
    /// Whether a sign is elected for each element, and other signs are dropped.
    elects: bool,
}

#[derive(Debug, Clone, Copy)]
enum Sparsify {
    /// Not at all.
    None,
    /// The `floor(density n)` largest by absolute value are kept, tensor by tensor.
    Magnitude,
}

/// Task arithmetic, arXiv 2212.04089: `b + lambda * sum_j w_j delta_j`.
pub(super) const TASK_ARITHMETIC: Pipeline = Pipeline { sparsify: Sparsify::None, elects: false };
/// TIES, arXiv 2306.01708, with weights and per tensor, as arcee-ai/mergekit has it.
pub(super) const TIES: Pipeline = Pipeline { sparsify: Sparsify::Magnitude, elects: true };

/// Merges by task vectors.
///
/// **Shapes**: every tensor `[n]`, flattened; `w, density: [J]`. **Formula**, with `x_j = w_j trim(theta_j - b)`:
/// without election `b + lambda * sum_j x_j / d`, `d = sum_j w_j` if `normalize` (1 where its absolute value is below
/// 1e-8), else 1. With election `g_i = +1 if sum_j x_{j,i} >= 0 else -1` (`consensus: count`: of the signs of
/// `x_{j,i}`), kept are elements with `sign(x_{j,i}) == g_i` (zeros never), `d_i` = sum of `w_j` over the kept (1
/// where that is 0). **Source**: the papers above; arcee-ai/mergekit `merge_methods/generalized_task_arithmetic.py`.
/// **Differences**: among equal magnitudes at the limit of the trim the lower index stays; mergekit leaves it open.
pub(super) fn kernel<'a>(pipeline: Pipeline, settings: &Settings, inputs: &Inputs<'a>) -> Result<Kernel<'a>, String> {
    let deltas = inputs.deltas();
    let kept = match pipeline.sparsify {
        Sparsify::None => vec![TopK::ALL; deltas.n_models()],
        Sparsify::Magnitude => trim(&deltas, &settings.density)?,
    };
    let weights = settings.weights.clone();
    let (normalize, lambda) = (settings.normalize, settings.lambda);
    if !pipeline.elects {
        let total: f64 = weights.iter().sum();
        let divisor = if normalize && total.abs() >= MIN_WEIGHT_SUM { total } else { 1.0 };
        return Ok(each(move |i| {
            let sum: f64 = (0..weights.len()).map(|j| weights[j] * trimmed(&deltas, &kept, j, i)).sum();
            deltas.base.at(i) + lambda * sum / divisor
        }));
    }
    let consensus = settings.consensus;
    Ok(each(move |i| {
        let mut election = Election::default();
        for (j, &weight) in weights.iter().enumerate() {
            let x = weight * trimmed(&deltas, &kept, j, i);
            let vote = match consensus {
                Consensus::Sum => x,
                Consensus::Count if x == 0.0 => 0.0,
                Consensus::Count => x.signum(),
            };
            election.count(x, vote, x, weight);
        }
        let kept = election.winner();
        let divisor = if normalize && kept.weight != 0.0 { kept.weight } else { 1.0 };
        deltas.base.at(i) + lambda * kept.sum / divisor
    }))
}

/// Finds, for each model, which elements survive the trim by magnitude.
fn trim(deltas: &Deltas<'_>, density: &[f64]) -> Result<Vec<TopK>, String> {
    let n = deltas.n_elements();
    let limits = density.iter().enumerate().map(|(j, &density)| {
        if density >= 1.0 {
            return Ok(TopK::ALL);
        }
        let k = (density * n as f64).floor() as usize;
        if k == 0 {
            return Err(format!(
                "density {density} keeps none of its {n} elements\nhint: set density to at least {:.4}",
                (1e4 / n as f64).ceil() / 1e4
            ));
        }
        Ok(top_k(n, k, |i| deltas.at(j, i).abs()))
    });
    limits.collect()
}

#[inline]
fn trimmed(deltas: &Deltas<'_>, kept: &[TopK], model: usize, index: usize) -> f64 {
    let delta = deltas.at(model, index);
    if kept[model].holds(index, delta.abs()) { delta } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::golden;

    #[test]
    fn golden_task_arithmetic() {
        let text = include_str!("../../../tests/golden/merge_task_arithmetic.json");
        golden::check("task_arithmetic", text, 4, &[]);
    }

    #[test]
    fn golden_ties() {
        // `int8_mask` says how mergekit stores its mask; the values are the same and there is no mask here.
        golden::check("ties", include_str!("../../../tests/golden/merge_ties.json"), 7, &["int8_mask"]);
    }

    #[test]
    fn golden_ties_trims() {
        for case in golden::cases(include_str!("../../../tests/golden/merge_ties.json")) {
            let buffers = golden::Buffers::of(&case);
            let deltas = buffers.inputs().deltas();
            let density = golden::flat(&case["params"]["density"]);
            let kept = trim(&deltas, &density).unwrap();
            for j in 0..deltas.n_models() {
                let got: Vec<f64> = (0..deltas.n_elements()).map(|i| trimmed(&deltas, &kept, j, i)).collect();
                golden::close(&got, &golden::flat(&case["trimmed"][j]));
            }
        }
    }

    #[test]
    fn ties_by_hand() {
        // Base 1; deltas 3 and -1, weights 1: the sum 2 elects +, only 3 is kept, its weight is 1: 1 + 3 / 1.
        // Second element: deltas 1 and 1: 1 + (1 + 1) / 2. Third: deltas 0 and 0: nothing is kept: 1.
        let merged = golden::merge(
            r#"{"method": "ties", "weights": 1}"#,
            Some(&[1.0, 1.0, 1.0]),
            &[&[4.0, 2.0, 1.0], &[0.0, 2.0, 1.0]],
        );
        assert_eq!(merged.unwrap(), [4.0, 2.0, 1.0]);
    }

    #[test]
    fn a_density_that_keeps_nothing_says_so() {
        let merged =
            golden::merge(r#"{"method": "ties", "weights": 1, "density": 0.3}"#, Some(&[1.0; 3]), &[&[2.0; 3]]);
        let message = merged.unwrap_err();
        assert!(message.contains("keeps none of its 3 elements"), "{message}");
        assert!(message.contains("at least 0.3334"), "{message}");
    }
}
