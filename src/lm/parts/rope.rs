//! Rotary position embedding. It must not know heads' meaning or masks.
//!
//! Su et al. 2021, arXiv 2104.09864, eq. 34, in the half-split layout of the published
//! checkpoints: dimension `i` is paired with `i + head_dim/2`. Frequencies and their
//! scalings follow `huggingface/transformers` `modeling_rope_utils.py`.

use std::f64::consts::TAU;

use fuseline_torch::tch::{Device, Kind, Tensor};

use crate::arch::{Rope, RopeScaling};

/// Cosine and sine of every position's angles.
#[derive(Debug)]
pub struct Angles {
    /// `[.., 1, head_dim]`, the two halves equal.
    cos: Tensor,
    /// `[.., 1, head_dim]`, the first half negated.
    sin: Tensor,
}

/// The angle per position of each pair of dimensions, `[head_dim/2]` float32, in radians:
/// `theta^(−2i/head_dim)`, scaled.
pub fn frequencies(rope: &Rope, head_dim: i64, device: Device) -> Tensor {
    let exponent = Tensor::arange_start_step(0, head_dim, 2, (Kind::Float, device)) / head_dim as f64;
    let plain = Tensor::pow_scalar(rope.theta, &exponent).reciprocal();
    match rope.scaling {
        RopeScaling::Default => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let wavelength = plain.reciprocal() * TAU;
            let slow = wavelength.gt(original_max_positions / low_freq_factor);
            let fast = wavelength.lt(original_max_positions / high_freq_factor);
            let divided = &plain / factor;
            // 0 where the wavelength is the longest kept whole, 1 at the shortest kept whole.
            let ramp = (wavelength.reciprocal() * original_max_positions - low_freq_factor)
                / (high_freq_factor - low_freq_factor);
            let between = (-&ramp + 1.0) * &divided + ramp * &plain;
            divided.where_self(&slow, &plain.where_self(&fast, &between))
        }
    }
}

impl Angles {
    /// Computes the angles of `positions: [..]`, usually `[b, t]`, in float32 and rounds them to
    /// `kind`.
    pub fn new(frequencies: &Tensor, positions: &Tensor, kind: Kind) -> Self {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1).unsqueeze(-1) * frequencies;
        let (cos, sin) = (angles.cos(), angles.sin());
        Self {
            cos: Tensor::cat(&[&cos, &cos], -1).to_kind(kind),
            sin: Tensor::cat(&[&sin.neg(), &sin], -1).to_kind(kind),
        }
    }

    /// Turns `x: [.., heads, head_dim]` by its positions' angles, same shape.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        let half = self.cos.size().last().expect("angles have axes") / 2;
        // `x·cos + swap(x)·sin`, where the minus of the rotation lies in `sin`.
        (x * &self.cos).addcmul(&x.roll([half], [-1]), &self.sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_by_hand() {
        // One pair, frequency 1, position pi/2: (x, y) becomes (-y, x).
        let frequencies = frequencies(&Rope { theta: 10.0, scaling: RopeScaling::Default }, 2, Device::Cpu);
        let positions = Tensor::from_slice(&[std::f32::consts::FRAC_PI_2]).view([1, 1]);
        let x = Tensor::from_slice(&[3f32, 5.0]).view([1, 1, 1, 2]);
        let y = Angles::new(&frequencies, &positions, Kind::Float).rotate(&x).view([2]);
        let y = Vec::<f32>::try_from(y).unwrap();
        assert!((y[0] + 5.0).abs() < 1e-6 && (y[1] - 3.0).abs() < 1e-6, "{y:?}");
    }

    #[test]
    fn llama3_divides_slow_frequencies_and_keeps_fast_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64.0,
        };
        let rope = |scaling| Rope { theta: 10_000.0, scaling };
        let plain = frequencies(&rope(RopeScaling::Default), 8, Device::Cpu);
        let scaled = frequencies(&rope(scaling), 8, Device::Cpu);
        let ratio = Vec::<f32>::try_from(plain / scaled).unwrap();
        // Wavelengths are 6.3 (kept), 62.8 (ramp: (64/62.8 - 1)/3 = 0.0062), 628 and 6283 (divided by 8).
        assert_eq!(ratio[0], 1.0);
        let mixed = 1.0 / (0.0062 + (1.0 - 0.0062) / 8.0);
        assert!((f64::from(ratio[1]) - mixed).abs() < 0.01, "{ratio:?}");
        assert!((ratio[2] - 8.0).abs() < 1e-4 && (ratio[3] - 8.0).abs() < 1e-4);
    }
}
