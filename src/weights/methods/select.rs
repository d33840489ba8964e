//! The k largest of n values, without storing or sorting them. Must not know what the values mean.

use std::ops::Range;

use rayon::prelude::*;

/// Elements that one task handles: small enough to share, large enough to pay for it.
pub(super) const BLOCK: usize = 1 << 14;

/// The positions of the largest values, as a threshold; among equal values the lower index is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopK {
    /// The smallest value that is in, as ordered bits.
    bits: u64,
    /// The highest index at which that very value is in.
    last: usize,
}

impl TopK {
    /// Every position.
    pub const ALL: Self = Self { bits: 0, last: usize::MAX };
    /// No position.
    pub const NONE: Self = Self { bits: u64::MAX, last: 0 };

    /// Says whether position `index`, which holds `value`, is among the chosen.
    #[inline]
    pub fn holds(&self, index: usize, value: f64) -> bool {
        let bits = ordered(value);
        bits > self.bits || (bits == self.bits && index <= self.last)
    }
}

/// Chooses the `k` largest of the values at `0..n`, which must not be negative; NaN counts as the largest.
///
/// A radix search over the bits of the doubles (their order is the values' order): four passes, O(n) time, O(1)
/// memory, the same choice on any number of threads.
pub fn top_k(n: usize, k: usize, value: impl Fn(usize) -> f64 + Sync) -> TopK {
    const DIGIT_BITS: u32 = 16;
    const BUCKETS: usize = 1 << DIGIT_BITS;
    if k == 0 {
        return TopK::NONE;
    }
    if k >= n {
        return TopK::ALL;
    }
    let mut prefix = 0;
    let mut wanted = k;
    for shift in [48, 32, 16, 0] {
        let above = shift + DIGIT_BITS;
        let counts = (0..n)
            .into_par_iter()
            .with_min_len(1 << 20)
            .fold(
                || vec![0usize; BUCKETS],
                |mut counts, index| {
                    let bits = ordered(value(index));
                    if bits.checked_shr(above).unwrap_or(0) == prefix {
                        counts[(bits >> shift) as usize % BUCKETS] += 1;
                    }
                    counts
                },
            )
            .reduce(
                || vec![0; BUCKETS],
                |mut left, right| {
                    left.iter_mut().zip(right).for_each(|(l, r)| *l += r);
                    left
                },
            );
        let mut digit = BUCKETS - 1;
        while counts[digit] < wanted {
            wanted -= counts[digit];
            digit -= 1;
        }
        prefix = (prefix << DIGIT_BITS) | digit as u64;
    }
    let is_equal = |index: &usize| ordered(value(*index)) == prefix;
    let equal_in_blocks: Vec<usize> =
        (0..n.div_ceil(BLOCK)).into_par_iter().map(|block| indices(block, n).filter(is_equal).count()).collect();
    let mut block = 0;
    while equal_in_blocks[block] < wanted {
        wanted -= equal_in_blocks[block];
        block += 1;
    }
    let last = indices(block, n)
        .filter(is_equal)
        .nth(wanted - 1)
        .expect("the histogram counted that many values of these bits");
    TopK { bits: prefix, last }
}

/// Sums a function over `0..n` in a fixed order of blocks, so that the result does not depend on threads.
pub fn sum(n: usize, term: impl Fn(usize) -> f64 + Sync) -> f64 {
    let blocks: Vec<f64> =
        (0..n.div_ceil(BLOCK)).into_par_iter().map(|block| indices(block, n).map(&term).sum()).collect();
    blocks.iter().sum()
}

fn indices(block: usize, n: usize) -> Range<usize> {
    block * BLOCK..n.min((block + 1) * BLOCK)
}

/// Bits whose unsigned order is the order of non-negative doubles.
#[inline]
fn ordered(value: f64) -> u64 {
    value.abs().to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(values: &[f64], k: usize) -> Vec<usize> {
        let top = top_k(values.len(), k, |i| values[i]);
        (0..values.len()).filter(|&i| top.holds(i, values[i])).collect()
    }

    #[test]
    fn the_lower_index_wins_among_equals() {
        let values = [0.5, 2.0, 0.5, 0.0, 0.5, 1e-300];
        assert_eq!(chosen(&values, 0), [] as [usize; 0]);
        assert_eq!(chosen(&values, 1), [1]);
        assert_eq!(chosen(&values, 2), [0, 1]);
        assert_eq!(chosen(&values, 3), [0, 1, 2]);
        assert_eq!(chosen(&values, 5), [0, 1, 2, 4, 5]);
        assert_eq!(chosen(&values, 6), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn agrees_with_sorting() {
        // A multiplicative sequence with many repetitions.
        let values: Vec<f64> = (0..40_000u64).map(|i| (i * 2_654_435_761 % 997) as f64 / 7.0).collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        for k in [1, 17, 1000, 20_001, 39_999] {
            let mut expected = order[..k].to_vec();
            expected.sort_unstable();
            assert_eq!(chosen(&values, k), expected);
        }
    }

    #[test]
    fn sums_over_blocks() {
        let n = 3 * BLOCK + 5;
        assert_eq!(sum(n, |i| i as f64), (n * (n - 1) / 2) as f64);
    }
}
