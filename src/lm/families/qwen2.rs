//! Qwen2 and Qwen2.5: llama with biases on queries, keys and values, and, in some sizes,
//! a window from a given layer on.
//!
//! Follows `huggingface/transformers` `models/qwen2/modeling_qwen2.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::arch::Architecture;
use crate::error::Result;

const SLIDING_WINDOW: i64 = 4096;
const MAX_WINDOW_LAYERS: i64 = 28;
const ROPE_THETA: f64 = 10_000.0;
const EPS: f64 = 1e-6;

/// Reads a qwen2 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "qwen2", Defaults::LLAMA)?;
    arch.qkv_bias = true;
    arch.windows = windows(fields, arch.n_layers)?;
    Ok(arch)
}

/// Reads `layer_types`, or a window on the layers from `max_window_layers` on.
pub fn windows(fields: &Fields, n_layers: i64) -> Result<Vec<Option<i64>>> {
    let first = fields.int_or("max_window_layers", MAX_WINDOW_LAYERS)?;
    fields.windows(n_layers, window(fields)?, |layer| layer >= first)
}

/// Reads the window, which counts only where it is switched on.
pub fn window(fields: &Fields) -> Result<Option<i64>> {
    Ok(match fields.bool_or("use_sliding_window", false)? {
        true => Some(fields.int_or("sliding_window", SLIDING_WINDOW)?),
        false => None,
    })
}

/// Writes the configuration of a fresh qwen2.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Qwen2ForCausalLM",
        [
            ("hidden_act", json!("silu")),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(ROPE_THETA)),
            ("use_sliding_window", json!(false)),
        ],
    )
}
