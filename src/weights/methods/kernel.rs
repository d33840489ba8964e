//! What a merging method sees of one tensor, and what it gives: a function from an index to the merged value.
//! Must not know files, names or other tensors.

use std::ops::Range;

use rayon::prelude::*;

use super::select::BLOCK;
use crate::dtype::Float;

/// The values of one tensor of one model, decoded when they are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    float: Float,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// Views little-endian `bytes` as floats.
    pub fn new(float: Float, bytes: &'a [u8]) -> Self {
        Self { float, bytes }
    }

    /// Counts the values.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.float.size_bytes()
    }

    /// Says whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives value `index`, exactly.
    #[inline]
    pub fn at(&self, index: usize) -> f64 {
        self.float.decode(self.bytes, index)
    }
}

/// One tensor of all models. All views have the same length.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The tensor of the base model, where one is given.
    pub base: Option<Values<'a>>,
    /// The tensor of each model, in order; never empty.
    pub models: Vec<Values<'a>>,
}

impl<'a> Inputs<'a> {
    /// Counts the elements of the tensor.
    pub fn n_elements(&self) -> usize {
        self.models[0].len()
    }

    /// Gives the differences from the base, for the methods whose row says that they need one.
    pub fn deltas(&self) -> Deltas<'a> {
        let base = self.base.expect("a method that needs a base is only called with one");
        Deltas { base, models: self.models.clone() }
    }
}

/// The models as differences from the base.
#[derive(Debug, Clone)]
pub struct Deltas<'a> {
    /// The tensor of the base model.
    pub base: Values<'a>,
    models: Vec<Values<'a>>,
}

impl Deltas<'_> {
    /// Counts the models.
    pub fn n_models(&self) -> usize {
        self.models.len()
    }

    /// Counts the elements of the tensor.
    pub fn n_elements(&self) -> usize {
        self.base.len()
    }

    /// Gives `theta_j - b` at an index.
    #[inline]
    pub fn at(&self, model: usize, index: usize) -> f64 {
        self.models[model].at(index) - self.base.at(index)
    }

    /// Gives `theta_j` at an index.
    #[inline]
    pub fn theta(&self, model: usize, index: usize) -> f64 {
        self.models[model].at(index)
    }
}

/// The merged tensor: fills a block of values from an index on.
pub type Kernel<'a> = Box<dyn Fn(usize, &mut [f64]) + Send + Sync + 'a>;

/// Makes a kernel of a function from index to merged value.
pub fn each<'a>(value: impl Fn(usize) -> f64 + Send + Sync + 'a) -> Kernel<'a> {
    Box::new(move |start, block| {
        for (slot, index) in block.iter_mut().zip(start..) {
            *slot = value(index);
        }
    })
}

/// Runs a kernel in parallel over `n` elements and rounds each result once to `float`, little endian.
///
/// # Errors
/// The first index and value that is not finite in `float`.
pub fn encode(kernel: &Kernel<'_>, n: usize, float: Float) -> Result<Vec<u8>, (usize, f64)> {
    let mut bytes = vec![0; n * float.size_bytes()];
    let bad = bytes
        .par_chunks_mut(BLOCK * float.size_bytes())
        .enumerate()
        .filter_map(|(block, slots)| {
            let start = block * BLOCK;
            let Range { start, end } = start..n.min(start + BLOCK);
            let mut values = vec![0.0; end - start];
            kernel(start, &mut values);
            float.encode(&values, slots);
            let infinite = (0..values.len()).find(|&i| !float.decode(slots, i).is_finite())?;
            Some((start + infinite, values[infinite]))
        })
        .min_by_key(|(index, _)| *index);
    match bad {
        Some(found) => Err(found),
        None => Ok(bytes),
    }
}
