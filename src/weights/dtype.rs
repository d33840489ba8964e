//! The four floating-point types that weights come in, element by element: bytes to `f64` and back, rounded once.
//! Must not know files or tensors.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
pub use safetensors::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A floating-point type of stored weights, written as in `config.json` (`bfloat16`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Float {
    /// IEEE half precision.
    #[serde(rename = "float16")]
    F16,
    /// The upper half of a `float32`.
    #[serde(rename = "bfloat16")]
    BF16,
    /// IEEE single precision.
    #[serde(rename = "float32")]
    F32,
    /// IEEE double precision.
    #[serde(rename = "float64")]
    F64,
}

impl Float {
    /// Narrows a stored type to a float; `None` for every other type.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    /// Gives the type as safetensors names it.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
            Self::F64 => Dtype::F64,
        }
    }

    /// Gives the name that `config.json` uses (`bfloat16`).
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// Gives the bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Decodes element `index` of `bytes` (little endian), exactly.
    #[inline]
    pub fn decode(self, bytes: &[u8], index: usize) -> f64 {
        match self {
            Self::F16 => f64::from(f16::from_le_bytes(element(bytes, index))),
            Self::BF16 => f64::from(bf16::from_le_bytes(element(bytes, index))),
            Self::F32 => f64::from(f32::from_le_bytes(element(bytes, index))),
            Self::F64 => f64::from_le_bytes(element(bytes, index)),
        }
    }

    /// Encodes `values` into `bytes` (little endian), each rounded once to the nearest, ties to even.
    pub fn encode(self, values: &[f64], bytes: &mut [u8]) {
        let slots = bytes.chunks_exact_mut(self.size_bytes());
        match self {
            Self::F16 => {
                slots.zip(values).for_each(|(slot, &v)| slot.copy_from_slice(&f16::from_f32(to_odd(v)).to_le_bytes()))
            }
            Self::BF16 => {
                slots.zip(values).for_each(|(slot, &v)| slot.copy_from_slice(&bf16::from_f32(to_odd(v)).to_le_bytes()))
            }
            Self::F32 => slots.zip(values).for_each(|(slot, &v)| slot.copy_from_slice(&(v as f32).to_le_bytes())),
            Self::F64 => slots.zip(values).for_each(|(slot, &v)| slot.copy_from_slice(&v.to_le_bytes())),
        }
    }

    /// Encodes `values` (single precision) as little-endian bytes, rounded to the nearest, ties to even.
    pub fn encode_f32(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                halves.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
            Self::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
        }
    }
}

#[inline]
fn element<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
    let start = index * N;
    bytes[start..start + N].try_into().expect("the slice has N bytes")
}

/// Rounds to single precision "to odd": an inexact result gets an odd last bit, so that a second rounding, to a
/// type with at least two bits less, equals one rounding of the original value. `half` instead drops the lower
/// 32 bits of a double before it rounds, which turns values just above a tie into ties.
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    if !near.is_finite() || f64::from(near) == value {
        return near;
    }
    let bits = near.to_bits();
    let toward_zero = if f64::from(near).abs() > value.abs() { bits - 1 } else { bits };
    f32::from_bits(toward_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(float: Float, value: f64) -> f64 {
        let mut bytes = vec![0; float.size_bytes()];
        float.encode(&[value], &mut bytes);
        float.decode(&bytes, 0)
    }

    #[test]
    fn bf16_rounds_once_to_even() {
        // bfloat16 has 8 significant bits: around 1 the step is 2^-7 and the tie lies at 1 + 2^-8.
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(round_trip(Float::BF16, tie), 1.0);
        assert_eq!(round_trip(Float::BF16, tie + 2f64.powi(-40)), 1.0 + 2f64.powi(-7));
        assert_eq!(round_trip(Float::BF16, tie - 2f64.powi(-40)), 1.0);
        assert_eq!(round_trip(Float::BF16, -(tie + 2f64.powi(-40))), -(1.0 + 2f64.powi(-7)));
        // 1.5 steps lie between an odd and an even neighbour; the even one is 1 + 2 * 2^-7.
        assert_eq!(round_trip(Float::BF16, 1.0 + 3.0 * 2f64.powi(-8)), 1.0 + 2f64.powi(-6));
    }

    #[test]
    fn f16_rounds_once_also_among_subnormals() {
        let step = 2f64.powi(-24);
        assert_eq!(round_trip(Float::F16, 0.5 * step), 0.0);
        assert_eq!(round_trip(Float::F16, 0.5 * step + 2f64.powi(-70)), step);
        assert_eq!(round_trip(Float::F16, 1e6), f64::INFINITY);
        assert!(round_trip(Float::F16, f64::NAN).is_nan());
    }

    #[test]
    fn every_bf16_and_f16_survives_a_round_trip() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            for float in [Float::F16, Float::BF16] {
                let value = float.decode(&bytes, 0);
                if value.is_nan() {
                    continue;
                }
                let mut back = [0; 2];
                float.encode(&[value], &mut back);
                assert_eq!(back, bytes);
                assert_eq!(float.encode_f32(&[value as f32]), bytes);
            }
        }
    }
}
