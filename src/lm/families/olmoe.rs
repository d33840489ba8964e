//! OLMoE: llama with norms on all queries and all keys of a token together, and experts in place
//! of every feed-forward block.
//!
//! Follows `huggingface/transformers` `models/olmoe/modeling_olmoe.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::qwen2_moe::FRESH_EXPERTS;
use crate::arch::{Architecture, Mixture, QkNorm};
use crate::error::Result;

const EPS: f64 = 1e-5;
const ROPE_THETA: f64 = 10_000.0;
const EXPERTS: i64 = 64;
const TOP_K: i64 = 8;

/// Reads an olmoe configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "olmoe", Defaults { eps: EPS, ..Defaults::LLAMA })?;
    llama::attention_bias(fields, &mut arch)?;
    arch.qk_norm = Some(QkNorm::Projection);
    arch.qkv_clip = fields.optional_positive("clip_qkv")?;
    arch.mixture = Some(Mixture {
        n_experts: fields.experts(EXPERTS)?,
        top_k: fields.int_or("num_experts_per_tok", TOP_K)?,
        intermediate_size: arch.intermediate_size,
        normalize: fields.bool_or("norm_topk_prob", false)?,
        shared_intermediate_size: None,
        layers: vec![true; arch.windows.len()],
    });
    Ok(arch)
}

/// Writes the configuration of a fresh olmoe.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "OlmoeForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("clip_qkv", Value::Null),
            ("hidden_act", json!("silu")),
            ("norm_topk_prob", json!(false)),
            ("num_experts", json!(FRESH_EXPERTS.0)),
            ("num_experts_per_tok", json!(FRESH_EXPERTS.1)),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(ROPE_THETA)),
        ],
    )
}
