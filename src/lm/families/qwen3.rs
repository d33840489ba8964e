//! Qwen3: llama with norms on the heads of queries and keys.
//!
//! Follows `huggingface/transformers` `models/qwen3/modeling_qwen3.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::qwen2;
use crate::arch::{Architecture, QkNorm};
use crate::error::Result;

const HEAD_DIM: i64 = 128;
/// `rope_theta` of the published models.
const FRESH_THETA: f64 = 1e6;
const EPS: f64 = 1e-6;

/// Reads a qwen3 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "qwen3", Defaults { head_dim: Some(HEAD_DIM), ..Defaults::LLAMA })?;
    llama::attention_bias(fields, &mut arch)?;
    arch.qk_norm = Some(QkNorm::Head);
    arch.windows = qwen2::windows(fields, arch.n_layers)?;
    Ok(arch)
}

/// Writes the configuration of a fresh qwen3.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Qwen3ForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("hidden_act", json!("silu")),
            ("rms_norm_eps", json!(EPS)),
            ("rope_theta", json!(FRESH_THETA)),
            ("use_sliding_window", json!(false)),
        ],
    )
}
