//! What stands after attention: a feed-forward block, or experts. It must not know norms or residuals.
//!
//! Formulas at [`crate::parts::mlp`] and [`crate::parts::experts`]. A token's experts are summed in the order of their
//! numbers, so that nothing depends on which tokens they see besides.

use fuseline_torch::simd::vectorised;

use super::each;
use super::linear::Linear;
use super::math;
use super::rows::{Activate, Softmax};
use crate::arch::Activation;

/// A feed-forward block.
#[derive(Debug)]
pub(super) struct Mlp {
    /// Gate, then projection up, or that alone.
    pub up: Linear,
    pub down: Linear,
    /// Width between the two.
    pub inner: usize,
    pub gated: bool,
    pub activation: Activation,
}

/// Experts and their router.
#[derive(Debug)]
pub(super) struct Experts {
    pub router: Linear,
    pub experts: Vec<Mlp>,
    pub top_k: usize,
    /// Whether the weights of the chosen are made to sum to one.
    pub normalize: bool,
    /// The expert of every token, and the projection whose sigmoid is its share.
    pub shared: Option<(Mlp, Linear)>,
}

/// Either.
#[derive(Debug)]
pub(super) enum Feed {
    Mlp(Box<Mlp>),
    Experts(Box<Experts>),
}

impl Feed {
    /// Maps rows `[m, d]` to the same shape.
    pub(super) fn forward(&self, x: &[f32], d: usize) -> Vec<f32> {
        match self {
            Self::Mlp(mlp) => mlp.forward(x),
            Self::Experts(experts) => experts.forward(x, d),
        }
    }
}

impl Mlp {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let projected = self.up.forward(x);
        let length = self.inner * (1 + usize::from(self.gated));
        let mut inner = vec![0.0; projected.len() / length * self.inner];
        each(&mut inner, self.inner, |index, out| {
            let projected = &projected[index * length..][..length];
            vectorised(Activate { activation: self.activation, gated: self.gated, projected, out });
        });
        self.down.forward(&inner)
    }
}

impl Experts {
    fn forward(&self, x: &[f32], d: usize) -> Vec<f32> {
        let mut shares = self.router.forward(x);
        let chosen: Vec<Vec<(usize, f32)>> =
            shares.chunks_exact_mut(self.experts.len()).map(|row| self.choose(row)).collect();
        let mut out = vec![0.0; x.len()];
        for (index, expert) in self.experts.iter().enumerate() {
            let of_expert =
                |row: usize| chosen[row].iter().find(|(expert, _)| *expert == index).map(|(_, share)| (row, *share));
            let tokens: Vec<(usize, f32)> = (0..chosen.len()).filter_map(of_expert).collect();
            let rows: Vec<f32> = tokens.iter().flat_map(|(row, _)| &x[row * d..(row + 1) * d]).copied().collect();
            if rows.is_empty() {
                continue;
            }
            for ((row, share), given) in tokens.iter().zip(expert.forward(&rows).chunks_exact(d)) {
                for (out, x) in out[row * d..].iter_mut().zip(given) {
                    *out += share * x;
                }
            }
        }
        if let Some((mlp, share)) = &self.shared {
            let shares = share.forward(x);
            for ((out, given), share) in out.chunks_exact_mut(d).zip(mlp.forward(x).chunks_exact(d)).zip(shares) {
                let share = math::sigmoid(share);
                for (out, x) in out.iter_mut().zip(given) {
                    *out += share * x;
                }
            }
        }
        out
    }

    /// A token's experts and their weights, from the router's logits: the highest, lower numbers first among equals.
    fn choose(&self, logits: &mut [f32]) -> Vec<(usize, f32)> {
        vectorised(Softmax(logits));
        let mut order: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
        order.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
        order.truncate(self.top_k);
        if self.normalize {
            let sum: f32 = order.iter().map(|(_, share)| share).sum();
            for (_, share) in &mut order {
                *share /= sum;
            }
        }
        order
    }
}
