//! Root-mean-square normalisation. It must not know where in a block it stands.
//!
//! Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4.

use fuseline_torch::tch::{Kind, Tensor};

use crate::arch::Norm;

/// `x / sqrt(mean(x²) + eps) · w` over the last axis.
#[derive(Debug)]
pub struct RmsNorm {
    /// `[d]`; with `unit_offset` it holds `w − 1`.
    pub weight: Tensor,
    /// Its settings.
    pub norm: Norm,
}

impl RmsNorm {
    /// Normalises `x: [.., d]`, same shape and kind.
    ///
    /// Mean and root are taken in float32. In lower precision llama rounds before it
    /// multiplies by `w`, gemma after, as in `huggingface/transformers`
    /// `models/llama/modeling_llama.py` and `models/gemma2/modeling_gemma2.py`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let shape = self.weight.size();
        let (eps, kind) = (self.norm.eps, x.kind());
        match (kind, self.norm.unit_offset) {
            (Kind::Float, false) => x.rms_norm(shape, Some(&self.weight), eps),
            (Kind::Float, true) => x.rms_norm(shape, Some(&(&self.weight + 1.0)), eps),
            (_, false) => {
                let normal = x.to_kind(Kind::Float).rms_norm(shape, None::<Tensor>, eps);
                normal.to_kind(kind) * &self.weight
            }
            (_, true) => {
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
        let plain = RmsNorm { weight: weight.shallow_clone(), norm: Norm { eps: 0.0, unit_offset: false } };
        let y = Vec::<f32>::try_from(plain.forward(&x)).unwrap();
        assert!((y[0] - 0.848_528_1).abs() < 1e-6 && (y[1] - 2.262_741_7).abs() < 1e-6);
        let offset = RmsNorm { weight: weight - 1.0, norm: Norm { eps: 0.0, unit_offset: true } };
        let z = Vec::<f32>::try_from(offset.forward(&x)).unwrap();
        assert_eq!(y, z);
    }
}
