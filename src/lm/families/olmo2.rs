//! OLMo 2: norms after each half of a block, before the sum with the residual stream, and on all
//! queries and all keys of a token together.
//!
//! Follows `huggingface/transformers` `models/olmo2/modeling_olmo2.py`.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::arch::{Architecture, Names, NormKind, NormPlaces, QkNorm};
use crate::error::Result;

const EPS: f64 = 1e-5;
/// `rms_norm_eps` and `rope_theta` of the published models.
const FRESH_EPS: f64 = 1e-6;
const FRESH_THETA: f64 = 500_000.0;

const NAMES: Names = Names {
    after_attention_norm: "model.layers.{i}.post_attention_layernorm",
    after_mlp_norm: "model.layers.{i}.post_feedforward_layernorm",
    ..Names::LLAMA
};

/// Reads an olmo2 configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let mut arch = llama::base(fields, "olmo2", Defaults { eps: EPS, ..Defaults::LLAMA })?;
    llama::attention_bias(fields, &mut arch)?;
    arch.norm.kind = NormKind::RmsInFloat32;
    arch.norm_places = NormPlaces::After;
    arch.qk_norm = Some(QkNorm::Projection);
    arch.names = NAMES;
    Ok(arch)
}

/// Writes the configuration of a fresh olmo2.
pub fn config(model: &NewModel) -> Map<String, Value> {
    llama::base_config(
        model,
        "Olmo2ForCausalLM",
        [
            ("attention_bias", json!(false)),
            ("hidden_act", json!("silu")),
            ("rms_norm_eps", json!(FRESH_EPS)),
            ("rope_theta", json!(FRESH_THETA)),
        ],
    )
}
