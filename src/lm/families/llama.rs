//! Llama 2 and 3.x, Vicuna and Mistral: rotary embedding, root-mean-square norms before
//! each half of a block, a gated feed-forward block, grouped key and value heads.
//!
//! Follows `huggingface/transformers` `models/llama/modeling_llama.py` and
//! `models/mistral/modeling_mistral.py`; defaults are those of their configuration files.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::{Fields, INITIALIZER_RANGE};
use crate::arch::{Activation, Architecture, Names, Norm, NormPlaces};
use crate::error::Result;

const ROPE_THETA: f64 = 10_000.0;
const LLAMA_EPS: f64 = 1e-6;
/// `rms_norm_eps` of the published Llama 2 and 3 models.
const FRESH_EPS: f64 = 1e-5;

/// Reads a llama configuration.
pub fn llama(fields: &Fields) -> Result<Architecture> {
    let mut arch = base(fields, "llama")?;
    let bias = fields.bool_or("attention_bias", false)?;
    arch.qkv_bias = bias;
    arch.output_bias = bias;
    arch.mlp_bias = fields.bool_or("mlp_bias", false)?;
    Ok(arch)
}

/// Reads a mistral configuration: llama with a window on every layer.
pub fn mistral(fields: &Fields) -> Result<Architecture> {
    let mut arch = base(fields, "mistral")?;
    let window = fields.optional_int("sliding_window")?;
    arch.windows = vec![window; arch.windows.len()];
    Ok(arch)
}

/// Reads what llama, mistral and qwen2 have in common.
pub fn base(fields: &Fields, family: &'static str) -> Result<Architecture> {
    let (hidden_size, n_heads) = (fields.int("hidden_size")?, fields.int("num_attention_heads")?);
    let head_dim = fields.int_or("head_dim", hidden_size / n_heads.max(1))?;
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
        norm: Norm { eps: fields.float_or("rms_norm_eps", LLAMA_EPS)?, unit_offset: false },
        norm_places: NormPlaces::Before,
        rope: fields.rope(ROPE_THETA)?,
        attention_scale: (head_dim as f64).powf(-0.5),
        attention_soft_cap: None,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        windows: vec![None; usize::try_from(n_layers).unwrap_or(0)],
        activation: fields.activation("hidden_act", Activation::Silu)?,
        embedding_scale: None,
        tied_embeddings: fields.bool_or("tie_word_embeddings", false)?,
        final_soft_cap: None,
        initializer_range: fields.float_or("initializer_range", INITIALIZER_RANGE)?,
        names: Names::LLAMA,
        config: fields.config(),
    })
}

/// Writes the fields of a fresh llama that not every family has.
pub fn llama_config(_: &NewModel) -> Map<String, Value> {
    Map::from_iter([
        ("architectures".into(), json!(["LlamaForCausalLM"])),
        ("attention_bias".into(), json!(false)),
        ("hidden_act".into(), json!("silu")),
        ("mlp_bias".into(), json!(false)),
        ("rms_norm_eps".into(), json!(FRESH_EPS)),
        ("rope_theta".into(), json!(ROPE_THETA)),
    ])
}

/// Writes the fields of a fresh mistral that not every family has.
pub fn mistral_config(_: &NewModel) -> Map<String, Value> {
    Map::from_iter([
        ("architectures".into(), json!(["MistralForCausalLM"])),
        ("hidden_act".into(), json!("silu")),
        ("rms_norm_eps".into(), json!(FRESH_EPS)),
        ("rope_theta".into(), json!(ROPE_THETA)),
        ("sliding_window".into(), Value::Null),
    ])
}
