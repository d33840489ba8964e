//! Qwen1.5-MoE and Qwen2-MoE: qwen2 with many narrow experts beside one that every token goes
//! through, in all layers or some.
//!
//! Follows `huggingface/transformers` `models/qwen2_moe/modeling_qwen2_moe.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::qwen2;
use crate::arch::{Architecture, Mixture};
use crate::error::Result;

const EPS: f64 = 1e-6;
const FRESH_THETA: f64 = 1e6;
const EXPERTS: i64 = 60;
const TOP_K: i64 = 4;
const EXPERT_SIZE: i64 = 1408;
const SHARED_SIZE: i64 = 5632;
const MAX_WINDOW_LAYERS: i64 = 28;
/// Experts of a fresh model, and how many a token goes through: as Mixtral has them.
pub(super) const FRESH_EXPERTS: (i64, i64) = (8, 2);

/// Reads a qwen2_moe configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "qwen2_moe", Defaults::LLAMA)?;
    arch.qkv_bias = fields.bool_or("qkv_bias", true)?;
    let last = fields.int_or("max_window_layers", MAX_WINDOW_LAYERS)?;
    arch.windows = fields.windows(arch.n_layers, qwen2::window(fields)?, |layer| layer % 2 == 0 && layer < last)?;
    arch.mixture = Some(Mixture {
        n_experts: fields.experts(EXPERTS)?,
        top_k: fields.int_or("num_experts_per_tok", TOP_K)?,
        intermediate_size: fields.int_or("moe_intermediate_size", EXPERT_SIZE)?,
        normalize: fields.bool_or("norm_topk_prob", false)?,
        shared_intermediate_size: Some(fields.int_or("shared_expert_intermediate_size", SHARED_SIZE)?),
        layers: fields.sparse_layers(arch.n_layers)?,
    });
    Ok(arch)
}

/// Writes the configuration of a fresh qwen2_moe.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Qwen2MoeForCausalLM",
        [
            ("decoder_sparse_step", json!(1)),
            ("hidden_act", json!("silu")),
            ("mlp_only_layers", json!([])),
            ("moe_intermediate_size", json!(model.intermediate_size)),
            ("norm_topk_prob", json!(false)),
            ("num_experts", json!(FRESH_EXPERTS.0)),
            ("num_experts_per_tok", json!(FRESH_EXPERTS.1)),
            ("qkv_bias", json!(true)),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(FRESH_THETA)),
            ("shared_expert_intermediate_size", json!(model.intermediate_size)),
            ("use_sliding_window", json!(false)),
        ],
    )
}
