//! Phi-3, Phi-3.5 and Phi-4: llama whose queries, keys and values are stored as one tensor, gate
//! and gated projection as another; LongRoPE in the models for long texts, and heads that are
//! turned in part in Phi-4-mini.
//!
//! Follows `huggingface/transformers` `models/phi3/modeling_phi3.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::rope::RopeContext;
use crate::arch::{Architecture, FusedQkv, Names, Positions, RopeScaling};
use crate::error::Result;

const EPS: f64 = 1e-5;
const ROPE_THETA: f64 = 10_000.0;
const ORIGINAL_MAX_POSITIONS: i64 = 4096;

const NAMES: Names = Names {
    fused_qkv: Some(FusedQkv { name: "model.layers.{i}.self_attn.qkv_proj", per_kv_head: false }),
    fused_gate_up: Some("model.layers.{i}.mlp.gate_up_proj"),
    ..Names::LLAMA
};

/// Reads a phi3 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let defaults = Defaults { eps: EPS, theta: ROPE_THETA, positions, ..Defaults::LLAMA };
    let mut arch = llama::base(fields, "phi3", defaults)?;
    arch.windows = vec![fields.optional_int("sliding_window")?; arch.windows.len()];
    arch.names = NAMES;
    Ok(arch)
}

fn positions(fields: &Fields, theta: f64, head_dim: i64) -> Result<Positions> {
    let settings = fields.rope_settings()?;
    let mut share = fields.float_or("partial_rotary_factor", 1.0)?;
    if let Some(settings) = &settings {
        share = settings.float_or("partial_rotary_factor", share)?;
    }
    if !(share > 0.0 && share <= 1.0) {
        return Err(fields.unfit("partial_rotary_factor", "a number above 0 and at most 1"));
    }
    let context = RopeContext {
        theta: fields.float_or("rope_theta", theta)?,
        width: (head_dim as f64 * share) as i64,
        original_max_positions: Some(fields.int_or("original_max_position_embeddings", ORIGINAL_MAX_POSITIONS)?),
    };
    let rope = fields.rope_of(settings.as_ref(), context)?;
    match (&rope.scaling, settings) {
        (RopeScaling::Default | RopeScaling::LongRope { .. }, _) | (_, None) => {
            Ok(Positions::Rotary { rope, windowed: None })
        }
        (_, Some(settings)) => {
            let field = if settings.has("rope_type") { "rope_type" } else { "type" };
            Err(settings.unfit(field, "one of default, longrope, as transformers' phi3 has them"))
        }
    }
}

/// Writes the configuration of a fresh phi3.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Phi3ForCausalLM",
        [
            ("hidden_act", json!("silu")),
            ("original_max_position_embeddings", json!(model.max_positions)),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(ROPE_THETA)),
            ("sliding_window", Value::Null),
        ],
    )
}
