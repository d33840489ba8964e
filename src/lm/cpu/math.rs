//! Functions of single numbers and of rows, written so that loops over them become vector instructions.
//!
//! Everything is `#[inline(always)]`, without branches and in a fixed order: a row's result depends on the row alone and
//! is the same bit for bit on every processor with fused multiplication. It must not know models.

use crate::arch::{Activation, Norm, NormKind};

/// Partial sums that a sum over a row is made of.
const LANES: usize = 16;
/// Numbers that are summed in float32 where there may be hundreds of thousands.
const BLOCK: usize = 512;

/// `e^x` to a unit or two of the last place; 0 below the smallest normal number.
///
/// `x = n·ln 2 + r`, `|r| ≤ ln 2 / 2`, and the series to r⁷, whose rest is below 6e-9.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const SMALLEST: f32 = -87.33;
    /// Adding it leaves the nearest integer in the last bits.
    const ROUND: f32 = 12_582_912.0;
    /// The logarithm of 2 in two parts, the first with few bits, so that its multiples are exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    let held = x.clamp(SMALLEST, 88.0);
    let shifted = held.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], held));
    let mut sum = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = r.mul_add(sum, factor);
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let scaled = sum * f32::from_bits(exponent << 23);
    if x < SMALLEST { 0.0 } else { scaled }
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent: its continued fraction to the seventh term up to 1, where the rest is below 1e-8, and
/// `1 − 2/(e^2x + 1)` beyond.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let s = size * size;
    let over = (((s + 378.0) * s + 17_325.0) * s + 135_135.0) * size;
    let under = ((28.0 * s + 3_150.0) * s + 62_370.0) * s + 135_135.0;
    let large = 1.0 - 2.0 / (exp(2.0 * size) + 1.0);
    (if size < 1.0 { over / under } else { large }).copysign(x)
}

/// The error function to 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / size.mul_add(0.327_591_1, 1.0);
    let mut sum = 1.061_405_4;
    for factor in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6, 0.0] {
        sum = t.mul_add(sum, factor);
    }
    (1.0 - sum * exp(-size * size)).copysign(x)
}

/// An activation at one number.
#[inline(always)]
pub fn activate(activation: Activation, x: f32) -> f32 {
    /// `sqrt(2/π)`, doubled: `tanh(u) = 2·sigmoid(2u) − 1`.
    const TWICE: f32 = 2.0 * 0.797_884_6;
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::GeluTanh => x * sigmoid(TWICE * (0.044_715 * x * x).mul_add(x, x)),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}

/// The sum of a function over a row.
#[inline(always)]
pub fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for part in whole {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += of(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += of(*x);
    }
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for lane in 0..n {
            sums[lane] += sums[lane + n];
        }
    }
    sums[0]
}

/// `log Σ e^x` of a row: sums of [`BLOCK`] numbers in float32, those in float64.
#[inline(always)]
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let highest = largest(row);
    let total: f64 = row.chunks(BLOCK).map(|block| f64::from(sum(block, |x| exp(x - highest)))).sum();
    f64::from(highest) + total.ln()
}

/// The largest of a row without NaN; minus infinity of an empty one.
#[inline(always)]
pub fn largest(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |best, x| if *x > best { *x } else { best })
}

/// Turns a row into `e^(x − largest)` over their sum.
#[inline(always)]
pub fn softmax(row: &mut [f32]) {
    let highest = largest(row);
    for x in row.iter_mut() {
        *x = exp(*x - highest);
    }
    let share = 1.0 / sum(row, |x| x);
    for x in row {
        *x *= share;
    }
}

/// Normalises a row in place. The weight is what it multiplies by, an offset included.
#[inline(always)]
pub fn normalise(norm: Norm, weight: &[f32], row: &mut [f32]) {
    let (n, eps) = (row.len() as f32, norm.eps as f32);
    let mean = match norm.kind {
        NormKind::Layer => sum(row, |x| x) / n,
        NormKind::Rms | NormKind::RmsInFloat32 | NormKind::RmsUnitOffset => 0.0,
    };
    let scale = 1.0 / (sum(row, |x| (x - mean) * (x - mean)) / n + eps).sqrt();
    for (x, weight) in row.iter_mut().zip(weight) {
        *x = (*x - mean) * scale * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(range: std::ops::Range<f32>, ours: fn(f32) -> f32, exact: fn(f64) -> f64, relative: bool) -> f64 {
        let step = (range.end - range.start) / 40_000.0;
        let error = |i: u32| {
            let x = range.start + step * i as f32;
            let exact = exact(f64::from(x));
            (f64::from(ours(x)) - exact).abs() / if relative { exact.abs() } else { 1.0 }
        };
        (0..40_000).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_as_good_as_float32() {
        // A unit of the last place is 6e-8 to 1.2e-7.
        assert!(worst(-87.0..87.9, exp, f64::exp, true) < 2e-7);
        assert!(worst(-12.0..12.0, tanh, f64::tanh, true) < 3e-7);
        assert!(worst(-9.0..9.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), true) < 3e-7);
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!((tanh(50.0), tanh(-50.0), tanh(0.0)), (1.0, -1.0, 0.0));
    }

    #[test]
    fn activations_by_hand() {
        // erf(1/√2) = 0.6826895; tanh(0.7978846·1.044715) = 0.6823850; sigmoid(1) = 0.7310586.
        for (activation, expected) in
            [(Activation::Silu, 0.731_058_6), (Activation::GeluTanh, 0.841_192), (Activation::Gelu, 0.841_344_7)]
        {
            assert!((activate(activation, 1.0) - expected).abs() < 1e-6, "{activation:?}");
        }
    }

    #[test]
    fn norms_by_hand() {
        let run = |kind| {
            let mut row = [3.0, 4.0];
            normalise(Norm { kind, eps: 0.0 }, &[1.0, 2.0], &mut row);
            row
        };
        // The root of the mean of squares is 3.5355339; the mean is 3.5 and the deviation 0.5.
        let rms = run(NormKind::Rms);
        assert!((rms[0] - 0.848_528_1).abs() < 1e-6 && (rms[1] - 2.262_741_7).abs() < 1e-6);
        assert_eq!(run(NormKind::Layer), [-1.0, 2.0]);
    }

    #[test]
    fn sums_and_shares() {
        let row: Vec<f32> = (1..=37).map(|x| x as f32).collect();
        assert_eq!(sum(&row, |x| x), 703.0);
        let mut row = [0.0, f32::NEG_INFINITY, 3f32.ln()];
        softmax(&mut row);
        assert!((row[0] - 0.25).abs() < 1e-6 && row[1] == 0.0 && (row[2] - 0.75).abs() < 1e-6);
        // ln(100,000) + 2
        assert!((log_sum_exp(&vec![2.0; 100_000]) - 13.512_925_464_97).abs() < 1e-7);
    }
}
