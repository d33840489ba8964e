//! MPT: linear biases in place of rotary embedding, LayerNorm without bias, a feed-forward block
//! without gate, and no bias anywhere.
//!
//! Follows `huggingface/transformers` `models/mpt/modeling_mpt.py`. What its configuration offers
//! and that file does not follow is refused, except dropout.

use serde_json::{Map, Value, json};

use super::NewModel;
use super::fields::{Fields, INITIALIZER_RANGE};
use crate::arch::{Activation, Architecture, ExpertNames, FusedQkv, Names, Norm, NormKind, NormPlaces, Positions};
use crate::error::Result;

const EPS: f64 = 1e-5;
const EXPANSION: i64 = 4;
const BIAS_MAX: i64 = 8;

const NAMES: Names = Names {
    embedding: "transformer.wte",
    final_norm: "transformer.norm_f",
    head: "lm_head",
    input_norm: "transformer.blocks.{i}.norm_1",
    after_attention_norm: "",
    before_mlp_norm: "transformer.blocks.{i}.norm_2",
    after_mlp_norm: "",
    q: "transformer.blocks.{i}.attn.Wq",
    k: "transformer.blocks.{i}.attn.Wk",
    v: "transformer.blocks.{i}.attn.Wv",
    o: "transformer.blocks.{i}.attn.out_proj",
    q_norm: "",
    k_norm: "",
    fused_qkv: Some(FusedQkv { name: "transformer.blocks.{i}.attn.Wqkv", per_kv_head: false }),
    gate: "",
    up: "transformer.blocks.{i}.ffn.up_proj",
    down: "transformer.blocks.{i}.ffn.down_proj",
    fused_gate_up: None,
    experts: ExpertNames::QWEN2_MOE,
};

/// Reads an mpt configuration.
pub fn architecture(fields: &Fields) -> Result<Architecture> {
    let (hidden_size, n_heads, n_layers) =
        (fields.count("d_model")?, fields.count("n_heads")?, fields.count("n_layers")?);
    fields.only("expansion_ratio", &json!(EXPANSION), "the width that transformers' mpt has")?;
    fields.only("no_bias", &json!(true), "mpt has no biases")?;
    fields.refuse("logit_scale", "null: logits are not scaled")?;
    let attention = fields.object("attn_config")?;
    if let Some(attention) = &attention {
        attention.only("alibi", &json!(true), "positions are told by linear biases")?;
        attention.only("alibi_bias_max", &json!(BIAS_MAX), "transformers' mpt takes no other")?;
        attention.only("attn_type", &json!("multihead_attention"), "heads are not grouped")?;
        for switch in ["qk_ln", "prefix_lm", "attn_uses_sequence_id"] {
            attention.refuse(switch, "false: not supported")?;
        }
    }
    let setting = |field: &str| match &attention {
        None => Ok(None),
        Some(attention) => attention.optional_positive(field),
    };
    let head_dim = hidden_size / n_heads;
    Ok(Architecture {
        family: "mpt",
        vocab_size: fields.count("vocab_size")?,
        hidden_size,
        intermediate_size: EXPANSION * hidden_size,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        max_positions: fields.count("max_seq_len")?,
        norm: Norm { kind: NormKind::Layer, eps: fields.float_or("layer_norm_epsilon", EPS)? },
        norm_places: NormPlaces::Before,
        positions: Positions::Alibi,
        attention_scale: setting("softmax_scale")?.unwrap_or((head_dim as f64).powf(-0.5)),
        attention_soft_cap: None,
        qk_norm: None,
        qkv_clip: setting("clip_qkv")?,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        windows: vec![None; n_layers as usize],
        activation: Activation::Gelu,
        gated_mlp: false,
        mixture: None,
        embedding_scale: None,
        tied_embeddings: fields.bool_or("tie_word_embeddings", true)?,
        final_soft_cap: None,
        initializer_range: fields.float_or("initializer_range", INITIALIZER_RANGE)?,
        names: NAMES,
        config: fields.config(),
    })
}

/// Writes the configuration of a fresh mpt.
pub fn config(model: &NewModel) -> Map<String, Value> {
    let fields = [
        ("architectures", json!(["MptForCausalLM"])),
        ("attn_config", json!({"alibi": true, "alibi_bias_max": BIAS_MAX})),
        ("d_model", json!(model.hidden_size)),
        ("expansion_ratio", json!(EXPANSION)),
        ("layer_norm_epsilon", json!(EPS)),
        ("max_seq_len", json!(model.max_positions)),
        ("n_heads", json!(model.heads)),
        ("n_layers", json!(model.layers)),
        ("no_bias", json!(true)),
    ];
    fields.into_iter().map(|(field, value)| (field.to_string(), value)).collect()
}
