//! Qwen3-MoE: qwen3 with experts in all layers or some.
//!
//! Follows `huggingface/transformers` `models/qwen3_moe/modeling_qwen3_moe.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::qwen2;
use super::qwen2_moe::FRESH_EXPERTS;
use crate::arch::{Architecture, Mixture, QkNorm};
use crate::error::Result;

const EPS: f64 = 1e-6;
const FRESH_THETA: f64 = 1e6;
const EXPERTS: i64 = 128;
const TOP_K: i64 = 8;
const EXPERT_SIZE: i64 = 768;

/// Reads a qwen3_moe configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "qwen3_moe", Defaults::LLAMA)?;
    llama::attention_bias(fields, &mut arch)?;
    arch.qk_norm = Some(QkNorm::Head);
    arch.windows = vec![qwen2::window(fields)?; arch.windows.len()];
    arch.mixture = Some(Mixture {
        n_experts: fields.experts(EXPERTS)?,
        top_k: fields.int_or("num_experts_per_tok", TOP_K)?,
        intermediate_size: fields.int_or("moe_intermediate_size", EXPERT_SIZE)?,
        normalize: fields.bool_or("norm_topk_prob", false)?,
        shared_intermediate_size: None,
        layers: fields.sparse_layers(arch.n_layers)?,
    });
    Ok(arch)
}

/// Writes the configuration of a fresh qwen3_moe.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Qwen3MoeForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("decoder_sparse_step", json!(1)),
            ("hidden_act", json!("silu")),
            ("mlp_only_layers", json!([])),
            ("moe_intermediate_size", json!(model.intermediate_size)),
            ("norm_topk_prob", json!(true)),
            ("num_experts", json!(FRESH_EXPERTS.0)),
            ("num_experts_per_tok", json!(FRESH_EXPERTS.1)),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(FRESH_THETA)),
            ("use_sliding_window", json!(false)),
        ],
    )
}
