//! AdamW over one flat buffer that holds all parameters side by side: a handful of operations a step, however many
//! tensors the model has. It must not know losses, data or schedules.
//!
//! Letters: n all parameters' elements.

use fuseline_torch::tch::{Device, Tensor, no_grad};

use crate::decoder::Decoder;

/// Elements handled at once on a CPU, so that what one operation leaves is still in the cache for the next.
const CPU_CHUNK: i64 = 1 << 15;

/// Settings of [`AdamW`] that stay the same for all updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AdamWSettings {
    /// Decays of the two moments, each in 0..1.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay, times the learning rate; on matrices, not on biases and norms.
    pub weight_decay: f64,
}

/// The parameters of a model laid side by side with their gradients and moments.
///
/// While it lives the model's parameters ask for gradients; they are views of its buffer from then on, which
/// changes nothing for the model.
#[derive(Debug)]
pub(super) struct AdamW {
    settings: AdamWSettings,
    updates: i32,
    /// The model's own tensors, matrices first.
    parameters: Vec<Tensor>,
    /// Each parameter's place in `gradient`, of its shape.
    gradient_views: Vec<Tensor>,
    gradient: Tensor,
    /// Flat: the parameters, the first moments, the second moments.
    state: [Tensor; 3],
    chunks: Vec<Chunk>,
}

/// A stretch of the flat buffers; all views.
#[derive(Debug)]
struct Chunk {
    decayed: bool,
    value: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
}

impl AdamW {
    /// Lays the model's parameters side by side and asks for their gradients.
    pub fn new(decoder: &Decoder, settings: AdamWSettings) -> Self {
        let (mut parameters, vectors): (Vec<Tensor>, Vec<Tensor>) =
            decoder.parameters().into_iter().map(|(_, tensor)| tensor).partition(|tensor| tensor.dim() >= 2);
        let elements = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.numel() as i64).sum::<i64>();
        let n_decayed = elements(&parameters);
        parameters.extend(vectors);
        let n = elements(&parameters);
        no_grad(|| {
            let flat: Vec<Tensor> = parameters.iter().map(|tensor| tensor.reshape([-1])).collect();
            let value = Tensor::cat(&flat, 0);
            let [gradient, first_moment, second_moment] = [(); 3].map(|()| value.zeros_like());
            let mut start = 0;
            let mut gradient_views = Vec::with_capacity(parameters.len());
            for parameter in &mut parameters {
                let (shape, length) = (parameter.size(), parameter.numel() as i64);
                parameter.set_data(&value.narrow(0, start, length).view(shape.as_slice()));
                gradient_views.push(gradient.narrow(0, start, length).view(shape.as_slice()));
                start += length;
            }
            let chunk = |(start, length): (i64, i64)| Chunk {
                decayed: start < n_decayed,
                value: value.narrow(0, start, length),
                gradient: gradient.narrow(0, start, length),
                first_moment: first_moment.narrow(0, start, length),
                second_moment: second_moment.narrow(0, start, length),
            };
            let longest = if value.device() == Device::Cpu { CPU_CHUNK } else { n };
            let chunks = stretches(0, n_decayed, longest).chain(stretches(n_decayed, n, longest)).map(chunk).collect();
            let parameters = parameters.iter().map(|tensor| tensor.set_requires_grad(true)).collect();
            let state = [value, first_moment, second_moment];
            Self { settings, updates: 0, parameters, gradient_views, gradient, state, chunks }
        })
    }

    /// Returns what an update changes, flat: the parameters and their two moments.
    pub fn state(&self) -> [&Tensor; 3] {
        self.state.each_ref()
    }

    /// Says how many updates the state has seen.
    pub fn set_updates(&mut self, updates: u64) {
        self.updates = updates as i32;
    }

    /// Adds the gradient of `loss` to the update's; the first one replaces what the last update left.
    pub fn add_gradient(&mut self, loss: &Tensor, first: bool) {
        let gradients = Tensor::run_backward(&[loss], &self.parameters, false, false);
        no_grad(|| {
            for (view, gradient) in self.gradient_views.iter_mut().zip(&gradients) {
                match (first, gradient.defined()) {
                    (true, true) => view.copy_(gradient),
                    (true, false) => _ = view.zero_(),
                    (false, true) => _ = view.g_add_(gradient),
                    (false, false) => {}
                }
            }
        });
    }

    /// Returns the 2-norm of the gradient of all parameters together.
    pub fn gradient_norm(&self) -> f64 {
        no_grad(|| self.gradient.norm().double_value(&[]))
    }

    /// Moves the parameters by the gradient times `gradient_factor` (below 1 where it is clipped).
    ///
    /// **Formula**, k counted from 1, g the scaled gradient: w ← w − η·λ·w (matrices); m ← β₁m + (1−β₁)g;
    /// v ← β₂v + (1−β₂)g²; w ← w − η·(m/(1−β₁ᵏ)) / (√(v/(1−β₂ᵏ)) + ε). **Source**: arXiv 1711.05101, algorithm 2,
    /// with ε as `torch.optim.AdamW` has it.
    pub fn update(&mut self, learning_rate: f64, gradient_factor: f64) {
        self.updates += 1;
        let AdamWSettings { betas: [beta1, beta2], eps, weight_decay } = self.settings;
        let step = learning_rate / (1.0 - beta1.powi(self.updates));
        let root_correction = (1.0 - beta2.powi(self.updates)).sqrt();
        no_grad(|| {
            for chunk in &mut self.chunks {
                if gradient_factor != 1.0 {
                    _ = chunk.gradient.g_mul_scalar_(gradient_factor);
                }
                if chunk.decayed && weight_decay != 0.0 {
                    _ = chunk.value.g_mul_scalar_(1.0 - learning_rate * weight_decay);
                }
                _ = chunk.first_moment.lerp_(&chunk.gradient, 1.0 - beta1);
                _ = chunk.second_moment.lerp_(&chunk.gradient.square(), 1.0 - beta2);
                if step == 0.0 {
                    continue;
                }
                let mut denominator = chunk.second_moment.sqrt();
                _ = denominator.g_div_scalar_(root_correction * -step);
                _ = denominator.g_add_scalar_(eps / -step);
                _ = chunk.value.addcdiv_(&chunk.first_moment, &denominator);
            }
        });
    }
}

impl Drop for AdamW {
    fn drop(&mut self) {
        for parameter in &self.parameters {
            _ = parameter.set_requires_grad(false);
        }
    }
}

/// Cuts `start..end` into stretches of at most `longest`, as (start, length).
fn stretches(start: i64, end: i64, longest: i64) -> impl Iterator<Item = (i64, i64)> {
    (start..end).step_by(longest.max(1) as usize).map(move |at| (at, longest.min(end - at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::tests::tiny;
    use fuseline_torch::tch::Kind;

    const SETTINGS: AdamWSettings = AdamWSettings { betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.1 };

    fn value(decoder: &Decoder, name: &str) -> Tensor {
        let parameters = decoder.parameters();
        parameters.iter().find(|(known, _)| known == name).unwrap().1.detach().copy()
    }

    #[test]
    fn two_updates_by_hand() {
        let decoder = tiny("llama", 60);
        let (norm, matrix) = ("model.norm.weight", "lm_head.weight");
        let before = [value(&decoder, norm), value(&decoder, matrix)];
        let mut adam = AdamW::new(&decoder, SETTINGS);
        for target in [1.0, -3.0] {
            // d/dw of (target·w) is target, everywhere.
            let losses: Vec<Tensor> = adam.parameters.iter().map(|w| w.sum(Kind::Float) * target).collect();
            adam.add_gradient(&Tensor::stack(&losses, 0).sum(Kind::Float), true);
            adam.update(0.01, 1.0);
        }
        drop(adam);
        // Update 1: m = 0.1, v = 0.01; corrected 1 and 1: a step of 0.01. Update 2: m = 0.09 − 0.3 = −0.21,
        // v = 0.0099 + 0.09 = 0.0999; corrected −0.21/0.19 and 0.0999/0.0199.
        let second = 0.01 * (-0.21 / 0.19) / (0.0999f64 / 0.0199).sqrt();
        let expected = &before[0] - 0.01 - second;
        assert!((value(&decoder, norm) - expected).abs().max().double_value(&[]) < 1e-6);
        let decay = 1.0 - 0.01 * 0.1;
        let expected = (&before[1] * decay - 0.01) * decay - second;
        assert!((value(&decoder, matrix) - expected).abs().max().double_value(&[]) < 1e-6);
        assert!(decoder.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
    }

    #[test]
    fn a_rate_of_zero_moves_nothing() {
        let decoder = tiny("llama", 60);
        let before = value(&decoder, "lm_head.weight");
        let mut adam = AdamW::new(&decoder, SETTINGS);
        adam.add_gradient(&adam.parameters[0].sum(Kind::Float), true);
        adam.update(0.0, 1.0);
        assert_eq!(value(&decoder, "lm_head.weight"), before);
    }

    #[test]
    fn stretches_cover_everything_once() {
        assert_eq!(stretches(3, 10, 3).collect::<Vec<_>>(), [(3, 3), (6, 3), (9, 1)]);
        assert_eq!(stretches(4, 4, 3).count(), 0);
    }
}
