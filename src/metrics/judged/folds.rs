//! The folds of a cross-validation as scikit-learn's `GroupKFold` (1.4) divides groups that are all of one size.
//!
//! `GroupKFold` sorts groups by size with `numpy.argsort`, which keeps no order among equals: where all are equal, the folds
//! are whatever the sort leaves. NumPy (1.25 to 1.26) sorts by one of two programs, chosen by the processor, and so the same
//! script gives other folds on another machine. Both orders are here, by following what each program does to equal keys.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which of NumPy's sorting programs divides the folds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Folds {
    /// That of processors with AVX-512 (numpy/x86-simd-sort).
    #[default]
    Avx512,
    /// That of all others: introsort.
    Scalar,
}

/// The fold of each of `n_groups` groups of equal size, among `n_folds`.
pub fn group_folds(n_groups: usize, n_folds: usize, folds: Folds) -> Vec<usize> {
    let sorted = match folds {
        Folds::Avx512 => argsort_equals_avx512(n_groups),
        Folds::Scalar => argsort_equals_scalar(n_groups),
    };
    let mut fold_of = vec![0; n_groups];
    // The largest first, each to the fold with the fewest: one after another where all are equal.
    for (i, group) in sorted.into_iter().rev().enumerate() {
        fold_of[group] = i % n_folds;
    }
    fold_of
}

/// Elements that one register holds.
const LANES: usize = 8;
/// Up to so many elements a sorting network does all, and leaves equals where they are.
const NETWORK: usize = 64;
/// Registers that are partitioned together where there are enough elements.
const UNROLL: usize = 4;

/// `numpy.argsort` of equal keys with AVX-512: one partition, in which every key is at least the pivot and so goes to the
/// right; both halves are then known to be equal, and nothing further is done.
fn argsort_equals_avx512(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if n <= NETWORK {
        return order;
    }
    let unroll = if n <= 8 * UNROLL * LANES { 1 } else { UNROLL };
    let block = unroll * LANES;
    let (mut left, mut right) = (0, n);
    // What does not fill a block is put to the end one by one.
    for _ in 0..n % block {
        right -= 1;
        order.swap(left, right);
    }
    let source = order.clone();
    let mut store = right;
    let mut put = |from: Range<usize>, store: &mut usize| {
        for start in from.step_by(LANES) {
            *store -= LANES;
            order[*store..*store + LANES].copy_from_slice(&source[start..start + LANES]);
        }
    };
    // The first and the last block are kept for the end, which makes room to write to.
    let first_left = left;
    let (kept_left, kept_right) = (left..left + block, right - block..right);
    left += block;
    right -= block;
    while left < right {
        // Where less room is on the right, the next block is read there.
        if store - right < left - first_left {
            right -= block;
            put(right..right + block, &mut store);
        } else {
            put(left..left + block, &mut store);
            left += block;
        }
    }
    put(kept_left, &mut store);
    put(kept_right, &mut store);
    order
}

/// Elements so near each other are sorted by insertion, which leaves equals where they are.
const INSERTION: usize = 15;

/// `numpy.argsort` of equal keys by introsort: quicksort whose scans stop at equals, so that every pair is exchanged and the
/// parts are halves, never so uneven that it would turn to heapsort.
fn argsort_equals_scalar(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut parts = vec![(0, n.saturating_sub(1))];
    while let Some((low, high)) = parts.pop() {
        if high.saturating_sub(low) <= INSERTION {
            continue;
        }
        order.swap(low + (high - low) / 2, high - 1);
        let (mut i, mut j) = (low + 1, high - 2);
        while i < j {
            order.swap(i, j);
            i += 1;
            j -= 1;
        }
        order.swap(i, high - 1);
        parts.push((low, i - 1));
        parts.push((i + 1, high));
    }
    order
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn equal_keys_are_left_as_numpy_leaves_them() {
        // Made by tests/golden/make_judged.py with NumPy 1.26.4.
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/judged.json")).expect("the golden file is JSON");
        let cases = golden["argsort_of_equals"].as_array().expect("a list");
        assert!(cases.len() > 20);
        for case in cases {
            let n = case["n"].as_u64().expect("a number") as usize;
            let list = |name: &str| -> Vec<usize> { serde_json::from_value(case[name].clone()).expect("indices") };
            assert_eq!(argsort_equals_avx512(n), list("avx512"), "{n} with AVX-512");
            assert_eq!(argsort_equals_scalar(n), list("scalar"), "{n} without");
        }
    }

    #[test]
    fn folds_are_even() {
        for (n, folds) in [(2415, Folds::Avx512), (2415, Folds::Scalar), (7, Folds::Scalar), (0, Folds::Avx512)] {
            let fold_of = group_folds(n, 5, folds);
            for fold in 0..5 {
                let size = fold_of.iter().filter(|found| **found == fold).count();
                assert!(size == n / 5 || size == n / 5 + 1, "{n}: fold {fold} has {size}");
            }
        }
    }
}
