//! SCE merging: select the elements on which the models differ most, calculate each model's share from its updates
//! there, erase the minority signs. FuseChat, arXiv 2408.07990. Must not know which tensor it works on.
//!
//! Three readings exist, see [`Variant`]; they differ in what the mask of the selection is applied to and in the
//! divisor. All are per stored tensor (matrix, bias or norm vector).

use super::election::Election;
use super::kernel::{Deltas, Inputs, Kernel, each};
use super::method::{Settings, Variant};
use super::select::{TopK, sum, top_k};

/// mergekit's threshold (`merge_methods/sce.py`), on the sum of mean squared updates and on the divisor.
const MERGEKIT_FLOOR: f64 = 1e-6;

/// Merges by select, calculate, erase.
///
/// **Shapes**: every tensor `[n]`, flattened. **Formula**, with `delta_j = theta_j - b` and `S` of [`select`],
/// `eta_j` of [`shares`]: `x_j` is `delta_j` (`fuseai`) or `delta_j` inside `S` and 0 outside (`mergekit`, `paper`);
/// `g_i = +1 if sum_j x_{j,i} >= 0 else -1`; `keep_{j,i} = [sign(x_{j,i}) == g_i]`; the result is
/// `b_i + sum_j eta_j keep_{j,i} x_{j,i} / d_i`, `d_i = sum_j eta_j keep_{j,i}`: 1 where it is 0 (`fuseai`), at least
/// 1e-6 (`mergekit`), always 1 (`paper`). **Source**: fanqiwan/FuseAI
/// `FuseChat/mergekit/mergekit/merge_methods/sce_merging.py`, arcee-ai/mergekit `merge_methods/sce.py`, and the
/// paper's section on SCE. **Differences**: computed in double precision and rounded once, not in bfloat16
/// throughout; with an empty `S`, `mergekit` gives the base, where the released code gives an extra axis.
pub(super) fn kernel<'a>(settings: &Settings, inputs: &Inputs<'a>) -> Result<Kernel<'a>, String> {
    let deltas = inputs.deltas();
    let variant = settings.variant;
    let selected = select(&deltas, settings.select_topk);
    let shares = shares(&deltas, selected, variant);
    Ok(each(move |i| {
        let kept = elect(&deltas, selected, &shares, variant, i).winner();
        let divisor = match variant {
            Variant::Fuseai if kept.weight == 0.0 => 1.0,
            Variant::Fuseai => kept.weight,
            Variant::Mergekit => kept.weight.max(MERGEKIT_FLOOR),
            Variant::Paper => 1.0,
        };
        deltas.base.at(i) + kept.sum / divisor
    }))
}

/// Selects the `floor(tau * #{i : v_i != 0})` elements of largest `v_i`, the population variance over the models of
/// `delta_{j,i}`; all elements if `tau >= 1`. Among equal variances the lower index is selected.
fn select(deltas: &Deltas<'_>, tau: f64) -> TopK {
    if tau >= 1.0 {
        return TopK::ALL;
    }
    let n = deltas.n_elements();
    let varying = sum(n, |i| f64::from(u8::from(variance(deltas, i) != 0.0)));
    top_k(n, (tau * varying).floor() as usize, |i| variance(deltas, i))
}

/// The population variance over the models at an index. The base cancels, and differences from the first model
/// make it exactly 0 where all models agree.
#[inline]
fn variance(deltas: &Deltas<'_>, i: usize) -> f64 {
    let count = deltas.n_models() as f64;
    let first = deltas.theta(0, i);
    let shifted = |j: usize| deltas.theta(j, i) - first;
    let mean = (0..deltas.n_models()).map(shifted).sum::<f64>() / count;
    (0..deltas.n_models()).map(|j| (shifted(j) - mean).powi(2)).sum::<f64>() / count
}

/// Calculates `eta: [J]`: `s_j = (1/n) sum_{i in S} delta_{j,i}^2` over their sum; equal shares where that sum is 0
/// (`mergekit`: below 1e-6, so that updates below about 1e-3 get equal shares).
fn shares(deltas: &Deltas<'_>, selected: TopK, variant: Variant) -> Vec<f64> {
    let n = deltas.n_elements();
    let squares: Vec<f64> = (0..deltas.n_models())
        .map(|j| {
            let square = |i| if is_selected(deltas, selected, i) { deltas.at(j, i).powi(2) } else { 0.0 };
            sum(n, square) / n as f64
        })
        .collect();
    let total: f64 = squares.iter().sum();
    let is_zero = match variant {
        Variant::Fuseai | Variant::Paper => total == 0.0,
        Variant::Mergekit => total < MERGEKIT_FLOOR,
    };
    if is_zero {
        return vec![1.0 / squares.len() as f64; squares.len()];
    }
    squares.iter().map(|square| square / total).collect()
}

#[inline]
fn is_selected(deltas: &Deltas<'_>, selected: TopK, i: usize) -> bool {
    selected == TopK::ALL || selected.holds(i, variance(deltas, i))
}

/// Lets the models elect the sign of element `i`, unweighted, each with its share of the result.
#[inline]
fn elect(deltas: &Deltas<'_>, selected: TopK, shares: &[f64], variant: Variant, i: usize) -> Election {
    let mut election = Election::default();
    if variant == Variant::Fuseai || is_selected(deltas, selected, i) {
        for (j, &share) in shares.iter().enumerate() {
            let x = deltas.at(j, i);
            election.count(x, x, share * x, share);
        }
    }
    election
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::golden;

    const GOLDEN: &str = include_str!("../../../tests/golden/sce.json");

    #[test]
    fn golden_sce() {
        golden::check("sce", GOLDEN, 21, &[]);
    }

    #[test]
    fn golden_masks_and_shares() {
        for case in golden::cases(GOLDEN) {
            let buffers = golden::Buffers::of(&case);
            let deltas = buffers.inputs().deltas();
            let variant: Variant = serde_json::from_value(case["params"]["variant"].clone()).unwrap();
            let selected = select(&deltas, case["params"]["select_topk"].as_f64().unwrap());
            let shares = shares(&deltas, selected, variant);
            golden::close(&shares, &golden::flat(&case["coefficients"]));
            // The last two cases give shares and results only.
            if case["select_mask"].is_null() {
                continue;
            }
            let n = deltas.n_elements();
            let mask: Vec<f64> = (0..n).map(|i| f64::from(u8::from(is_selected(&deltas, selected, i)))).collect();
            assert_eq!(mask, golden::flat(&case["select_mask"]));
            for j in 0..deltas.n_models() {
                let keep = |i: usize| {
                    let masked = variant != Variant::Fuseai && !is_selected(&deltas, selected, i);
                    let x = if masked { 0.0 } else { deltas.at(j, i) };
                    let plus_wins = elect(&deltas, selected, &shares, variant, i).plus_wins();
                    f64::from(u8::from(if plus_wins { x > 0.0 } else { x < 0.0 }))
                };
                let kept: Vec<f64> = (0..n).map(keep).collect();
                assert_eq!(kept, golden::flat(&case["keep_mask"][j]), "{}", case["params"]);
            }
        }
    }

    #[test]
    fn two_models_by_hand() {
        // Base 0, deltas (2, 0) and (-1, 0), everything selected: s = (4/2, 1/2), eta = (0.8, 0.2). Element 0: the
        // sum 1 elects +, kept is 2 with share 0.8: 0.8 * 2 / 0.8 = 2; `paper` does not divide: 1.6.
        let merge = |variant| {
            let method = format!(r#"{{"method": "sce", "variant": "{variant}"}}"#);
            golden::merge(&method, Some(&[0.0, 0.0]), &[&[2.0, 0.0], &[-1.0, 0.0]]).unwrap()
        };
        assert_eq!(merge("fuseai"), [2.0, 0.0]);
        assert_eq!(merge("mergekit"), [2.0, 0.0]);
        assert_eq!(merge("paper"), [1.6, 0.0]);
    }
}
