//! InternLM2: llama under other names, with queries, keys and values in one tensor, key head by
//! key head: the queries that read it, the key, the value.
//!
//! Follows the published `modeling_internlm2.py` of `internlm/internlm2-chat-7b`; transformers has
//! no such family.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::arch::{Architecture, FusedQkv, Names};
use crate::error::Result;

const EPS: f64 = 1e-5;
const FRESH_THETA: f64 = 1e6;

const NAMES: Names = Names {
    embedding: "model.tok_embeddings",
    head: "output",
    input_norm: "model.layers.{i}.attention_norm",
    before_mlp_norm: "model.layers.{i}.ffn_norm",
    q: "model.layers.{i}.attention.wq",
    k: "model.layers.{i}.attention.wk",
    v: "model.layers.{i}.attention.wv",
    o: "model.layers.{i}.attention.wo",
    fused_qkv: Some(FusedQkv { name: "model.layers.{i}.attention.wqkv", per_kv_head: true }),
    gate: "model.layers.{i}.feed_forward.w1",
    up: "model.layers.{i}.feed_forward.w3",
    down: "model.layers.{i}.feed_forward.w2",
    ..Names::LLAMA
};

/// Reads an internlm2 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "internlm2", Defaults::LLAMA)?;
    arch.qkv_bias = fields.bool_or("bias", true)?;
    arch.output_bias = arch.qkv_bias;
    arch.names = NAMES;
    Ok(arch)
}

/// Writes the configuration of a fresh internlm2.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "InternLM2ForCausalLM",
        [
            ("bias", json!(false)),
            ("hidden_act", json!("silu")),
            ("rms_norm_eps", json!(EPS)),
            ("rope_scaling", Value::Null),
            ("rope_theta", json!(FRESH_THETA)),
        ],
    )
}
