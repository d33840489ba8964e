//! One block of the decoder: attention and a feed-forward block or experts, each with its norms
//! and its sum with the residual stream.
//!
//! It must not know masks or caches: what attention looks at comes as a function.

use std::collections::BTreeMap;

use fuseline_torch::tch::Tensor;

use crate::arch::{Architecture, Mixture, Norm, QkNorm, at_layer, stacked};
use crate::cache::BlockLayout;
use crate::parts::experts::{Experts, Shared};
use crate::parts::linear::Linear;
use crate::parts::mlp::Mlp;
use crate::parts::norm::Normalization;
use crate::parts::packed::Packed;
use crate::parts::rope::Angles;

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    input_norm: Option<Normalization>,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: Option<Normalization>,
    k_norm: Option<Normalization>,
    after_attention_norm: Option<Normalization>,
    before_mlp_norm: Option<Normalization>,
    feed: Feed,
    after_mlp_norm: Option<Normalization>,
    pub(super) window: Option<i64>,
}

/// What stands after attention.
#[derive(Debug)]
enum Feed {
    Mlp(Mlp),
    Experts(Experts),
}

/// What attention gets: `[.., heads, e]` each, leading axes those of the tokens.
pub(super) struct Heads {
    /// Queries, turned by their positions.
    pub q: Tensor,
    /// Keys, turned by their positions.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

/// Weights by name, and what is made from them.
pub(super) struct Weights<'a> {
    pub(super) tensors: &'a BTreeMap<String, Tensor>,
    pub(super) norm: Norm,
}

impl Weights<'_> {
    pub(super) fn tensor(&self, name: &str) -> Tensor {
        self.tensors[name].shallow_clone()
    }

    pub(super) fn norm(&self, name: &str) -> Normalization {
        Normalization { weight: self.tensor(&format!("{name}.weight")), norm: self.norm }
    }

    fn linear(&self, name: &str, layer: i64) -> Linear {
        let name = at_layer(name, layer);
        Linear {
            weight: self.tensor(&format!("{name}.weight")),
            bias: self.tensors.get(&format!("{name}.bias")).map(Tensor::shallow_clone),
        }
    }
}

impl Block {
    pub(super) fn new(arch: &Architecture, weights: &Weights, layer: i64) -> Self {
        let (names, places) = (&arch.names, arch.norm_places);
        let norm = |name: &str, wanted: bool| wanted.then(|| weights.norm(&at_layer(name, layer)));
        Self {
            input_norm: norm(names.input_norm, places.before()),
            q: weights.linear(names.q, layer),
            k: weights.linear(names.k, layer),
            v: weights.linear(names.v, layer),
            o: weights.linear(names.o, layer),
            q_norm: norm(names.q_norm, arch.qk_norm.is_some()),
            k_norm: norm(names.k_norm, arch.qk_norm.is_some()),
            after_attention_norm: norm(names.after_attention_norm, places.after()),
            before_mlp_norm: norm(names.before_mlp_norm, places.before()),
            feed: match arch.mixture_at(layer) {
                None => Feed::Mlp(Mlp {
                    gate: arch.gated_mlp.then(|| weights.linear(names.gate, layer)),
                    up: weights.linear(names.up, layer),
                    down: weights.linear(names.down, layer),
                    activation: arch.activation,
                }),
                Some(mixture) => Feed::Experts(experts(arch, mixture, weights, layer)),
            },
            after_mlp_norm: norm(names.after_mlp_norm, places.after()),
            window: arch.windows[layer as usize],
        }
    }

    /// Runs the block on `x: [b, t, d]`. `attend` returns `[b, t, h·e]`.
    pub(super) fn forward(
        &self,
        arch: &Architecture,
        x: Tensor,
        angles: Option<&Angles>,
        attend: impl FnOnce(&Heads) -> Tensor,
    ) -> Tensor {
        let normal = through(&self.input_norm, &x);
        let size = x.size();
        let split = |projected: Tensor, n| projected.view([size[0], size[1], n, arch.head_dim]);
        let q = split(self.q.forward(&normal), arch.n_heads);
        let k = split(self.k.forward(&normal), arch.n_kv_heads);
        let v = split(self.v.forward(&normal), arch.n_kv_heads);
        // Queries and keys are turned together: half the operations.
        let heads = heads(arch, Tensor::cat(&self.normal(arch, q, k), 2), v, angles);
        let mixed = self.o.forward(&attend(&heads));
        let x = x + through(&self.after_attention_norm, &mixed);
        let normal = through(&self.before_mlp_norm, &x);
        let mixed = match &self.feed {
            Feed::Mlp(mlp) => mlp.forward(&normal),
            Feed::Experts(experts) => experts.forward(&normal),
        };
        x + through(&self.after_mlp_norm, &mixed)
    }

    /// [`Block::forward`] for a step, `x: [slots, d]`, with projections laid out for it.
    pub(super) fn step(
        &self,
        arch: &Architecture,
        x: Tensor,
        layout: &BlockLayout,
        angles: Option<&Angles>,
        attend: impl FnOnce(&Heads) -> Tensor,
    ) -> Tensor {
        let qkv = layout.qkv.forward(&through(&self.input_norm, &x));
        let (h, kv) = (arch.n_heads, arch.n_kv_heads);
        let qkv = qkv.view([x.size()[0], h + 2 * kv, arch.head_dim]);
        let qk = match arch.qk_norm {
            None => qkv.narrow(1, 0, h + kv),
            Some(_) => Tensor::cat(&self.normal(arch, qkv.narrow(1, 0, h), qkv.narrow(1, h, kv)), 1),
        };
        let heads = heads(arch, qk, qkv.narrow(1, h + kv, kv), angles);
        let mixed = layout.o.forward(&attend(&heads));
        let x = x + through(&self.after_attention_norm, &mixed);
        let normal = through(&self.before_mlp_norm, &x);
        let mixed = match (&self.feed, &layout.mlp) {
            (Feed::Mlp(mlp), Some((up, down))) => down.forward(&mlp.inner(&up.forward(&normal))),
            (Feed::Experts(experts), _) => experts.forward_all(&normal),
            (Feed::Mlp(_), None) => unreachable!("a feed-forward block was laid out with the others"),
        };
        x + through(&self.after_mlp_norm, &mixed)
    }

    /// Lays the projections out for steps; `copy` as in [`Packed::new`].
    pub(super) fn layout(&self, copy: bool) -> BlockLayout {
        BlockLayout {
            qkv: Packed::new(&[&self.q, &self.k, &self.v], copy),
            o: Packed::new(&[&self.o], copy),
            mlp: match &self.feed {
                Feed::Mlp(mlp) => {
                    let up: Vec<&Linear> = mlp.gate.iter().chain([&mlp.up]).collect();
                    Some((Packed::new(&up, copy), Packed::new(&[&mlp.down], copy)))
                }
                Feed::Experts(_) => None,
            },
        }
    }

    /// Normalises queries and keys, `[.., heads, e]` each, where the model does.
    fn normal(&self, arch: &Architecture, q: Tensor, k: Tensor) -> [Tensor; 2] {
        let (Some(kind), Some(q_norm), Some(k_norm)) = (arch.qk_norm, &self.q_norm, &self.k_norm) else {
            return [q, k];
        };
        [(q, q_norm), (k, k_norm)].map(|(x, norm)| match kind {
            QkNorm::Head => norm.forward(&x),
            QkNorm::Projection => norm.forward(&x.flatten(-2, -1)).view(x.size().as_slice()),
        })
    }
}

/// Clips queries and keys, `qk: [.., h + k, e]`, and values, and turns the former.
fn heads(arch: &Architecture, mut qk: Tensor, mut v: Tensor, angles: Option<&Angles>) -> Heads {
    if let Some(limit) = arch.qkv_clip {
        (qk, v) = (qk.clamp(-limit, limit), v.clamp(-limit, limit));
    }
    let (h, kv) = (arch.n_heads, arch.n_kv_heads);
    if let Some(angles) = angles {
        qk = angles.rotate(&qk);
    }
    Heads { q: qk.narrow(-2, 0, h), k: qk.narrow(-2, h, kv), v }
}

fn experts(arch: &Architecture, mixture: &Mixture, weights: &Weights, layer: i64) -> Experts {
    let names = arch.names.experts;
    Experts {
        router: weights.linear(names.router, layer),
        gate_up: weights.tensor(&stacked(names.up, layer)),
        down: weights.tensor(&stacked(names.down, layer)),
        top_k: mixture.top_k,
        normalize: mixture.normalize,
        activation: arch.activation,
        shared: mixture.shared_intermediate_size.map(|_| Shared {
            mlp: Mlp {
                gate: Some(weights.linear(names.shared_gate, layer)),
                up: weights.linear(names.shared_up, layer),
                down: weights.linear(names.shared_down, layer),
                activation: arch.activation,
            },
            share: weights.linear(names.shared_share, layer),
        }),
    }
}

fn through(norm: &Option<Normalization>, x: &Tensor) -> Tensor {
    match norm {
        None => x.shallow_clone(),
        Some(norm) => norm.forward(x),
    }
}
