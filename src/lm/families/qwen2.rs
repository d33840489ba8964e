//! Qwen2 and Qwen2.5: llama with biases on queries, keys and values, and, in some sizes,
//! a window from a given layer on.
//!
//! Follows `huggingface/transformers` `models/qwen2/modeling_qwen2.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama;
use crate::arch::Architecture;
use crate::error::Result;

const SLIDING_WINDOW: i64 = 4096;
const MAX_WINDOW_LAYERS: i64 = 28;
const ROPE_THETA: f64 = 10_000.0;
const EPS: f64 = 1e-6;

/// Reads a qwen2 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "qwen2")?;
    arch.qkv_bias = true;
    let window = match fields.bool_or("use_sliding_window", false)? {
        true => Some(fields.int_or("sliding_window", SLIDING_WINDOW)?),
        false => None,
    };
    let first = fields.int_or("max_window_layers", MAX_WINDOW_LAYERS)?;
    arch.windows = fields.windows(arch.n_layers, window, |layer| layer >= first)?;
    Ok(arch)
}

/// Writes the fields of a fresh qwen2 that not every family has.
pub fn config(_: &NewModel) -> Map<String, Value> {
    Map::from_iter([
        ("architectures".into(), json!(["Qwen2ForCausalLM"])),
        ("hidden_act".into(), json!("silu")),
        ("rms_norm_eps".into(), json!(EPS)),
        ("rope_theta".into(), json!(ROPE_THETA)),
        ("use_sliding_window".into(), json!(false)),
    ])
}
