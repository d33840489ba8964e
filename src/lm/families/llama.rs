//! Llama 2 and 3.x, Vicuna, SOLAR, Yi and Mistral: rotary embedding, root-mean-square norms before
//! each half of a block, a gated feed-forward block, grouped key and value heads. Most later
//! families are this with a difference, and begin with [`base`].
//!
//! Follows `huggingface/transformers` `models/llama/modeling_llama.py` and
//! `models/mistral/modeling_mistral.py`; defaults are those of their configuration files.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::{Fields, INITIALIZER_RANGE};
use crate::arch::{Activation, Architecture, Names, Norm, NormKind, NormPlaces, Positions};
use crate::error::Result;

const ROPE_THETA: f64 = 10_000.0;
/// `rms_norm_eps` of the published Llama 2 and 3 models.
const FRESH_EPS: f64 = 1e-5;
const MISTRAL_WINDOW: i64 = 4096;

/// What a family takes where its configuration is silent.
pub struct Defaults {
    /// `rms_norm_eps`.
    pub eps: f64,
    /// `rope_theta`.
    pub theta: f64,
    /// `head_dim`; none means `hidden_size / num_attention_heads`.
    pub head_dim: Option<i64>,
    /// Reads positions, given `rope_theta`'s default and the width of a head.
    pub positions: fn(&Fields, f64, i64) -> Result<Positions>,
}

impl Defaults {
    /// Those of llama, mistral and qwen2.
    pub const LLAMA: Defaults = Defaults { eps: 1e-6, theta: ROPE_THETA, head_dim: None, positions: rotary };
}

/// Reads a rotary embedding of whole heads, the same in every layer.
fn rotary(fields: &Fields, theta: f64, head_dim: i64) -> Result<Positions> {
    Ok(Positions::Rotary { rope: fields.rope(theta, head_dim)?, windowed: None })
}

/// Reads a llama configuration.
pub fn llama(fields: &Fields) -> Result<Architecture> {
    let mut arch = base(fields, "llama", Defaults::LLAMA)?;
    attention_bias(fields, &mut arch)?;
    arch.mlp_bias = fields.bool_or("mlp_bias", false)?;
    Ok(arch)
}

/// Reads a mistral configuration: llama with a window on every layer.
pub fn mistral(fields: &Fields) -> Result<Architecture> {
    let mut arch = base(fields, "mistral", Defaults::LLAMA)?;
    arch.windows = vec![fields.int_unless_null("sliding_window", MISTRAL_WINDOW)?; arch.windows.len()];
    Ok(arch)
}

/// Reads `attention_bias`, a bias on all four projections of attention.
pub fn attention_bias(fields: &Fields, arch: &mut Architecture) -> Result<()> {
    arch.qkv_bias = fields.bool_or("attention_bias", false)?;
    arch.output_bias = arch.qkv_bias;
    Ok(())
}

/// Reads what llama and the families after it have in common.
pub fn base(fields: &Fields, family: &'static str, defaults: Defaults) -> Result<Architecture> {
    let (hidden_size, n_heads) = (fields.int("hidden_size")?, fields.int("num_attention_heads")?);
    let head_dim = fields.int_or("head_dim", defaults.head_dim.unwrap_or(hidden_size / n_heads.max(1)))?;
    let n_layers = fields.int("num_hidden_layers")?;
    Ok(Architecture {
        family,
        vocab_size: fields.int("vocab_size")?,
        hidden_size,
        intermediate_size: fields.int("intermediate_size")?,
        n_layers,
        n_heads,
        n_kv_heads: fields.int_or("num_key_value_heads", n_heads)?,
        head_dim,
        max_positions: fields.int("max_position_embeddings")?,
        norm: Norm { kind: NormKind::Rms, eps: fields.float_or("rms_norm_eps", defaults.eps)? },
        norm_places: NormPlaces::Before,
        positions: (defaults.positions)(fields, defaults.theta, head_dim)?,
        attention_scale: (head_dim as f64).powf(-0.5),
        attention_soft_cap: None,
        qk_norm: None,
        qkv_clip: None,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        windows: vec![None; usize::try_from(n_layers).unwrap_or(0)],
        activation: fields.activation("hidden_act", Activation::Silu)?,
        gated_mlp: true,
        mixture: None,
        embedding_scale: None,
        tied_embeddings: fields.bool_or("tie_word_embeddings", false)?,
        final_soft_cap: None,
        initializer_range: fields.float_or("initializer_range", INITIALIZER_RANGE)?,
        names: Names::LLAMA,
        config: fields.config(),
    })
}

/// Writes the configuration of a fresh llama.
pub fn llama_config(model: &NewModel) -> Map<String, Value> {
    base_config(
        model,
        "LlamaForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("hidden_act", json!("silu")),
            ("mlp_bias", json!(false)),
            ("rms_norm_eps", json!(FRESH_EPS)),
            ("rope_theta", json!(ROPE_THETA)),
        ],
    )
}

/// Writes the configuration of a fresh mistral.
pub fn mistral_config(model: &NewModel) -> Map<String, Value> {
    base_config(
        model,
        "MistralForCausalLM",
        [
            ("hidden_act", json!("silu")),
            ("rms_norm_eps", json!(FRESH_EPS)),
            ("rope_theta", json!(ROPE_THETA)),
            ("sliding_window", Value::Null),
        ],
    )
}

/// Writes the sizes of a fresh model as llama and the families after it name them, and a family's
/// `own` fields.
pub fn base_config<const N: usize>(
    model: &NewModel,
    architecture: &str,
    own: [(&str, Value); N],
) -> Map<String, Value> {
    let sizes = [
        ("architectures", json!([architecture])),
        ("attention_dropout", json!(0.0)),
        ("head_dim", json!(model.hidden_size / model.heads.max(1))),
        ("hidden_size", json!(model.hidden_size)),
        ("intermediate_size", json!(model.intermediate_size)),
        ("max_position_embeddings", json!(model.max_positions)),
        ("num_attention_heads", json!(model.heads)),
        ("num_hidden_layers", json!(model.layers)),
        ("num_key_value_heads", json!(model.kv_heads)),
    ];
    sizes.into_iter().chain(own).map(|(field, value)| (field.to_string(), value)).collect()
}
