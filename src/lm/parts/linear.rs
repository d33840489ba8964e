//! A projection, `y = x·Wᵀ + b`. It must not know what it projects.

use fuseline_torch::tch::Tensor;

/// A projection; weight `[out, in]`, bias `[out]`.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Projects `x: [.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
