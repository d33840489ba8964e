//! Fresh weights from a seed. It must not know families or files.
//!
//! Each weight is a function of the seed, its tensor's name and its index alone: neither the
//! order in which tensors are made nor the number of threads matters.

use std::collections::BTreeMap;

use fuseline_torch::tch::{Device, Kind, Tensor};

use crate::arch::{Architecture, NormKind, Role, WeightSpec};
use crate::decoder::Decoder;

impl Decoder {
    /// Makes a model with fresh weights, after `_init_weights` of `huggingface/transformers`:
    /// matrices are normal with mean 0 and deviation `initializer_range`, biases 0, norms 1.
    pub fn init(arch: Architecture, seed: u64, device: Device, kind: Kind) -> Self {
        let weights: BTreeMap<String, Tensor> = arch
            .weights()
            .into_iter()
            .map(|spec| {
                let tensor = fresh(&arch, &spec, seed).to_kind(kind).to_device(device);
                (spec.name, tensor)
            })
            .collect();
        Decoder::new(arch, weights).expect("fresh weights have the architecture's shapes")
    }
}

fn fresh(arch: &Architecture, spec: &WeightSpec, seed: u64) -> Tensor {
    let constant = |value: f64| Tensor::full(spec.shape.clone(), value, (Kind::Float, Device::Cpu));
    match spec.role {
        Role::Bias => constant(0.0),
        Role::Norm if arch.norm.kind == NormKind::RmsUnitOffset => constant(0.0),
        Role::Norm => constant(1.0),
        Role::Matrix => {
            let n = spec.shape.iter().product::<i64>() as u64;
            let stream = mix(seed ^ mix(name_hash(&spec.name)));
            let values: Vec<f32> =
                (0..n).map(|index| (normal(stream, index) * arch.initializer_range) as f32).collect();
            Tensor::from_slice(&values).view(spec.shape.as_slice())
        }
    }
}

/// FNV-1a, 64 bits.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The `index`th standard normal number of a stream, by Box and Muller's formula.
fn normal(stream: u64, index: u64) -> f64 {
    // 53 bits, moved by half a step so that the logarithm never meets zero.
    let unit = |counter: u64| ((mix(stream.wrapping_add(mix(counter))) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let radius = (-2.0 * unit(2 * index).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(2 * index + 1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_standard_normal() {
        let draws: Vec<f64> = (0..100_000).map(|index| normal(7, index)).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / 1e5;
        let beyond_two = draws.iter().filter(|draw| draw.abs() > 2.0).count() as f64 / 1e5;
        // Five standard errors: 1/sqrt(n), sqrt(2/n), and sqrt(0.0455·0.9545/n).
        assert!(mean.abs() < 0.016, "{mean}");
        assert!((variance - 1.0).abs() < 0.023, "{variance}");
        assert!((beyond_two - 0.0455).abs() < 0.0033, "{beyond_two}");
    }

    #[test]
    fn streams_of_names_and_seeds_differ() {
        assert_ne!(name_hash("model.norm"), name_hash("model.morn"));
        assert_ne!(normal(1, 0), normal(2, 0));
    }
}
