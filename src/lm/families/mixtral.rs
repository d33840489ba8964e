//! Mixtral: mistral with experts in place of every feed-forward block.
//!
//! Follows `huggingface/transformers` `models/mixtral/modeling_mixtral.py`; names as the published
//! folders have them, one tensor per expert and projection.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::arch::{Architecture, ExpertNames, Mixture, Names};
use crate::error::Result;

const EPS: f64 = 1e-5;
const ROPE_THETA: f64 = 1e6;
const EXPERTS: i64 = 8;
const TOP_K: i64 = 2;

const NAMES: Names = Names {
    experts: ExpertNames {
        router: "model.layers.{i}.block_sparse_moe.gate",
        gate: "model.layers.{i}.block_sparse_moe.experts.{e}.w1",
        up: "model.layers.{i}.block_sparse_moe.experts.{e}.w3",
        down: "model.layers.{i}.block_sparse_moe.experts.{e}.w2",
        ..ExpertNames::QWEN2_MOE
    },
    ..Names::LLAMA
};

/// Reads a mixtral configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "mixtral", Defaults { eps: EPS, theta: ROPE_THETA, ..Defaults::LLAMA })?;
    arch.windows = vec![fields.optional_int("sliding_window")?; arch.windows.len()];
    fields.only("router_jitter_noise", &json!(0.0), "routers are not jittered")?;
    arch.mixture = Some(Mixture {
        n_experts: fields.experts(EXPERTS)?,
        top_k: fields.int_or("num_experts_per_tok", TOP_K)?,
        intermediate_size: arch.intermediate_size,
        normalize: true,
        shared_intermediate_size: None,
        layers: vec![true; arch.windows.len()],
    });
    arch.names = NAMES;
    Ok(arch)
}

/// Writes the configuration of a fresh mixtral.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "MixtralForCausalLM",
        [
            ("hidden_act", json!("silu")),
            ("num_experts_per_tok", json!(TOP_K)),
            ("num_local_experts", json!(EXPERTS)),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(ROPE_THETA)),
            ("sliding_window", Value::Null),
        ],
    )
}
