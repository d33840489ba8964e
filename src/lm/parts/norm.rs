//! Normalisation over the last axis. It must not know where in a block it stands.
//!
//! Root mean square: Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4. With the mean taken off:
//! Ba et al. 2016, arXiv 1607.06450, eq. 4, without bias.

use fuseline_torch::tch::{Kind, Tensor};

use crate::arch::{Norm, NormKind};

/// A normalisation and its weight; formulas at [`NormKind`].
#[derive(Debug)]
pub struct Normalization {
    /// `[d]`; with a unit offset it holds `w − 1`.
    pub weight: Tensor,
    /// Its settings.
    pub norm: Norm,
}

impl Normalization {
    /// Normalises `x: [.., d]`, same shape and kind.
    ///
    /// Mean and root are taken in float32. In lower precision llama rounds before it
    /// multiplies by `w`, olmo2 and gemma after, as in `huggingface/transformers`
    /// `models/{llama,olmo2,gemma2}/modeling_*.py`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let shape = self.weight.size();
        let (eps, kind) = (self.norm.eps, x.kind());
        match (kind, self.norm.kind) {
            (_, NormKind::Layer) => x.layer_norm(shape, Some(&self.weight), None, eps, false),
            (Kind::Float, NormKind::Rms | NormKind::RmsInFloat32) => x.rms_norm(shape, Some(&self.weight), eps),
            (Kind::Float, NormKind::RmsUnitOffset) => x.rms_norm(shape, Some(&(&self.weight + 1.0)), eps),
            (_, NormKind::Rms) => {
                let normal = x.to_kind(Kind::Float).rms_norm(shape, None::<Tensor>, eps);
                normal.to_kind(kind) * &self.weight
            }
            (_, NormKind::RmsInFloat32) => {
                let weight = self.weight.to_kind(Kind::Float);
                x.to_kind(Kind::Float).rms_norm(shape, Some(&weight), eps).to_kind(kind)
            }
            (_, NormKind::RmsUnitOffset) => {
                let weight = self.weight.to_kind(Kind::Float) + 1.0;
                x.to_kind(Kind::Float).rms_norm(shape, Some(&weight), eps).to_kind(kind)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // mean of squares of (3, 4) is 12.5, its root 3.5355339.
        let x = Tensor::from_slice(&[3f32, 4.0]);
        let weight = Tensor::from_slice(&[1f32, 2.0]);
        let run = |weight: Tensor, kind| {
            let norm = Normalization { weight, norm: Norm { kind, eps: 0.0 } };
            Vec::<f32>::try_from(norm.forward(&x)).unwrap()
        };
        let y = run(weight.shallow_clone(), NormKind::Rms);
        assert!((y[0] - 0.848_528_1).abs() < 1e-6 && (y[1] - 2.262_741_7).abs() < 1e-6);
        let z = run(&weight - 1.0, NormKind::RmsUnitOffset);
        // The mean is 3.5, the variance 0.25: (-1, 1), times (1, 2).
        assert_eq!(run(weight, NormKind::Layer), [-1.0, 2.0]);
        assert_eq!(y, z);
    }
}
