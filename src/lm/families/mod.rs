//! The table of model families: `model_type` to the function that turns a `config.json`
//! into an [`Architecture`], and the one that writes the configuration of a fresh model.
//!
//! It must not know tensors. A new family is one file here and one row of [`FAMILIES`].

mod fields;
mod gemma2;
mod gemma3;
mod internlm2;
mod llama;
mod mixtral;
mod mpt;
mod olmo2;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod rope;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::arch::{Architecture, Positions, RopeScaling, read_config};
use crate::error::{Error, Result};
use fields::Fields;

/// One row of the table of families.
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    architecture: fn(&Fields) -> Result<Architecture>,
    config: fn(&NewModel) -> Map<String, Value>,
}

/// Every family, in alphabetical order.
pub const FAMILIES: &[Family] = &[
    Family { model_type: "gemma2", architecture: gemma2::architecture, config: gemma2::config },
    Family { model_type: "gemma3_text", architecture: gemma3::architecture, config: gemma3::config },
    Family { model_type: "internlm2", architecture: internlm2::architecture, config: internlm2::config },
    Family { model_type: "llama", architecture: llama::llama, config: llama::llama_config },
    Family { model_type: "mistral", architecture: llama::mistral, config: llama::mistral_config },
    Family { model_type: "mixtral", architecture: mixtral::architecture, config: mixtral::config },
    Family { model_type: "mpt", architecture: mpt::architecture, config: mpt::config },
    Family { model_type: "olmo2", architecture: olmo2::architecture, config: olmo2::config },
    Family { model_type: "olmoe", architecture: olmoe::architecture, config: olmoe::config },
    Family { model_type: "phi3", architecture: phi3::architecture, config: phi3::config },
    Family { model_type: "qwen2", architecture: qwen2::architecture, config: qwen2::config },
    Family { model_type: "qwen2_moe", architecture: qwen2_moe::architecture, config: qwen2_moe::config },
    Family { model_type: "qwen3", architecture: qwen3::architecture, config: qwen3::config },
    Family { model_type: "qwen3_moe", architecture: qwen3_moe::architecture, config: qwen3_moe::config },
];

/// The sizes and special tokens of a model to be made from random weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewModel {
    /// `model_type`: a row of [`FAMILIES`].
    pub family: String,
    /// Number of token ids.
    pub vocab_size: i64,
    /// Width of the residual stream; a multiple of `heads`.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub layers: i64,
    /// Number of query heads.
    pub heads: i64,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: i64,
    /// Longest sequence, in tokens.
    pub max_positions: i64,
    /// Whether the head is the embedding's own matrix.
    pub tied_embeddings: bool,
    /// The token that begins a text, if any.
    pub bos_token_id: Option<i64>,
    /// The tokens that end an answer.
    pub eos_token_ids: Vec<i64>,
    /// The token that fills up a batch, if any.
    pub pad_token_id: Option<i64>,
}

/// Joins the known `model_type`s by commas.
pub fn known() -> String {
    FAMILIES.iter().map(|family| family.model_type).collect::<Vec<_>>().join(", ")
}

fn family(model_type: &str) -> Result<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.model_type == model_type)
        .ok_or_else(|| Error::UnknownFamily { found: model_type.into(), known: known() })
}

impl Architecture {
    /// Derives the architecture from a parsed `config.json`.
    pub fn from_config(config: &Value) -> Result<Self> {
        let fields = Fields::new(config)?;
        let family = family(fields.required_text("model_type", &known())?)?;
        let architecture = (family.architecture)(&fields)?;
        check(&architecture)?;
        Ok(architecture)
    }

    /// Derives the architecture from the `config.json` of a model's folder.
    pub fn read(dir: &Path) -> Result<Self> {
        Self::from_config(&read_config(dir)?)
    }
}

/// Writes the `config.json` of a fresh model, as `transformers` reads it.
pub fn new_config(model: &NewModel) -> Result<Value> {
    let family = family(&model.family)?;
    let mut config = (family.config)(model);
    config.insert("model_type".into(), json!(family.model_type));
    config.insert("vocab_size".into(), json!(model.vocab_size));
    config.insert("tie_word_embeddings".into(), json!(model.tied_embeddings));
    config.insert("initializer_range".into(), json!(fields::INITIALIZER_RANGE));
    config.insert("use_cache".into(), json!(true));
    config.insert("bos_token_id".into(), json!(model.bos_token_id));
    config.insert("pad_token_id".into(), json!(model.pad_token_id));
    let eos = match model.eos_token_ids.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    config.insert("eos_token_id".into(), eos);
    config.insert("torch_dtype".into(), json!("float32"));
    config.sort_keys();
    let config = Value::Object(config);
    let arch = Architecture::from_config(&config)?;
    for (what, wanted, has) in [
        ("intermediate_size", model.intermediate_size, arch.intermediate_size),
        ("kv_heads", model.kv_heads, arch.n_kv_heads),
    ] {
        if wanted != has {
            return Err(Error::NewModel { family: family.model_type, what, wanted, has });
        }
    }
    Ok(config)
}

/// Checks what no family can do without.
fn check(arch: &Architecture) -> Result<()> {
    let wrong = |field: &str, found: i64, expected: String| {
        Err(Error::Field { field: field.into(), found: found.to_string(), expected })
    };
    for (field, value) in [
        ("vocab_size", arch.vocab_size),
        ("hidden_size", arch.hidden_size),
        ("intermediate_size", arch.intermediate_size),
        ("num_hidden_layers", arch.n_layers),
        ("num_attention_heads", arch.n_heads),
        ("num_key_value_heads", arch.n_kv_heads),
        ("max_position_embeddings", arch.max_positions),
    ] {
        if value < 1 {
            return wrong(field, value, "a number of at least 1".into());
        }
    }
    if arch.n_heads % arch.n_kv_heads != 0 {
        let expected = format!("a divisor of num_attention_heads = {}", arch.n_heads);
        return wrong("num_key_value_heads", arch.n_kv_heads, expected);
    }
    if arch.hidden_size % arch.n_heads != 0 {
        let expected = format!("a multiple of num_attention_heads = {}", arch.n_heads);
        return wrong("hidden_size", arch.hidden_size, expected);
    }
    if arch.head_dim < 1 {
        return wrong("head_dim", arch.head_dim, "a number of at least 1".into());
    }
    if let Positions::Rotary { rope, windowed } = &arch.positions {
        for rope in [Some(rope), windowed.as_ref()].into_iter().flatten() {
            // NTK's exponent is `width / (width - 2)`.
            let least = if matches!(rope.scaling, RopeScaling::Dynamic { .. }) { 4 } else { 2 };
            if rope.width < least || rope.width % 2 != 0 {
                let expected = format!("an even number of at least {least} turned dimensions, for rotary embedding");
                return wrong("head_dim", rope.width, expected);
            }
        }
    }
    if let Some(window) = arch.windows.iter().flatten().find(|window| **window < 1) {
        return wrong("sliding_window", *window, "a number of at least 1".into());
    }
    if let Some(mixture) = &arch.mixture {
        for (field, value) in [
            ("the number of experts", mixture.n_experts),
            ("the width of an expert", mixture.intermediate_size),
            ("shared_expert_intermediate_size", mixture.shared_intermediate_size.unwrap_or(1)),
        ] {
            if value < 1 {
                return wrong(field, value, "a number of at least 1".into());
            }
        }
        if mixture.top_k < 1 || mixture.top_k > mixture.n_experts {
            return wrong("num_experts_per_tok", mixture.top_k, format!("1 to {}, the experts", mixture.n_experts));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(family: &str) -> NewModel {
        NewModel {
            family: family.into(),
            vocab_size: 50,
            hidden_size: 16,
            // What mpt has without choice: four times the width, and no groups of heads.
            intermediate_size: 64,
            layers: 2,
            heads: 4,
            kv_heads: if family == "mpt" { 4 } else { 2 },
            max_positions: 64,
            tied_embeddings: true,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            pad_token_id: Some(0),
        }
    }

    #[test]
    fn names_of_families_are_sorted_and_their_fresh_configurations_parse() {
        assert!(FAMILIES.windows(2).all(|pair| pair[0].model_type < pair[1].model_type));
        for family in FAMILIES {
            let config = new_config(&small(family.model_type)).unwrap();
            let arch = Architecture::from_config(&config).unwrap();
            assert_eq!(arch.family, family.model_type);
            assert_eq!(arch.head_dim, 4);
            // Embeddings are tied.
            let head = format!("{}.weight", arch.names.head);
            assert!(arch.weights().iter().all(|weight| weight.name != head));
        }
    }

    #[test]
    fn every_stored_row_belongs_to_one_parameter() {
        for family in FAMILIES {
            let arch = Architecture::from_config(&new_config(&small(family.model_type)).unwrap()).unwrap();
            let stored: i64 = arch.stored().values().map(|shape| shape.iter().product::<i64>()).sum();
            assert_eq!(stored, arch.n_parameters(), "{}", family.model_type);
            let mut rows: Vec<(String, i64)> = Vec::new();
            for spec in arch.weights() {
                let pieces = spec.pieces.iter();
                let of = |piece: &crate::arch::Piece| {
                    (piece.first..piece.first + piece.rows).map(|row| (piece.tensor.clone(), row)).collect::<Vec<_>>()
                };
                rows.extend(pieces.flat_map(of));
            }
            let n = rows.len();
            rows.sort();
            rows.dedup();
            assert_eq!(rows.len(), n, "{}", family.model_type);
        }
    }

    #[test]
    fn sizes_that_a_family_cannot_have_are_said() {
        let model = NewModel { kv_heads: 2, ..small("mpt") };
        assert_eq!(
            new_config(&model).unwrap_err().to_string(),
            "a model of family mpt has kv_heads = 4 where the other sizes are as given, not 2; ask for 4"
        );
    }

    #[test]
    fn an_unknown_family_lists_the_known_ones() {
        let error = Architecture::from_config(&json!({"model_type": "lama"})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "model_type \"lama\" in config.json is not a known family; known are gemma2, gemma3_text, internlm2, \
             llama, mistral, mixtral, mpt, olmo2, olmoe, phi3, qwen2, qwen2_moe, qwen3, qwen3_moe"
        );
    }

    /// The error of a fresh configuration with one field changed.
    fn refusal(family: &str, field: &str, value: Value) -> String {
        let mut config = new_config(&small(family)).unwrap();
        config[field] = value;
        Architecture::from_config(&config).unwrap_err().to_string()
    }

    #[test]
    fn every_family_refuses_a_quantised_model_and_an_unknown_rope() {
        for family in FAMILIES {
            let family = family.model_type;
            let error = refusal(family, "quantization_config", json!({"bits": 4}));
            assert!(error.starts_with("config.json has quantization_config = {\"bits\":4}; expected none"), "{error}");
            if family != "mpt" {
                let error = refusal(family, "rope_scaling", json!({"rope_type": "spiral", "factor": 4.0}));
                assert!(
                    error.starts_with("config.json has rope_scaling.rope_type = \"spiral\"; expected one of"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn fields_that_change_the_numbers_and_are_not_followed_are_refused() {
        for (family, field, value, expected) in [
            ("llama", "partial_rotary_factor", json!(0.5), "partial_rotary_factor = 0.5; expected 1: this family"),
            ("mpt", "logit_scale", json!(0.5), "logit_scale = 0.5; expected null"),
            ("mpt", "no_bias", json!(false), "no_bias = false; expected true: mpt has no biases"),
            ("mpt", "attn_config", json!({"qk_ln": true}), "attn_config.qk_ln = true; expected false"),
            ("mpt", "attn_config", json!({"alibi": false}), "attn_config.alibi = false; expected true"),
            ("mpt", "n_heads", json!(0), "n_heads = 0; expected a number of at least 1"),
            ("mixtral", "router_jitter_noise", json!(0.1), "router_jitter_noise = 0.1; expected 0.0"),
            ("mixtral", "num_experts_per_tok", json!(9), "num_experts_per_tok = 9; expected 1 to 8, the experts"),
            ("qwen3_moe", "mlp_only_layers", json!("none"), "mlp_only_layers = \"none\"; expected a list"),
            ("gemma3_text", "attn_logit_softcapping", json!(50.0), "attn_logit_softcapping = 50.0; expected null"),
            ("gemma3_text", "rope_parameters", json!({"rope_type": "linear"}), "rope_parameters.rope_type = "),
            ("phi3", "partial_rotary_factor", json!(1.5), "partial_rotary_factor = 1.5; expected a number above 0"),
            (
                "phi3",
                "rope_scaling",
                json!({"type": "linear", "factor": 2.0}),
                "rope_scaling.type = \"linear\"; expected",
            ),
            (
                "phi3",
                "rope_scaling",
                json!({"type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [1.0]}),
                "rope_scaling.long_factor = [1.0]; expected a list of 2 numbers above 0",
            ),
            ("mistral", "sliding_window", json!(0), "sliding_window = 0; expected a number of at least 1"),
            (
                "llama",
                "rope_scaling",
                json!({"type": "linear", "factor": 0}),
                "rope_scaling.factor = 0; expected a number",
            ),
        ] {
            let error = refusal(family, field, value);
            assert!(error.starts_with(&format!("config.json has {expected}")), "{family}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_what_can() {
        let mut config = new_config(&small("llama")).unwrap();
        config["rope_scaling"] = json!({"rope_type": "spiral", "factor": 4.0});
        let error = Architecture::from_config(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json has rope_scaling.rope_type = \"spiral\"; expected one of default, linear, dynamic, yarn, longrope, llama3"
        );
        config["rope_scaling"] = Value::Null;
        config["hidden_act"] = json!("relu");
        let error = Architecture::from_config(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json has hidden_act = \"relu\"; expected one of silu, gelu, gelu_pytorch_tanh"
        );
        config["hidden_act"] = json!("silu");
        config["num_key_value_heads"] = json!(3);
        let error = Architecture::from_config(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json has num_key_value_heads = 3; expected a divisor of num_attention_heads = 4"
        );
        let object = config.as_object_mut().unwrap();
        object.remove("vocab_size");
        let error = Architecture::from_config(&config).unwrap_err();
        assert_eq!(error.to_string(), "config.json has no field \"vocab_size\"; expected a whole number");
    }
}
