//! What happens to each row by itself between the projections. Each is a value that
//! [`fuseline_torch::simd::vectorised`] runs. It must not know weights' names or sequences.

use fuseline_torch::simd::Loops;

use super::math;
use crate::arch::{Activation, Norm, QkNorm};

/// A normalisation with what it multiplies by.
#[derive(Debug)]
pub(super) struct Normal {
    pub norm: Norm,
    pub weight: Vec<f32>,
}

/// Normalises a row in place.
pub(super) struct Normalise<'a>(pub &'a Normal, pub &'a mut [f32]);

impl Loops for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        math::normalise(self.0.norm, &self.0.weight, self.1);
    }
}

/// Adds a row to another.
pub(super) struct Add<'a> {
    pub to: &'a mut [f32],
    pub row: &'a [f32],
}

impl Loops for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, x) in self.to.iter_mut().zip(self.row) {
            *to += *x;
        }
    }
}

/// Brings a row's queries and keys to what attention compares: norms, limits, rotation.
pub(super) struct Turn<'a> {
    /// `[query heads + key heads + value heads, width]`.
    pub row: &'a mut [f32],
    pub query_heads: usize,
    pub key_heads: usize,
    pub width: usize,
    /// How far norms on queries and keys reach, and those.
    pub normals: Option<(QkNorm, &'a Normal, &'a Normal)>,
    pub clip: Option<f32>,
    /// Cosine and sine of each dimension that is turned, the first half of the sines negated.
    pub angles: Option<(&'a [f32], &'a [f32])>,
}

impl Loops for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let width = self.width;
        let (queries, rest) = self.row.split_at_mut(self.query_heads * width);
        let (keys, values) = rest.split_at_mut(self.key_heads * width);
        if let Some((reach, for_queries, for_keys)) = self.normals {
            for (heads, normal) in [(&mut *queries, for_queries), (&mut *keys, for_keys)] {
                let length = match reach {
                    QkNorm::Head => width,
                    QkNorm::Projection => heads.len(),
                };
                for part in heads.chunks_exact_mut(length) {
                    math::normalise(normal.norm, &normal.weight, part);
                }
            }
        }
        if let Some(limit) = self.clip {
            for x in queries.iter_mut().chain(keys.iter_mut()).chain(values) {
                *x = x.clamp(-limit, limit);
            }
        }
        if let Some((cos, sin)) = self.angles {
            let half = cos.len() / 2;
            for head in queries.chunks_exact_mut(width).chain(keys.chunks_exact_mut(width)) {
                let (left, right) = head[..2 * half].split_at_mut(half);
                for place in 0..half {
                    let (x, y) = (left[place], right[place]);
                    left[place] = x * cos[place] + y * sin[place];
                    right[place] = y * cos[half + place] + x * sin[half + place];
                }
            }
        }
    }
}

/// What stands between the projection up and the one back: `act(gate) ⊙ up` of a row `[gate, up]`, or `act(up)`.
pub(super) struct Activate<'a> {
    pub activation: Activation,
    pub gated: bool,
    pub projected: &'a [f32],
    pub out: &'a mut [f32],
}

impl Loops for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // A constant in each loop, so that it is one activation's loop.
        match self.activation {
            Activation::Silu => activate(self.gated, self.projected, self.out, |x| math::activate(Activation::Silu, x)),
            Activation::GeluTanh => {
                activate(self.gated, self.projected, self.out, |x| math::activate(Activation::GeluTanh, x));
            }
            Activation::Gelu => activate(self.gated, self.projected, self.out, |x| math::activate(Activation::Gelu, x)),
        }
    }
}

#[inline(always)]
fn activate(gated: bool, projected: &[f32], out: &mut [f32], of: impl Fn(f32) -> f32) {
    let (gate, up) = projected.split_at(out.len());
    match gated {
        true => {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = of(*gate) * up;
            }
        }
        false => {
            for (out, x) in out.iter_mut().zip(gate) {
                *out = of(*x);
            }
        }
    }
}

/// `c·tanh(x/c)` of a row.
pub(super) struct Cap<'a>(pub f32, pub &'a mut [f32]);

impl Loops for Cap<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.1 {
            *x = math::tanh(*x / self.0) * self.0;
        }
    }
}

/// Shares of a row of logits.
pub(super) struct Softmax<'a>(pub &'a mut [f32]);

impl Loops for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        math::softmax(self.0);
    }
}

/// The logarithm of the sum of a row's exponentials.
pub(crate) struct LogSumExp<'a>(pub &'a [f32]);

impl Loops for LogSumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        math::log_sum_exp(self.0)
    }
}
