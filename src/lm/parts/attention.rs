//! Scaled dot-product attention with grouped heads, windows, soft caps and linear biases, and
//! the masks for it. It must not know projections, rotary positions or caches.
//!
//! Letters: b batch, h query heads, k key/value heads, g = h/k, t queries, s keys, e head width.

use fuseline_torch::tch::{Device, Kind, Tensor};

/// Which earlier tokens a token of a training or scoring batch attends to.
#[derive(Debug)]
pub enum Mask {
    /// All earlier tokens of its row, and itself.
    Causal,
    /// Those of them that have the same document index: `[b, t]` i64. Give filling its own index.
    Documents(Tensor),
}

/// Which keys each query attends to, for one window size.
#[derive(Debug)]
pub enum Allowed {
    /// The keys up to the query's own place; as many keys as queries.
    Causal,
    /// `0`, or a head's linear bias, where allowed, else `−∞`: `[b or 1, h or 1, t, s]`.
    Bias(Tensor),
}

/// The masks of one forward pass, one for each window that occurs.
#[derive(Debug)]
pub struct Masks(Vec<(Option<i64>, Allowed)>);

impl Masks {
    /// Builds the masks of a `[b, t]` batch for each of the layers' `windows`.
    ///
    /// A window of at least `t` is none. Where the kernel of `attention` can do without, a mask
    /// that the word "causal" says has no bias.
    pub fn new(attention: &Attention, mask: &Mask, t: i64, windows: &[Option<i64>], like: &Tensor) -> Self {
        let explicit = attention.soft_cap.is_some() || attention.slopes.is_some();
        let mut masks = Vec::new();
        for &window in windows {
            if masks.iter().any(|(known, _)| *known == window) {
                continue;
            }
            let sliding = window.filter(|&window| window < t);
            let allowed = match (mask, sliding) {
                (Mask::Causal, None) if !explicit => Allowed::Causal,
                _ => {
                    let places = Tensor::arange(t, (Kind::Int64, like.device()));
                    let distance = places.unsqueeze(1) - places;
                    let mut allowed = distance.ge(0);
                    if let Some(window) = sliding {
                        allowed = allowed.logical_and(&distance.lt(window));
                    }
                    allowed = allowed.view([1, 1, t, t]);
                    if let Mask::Documents(documents_bt) = mask {
                        let rows = documents_bt.unsqueeze(1);
                        let same = rows.unsqueeze(-1).eq_tensor(&rows.unsqueeze(-2));
                        allowed = same.logical_and(&allowed);
                    }
                    let bias = bias(&allowed, like.kind());
                    Allowed::Bias(match &attention.slopes {
                        None => bias,
                        Some(slopes) => bias - (slopes.view([1, -1, 1, 1]) * distance).to_kind(like.kind()),
                    })
                }
            };
            masks.push((window, allowed));
        }
        Self(masks)
    }

    /// Returns the mask for one of the windows given to [`Masks::new`].
    pub fn of(&self, window: Option<i64>) -> &Allowed {
        let found = self.0.iter().find(|(known, _)| *known == window);
        &found.expect("masks were built for every layer's window").1
    }
}

/// Turns truth into `0` and falsehood into `−∞`.
pub fn bias(allowed: &Tensor, kind: Kind) -> Tensor {
    Tensor::zeros(allowed.size(), (kind, allowed.device())).masked_fill_(&allowed.logical_not(), f64::NEG_INFINITY)
}

/// The slope of each head's linear bias, `[heads]` float32: the bias is minus the slope times the
/// distance. Press et al. 2021, arXiv 2108.12409, section 3, for a largest exponent of 8; numbers of
/// heads that are no power of two as in `huggingface/transformers` `models/mpt/modeling_mpt.py`.
pub fn slopes(heads: i64, device: Device) -> Tensor {
    let n = (heads as u64).next_power_of_two() as i64;
    let slope = |index: i64| (-8.0 * (index + 1) as f64 / n as f64).exp2() as f32;
    // The second, fourth, … slope of the next power of two, then the first, third, ….
    let order = (1..n).step_by(2).chain((0..n).step_by(2));
    let slopes: Vec<f32> = match n == heads {
        true => (0..n).map(slope).collect(),
        false => order.take(heads as usize).map(slope).collect(),
    };
    Tensor::from_slice(&slopes).to_device(device)
}

/// Computes `softmax(cap(scale·q·kᵀ) + mask)·v`, where `cap(x) = c·tanh(x/c)`.
#[derive(Debug)]
pub struct Attention {
    /// Factor on the scores.
    pub scale: f64,
    /// `c`; none leaves the scores as they are.
    pub soft_cap: Option<f64>,
    /// Of linear biases, `[h]` float32; they come to the scores with the mask.
    pub slopes: Option<Tensor>,
}

impl Attention {
    /// Attends: `q: [b, h, t, e]`, `k, v: [b, k, s, e]` gives `[b, h, t, e]`. Query head `i`
    /// reads key head `i / g`.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor, allowed: &Allowed) -> Tensor {
        let (heads, kv_heads) = (q.size()[1], k.size()[1]);
        match (self.soft_cap, allowed) {
            (None, Allowed::Causal) => {
                Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, true, self.scale, heads != kv_heads)
            }
            (None, Allowed::Bias(bias)) => {
                Tensor::scaled_dot_product_attention(q, k, v, Some(bias), 0.0, false, self.scale, heads != kv_heads)
            }
            (Some(cap), Allowed::Bias(bias)) => self.capped(cap, q, k, v, bias),
            (Some(_), Allowed::Causal) => {
                unreachable!("masks for capped scores are built with a bias")
            }
        }
    }

    /// Attends with one query per head to keys that lie transposed, for rows in a cache:
    /// `q: [n, h, e]`, `keys: [n, k, e, s]`, `values: [n, k, s, e]`, `bias: [n·k, g, s]` gives
    /// `[n, h·e]`. For so few queries plain products are faster than the fused kernel.
    pub fn one_query(&self, q: &Tensor, keys: &Tensor, values: &Tensor, bias: &Tensor) -> Tensor {
        let (size, group, s) = (keys.size(), bias.size()[1], bias.size()[2]);
        let (n, kv_heads, e) = (size[0], size[1], size[2]);
        let q = q.reshape([n * kv_heads, group, e]);
        let keys = keys.reshape([n * kv_heads, e, s]);
        let scores = match self.soft_cap {
            None => bias.baddbmm(&q, &keys, 1.0, self.scale),
            Some(cap) => (q.bmm(&keys) * (self.scale / cap)).tanh() * cap + bias,
        };
        let weights = scores.softmax(-1, Kind::Float).to_kind(q.kind());
        weights.bmm(&values.reshape([n * kv_heads, s, e])).view([n, kv_heads * group * e])
    }

    /// [`Attention::forward`] with the scores in the open. The group's queries are folded into time, so
    /// that no key or value is copied for its group.
    fn capped(&self, cap: f64, q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
        let size = q.size();
        let (b, heads, t, e) = (size[0], size[1], size[2], size[3]);
        let (kv_heads, s) = (k.size()[1], k.size()[2]);
        let folded = q.reshape([b, kv_heads, heads / kv_heads * t, e]);
        let scores = (folded.matmul(&k.transpose(-2, -1)) * (self.scale / cap)).tanh() * cap;
        let scores = scores.view([b, heads, t, s]) + bias;
        let weights = scores.softmax(-1, Kind::Float).to_kind(q.kind());
        weights.view([b, kv_heads, heads / kv_heads * t, s]).matmul(v).view([b, heads, t, e])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(soft_cap: Option<f64>) -> Attention {
        Attention { scale: 0.5, soft_cap, slopes: None }
    }

    fn allowed(mask: &Mask, t: i64, window: Option<i64>) -> Vec<i64> {
        let like = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        match Masks::new(&attention(Some(1.0)), mask, t, &[window], &like).of(window) {
            Allowed::Causal => unreachable!("a bias was asked for"),
            Allowed::Bias(bias) => Vec::<i64>::try_from(bias.eq(0.0).to_kind(Kind::Int64).view([-1])).unwrap(),
        }
    }

    #[test]
    fn a_window_counts_the_token_itself() {
        assert_eq!(allowed(&Mask::Causal, 3, Some(2)), [1, 0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(allowed(&Mask::Causal, 3, Some(3)), [1, 0, 0, 1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn documents_do_not_see_each_other() {
        let documents = Tensor::from_slice(&[0i64, 0, 1]).view([1, 3]);
        assert_eq!(allowed(&Mask::Documents(documents), 3, None), [1, 0, 0, 1, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn a_huge_cap_equals_none() {
        let draw = |heads| Tensor::randn([2, heads, 5, 4], (Kind::Float, Device::Cpu));
        let (q, k, v) = (draw(4), draw(2), draw(2));
        let masks = Masks::new(&attention(Some(1e4)), &Mask::Causal, 5, &[None], &q);
        let plain = attention(None).forward(&q, &k, &v, masks.of(None));
        let causal = attention(None).forward(&q, &k, &v, &Allowed::Causal);
        let capped = attention(Some(1e4)).forward(&q, &k, &v, masks.of(None));
        for other in [causal, capped] {
            assert!((&plain - other).abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn slopes_halve_from_head_to_head() {
        let of = |heads| Vec::<f32>::try_from(slopes(heads, Device::Cpu)).unwrap();
        // Four heads: 2^-2, 2^-4, 2^-6, 2^-8; three take the second, the fourth and the first.
        assert_eq!(of(4), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(of(3), [0.0625, 0.003_906_25, 0.25]);
    }
}
