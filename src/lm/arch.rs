//! What a decoder is made of, as one value: sizes, norms and their places, positions,
//! attention, feed-forward blocks or experts, activation, and the published names of the weights.
//!
//! It must not know any family: a file in `families/` reads a `config.json` and fills it
//! in. It holds no tensor. The idea of one decoder described by a value is torchtune's
//! and torchtitan's; the alternative, one file of code per family, is candle's.

use std::path::Path;

use serde_json::Value;

mod weights;

pub(crate) use weights::stacked;
pub use weights::{Piece, Role, WeightSpec};

use crate::error::{Error, Result};

/// Everything that distinguishes one decoder-only model from another, weights excepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// `model_type` of `config.json`.
    pub family: &'static str,
    /// Number of token ids, the length of the logits.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub n_layers: i64,
    /// Number of query heads.
    pub n_heads: i64,
    /// Number of key and value heads; divides `n_heads`.
    pub n_kv_heads: i64,
    /// Width of one head.
    pub head_dim: i64,
    /// Longest sequence that the model was made for, in tokens.
    pub max_positions: i64,
    /// The normalisation, the same everywhere in the model.
    pub norm: Norm,
    /// Where a block normalises.
    pub norm_places: NormPlaces,
    /// How a token's place is told.
    pub positions: Positions,
    /// Factor on the product of query and key; `1/sqrt(head_dim)` in most models.
    pub attention_scale: f64,
    /// `c` in `c·tanh(score/c)` on attention scores.
    pub attention_soft_cap: Option<f64>,
    /// Norms on queries and keys before they are turned.
    pub qk_norm: Option<QkNorm>,
    /// Queries, keys and values are held within `±c`, after their norms.
    pub qkv_clip: Option<f64>,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// A bias on the output projection of attention.
    pub output_bias: bool,
    /// Biases in the feed-forward block.
    pub mlp_bias: bool,
    /// Per layer: how many of the last tokens, itself included, a token attends to.
    pub windows: Vec<Option<i64>>,
    /// The feed-forward block's activation.
    pub activation: Activation,
    /// Whether the activation stands on a gate beside the projection up, or on that projection.
    pub gated_mlp: bool,
    /// Experts in place of the feed-forward block, in all layers or some.
    pub mixture: Option<Mixture>,
    /// Factor on the embedding's output.
    pub embedding_scale: Option<f64>,
    /// Whether the head is the embedding's own matrix.
    pub tied_embeddings: bool,
    /// `c` in `c·tanh(logit/c)` on the logits.
    pub final_soft_cap: Option<f64>,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Published names of the weights.
    pub names: Names,
    /// `config.json` as it was read, fields that we do not use included.
    pub config: Value,
}

/// A normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Its formula.
    pub kind: NormKind,
    /// Added to the mean of squares or to the variance.
    pub eps: f64,
}

/// The formula of a normalisation with weight `w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)`, rounded to the model's number format, times `w` (llama).
    Rms,
    /// The same with the product in float32 (olmo2).
    RmsInFloat32,
    /// The same where the stored weight is `w − 1` (gemma).
    RmsUnitOffset,
    /// `(x − mean(x)) / sqrt(var(x) + eps) · w` (mpt).
    Layer,
}

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlaces {
    /// Before attention and before the feed-forward block (llama).
    Before,
    /// Before and after both (gemma2).
    BeforeAndAfter,
    /// After both, before the sum with the residual stream (olmo2).
    After,
}

impl NormPlaces {
    /// Says whether attention and the feed-forward block get normalised input.
    pub fn before(self) -> bool {
        self != Self::After
    }

    /// Says whether the outputs of attention and of the feed-forward block are normalised.
    pub fn after(self) -> bool {
        self != Self::Before
    }
}

/// What a norm on queries and keys spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, all with the same weight (qwen3, gemma3).
    Head,
    /// All heads together (olmo2, olmoe).
    Projection,
}

/// How a token's place is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// Rotary position embedding.
    Rotary {
        /// Of every layer, unless `windowed` says otherwise.
        rope: Rope,
        /// Of the layers with a window, where it is another (gemma3).
        windowed: Option<Rope>,
    },
    /// Linear biases on attention scores, which fall with the distance (mpt).
    Alibi,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How many of a head's first dimensions are turned; the rest stay as they are.
    pub width: i64,
    /// How the frequencies were changed to reach longer texts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are changed to reach longer texts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All divided by a factor (position interpolation).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// The base grows with the text's length, once that is above `max_positions`.
    Dynamic {
        /// The factor.
        factor: f64,
        /// Up to this length nothing changes, in tokens.
        max_positions: f64,
    },
    /// Slow dimensions divided by the factor, fast ones kept, a ramp between (YaRN).
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns within `original_max_positions` above which a dimension is kept.
        beta_fast: f64,
        /// Turns below which a dimension is divided.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
        /// Context of the first training, in tokens.
        original_max_positions: f64,
        /// Factor on cosine and sine.
        magnitude: f64,
    },
    /// Each frequency divided by a factor of its own; one list for texts up to
    /// `original_max_positions`, one for longer ones (LongRoPE).
    LongRope {
        /// Divisors for short texts, one per pair of dimensions.
        short: Vec<f64>,
        /// Divisors for long texts.
        long: Vec<f64>,
        /// Context of the first training, in tokens.
        original_max_positions: f64,
        /// Factor on cosine and sine.
        magnitude: f64,
    },
    /// Long wavelengths divided by the factor, short ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the first training, in tokens.
        original_max_positions: f64,
    },
}

/// A mixture of experts: each token goes through the feed-forward blocks that a router chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    /// Number of experts.
    pub n_experts: i64,
    /// How many of them a token goes through.
    pub top_k: i64,
    /// Width inside an expert.
    pub intermediate_size: i64,
    /// Whether the chosen experts' weights are made to sum to one.
    pub normalize: bool,
    /// Width inside the expert that every token goes through, times a learned share of its own.
    pub shared_intermediate_size: Option<i64>,
    /// Per layer: whether it has experts; the others have the plain feed-forward block.
    pub layers: Vec<bool>,
}

/// The feed-forward block's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·sigmoid(x)`.
    Silu,
    /// The Gaussian error linear unit by its tanh formula.
    GeluTanh,
    /// The Gaussian error linear unit by the error function.
    Gelu,
}

/// Published names of the weights; `{i}` stands for the layer's number. Weights and biases
/// of a projection are the name with `.weight` and `.bias` after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Token embedding.
    pub embedding: &'static str,
    /// Norm after the last block.
    pub final_norm: &'static str,
    /// Output head, absent where embeddings are tied.
    pub head: &'static str,
    /// Norm before attention.
    pub input_norm: &'static str,
    /// Norm after attention, in models that have one.
    pub after_attention_norm: &'static str,
    /// Norm before the feed-forward block.
    pub before_mlp_norm: &'static str,
    /// Norm after the feed-forward block, in models that have one.
    pub after_mlp_norm: &'static str,
    /// Query projection.
    pub q: &'static str,
    /// Key projection.
    pub k: &'static str,
    /// Value projection.
    pub v: &'static str,
    /// Output projection.
    pub o: &'static str,
    /// Norm on queries, in models that have one.
    pub q_norm: &'static str,
    /// Norm on keys, in models that have one.
    pub k_norm: &'static str,
    /// The tensor that holds queries, keys and values together, in models that have one.
    pub fused_qkv: Option<FusedQkv>,
    /// Gate of the feed-forward block.
    pub gate: &'static str,
    /// The gated projection.
    pub up: &'static str,
    /// The projection back.
    pub down: &'static str,
    /// The tensor that holds gate and gated projection, in this order, in models that have one.
    pub fused_gate_up: Option<&'static str>,
    /// Names of the experts, in models that have some.
    pub experts: ExpertNames,
}

/// The tensor that holds queries, keys and values together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FusedQkv {
    /// Its name.
    pub name: &'static str,
    /// All queries, then all keys, then all values; or, for each key head, the queries that
    /// read it, the key and the value.
    pub per_kv_head: bool,
}

/// Published names of experts; `{e}` stands for the expert's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertNames {
    /// The router.
    pub router: &'static str,
    /// Gate of an expert.
    pub gate: &'static str,
    /// Gated projection of an expert.
    pub up: &'static str,
    /// Projection back of an expert.
    pub down: &'static str,
    /// Gate of the shared expert.
    pub shared_gate: &'static str,
    /// Gated projection of the shared expert.
    pub shared_up: &'static str,
    /// Projection back of the shared expert.
    pub shared_down: &'static str,
    /// The projection whose sigmoid is the shared expert's share.
    pub shared_share: &'static str,
}

impl Names {
    /// The names of llama, which most later families took over.
    pub const LLAMA: Names = Names {
        embedding: "model.embed_tokens",
        final_norm: "model.norm",
        head: "lm_head",
        input_norm: "model.layers.{i}.input_layernorm",
        after_attention_norm: "",
        before_mlp_norm: "model.layers.{i}.post_attention_layernorm",
        after_mlp_norm: "",
        q: "model.layers.{i}.self_attn.q_proj",
        k: "model.layers.{i}.self_attn.k_proj",
        v: "model.layers.{i}.self_attn.v_proj",
        o: "model.layers.{i}.self_attn.o_proj",
        q_norm: "model.layers.{i}.self_attn.q_norm",
        k_norm: "model.layers.{i}.self_attn.k_norm",
        fused_qkv: None,
        gate: "model.layers.{i}.mlp.gate_proj",
        up: "model.layers.{i}.mlp.up_proj",
        down: "model.layers.{i}.mlp.down_proj",
        fused_gate_up: None,
        experts: ExpertNames::QWEN2_MOE,
    };
}

impl ExpertNames {
    /// The names of qwen2_moe, which later families took over.
    pub const QWEN2_MOE: ExpertNames = ExpertNames {
        router: "model.layers.{i}.mlp.gate",
        gate: "model.layers.{i}.mlp.experts.{e}.gate_proj",
        up: "model.layers.{i}.mlp.experts.{e}.up_proj",
        down: "model.layers.{i}.mlp.experts.{e}.down_proj",
        shared_gate: "model.layers.{i}.mlp.shared_expert.gate_proj",
        shared_up: "model.layers.{i}.mlp.shared_expert.up_proj",
        shared_down: "model.layers.{i}.mlp.shared_expert.down_proj",
        shared_share: "model.layers.{i}.mlp.shared_expert_gate",
    };
}

impl Architecture {
    /// Returns the experts of a layer, if it has some.
    pub fn mixture_at(&self, layer: i64) -> Option<&Mixture> {
        self.mixture.as_ref().filter(|mixture| mixture.layers[layer as usize])
    }

    /// Refuses token ids outside the vocabulary, which means that the tokenizer is another model's.
    pub fn check_tokens(&self, ids: &[i64]) -> Result<()> {
        match ids.iter().find(|&&id| id < 0 || id >= self.vocab_size) {
            None => Ok(()),
            Some(&id) => Err(Error::TokenOutOfRange { id, vocab_size: self.vocab_size }),
        }
    }
}

/// Fills a layer's number into a name.
pub(crate) fn at_layer(name: &str, layer: i64) -> String {
    name.replace("{i}", &layer.to_string())
}

/// Reads `config.json` of a model's folder as it stands.
pub fn read_config(dir: &Path) -> Result<Value> {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|source| Error::Json { path, source })
}
