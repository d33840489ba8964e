//! The feed-forward block. It must not know norms or residuals.
//!
//! Gated: Shazeer 2020, arXiv 2002.05202, eq. 6, `down(act(gate·x) ⊙ up·x)`. Else `down(act(up·x))`.

use fuseline_torch::tch::Tensor;

use super::linear::Linear;
use crate::arch::Activation;

/// A feed-forward block.
#[derive(Debug)]
pub struct Mlp {
    /// `d` to `ff`, in gated blocks.
    pub gate: Option<Linear>,
    /// `d` to `ff`.
    pub up: Linear,
    /// `ff` to `d`.
    pub down: Linear,
    /// Applied to the gate, or to what has none.
    pub activation: Activation,
}

impl Mlp {
    /// Maps `x: [.., d]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let inner = match &self.gate {
            Some(gate) => activate(self.activation, &gate.forward(x)) * self.up.forward(x),
            None => activate(self.activation, &self.up.forward(x)),
        };
        self.down.forward(&inner)
    }

    /// The same up to the projection back, for projections `[n, 2·ff]` (gate, then up) or `[n, ff]`
    /// that were computed together.
    pub fn inner(&self, projected: &Tensor) -> Tensor {
        match &self.gate {
            Some(_) => gated(self.activation, projected),
            None => activate(self.activation, projected),
        }
    }
}

/// Splits `projected: [.., 2·ff]` and returns `act(first half) ⊙ second half`.
pub fn gated(activation: Activation, projected: &Tensor) -> Tensor {
    let ff = projected.size().last().expect("projections have axes") / 2;
    activate(activation, &projected.narrow(-1, 0, ff)) * projected.narrow(-1, ff, ff)
}

/// Applies the activation, element by element.
pub fn activate(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::Silu => x.silu(),
        Activation::GeluTanh => x.gelu("tanh"),
        Activation::Gelu => x.gelu("none"),
    }
}
