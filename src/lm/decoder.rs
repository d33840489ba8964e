//! The one decoder: blocks of attention and feed-forward as an [`Architecture`] says, with
//! its weights under their published names.
//!
//! It must not know families, files, sampling or losses. Letters: b batch, t time, d hidden,
//! v vocabulary, h query heads, k key/value heads, e head width.

use std::collections::BTreeMap;

use fuseline_torch::tch::{self, Device, Kind, Tensor};

use crate::arch::{Architecture, NormPlaces, at_layer};
use crate::cache::{BlockLayout, Cache, Layout};
use crate::error::{Error, Result};
use crate::parts::attention::{Allowed, Attention, Masks, bias};
use crate::parts::linear::Linear;
use crate::parts::mlp::{Mlp, activate};
use crate::parts::norm::RmsNorm;
use crate::parts::packed::Packed;
use crate::parts::rope::{Angles, frequencies};

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
    final_norm: RmsNorm,
    head: Tensor,
    attention: Attention,
    frequencies: Tensor,
}

#[derive(Debug)]
struct Block {
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    after_attention_norm: Option<RmsNorm>,
    before_mlp_norm: RmsNorm,
    mlp: Mlp,
    after_mlp_norm: Option<RmsNorm>,
    window: Option<i64>,
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
        let get = |name: String| weights[&name].shallow_clone();
        let norm = |name: String| RmsNorm { weight: get(format!("{name}.weight")), norm: arch.norm };
        let linear = |name: &str, layer: i64| {
            let name = at_layer(name, layer);
            Linear {
                weight: get(format!("{name}.weight")),
                bias: weights.get(&format!("{name}.bias")).map(Tensor::shallow_clone),
            }
        };
        let names = &arch.names;
        let around = arch.norm_places == NormPlaces::BeforeAndAfter;
        let blocks = (0..arch.n_layers)
            .zip(&arch.windows)
            .map(|(layer, &window)| Block {
                input_norm: norm(at_layer(names.input_norm, layer)),
                q: linear(names.q, layer),
                k: linear(names.k, layer),
                v: linear(names.v, layer),
                o: linear(names.o, layer),
                after_attention_norm: around.then(|| norm(at_layer(names.after_attention_norm, layer))),
                before_mlp_norm: norm(at_layer(names.before_mlp_norm, layer)),
                mlp: Mlp {
                    gate: linear(names.gate, layer),
                    up: linear(names.up, layer),
                    down: linear(names.down, layer),
                    activation: arch.activation,
                },
                after_mlp_norm: around.then(|| norm(at_layer(names.after_mlp_norm, layer))),
                window,
            })
            .collect();
        let embedding = get(format!("{}.weight", names.embedding));
        let head = match arch.tied_embeddings {
            true => embedding.shallow_clone(),
            false => get(format!("{}.weight", names.head)),
        };
        let (kind, device) = (embedding.kind(), embedding.device());
        Ok(Self {
            embedding_scale: arch.embedding_scale.map(|scale| Tensor::from(scale).to_kind(kind).to_device(device)),
            blocks,
            final_norm: norm(names.final_norm.into()),
            head,
            attention: Attention { scale: arch.attention_scale, soft_cap: arch.attention_soft_cap },
            frequencies: frequencies(&arch.rope, arch.head_dim, device),
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

    /// Returns the output head, `[v, d]`: the embedding's matrix where they are tied.
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Computes the last hidden states, `[b, t, d]` after the final norm, of `ids_bt` at
    /// `positions_bt` (both `[b, t]` i64). Records gradients where they are asked for.
    pub fn hidden(&self, ids_bt: &Tensor, positions_bt: &Tensor, mask: &Mask) -> Tensor {
        let mut x = self.embed(ids_bt);
        let t = ids_bt.size()[1];
        let angles = Angles::new(&self.frequencies, positions_bt, x.kind());
        let explicit = self.attention.needs_bias();
        let masks = Masks::new(mask, t, &self.arch.windows, explicit, &x);
        for block in &self.blocks {
            x = block.forward(&self.arch, x, &angles, |q, k, v| self.attend(q, k, v, masks.of(block.window)));
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
        let blocks = self.blocks.iter().map(|block| BlockLayout {
            qkv: Packed::new(&[&block.q, &block.k, &block.v], copy),
            o: Packed::new(&[&block.o], copy),
            gate_up: Packed::new(&[&block.mlp.gate, &block.mlp.up], copy),
            down: Packed::new(&[&block.mlp.down], copy),
        });
        let layout = Layout { blocks: blocks.collect(), head: Packed::of_matrix(&self.head, copy) };
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
            let angles = Angles::new(&self.frequencies, &positions, x.kind());
            let explicit = self.attention.needs_bias();
            let masks = Masks::new(&Mask::Causal, t, &self.arch.windows, explicit, &x);
            for (layer, block) in self.blocks.iter().enumerate() {
                x = block.forward(&self.arch, x, &angles, |q, k, v| {
                    cache.store(layer, slot, k, v);
                    self.attend(q, k, v, masks.of(block.window))
                });
            }
            let last = x.narrow(1, t - 1, 1).squeeze_dim(1);
            self.logits(&self.final_norm.forward(&last)).to_kind(Kind::Float).squeeze_dim(0)
        });
        cache.set_len(slot, prompt.len());
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
        for &(slot, _) in tokens {
            cache.set_len(slot, cache.len(slot) + 1);
        }
        let in_order = tokens.len() == ids.len() && tokens.iter().enumerate().all(|(row, &(slot, _))| row == slot);
        if in_order {
            return Ok(logits);
        }
        let rows: Vec<i64> = tokens.iter().map(|&(slot, _)| slot as i64).collect();
        Ok(logits.index_select(0, &Tensor::from_slice(&rows).to_device(self.device())))
    }

    /// One step of all slots, `[slots, v]`.
    fn step_all(&self, ids: &[i64], reach: usize, cache: &mut Cache) -> Tensor {
        let ids = Tensor::from_slice(ids).to_device(self.device());
        let places = cache.places();
        let mut x = self.embed(&ids);
        let angles = Angles::new(&self.frequencies, &places, x.kind());
        let masks = self.step_masks(&places, reach, x.kind());
        for (layer, block) in self.blocks.iter().enumerate() {
            let bias = &masks.iter().find(|mask| mask.0 == block.window).expect("one per window").1;
            x = self.step_block(layer, x, &angles, &places, bias, cache);
        }
        let logits = cache.layout.head.forward(&self.final_norm.forward(&x));
        self.cap(logits).to_kind(Kind::Float)
    }

    /// One block of a step on `x: [slots, d]`.
    fn step_block(
        &self,
        layer: usize,
        x: Tensor,
        angles: &Angles,
        places: &Tensor,
        bias: &Tensor,
        cache: &mut Cache,
    ) -> Tensor {
        let (block, arch) = (&self.blocks[layer], &self.arch);
        let (slots, h, k) = (x.size()[0], arch.n_heads, arch.n_kv_heads);
        let qkv = cache.layout.blocks[layer].qkv.forward(&block.input_norm.forward(&x));
        let qkv = qkv.view([slots, h + 2 * k, arch.head_dim]);
        let turned = angles.rotate(&qkv.narrow(1, 0, h + k));
        cache.append(layer, places, &turned.narrow(1, h, k), &qkv.narrow(1, h + k, k));
        let reach = bias.size()[2] as usize;
        let (keys, values) = cache.held(layer, reach);
        let mixed = self.attention.one_query(&turned.narrow(1, 0, h), &keys, &values, bias);
        let layout = &cache.layout.blocks[layer];
        let x = x + after(&block.after_attention_norm, layout.o.forward(&mixed));
        let gate_up = layout.gate_up.forward(&block.before_mlp_norm.forward(&x));
        let ff = arch.intermediate_size;
        let gate = activate(arch.activation, &gate_up.narrow(1, 0, ff));
        let mixed = layout.down.forward(&(gate * gate_up.narrow(1, ff, ff)));
        x + after(&block.after_mlp_norm, mixed)
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
            let bias = bias.expand([slots, k, group, reach], false).reshape([slots * k, group, reach]);
            masks.push((window, bias));
        }
        masks
    }

    /// Attends over the tokens of one pass: all `[b, t, heads, e]`, the result `[b, t, h·e]`.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, allowed: &Allowed) -> Tensor {
        let size = q.size();
        self.attention
            .forward(&q.transpose(1, 2), &k.transpose(1, 2), &v.transpose(1, 2), allowed)
            .transpose(1, 2)
            .reshape([size[0], size[1], size[2] * size[3]])
    }

    fn embed(&self, ids_bt: &Tensor) -> Tensor {
        let x = Tensor::embedding(&self.embedding, ids_bt, -1, false, false);
        match &self.embedding_scale {
            None => x,
            Some(scale) => x * scale,
        }
    }
}

impl Block {
    /// Runs the block on `x: [b, t, d]`. `attend` gets queries, keys and values as
    /// `[b, t, heads, e]`, turned by their positions, and returns `[b, t, h·e]`.
    fn forward(
        &self,
        arch: &Architecture,
        x: Tensor,
        angles: &Angles,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let normal = self.input_norm.forward(&x);
        let size = x.size();
        let heads = |projected: Tensor, n| projected.view([size[0], size[1], n, arch.head_dim]);
        let q = heads(self.q.forward(&normal), arch.n_heads);
        let k = heads(self.k.forward(&normal), arch.n_kv_heads);
        let v = heads(self.v.forward(&normal), arch.n_kv_heads);
        // Queries and keys are turned together: half the operations.
        let turned = angles.rotate(&Tensor::cat(&[q, k], 2));
        let q = turned.narrow(2, 0, arch.n_heads);
        let k = turned.narrow(2, arch.n_heads, arch.n_kv_heads);
        let mixed = self.o.forward(&attend(&q, &k, &v));
        let x = x + after(&self.after_attention_norm, mixed);
        let mixed = self.mlp.forward(&self.before_mlp_norm.forward(&x));
        x + after(&self.after_mlp_norm, mixed)
    }
}

fn after(norm: &Option<RmsNorm>, x: Tensor) -> Tensor {
    match norm {
        None => x,
        Some(norm) => norm.forward(&x),
    }
}

#[cfg(test)]
mod tests;
