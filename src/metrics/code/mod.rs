//! Programs that models write: found in an answer, run against tests in the
//! sandbox, judged test by test. Must not know tables or pipelines.

mod extract;
mod suite;

pub use extract::Extraction;
pub use suite::{Plus, Suite, Tested, Verdict};

/// Raised when a verdict or an extracted program changes.
pub const VERSION: u32 = 1;

/// The unbiased estimate that one of `k` answers passes, when `c` of `n` did: `1 - C(n - c, k) / C(n, k)`.
///
/// M. Chen and others, Evaluating Large Language Models Trained on Code, arXiv 2107.03374, eq. 1. None where k is zero or
/// more than n, or c more than n.
pub fn pass_at_k(n: u64, c: u64, k: u64) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    // The product form of the paper, which does not overflow.
    Some(1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>())
}

#[cfg(test)]
mod tests;
