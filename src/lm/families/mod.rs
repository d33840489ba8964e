//! The table of model families: `model_type` to the function that turns a `config.json`
//! into an [`Architecture`], and the one that writes the configuration of a fresh model.
//!
//! It must not know tensors. A new family is one file here and one row of [`FAMILIES`].

mod fields;
mod gemma2;
mod llama;
mod qwen2;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::arch::{Architecture, read_config};
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
    Family { model_type: "llama", architecture: llama::llama, config: llama::llama_config },
    Family { model_type: "mistral", architecture: llama::mistral, config: llama::mistral_config },
    Family { model_type: "qwen2", architecture: qwen2::architecture, config: qwen2::config },
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
    config.insert("hidden_size".into(), json!(model.hidden_size));
    config.insert("intermediate_size".into(), json!(model.intermediate_size));
    config.insert("num_hidden_layers".into(), json!(model.layers));
    config.insert("num_attention_heads".into(), json!(model.heads));
    config.insert("num_key_value_heads".into(), json!(model.kv_heads));
    config.insert("head_dim".into(), json!(model.hidden_size / model.heads.max(1)));
    config.insert("max_position_embeddings".into(), json!(model.max_positions));
    config.insert("tie_word_embeddings".into(), json!(model.tied_embeddings));
    config.insert("initializer_range".into(), json!(fields::INITIALIZER_RANGE));
    config.insert("attention_dropout".into(), json!(0.0));
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
    Architecture::from_config(&config)?;
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
    if arch.head_dim < 2 || arch.head_dim % 2 != 0 {
        return wrong("head_dim", arch.head_dim, "an even number, for rotary embedding".into());
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
            intermediate_size: 40,
            layers: 2,
            heads: 4,
            kv_heads: 2,
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
            // A projection of queries [16, 16] and no head of its own.
            assert!(arch.weights().iter().all(|weight| weight.name != "lm_head.weight"));
        }
    }

    #[test]
    fn an_unknown_family_lists_the_known_ones() {
        let error = Architecture::from_config(&json!({"model_type": "lama"})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "model_type \"lama\" in config.json is not a known family; known are gemma2, llama, mistral, qwen2"
        );
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_what_can() {
        let mut config = new_config(&small("llama")).unwrap();
        config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0});
        let error = Architecture::from_config(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json has rope_scaling.rope_type = \"yarn\"; expected one of default, linear, llama3"
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
