//! The gated feed-forward block. It must not know norms or residuals.
//!
//! Shazeer 2020, arXiv 2002.05202, eq. 6: `down(act(gate·x) ⊙ up·x)`.

use fuseline_torch::tch::Tensor;

use super::linear::Linear;
use crate::arch::Activation;

/// A gated feed-forward block.
#[derive(Debug)]
pub struct Mlp {
    /// `d` to `ff`.
    pub gate: Linear,
    /// `d` to `ff`.
    pub up: Linear,
    /// `ff` to `d`.
    pub down: Linear,
    /// Applied to the gate.
    pub activation: Activation,
}

impl Mlp {
    /// Maps `x: [.., d]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let gate = activate(self.activation, &self.gate.forward(x));
        self.down.forward(&(gate * self.up.forward(x)))
    }
}

/// Applies the gate's activation, element by element.
pub fn activate(activation: Activation, gate: &Tensor) -> Tensor {
    match activation {
        Activation::Silu => gate.silu(),
        Activation::GeluTanh => gate.gelu("tanh"),
        Activation::Gelu => gate.gelu("none"),
    }
}
