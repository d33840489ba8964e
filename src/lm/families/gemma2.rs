//! Gemma 2: norms before and after each half of a block with weights stored as `w − 1`,
//! embeddings scaled by the root of the width, a window on every other layer, soft caps on
//! attention scores and on logits.
//!
//! Follows `huggingface/transformers` `models/gemma2/modeling_gemma2.py`; defaults are those
//! of its configuration file. A null soft cap means none.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::arch::{Activation, Architecture, Names, NormKind, NormPlaces};
use crate::error::Result;

const HEAD_DIM: i64 = 256;
const QUERY_SCALAR: f64 = 256.0;
pub(super) const SLIDING_WINDOW: i64 = 4096;
const ATTENTION_CAP: f64 = 50.0;
const FINAL_CAP: f64 = 30.0;
const ROPE_THETA: f64 = 10_000.0;
pub(super) const EPS: f64 = 1e-6;

const NAMES: Names = Names {
    after_attention_norm: "model.layers.{i}.post_attention_layernorm",
    before_mlp_norm: "model.layers.{i}.pre_feedforward_layernorm",
    after_mlp_norm: "model.layers.{i}.post_feedforward_layernorm",
    ..Names::LLAMA
};

/// Reads a gemma2 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = base(fields, "gemma2", Defaults::LLAMA)?;
    arch.attention_soft_cap = fields.float_unless_null("attn_logit_softcapping", ATTENTION_CAP)?;
    arch.final_soft_cap = fields.float_unless_null("final_logit_softcapping", FINAL_CAP)?;
    let window = fields.int_or("sliding_window", SLIDING_WINDOW)?;
    arch.windows = fields.windows(arch.n_layers, Some(window), |layer| layer % 2 == 0)?;
    Ok(arch)
}

/// Reads what gemma2 and gemma3 have in common.
pub fn base(fields: &Fields, family: &'static str, defaults: Defaults) -> Result<Architecture> {
    let mut arch = llama::base(fields, family, Defaults { head_dim: Some(HEAD_DIM), ..defaults })?;
    fields.refuse("use_bidirectional_attention", "false: a decoder attends to earlier tokens only")?;
    arch.norm.kind = NormKind::RmsUnitOffset;
    arch.norm_places = NormPlaces::BeforeAndAfter;
    arch.attention_scale = fields.float_or("query_pre_attn_scalar", QUERY_SCALAR)?.powf(-0.5);
    llama::attention_bias(fields, &mut arch)?;
    arch.activation = fields.activation("hidden_activation", Activation::GeluTanh)?;
    arch.embedding_scale = Some((arch.hidden_size as f64).sqrt());
    arch.tied_embeddings = fields.bool_or("tie_word_embeddings", true)?;
    arch.names = NAMES;
    Ok(arch)
}

/// Writes the configuration of a fresh gemma2.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Gemma2ForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("attn_logit_softcapping", json!(ATTENTION_CAP)),
            ("final_logit_softcapping", json!(FINAL_CAP)),
            ("hidden_activation", json!("gelu_pytorch_tanh")),
            ("query_pre_attn_scalar", json!(model.hidden_size / model.heads.max(1))),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(ROPE_THETA)),
            ("sliding_window", json!(SLIDING_WINDOW)),
        ],
    )
}
