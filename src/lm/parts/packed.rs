//! Projections laid out for a step of few rows. It must not know caches or masks.
//!
//! A step multiplies a handful of rows by each matrix. For matrices that fit into the
//! processor's caches, `[in, out]` order and one product in place of two or three make a step
//! up to twice as fast; that layout is a copy. Larger ones are used where they lie.

use fuseline_torch::tch::Tensor;

use super::linear::Linear;

/// One or several projections of the same input, their outputs side by side.
#[derive(Debug)]
pub struct Packed(Vec<Part>);

#[derive(Debug)]
struct Part {
    /// `[in, out]`.
    weight: Tensor,
    /// `[out]`.
    bias: Option<Tensor>,
}

impl Packed {
    /// Puts projections side by side; `copy` lays them out anew, as one.
    pub fn new(projections: &[&Linear], copy: bool) -> Self {
        let plain = |linear: &Linear| Part {
            weight: linear.weight.detach().transpose(0, 1),
            bias: linear.bias.as_ref().map(Tensor::detach),
        };
        if !copy {
            return Self(projections.iter().map(|linear| plain(linear)).collect());
        }
        let weights: Vec<Tensor> = projections.iter().map(|linear| plain(linear).weight).collect();
        let biases: Vec<Tensor> = projections.iter().filter_map(|linear| plain(linear).bias).collect();
        Self(vec![Part {
            weight: Tensor::cat(&weights, 1).contiguous(),
            bias: (!biases.is_empty()).then(|| Tensor::cat(&biases, 0)),
        }])
    }

    /// Lays out one matrix `[out, in]` without bias.
    pub fn of_matrix(weight: &Tensor, copy: bool) -> Self {
        Self::new(&[&Linear { weight: weight.shallow_clone(), bias: None }], copy)
    }

    /// Projects `x: [n, in]` to `[n, all outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let outputs: Vec<Tensor> = self.0.iter().map(|part| part.forward(x)).collect();
        match outputs.as_slice() {
            [one] => one.shallow_clone(),
            several => Tensor::cat(several, 1),
        }
    }
}

impl Part {
    fn forward(&self, x: &Tensor) -> Tensor {
        match &self.bias {
            None => x.mm(&self.weight),
            Some(bias) => bias.addmm(x, &self.weight),
        }
    }
}
