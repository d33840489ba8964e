//! Gemma 3, text: gemma2 with norms on the heads of queries and keys, five layers with a window to
//! one without, a rotary embedding of their own for those with a window, and no caps on scores.
//!
//! Follows `huggingface/transformers` `models/gemma3/modeling_gemma3.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::gemma2::{self, EPS, SLIDING_WINDOW};
use super::llama::{self, Defaults};
use super::rope::RopeContext;
use crate::arch::{Architecture, Positions, QkNorm};
use crate::error::Result;

const GLOBAL_THETA: f64 = 1e6;
const LOCAL_THETA: f64 = 10_000.0;
/// Of so many layers one has no window.
const PATTERN: i64 = 6;

/// Reads a gemma3 text configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let defaults = Defaults { theta: GLOBAL_THETA, positions, ..Defaults::LLAMA };
    let mut arch = gemma2::base(fields, "gemma3_text", defaults)?;
    arch.qk_norm = Some(QkNorm::Head);
    fields.refuse("attn_logit_softcapping", "null: transformers' gemma3 does not cap scores")?;
    arch.final_soft_cap = fields.optional_float("final_logit_softcapping")?;
    let window = fields.int_or("sliding_window", SLIDING_WINDOW)?;
    let pattern = fields.int_or("sliding_window_pattern", PATTERN)?.max(1);
    arch.windows = fields.windows(arch.n_layers, Some(window), |layer| (layer + 1) % pattern != 0)?;
    Ok(arch)
}

/// Reads both rotary embeddings: from `rope_parameters` by kind of layer, or, in older
/// configurations, `rope_theta` with `rope_scaling`, and `rope_local_base_freq`.
fn positions(fields: &Fields, theta: f64, head_dim: i64) -> Result<Positions> {
    let parameters = fields.object("rope_parameters")?;
    if let Some(parameters) = parameters.as_ref().filter(|parameters| parameters.has("rope_type")) {
        return Err(parameters.unfit("rope_type", "none here: full_attention and sliding_attention have one each"));
    }
    let of = |kind: &str| match &parameters {
        None => Ok(None),
        Some(parameters) => parameters.object(kind),
    };
    let context = |field: &str, default: f64| -> Result<RopeContext> {
        Ok(RopeContext {
            theta: fields.float_or(field, default)?,
            width: head_dim,
            original_max_positions: fields.optional_int("original_max_position_embeddings")?,
        })
    };
    let full = of("full_attention")?.or(fields.object("rope_scaling")?);
    let windowed = of("sliding_attention")?;
    Ok(Positions::Rotary {
        rope: fields.rope_of(full.as_ref(), context("rope_theta", theta)?)?,
        windowed: Some(fields.rope_of(windowed.as_ref(), context("rope_local_base_freq", LOCAL_THETA)?)?),
    })
}

/// Writes the configuration of a fresh gemma3 text model.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Gemma3ForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("hidden_activation", json!("gelu_pytorch_tanh")),
            ("query_pre_attn_scalar", json!(model.hidden_size / model.heads.max(1))),
            ("rms_norm_eps", json!(EPS)),
            ("rope_local_base_freq", json!(LOCAL_THETA)),
            ("rope_theta", json!(GLOBAL_THETA)),
            ("sliding_window", json!(SLIDING_WINDOW)),
            ("sliding_window_pattern", json!(PATTERN)),
        ],
    )
}
