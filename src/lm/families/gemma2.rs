//! Gemma 2: norms before and after each half of a block with weights stored as `w − 1`,
//! embeddings scaled by the root of the width, a window on every other layer, soft caps on
//! attention scores and on logits.
//!
//! Follows `huggingface/transformers` `models/gemma2/modeling_gemma2.py`; defaults are those
//! of its configuration file. A null soft cap means none.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama;
use crate::arch::{Activation, Architecture, Names, NormPlaces};
use crate::error::Result;

const HEAD_DIM: i64 = 256;
const QUERY_SCALAR: f64 = 256.0;
const SLIDING_WINDOW: i64 = 4096;
const ATTENTION_CAP: f64 = 50.0;
const FINAL_CAP: f64 = 30.0;
const ROPE_THETA: f64 = 10_000.0;
const EPS: f64 = 1e-6;

const NAMES: Names = Names {
    after_attention_norm: "model.layers.{i}.post_attention_layernorm",
    before_mlp_norm: "model.layers.{i}.pre_feedforward_layernorm",
    after_mlp_norm: "model.layers.{i}.post_feedforward_layernorm",
    ..Names::LLAMA
};

/// Reads a gemma2 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "gemma2")?;
    fields.refuse("use_bidirectional_attention", "false: a decoder attends to earlier tokens only")?;
    arch.head_dim = fields.int_or("head_dim", HEAD_DIM)?;
    arch.norm.unit_offset = true;
    arch.norm_places = NormPlaces::BeforeAndAfter;
    arch.attention_scale = fields.float_or("query_pre_attn_scalar", QUERY_SCALAR)?.powf(-0.5);
    arch.attention_soft_cap = cap(fields, &arch.config, "attn_logit_softcapping", ATTENTION_CAP)?;
    arch.final_soft_cap = cap(fields, &arch.config, "final_logit_softcapping", FINAL_CAP)?;
    let bias = fields.bool_or("attention_bias", false)?;
    arch.qkv_bias = bias;
    arch.output_bias = bias;
    let window = fields.int_or("sliding_window", SLIDING_WINDOW)?;
    arch.windows = fields.windows(arch.n_layers, Some(window), |layer| layer % 2 == 0)?;
    arch.activation = fields.activation("hidden_activation", Activation::GeluTanh)?;
    arch.embedding_scale = Some((arch.hidden_size as f64).sqrt());
    arch.tied_embeddings = fields.bool_or("tie_word_embeddings", true)?;
    arch.names = NAMES;
    Ok(arch)
}

/// An absent soft cap has its default, a null one is none.
fn cap(fields: &Fields, config: &Value, field: &str, default: f64) -> Result<Option<f64>> {
    match config.get(field) {
        Some(Value::Null) => Ok(None),
        _ => Ok(Some(fields.float_or(field, default)?)),
    }
}

/// Writes the fields of a fresh gemma2 that not every family has.
pub fn config(model: &NewModel) -> Map<String, Value> {
    Map::from_iter([
        ("architectures".into(), json!(["Gemma2ForCausalLM"])),
        ("attention_bias".into(), json!(false)),
        ("attn_logit_softcapping".into(), json!(ATTENTION_CAP)),
        ("final_logit_softcapping".into(), json!(FINAL_CAP)),
        ("hidden_activation".into(), json!("gelu_pytorch_tanh")),
        ("query_pre_attn_scalar".into(), json!(model.hidden_size / model.heads.max(1))),
        ("rms_norm_eps".into(), json!(EPS)),
        ("rope_theta".into(), json!(ROPE_THETA)),
        ("sliding_window".into(), json!(SLIDING_WINDOW)),
    ])
}
