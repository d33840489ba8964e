//! What a decoder is made of, as one value: sizes, norms and their places, rotary
//! embedding, attention, activation, and the published names of the weights.
//!
//! It must not know any family: a file in `families/` reads a `config.json` and fills it
//! in. It holds no tensor. The idea of one decoder described by a value is torchtune's
//! and torchtitan's; the alternative, one file of code per family, is candle's.

use std::path::Path;

use serde_json::Value;

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
    /// Rotary position embedding.
    pub rope: Rope,
    /// Factor on the product of query and key; `1/sqrt(head_dim)` in most models.
    pub attention_scale: f64,
    /// `c` in `c·tanh(score/c)` on attention scores.
    pub attention_soft_cap: Option<f64>,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// A bias on the output projection of attention.
    pub output_bias: bool,
    /// Biases in the feed-forward block.
    pub mlp_bias: bool,
    /// Per layer: how many of the last tokens, itself included, a token attends to.
    pub windows: Vec<Option<i64>>,
    /// The gate's activation.
    pub activation: Activation,
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

/// Root-mean-square normalisation, `x / sqrt(mean(x²) + eps) · w`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Added to the mean of squares.
    pub eps: f64,
    /// The stored weight is `w − 1` (gemma), and the product is taken in float32.
    pub unit_offset: bool,
}

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlaces {
    /// Before attention and before the feed-forward block (llama).
    Before,
    /// Before and after both (gemma2).
    BeforeAndAfter,
}

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How the frequencies were changed to reach longer texts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are changed to reach longer texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All divided by a factor (position interpolation).
    Linear {
        /// The factor.
        factor: f64,
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

/// The gate's activation in the feed-forward block.
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
    /// Gate of the feed-forward block.
    pub gate: &'static str,
    /// The gated projection.
    pub up: &'static str,
    /// The projection back.
    pub down: &'static str,
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
        gate: "model.layers.{i}.mlp.gate_proj",
        up: "model.layers.{i}.mlp.up_proj",
        down: "model.layers.{i}.mlp.down_proj",
    };
}

/// One weight as it stands in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSpec {
    /// Published name.
    pub name: String,
    /// Shape; a projection is `[out, in]`.
    pub shape: Vec<i64>,
    /// What it is, which decides how it is filled in a fresh model.
    pub role: Role,
}

/// What a weight is, which decides how it is filled in a fresh model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A projection or an embedding: normal with deviation `initializer_range`.
    Matrix,
    /// A projection's bias: zero.
    Bias,
    /// A norm's weight: such that it multiplies by one.
    Norm,
}

impl Architecture {
    /// Lists every weight with its shape, sorted by published name.
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut list = Vec::new();
        let matrix =
            |name: String, shape: Vec<i64>| WeightSpec { name: format!("{name}.weight"), shape, role: Role::Matrix };
        let norm = |name: String| WeightSpec {
            name: format!("{name}.weight"),
            shape: vec![self.hidden_size],
            role: Role::Norm,
        };
        list.push(matrix(self.names.embedding.into(), vec![self.vocab_size, self.hidden_size]));
        list.push(norm(self.names.final_norm.into()));
        if !self.tied_embeddings {
            list.push(matrix(self.names.head.into(), vec![self.vocab_size, self.hidden_size]));
        }
        let (d, ff) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        for layer in 0..self.n_layers {
            let names = &self.names;
            let mut norms = vec![names.input_norm, names.before_mlp_norm];
            if self.norm_places == NormPlaces::BeforeAndAfter {
                norms.extend([names.after_attention_norm, names.after_mlp_norm]);
            }
            list.extend(norms.into_iter().map(|name| norm(at_layer(name, layer))));
            for (name, out, inner, bias) in [
                (names.q, q, d, self.qkv_bias),
                (names.k, kv, d, self.qkv_bias),
                (names.v, kv, d, self.qkv_bias),
                (names.o, d, q, self.output_bias),
                (names.gate, ff, d, self.mlp_bias),
                (names.up, ff, d, self.mlp_bias),
                (names.down, d, ff, self.mlp_bias),
            ] {
                let name = at_layer(name, layer);
                if bias {
                    list.push(WeightSpec { name: format!("{name}.bias"), shape: vec![out], role: Role::Bias });
                }
                list.push(matrix(name, vec![out, inner]));
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Returns the number of parameters.
    pub fn n_parameters(&self) -> i64 {
        self.weights().iter().map(|weight| weight.shape.iter().product::<i64>()).sum()
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
