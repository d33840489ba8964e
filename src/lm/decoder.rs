//! The one decoder: blocks of attention and feed-forward as an [`Architecture`] says, with
//! its weights under their published names.
//!
//! It must not know families, files, sampling or losses. Letters: b batch, t time, d hidden,
//! v vocabulary, h query heads, k key/value heads, e head width.

use std::collections::BTreeMap;

use fuseline_torch::tch::{self, Device, Kind, Tensor};

use crate::arch::{Architecture, Positions};
use crate::cache::{Cache, Layout};
use crate::error::{Error, Result};
use crate::parts::attention::{Allowed, Attention, Masks, bias, slopes};
use crate::parts::norm::Normalization;
use crate::parts::packed::Packed;
use crate::parts::rope::{Angles, Rotary};
use block::{Block, Heads, Weights};

mod block;

pub use crate::parts::attention::Mask;

/// Models up to this size get their projections laid out anew for steps on a CPU; above it, the
/// matrices do not stay in the processor's caches, and a copy would only cost memory.
const LAID_OUT_ANEW_BYTES: usize = 64 << 20;

/// A decoder-only language model.
#[derive(Debug)]
pub struct Decoder {
    /// What it is made of.
    pub arch: Architecture,
    /// Published name to tensor; the fields below hold the same tensors.
    weights: BTreeMap<String, Tensor>,
    embedding: Tensor,
    embedding_scale: Option<Tensor>,
    blocks: Vec<Block>,
    final_norm: Normalization,
    head: Tensor,
    attention: Attention,
    turns: Turns,
}

/// The rotary embeddings of a model; none where positions are told otherwise.
#[derive(Debug)]
struct Turns {
    all: Option<Rotary>,
    /// Of layers with a window, where it is another.
    windowed: Option<Rotary>,
}

/// The angles of one pass, as [`Turns`].
struct Turned {
    all: Option<Angles>,
    windowed: Option<Angles>,
}

impl Decoder {
    /// Puts a decoder together from weights by published name, all of one kind and device.
    ///
    /// The names and shapes must be those of [`Architecture::weights`]; the caller has
    /// checked them against its source, so that its errors can name the file.
    pub fn new(arch: Architecture, weights: BTreeMap<String, Tensor>) -> Result<Self> {
        for spec in arch.weights() {
            let found = weights.get(&spec.name).map(Tensor::size).unwrap_or_default();
            if found != spec.shape {
                return Err(Error::Shape { name: spec.name, found, expected: spec.shape });
            }
        }
        let from = Weights { tensors: &weights, norm: arch.norm };
        let blocks = (0..arch.n_layers).map(|layer| Block::new(&arch, &from, layer)).collect();
        let final_norm = from.norm(arch.names.final_norm);
        let embedding = from.tensor(&format!("{}.weight", arch.names.embedding));
        let head = match arch.tied_embeddings {
            true => embedding.shallow_clone(),
            false => from.tensor(&format!("{}.weight", arch.names.head)),
        };
        let (kind, device) = (embedding.kind(), embedding.device());
        Ok(Self {
            embedding_scale: arch.embedding_scale.map(|scale| Tensor::from(scale).to_kind(kind).to_device(device)),
            blocks,
            final_norm,
            head,
            attention: Attention {
                scale: arch.attention_scale,
                soft_cap: arch.attention_soft_cap,
                slopes: (arch.positions == Positions::Alibi).then(|| slopes(arch.n_heads, device)),
            },
            turns: Turns::new(&arch.positions, device),
            embedding,
            weights,
            arch,
        })
    }

    /// Returns a second handle on the same weights, for another thread.
    pub fn share(&self) -> Self {
        let weights = self.parameters().into_iter().collect();
        Self::new(self.arch.clone(), weights).expect("the same weights fit the same architecture")
    }

    /// Returns the same model with its weights rounded to a number format.
    pub fn to_kind(&self, kind: Kind) -> Self {
        let weights = self.parameters().into_iter().map(|(name, weight)| (name, weight.to_kind(kind))).collect();
        Self::new(self.arch.clone(), weights).expect("the same weights fit the same architecture")
    }

    /// Returns where the weights lie.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// Returns the number format of the weights.
    pub fn kind(&self) -> Kind {
        self.embedding.kind()
    }

    /// Lists the weights by published name, sorted; they are the model's own, so that what is
    /// done to them in place (an optimizer's step, asking for gradients) is done to the model.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Returns one weight by its published name; it is the model's own.
    pub fn weight(&self, name: &str) -> Option<&Tensor> {
        self.weights.get(name)
    }

    /// Returns the output head, `[v, d]`: the embedding's matrix where they are tied.
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Computes the last hidden states, `[b, t, d]` after the final norm, of `ids_bt` at
    /// `positions_bt` (both `[b, t]` i64, positions as [`row_positions`] gives them or from 0 in each
    /// document). Records gradients where they are asked for.
    pub fn hidden(&self, ids_bt: &Tensor, positions_bt: &Tensor, mask: &Mask) -> Tensor {
        let mut x = self.embed(ids_bt);
        let t = ids_bt.size()[1];
        let turned = self.turns.angles(positions_bt, || lengths(positions_bt, mask), x.kind());
        let masks = Masks::new(&self.attention, mask, t, &self.arch.windows, &x);
        for block in &self.blocks {
            let allowed = masks.of(block.window);
            x = block.forward(&self.arch, x, turned.of(block.window), |heads| self.attend(heads, allowed));
        }
        self.final_norm.forward(&x)
    }

    /// Computes the logits of `hidden: [.., d]`, `[.., v]`, the final soft cap included.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.cap(hidden.linear(&self.head, None::<&Tensor>))
    }

    fn cap(&self, logits: Tensor) -> Tensor {
        match self.arch.final_soft_cap {
            None => logits,
            Some(cap) => (logits / cap).tanh() * cap,
        }
    }

    /// Makes a cache for this model: `slots` sequences of up to `max_len` tokens each.
    pub fn cache(&self, slots: usize, max_len: usize) -> Cache {
        let bytes: usize = self.weights.values().map(|weight| weight.numel() * weight.kind().elt_size_in_bytes()).sum();
        let copy = self.device() == Device::Cpu && bytes <= LAID_OUT_ANEW_BYTES;
        let blocks = self.blocks.iter().map(|block| block.layout(copy)).collect();
        let layout = Layout { blocks, head: Packed::of_matrix(&self.head, copy) };
        Cache::new(&self.arch, layout, slots, max_len, self.device(), self.kind())
    }

    /// Puts a prompt's keys and values into `slot`, replacing what was there, and returns the
    /// logits after its last token, `[v]` float32.
    ///
    /// A prompt is run alone and without filling, so the numbers depend on it only.
    pub fn prefill(&self, prompt: &[i64], slot: usize, cache: &mut Cache) -> Result<Tensor> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.arch.check_tokens(prompt)?;
        cache.truncate(slot, 0);
        cache.check_room(slot, prompt.len())?;
        let logits = tch::no_grad(|| {
            let t = prompt.len() as i64;
            let ids = Tensor::from_slice(prompt).to_device(self.device()).view([1, t]);
            let positions = Tensor::arange(t, (Kind::Int64, self.device())).view([1, t]);
            let mut x = self.embed(&ids);
            let turned = self.turns.angles(&positions, || lengths(&positions, &Mask::Causal), x.kind());
            let masks = Masks::new(&self.attention, &Mask::Causal, t, &self.arch.windows, &x);
            for (layer, block) in self.blocks.iter().enumerate() {
                x = block.forward(&self.arch, x, turned.of(block.window), |heads| {
                    cache.store(layer, slot, &heads.k, &heads.v);
                    self.attend(heads, masks.of(block.window))
                });
            }
            let last = x.narrow(1, t - 1, 1).squeeze_dim(1);
            self.logits(&self.final_norm.forward(&last)).to_kind(Kind::Float).squeeze_dim(0)
        });
        cache.set(slot, prompt);
        Ok(logits)
    }

    /// Adds one token to each listed slot and returns the logits after it, `[n, v]` float32;
    /// row `i` belongs to `tokens[i]`, a slot and a token id. Slots are distinct.
    ///
    /// Every slot of the cache is computed, see [`crate::cache`].
    pub fn step(&self, tokens: &[(usize, i64)], cache: &mut Cache) -> Result<Tensor> {
        let mut ids = vec![0; cache.slots()];
        let mut longest = 0;
        for &(slot, id) in tokens {
            self.arch.check_tokens(&[id])?;
            cache.check_room(slot, 1)?;
            ids[slot] = id;
            longest = longest.max(cache.len(slot) + 1);
        }
        let logits = tch::no_grad(|| self.step_all(&ids, Cache::reach(longest), cache));
        for &(slot, id) in tokens {
            cache.push(slot, id);
        }
        let in_order = tokens.len() == ids.len() && tokens.iter().enumerate().all(|(row, &(slot, _))| row == slot);
        let logits = match in_order {
            true => logits,
            false => {
                let rows: Vec<i64> = tokens.iter().map(|&(slot, _)| slot as i64).collect();
                logits.index_select(0, &Tensor::from_slice(&rows).to_device(self.device()))
            }
        };
        // A text whose angles have changed with its length is computed anew, or its earlier tokens
        // would not be what they are in the whole.
        for (row, &(slot, _)) in tokens.iter().enumerate() {
            if self.turns.change_at(cache.len(slot)) {
                let text = cache.tokens(slot).to_vec();
                logits.get(row as i64).copy_(&self.prefill(&text, slot, cache)?);
            }
        }
        Ok(logits)
    }

    /// Says whether the first `length` of `held` tokens in a slot are what they are alone, so that
    /// [`Cache::truncate`] leaves that text; not so where angles have changed in between.
    pub fn keeps_prefix(&self, length: usize, held: usize) -> bool {
        !(length + 1..=held).any(|length| self.turns.change_at(length))
    }

    /// One step of all slots, `[slots, v]`.
    fn step_all(&self, ids: &[i64], reach: usize, cache: &Cache) -> Tensor {
        let ids = Tensor::from_slice(ids).to_device(self.device());
        let places = cache.places();
        let mut x = self.embed(&ids);
        let turned = self.turns.angles(&places, || &places + 1, x.kind());
        let masks = self.step_masks(&places, reach, x.kind());
        let layout = &cache.layout;
        for (layer, block) in self.blocks.iter().enumerate() {
            let bias = &masks.iter().find(|mask| mask.0 == block.window).expect("one per window").1;
            x = block.step(&self.arch, x, &layout.blocks[layer], turned.of(block.window), |heads| {
                cache.append(layer, &places, &heads.k, &heads.v);
                let (keys, values) = cache.held(layer, reach);
                self.attention.one_query(&heads.q, &keys, &values, bias)
            });
        }
        let logits = layout.head.forward(&self.final_norm.forward(&x));
        self.cap(logits).to_kind(Kind::Float)
    }

    /// Masks of a step per window: the keys up to a slot's own place, `[slots·k, h/k, reach]`.
    fn step_masks(&self, places: &Tensor, reach: usize, kind: Kind) -> Vec<(Option<i64>, Tensor)> {
        let (slots, reach, k) = (places.size()[0], reach as i64, self.arch.n_kv_heads);
        let group = self.arch.n_heads / k;
        let places = places.unsqueeze(1);
        let keys = Tensor::arange(reach, (Kind::Int64, self.device()));
        let mut masks: Vec<(Option<i64>, Tensor)> = Vec::new();
        for &window in &self.arch.windows {
            if masks.iter().any(|(known, _)| *known == window) {
                continue;
            }
            let mut allowed = keys.le_tensor(&places);
            if let Some(window) = window {
                allowed = allowed.logical_and(&keys.gt_tensor(&(&places - window)));
            }
            let bias = bias(&allowed, kind).view([slots, 1, 1, reach]);
            let bias = match &self.attention.slopes {
                None => bias,
                Some(slopes) => {
                    let distance = (&places - &keys).view([slots, 1, 1, reach]);
                    bias - (slopes.view([1, k, group, 1]) * distance).to_kind(kind)
                }
            };
            let bias = bias.expand([slots, k, group, reach], false).reshape([slots * k, group, reach]);
            masks.push((window, bias));
        }
        masks
    }

    /// Attends over the tokens of one pass, `[b, t, h·e]`.
    fn attend(&self, heads: &Heads, allowed: &Allowed) -> Tensor {
        let size = heads.q.size();
        let [q, k, v] = [&heads.q, &heads.k, &heads.v].map(|heads| heads.transpose(1, 2));
        self.attention.forward(&q, &k, &v, allowed).transpose(1, 2).reshape([size[0], size[1], size[2] * size[3]])
    }

    fn embed(&self, ids_bt: &Tensor) -> Tensor {
        let x = Tensor::embedding(&self.embedding, ids_bt, -1, false, false);
        match &self.embedding_scale {
            None => x,
            Some(scale) => x * scale,
        }
    }
}

impl Turns {
    fn new(positions: &Positions, device: Device) -> Self {
        match positions {
            Positions::Alibi => Self { all: None, windowed: None },
            Positions::Rotary { rope, windowed } => Self {
                all: Some(Rotary::new(rope, device)),
                windowed: windowed.as_ref().map(|rope| Rotary::new(rope, device)),
            },
        }
    }

    fn angles(&self, positions: &Tensor, lengths: impl Fn() -> Tensor, kind: Kind) -> Turned {
        let angles = |rotary: &Rotary| rotary.angles(positions, &lengths, kind);
        Turned { all: self.all.as_ref().map(angles), windowed: self.windowed.as_ref().map(angles) }
    }

    /// Says whether a text of this length has other angles than it had one token before.
    fn change_at(&self, length: usize) -> bool {
        self.all.iter().chain(&self.windowed).any(|rotary| rotary.changes_at(length))
    }
}

impl Turned {
    fn of(&self, window: Option<i64>) -> Option<&Angles> {
        self.windowed.as_ref().filter(|_| window.is_some()).or(self.all.as_ref())
    }
}

/// Lays out the positions of rows of the given lengths, `[b, t]` i64: from 0 up, and 0 again in the
/// filling on the right, so that a row's last position tells its length.
pub fn row_positions(lengths: impl IntoIterator<Item = usize>, t: usize, device: Device) -> Tensor {
    let row = |length: usize| (0..t).map(move |place| if place < length { place as i64 } else { 0 });
    let positions: Vec<i64> = lengths.into_iter().flat_map(row).collect();
    Tensor::from_slice(&positions).view([-1, t as i64]).to_device(device)
}

/// The length of the text around each position of `positions_bt`, in a shape that broadcasts to it.
fn lengths(positions_bt: &Tensor, mask: &Mask) -> Tensor {
    match mask {
        Mask::Causal => positions_bt.amax([1i64].as_slice(), true) + 1,
        Mask::Documents(documents_bt) => {
            let same_btt = documents_bt.unsqueeze(-1).eq_tensor(&documents_bt.unsqueeze(-2));
            (positions_bt.unsqueeze(-2) * same_btt).amax([-1i64].as_slice(), false) + 1
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
