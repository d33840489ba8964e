//! Attention of one token to what its sequence holds, for the heads that share keys and values.
//!
//! Every sum runs over the sequence's own tokens in their order. It must not know projections, norms or positions but by
//! their number.

use fuseline_torch::simd::Loops;

use super::math;
use super::pages::{Held, Kept, PAGE, Sequence};

/// Columns of values that are summed at once.
const COLUMNS: usize = 32;

/// What is the same for all tokens.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Factor on the scores.
    pub scale: f32,
    /// `c` in `c·tanh(score/c)`.
    pub soft_cap: Option<f32>,
    /// Of linear biases, one a query head.
    pub slopes: Option<Vec<f32>>,
}

/// The heads of one token that share keys and values.
pub(super) struct Query<'a> {
    pub settings: &'a Settings,
    /// `[group, width]`; replaced by what comes out.
    pub heads: &'a mut [f32],
    /// The first of them.
    pub first_head: usize,
    pub sequence: &'a Sequence,
    pub layer: usize,
    pub kv_head: usize,
    /// The token's place: it attends to this one and those before.
    pub place: usize,
    pub window: Option<usize>,
    /// Memory for the scores.
    pub scores: &'a mut Vec<f32>,
}

impl Loops for Query<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let width = self.sequence.width();
        let first = self.window.map_or(0, |window| (self.place + 1).saturating_sub(window));
        let pages = first / PAGE..self.place / PAGE + 1;
        let start = pages.start * PAGE;
        self.scores.resize(pages.len() * PAGE, 0.0);
        for (head, q) in self.heads.chunks_exact_mut(width).enumerate() {
            for (page, scores) in pages.clone().zip(self.scores.as_chunks_mut::<PAGE>().0) {
                match self.sequence.held(self.layer, self.kv_head, page)[0] {
                    Held::F32(keys) => products(q, keys, scores),
                    Held::Bf16(keys) => products(q, keys, scores),
                }
            }
            for score in self.scores.iter_mut() {
                *score *= self.settings.scale;
            }
            if let Some(cap) = self.settings.soft_cap {
                for score in self.scores.iter_mut() {
                    *score = math::tanh(*score / cap) * cap;
                }
            }
            if let Some(slopes) = &self.settings.slopes {
                let slope = slopes[self.first_head + head];
                for (key, score) in self.scores.iter_mut().enumerate() {
                    *score -= slope * (self.place as f32 - (start + key) as f32);
                }
            }
            self.scores[..first - start].fill(f32::NEG_INFINITY);
            self.scores[self.place + 1 - start..].fill(f32::NEG_INFINITY);
            math::softmax(self.scores);
            q.fill(0.0);
            for (page, weights) in pages.clone().zip(self.scores.as_chunks::<PAGE>().0) {
                match self.sequence.held(self.layer, self.kv_head, page)[1] {
                    Held::F32(values) => mix(weights, values, q),
                    Held::Bf16(values) => mix(weights, values, q),
                }
            }
        }
    }
}

/// `scores[j] = Σ q[d]·keys[d][j]`.
#[inline(always)]
fn products<T: Kept>(q: &[f32], keys: &[T], scores: &mut [f32; PAGE]) {
    let mut sums = [0f32; PAGE];
    for (q, keys) in q.iter().zip(keys.as_chunks::<PAGE>().0) {
        for (sum, key) in sums.iter_mut().zip(keys) {
            *sum = q.mul_add(key.get(), *sum);
        }
    }
    *scores = sums;
}

/// `out[d] += Σ weights[j]·values[j][d]`.
#[inline(always)]
fn mix<T: Kept>(weights: &[f32; PAGE], values: &[T], out: &mut [f32]) {
    let width = out.len();
    let (wide, rest) = out.as_chunks_mut::<COLUMNS>();
    let n_wide = wide.len() * COLUMNS;
    for (block, out) in wide.iter_mut().enumerate() {
        let mut sums = *out;
        for (weight, row) in weights.iter().zip(values.chunks_exact(width)) {
            let row: &[T; COLUMNS] = row[block * COLUMNS..].first_chunk().expect("a block of columns");
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum = weight.mul_add(value.get(), *sum);
            }
        }
        *out = sums;
    }
    for (column, out) in rest.iter_mut().enumerate() {
        for (weight, row) in weights.iter().zip(values.chunks_exact(width)) {
            *out = weight.mul_add(row[n_wide + column].get(), *out);
        }
    }
}
