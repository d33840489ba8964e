//! A [`Model`] from a decoder's weights. It must not know files.

use fuseline_torch::product::{from_bf16, to_bf16};
use fuseline_torch::tch::Kind;

use super::attention::Settings;
use super::feed::{Experts, Feed, Mlp};
use super::linear::Linear;
use super::pages::{Layout, Number};
use super::rows::Normal;
use super::turns::Turns;
use super::{Block, Core, Embedding, Model};
use crate::arch::{Architecture, Mixture, NormKind, Positions, at_layer, stacked};
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::parts::attention::slopes;

impl Model {
    /// Lays a decoder's weights out for generation by so many threads: in bfloat16 if they are, else in float32.
    ///
    /// It belongs to the weights that the decoder has now: after a step of training it must be made anew.
    pub fn of(decoder: &Decoder, threads: usize) -> Result<Self> {
        let number = match decoder.kind() {
            Kind::BFloat16 => Number::Bf16,
            _ => Number::F32,
        };
        Self::new(&decoder.arch, number, threads, &|name| {
            let Some(tensor) = decoder.weight(name) else { return Ok(None) };
            let values = tensor.detach().to_kind(Kind::Float).contiguous().view([-1]);
            let doing = || format!("failed to read tensor {name:?}");
            Vec::<f32>::try_from(values).map(Some).map_err(|source| Error::Torch { doing: doing(), source })
        })
    }

    /// Puts a model together from weights by published name; none for a bias that is not there.
    pub(crate) fn new(arch: &Architecture, number: Number, threads: usize, read: Read) -> Result<Self> {
        let from = Weights { arch, number, read };
        let names = &arch.names;
        let table = from.wanted(&format!("{}.weight", names.embedding))?;
        let d = arch.hidden_size as usize;
        let head = match arch.tied_embeddings {
            true => Linear::new(&table, d, None, number),
            false => Linear::new(&from.wanted(&format!("{}.weight", names.head))?, d, None, number),
        };
        let embedding = match number {
            Number::F32 => Embedding::F32(table),
            Number::Bf16 => Embedding::Bf16(table.into_iter().map(to_bf16).collect()),
        };
        let rounded = |scale: f64| match number {
            Number::F32 => scale as f32,
            Number::Bf16 => from_bf16(to_bf16(scale as f32)),
        };
        let blocks = (0..arch.n_layers).map(|layer| from.block(layer)).collect::<Result<_>>()?;
        let of_heads = || Vec::<f32>::try_from(slopes(arch.n_heads, fuseline_torch::tch::Device::Cpu));
        let slopes = match arch.positions {
            Positions::Alibi => {
                let doing = "failed to read the slopes of linear biases".to_string();
                Some(of_heads().map_err(|source| Error::Torch { doing, source })?)
            }
            Positions::Rotary { .. } => None,
        };
        let core = Core {
            embedding,
            embedding_scale: arch.embedding_scale.map(rounded),
            blocks,
            final_norm: from.norm(names.final_norm)?,
            head,
            settings: Settings {
                scale: arch.attention_scale as f32,
                soft_cap: arch.attention_soft_cap.map(|cap| cap as f32),
                slopes,
            },
            final_soft_cap: arch.final_soft_cap.map(|cap| cap as f32),
            clip: arch.qkv_clip.map(|clip| clip as f32),
            d,
            query_heads: arch.n_heads as usize,
            layout: Layout {
                layers: arch.n_layers as usize,
                heads: arch.n_kv_heads as usize,
                width: arch.head_dim as usize,
                number,
            },
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let threads = pool.map_err(|source| Error::Threads { n: threads, problem: source.to_string() })?;
        Ok(Self { arch: arch.clone(), core, turns: Turns::new(&arch.positions), threads })
    }
}

/// Gives a weight by its published name, if there is one.
pub(crate) type Read<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<f32>>>;

struct Weights<'a> {
    arch: &'a Architecture,
    number: Number,
    read: Read<'a>,
}

impl Weights<'_> {
    fn wanted(&self, name: &str) -> Result<Vec<f32>> {
        Ok((self.read)(name)?.expect("a decoder has every weight of its architecture"))
    }

    /// What a norm multiplies by.
    fn norm(&self, name: &str) -> Result<Normal> {
        let offset = if self.arch.norm.kind == NormKind::RmsUnitOffset { 1.0 } else { 0.0 };
        let weight = self.wanted(&format!("{name}.weight"))?.into_iter().map(|weight| weight + offset).collect();
        Ok(Normal { norm: self.arch.norm, weight })
    }

    /// Projections of the same rows, one after the other.
    fn linear(&self, names: &[&str], layer: i64, n_in: i64) -> Result<Linear> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            let name = at_layer(name, layer);
            weights.extend(self.wanted(&format!("{name}.weight"))?);
            biases.extend((self.read)(&format!("{name}.bias"))?.into_iter().flatten());
        }
        let bias = (!biases.is_empty()).then_some(biases);
        Ok(Linear::new(&weights, n_in as usize, bias, self.number))
    }

    fn block(&self, layer: i64) -> Result<Block> {
        let (arch, names) = (self.arch, &self.arch.names);
        let d = arch.hidden_size;
        let norm = |name: &str, there: bool| there.then(|| self.norm(&at_layer(name, layer))).transpose();
        let (before, after) = (arch.norm_places.before(), arch.norm_places.after());
        let qk_norms = match arch.qk_norm {
            None => None,
            Some(reach) => {
                let of = |name| self.norm(&at_layer(name, layer));
                Some((reach, of(names.q_norm)?, of(names.k_norm)?))
            }
        };
        Ok(Block {
            input_norm: norm(names.input_norm, before)?,
            qkv: self.linear(&[names.q, names.k, names.v], layer, d)?,
            o: self.linear(&[names.o], layer, arch.n_heads * arch.head_dim)?,
            qk_norms,
            after_attention_norm: norm(names.after_attention_norm, after)?,
            before_mlp_norm: norm(names.before_mlp_norm, before)?,
            feed: match arch.mixture_at(layer) {
                Some(mixture) => Feed::Experts(Box::new(self.experts(mixture, layer)?)),
                None => {
                    let gate = arch.gated_mlp.then_some(names.gate);
                    Feed::Mlp(Box::new(self.mlp(gate, [names.up, names.down], layer, arch.intermediate_size)?))
                }
            },
            after_mlp_norm: norm(names.after_mlp_norm, after)?,
            window: arch.windows[layer as usize].map(|window| window as usize),
        })
    }

    fn mlp(&self, gate: Option<&str>, [up, down]: [&str; 2], layer: i64, inner: i64) -> Result<Mlp> {
        let ups: Vec<&str> = gate.into_iter().chain([up]).collect();
        Ok(Mlp {
            up: self.linear(&ups, layer, self.arch.hidden_size)?,
            down: self.linear(&[down], layer, inner)?,
            inner: inner as usize,
            gated: gate.is_some(),
            activation: self.arch.activation,
        })
    }

    fn experts(&self, mixture: &Mixture, layer: i64) -> Result<Experts> {
        let (names, d) = (self.arch.names.experts, self.arch.hidden_size as usize);
        let (n, inner) = (mixture.n_experts as usize, mixture.intermediate_size as usize);
        let (ups, downs) = (self.wanted(&stacked(names.up, layer))?, self.wanted(&stacked(names.down, layer))?);
        let expert = |(up, down): (&[f32], &[f32])| Mlp {
            up: Linear::new(up, d, None, self.number),
            down: Linear::new(down, inner, None, self.number),
            inner,
            gated: true,
            activation: self.arch.activation,
        };
        let shared = mixture.shared_intermediate_size.map(|width| {
            let mlp = self.mlp(Some(names.shared_gate), [names.shared_up, names.shared_down], layer, width)?;
            Ok::<_, Error>((mlp, self.linear(&[names.shared_share], layer, self.arch.hidden_size)?))
        });
        Ok(Experts {
            router: self.linear(&[names.router], layer, self.arch.hidden_size)?,
            experts: ups.chunks_exact(2 * inner * d).zip(downs.chunks_exact(d * inner)).map(expert).take(n).collect(),
            top_k: mixture.top_k as usize,
            normalize: mixture.normalize,
            shared: shared.transpose()?,
        })
    }
}
