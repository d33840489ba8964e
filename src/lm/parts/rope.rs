//! Rotary position embedding. It must not know heads' meaning or masks.
//!
//! Su et al. 2021, arXiv 2104.09864, eq. 34, in the half-split layout of the published
//! checkpoints: dimension `i` is paired with `i + head_dim/2`. Frequencies and their
//! scalings follow `huggingface/transformers` `modeling_rope_utils.py`.

use std::f64::consts::TAU;

use fuseline_torch::tch::{Device, Kind, Tensor};

use crate::arch::{Rope, RopeScaling};

/// The frequencies of a rotary embedding.
#[derive(Debug)]
pub struct Rotary {
    frequencies: Frequencies,
    /// Factor on cosine and sine.
    magnitude: f64,
}

/// The angle per position of each pair of dimensions, `[width/2]` float32, in radians.
#[derive(Debug)]
enum Frequencies {
    /// The same for all texts.
    Fixed(Tensor),
    /// `base^(−2i/width)` with a base that follows the text's length.
    Dynamic { theta: f64, factor: f64, max_positions: f64, exponents: Tensor },
    /// One of two, by the text's length.
    Either { short: Tensor, long: Tensor, original_max_positions: f64 },
}

impl Rotary {
    /// Computes the frequencies: `theta^(−2i/width)`, scaled.
    pub fn new(rope: &Rope, device: Device) -> Self {
        let exponents = Tensor::arange_start_step(0, rope.width, 2, (Kind::Float, device)) / rope.width as f64;
        let plain = Tensor::pow_scalar(rope.theta, &exponents).reciprocal();
        let mut magnitude = 1.0;
        let frequencies = match &rope.scaling {
            RopeScaling::Default => Frequencies::Fixed(plain),
            RopeScaling::Linear { factor } => Frequencies::Fixed(plain / *factor),
            RopeScaling::Llama3 { .. } => Frequencies::Fixed(llama3(plain, &rope.scaling)),
            RopeScaling::Dynamic { factor, max_positions } => {
                Frequencies::Dynamic { theta: rope.theta, factor: *factor, max_positions: *max_positions, exponents }
            }
            RopeScaling::Yarn { magnitude: scale, .. } => {
                magnitude = *scale;
                Frequencies::Fixed(yarn(plain, rope))
            }
            RopeScaling::LongRope { short, long, original_max_positions, magnitude: scale } => {
                magnitude = *scale;
                let divided = |by: &[f64]| {
                    let by: Vec<f32> = by.iter().map(|&factor| factor as f32).collect();
                    &plain / Tensor::from_slice(&by).to_device(device)
                };
                let original_max_positions = *original_max_positions;
                Frequencies::Either { short: divided(short), long: divided(long), original_max_positions }
            }
        };
        Self { frequencies, magnitude }
    }

    /// Says whether a text of this length has other angles than one that is a token shorter.
    pub fn changes_at(&self, length: usize) -> bool {
        match self.frequencies {
            Frequencies::Fixed(_) => false,
            Frequencies::Dynamic { max_positions, .. } => length as f64 > max_positions,
            Frequencies::Either { original_max_positions, .. } => {
                length as f64 > original_max_positions && length as f64 - 1.0 <= original_max_positions
            }
        }
    }

    /// Names lengths by one of those that have the same angles.
    pub fn same_as(&self, length: usize) -> usize {
        match self.frequencies {
            Frequencies::Fixed(_) => 0,
            Frequencies::Dynamic { max_positions, .. } => length.max(max_positions as usize),
            Frequencies::Either { original_max_positions, .. } => usize::from(length as f64 > original_max_positions),
        }
    }

    /// Computes the angles of `positions: [..]`, usually `[b, t]`, in float32 and rounds cosine and
    /// sine to `kind`. `lengths` gives the length of the text around each position, in a shape that
    /// broadcasts to theirs; it is called only if it matters.
    pub fn angles(&self, positions: &Tensor, lengths: impl FnOnce() -> Tensor, kind: Kind) -> Angles {
        let column = |lengths: Tensor| lengths.to_kind(Kind::Float).unsqueeze(-1).unsqueeze(-1);
        match &self.frequencies {
            Frequencies::Fixed(frequencies) => Angles::new(frequencies, positions, self.magnitude, kind),
            Frequencies::Dynamic { theta, factor, max_positions, exponents } => {
                let width = 2 * exponents.size()[0];
                let growth = column(lengths()).clamp_min(*max_positions) * (factor / max_positions) - (factor - 1.0);
                let base = growth.pow_tensor_scalar(width as f64 / (width as f64 - 2.0)) * *theta;
                Angles::new(&base.pow(exponents).reciprocal(), positions, self.magnitude, kind)
            }
            Frequencies::Either { short, long, original_max_positions } => {
                let is_long = column(lengths()).gt(*original_max_positions);
                Angles::new(&long.where_self(&is_long, short), positions, self.magnitude, kind)
            }
        }
    }
}

fn llama3(plain: Tensor, scaling: &RopeScaling) -> Tensor {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } = *scaling else {
        unreachable!("called for llama3 alone")
    };
    let wavelength = plain.reciprocal() * TAU;
    let slow = wavelength.gt(original_max_positions / low_freq_factor);
    let fast = wavelength.lt(original_max_positions / high_freq_factor);
    let divided = &plain / factor;
    // 0 where the wavelength is the longest kept whole, 1 at the shortest kept whole.
    let ramp =
        (wavelength.reciprocal() * original_max_positions - low_freq_factor) / (high_freq_factor - low_freq_factor);
    let between = (-&ramp + 1.0) * &divided + ramp * &plain;
    divided.where_self(&slow, &plain.where_self(&fast, &between))
}

/// Peng et al. 2023, arXiv 2309.00071, section 3.2.
fn yarn(plain: Tensor, rope: &Rope) -> Tensor {
    let RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_max_positions, .. } = rope.scaling else {
        unreachable!("called for yarn alone")
    };
    let width = rope.width as f64;
    // The dimension that turns so many times within the first training's context.
    let dimension = |turns: f64| width * (original_max_positions / (turns * TAU)).ln() / (2.0 * rope.theta.ln());
    let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(width - 1.0));
    // A ramp of no width would divide by zero.
    let extent = if low == high { 0.001 } else { high - low };
    let pairs = Tensor::arange(rope.width / 2, (Kind::Float, plain.device()));
    let divided_share = ((pairs - low) / extent).clamp(0.0, 1.0);
    let kept = &plain * (-&divided_share + 1.0);
    plain / factor * divided_share + kept
}

/// Cosine and sine of every position's angles.
#[derive(Debug)]
pub struct Angles {
    /// `[.., 1, width]`, the two halves equal.
    cos: Tensor,
    /// `[.., 1, width]`, the first half negated.
    sin: Tensor,
}

impl Angles {
    fn new(frequencies: &Tensor, positions: &Tensor, magnitude: f64, kind: Kind) -> Self {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1).unsqueeze(-1) * frequencies;
        let (mut cos, mut sin) = (angles.cos(), angles.sin());
        if magnitude != 1.0 {
            (cos, sin) = (cos * magnitude, sin * magnitude);
        }
        Self {
            cos: Tensor::cat(&[&cos, &cos], -1).to_kind(kind),
            sin: Tensor::cat(&[&sin.neg(), &sin], -1).to_kind(kind),
        }
    }

    /// Cosines, and sines with the first half of each position's negated: position by position.
    pub fn values(&self) -> [Vec<f32>; 2] {
        [&self.cos, &self.sin].map(|values| {
            let values = values.to_kind(Kind::Float).contiguous().view([-1]);
            Vec::<f32>::try_from(values).expect("angles are numbers on the CPU")
        })
    }

    /// Turns the first dimensions of `x: [.., heads, head_dim]` by its positions' angles, same shape.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        let width = *self.cos.size().last().expect("angles have axes");
        match x.size().last() {
            Some(&head_dim) if head_dim > width => {
                let turned = self.rotate(&x.narrow(-1, 0, width));
                Tensor::cat(&[turned, x.narrow(-1, width, head_dim - width)], -1)
            }
            // `x·cos + swap(x)·sin`, where the minus of the rotation lies in `sin`.
            _ => (x * &self.cos).addcmul(&x.roll([width / 2], [-1]), &self.sin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_by_hand() {
        // One pair, frequency 1, position pi/2: (x, y) becomes (-y, x).
        let rotary = Rotary::new(&Rope { theta: 10.0, width: 2, scaling: RopeScaling::Default }, Device::Cpu);
        let positions = Tensor::from_slice(&[std::f32::consts::FRAC_PI_2]).view([1, 1]);
        // The third dimension is beyond the width and stays.
        let x = Tensor::from_slice(&[3f32, 5.0, 7.0]).view([1, 1, 1, 3]);
        let unused = || unreachable!("these frequencies are fixed");
        let y = rotary.angles(&positions, unused, Kind::Float).rotate(&x).view([3]);
        let y = Vec::<f32>::try_from(y).unwrap();
        assert!((y[0] + 5.0).abs() < 1e-6 && (y[1] - 3.0).abs() < 1e-6 && y[2] == 7.0, "{y:?}");
    }

    fn fixed(theta: f64, width: i64, scaling: RopeScaling) -> Tensor {
        match Rotary::new(&Rope { theta, width, scaling }, Device::Cpu).frequencies {
            Frequencies::Fixed(frequencies) => frequencies,
            other => unreachable!("not fixed: {other:?}"),
        }
    }

    #[test]
    fn llama3_divides_slow_frequencies_and_keeps_fast_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64.0,
        };
        let plain = fixed(10_000.0, 8, RopeScaling::Default);
        let scaled = fixed(10_000.0, 8, scaling);
        let ratio = Vec::<f32>::try_from(plain / scaled).unwrap();
        // Wavelengths are 6.3 (kept), 62.8 (ramp: (64/62.8 - 1)/3 = 0.0062), 628 and 6283 (divided by 8).
        assert_eq!(ratio[0], 1.0);
        let mixed = 1.0 / (0.0062 + (1.0 - 0.0062) / 8.0);
        assert!((f64::from(ratio[1]) - mixed).abs() < 0.01, "{ratio:?}");
        assert!((ratio[2] - 8.0).abs() < 1e-4 && (ratio[3] - 8.0).abs() < 1e-4);
    }

    #[test]
    fn yarn_keeps_fast_dimensions_and_divides_slow_ones() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 8.0,
            beta_slow: 1.0,
            truncate: true,
            original_max_positions: 64.0,
            magnitude: 1.0,
        };
        let ratio = fixed(10_000.0, 8, RopeScaling::Default) / fixed(10_000.0, 8, scaling);
        let ratio = Vec::<f32>::try_from(ratio).unwrap();
        // 8·ln(64/(8·2π))/(2·ln 10000) = 0.105, down to 0; 8·ln(64/2π)/(2·ln 10000) = 1.008, up to 2:
        // kept, half (1/(0.5 + 0.5/4) = 1.6), divided, divided.
        for (found, expected) in ratio.iter().zip([1.0, 1.6, 4.0, 4.0]) {
            assert!((found - expected).abs() < 1e-5, "{ratio:?}");
        }
    }

    #[test]
    fn angles_that_follow_the_length_change_beyond_the_limit_only() {
        let cos = |scaling, length: i64| {
            let rotary = Rotary::new(&Rope { theta: 100.0, width: 4, scaling }, Device::Cpu);
            assert_eq!(rotary.changes_at(length as usize), length > 8);
            let positions = Tensor::from_slice(&[1i64]);
            let angles = rotary.angles(&positions, || Tensor::from_slice(&[length]), Kind::Float);
            Vec::<f32>::try_from(angles.cos.view([-1])).unwrap()[..2].to_vec()
        };
        let dynamic = |length| cos(RopeScaling::Dynamic { factor: 2.0, max_positions: 8.0 }, length);
        let plain = [1f32.cos(), 0.1f32.cos()];
        assert!((dynamic(8)[1] - plain[1]).abs() < 1e-6);
        // Base 100·(2·16/8 − 1)^(4/2) = 900, second frequency 1/30.
        assert!((dynamic(16)[1] - (1f32 / 30.0).cos()).abs() < 1e-6);
        let long = |length| {
            let (short, long) = (vec![1.0, 1.0], vec![2.0, 4.0]);
            cos(RopeScaling::LongRope { short, long, original_max_positions: 8.0, magnitude: 2.0 }, length)
        };
        assert!((long(8)[0] - 2.0 * plain[0]).abs() < 1e-6);
        assert!((long(9)[1] - 2.0 * 0.025f32.cos()).abs() < 1e-6);
    }
}
