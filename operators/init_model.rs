//! `init_model`: a new model with random weights.

use fuseline_contract::{
    Execute, Input, Kind, Operator, Output, Part, Place, Ports, Problems, Run, StageError, Traits,
};
use fuseline_lm::tokenizer::Tokenizer;
use fuseline_lm::{Architecture, Decoder, Device, NewModel, checkpoint, families, new_config, set_threads};
use fuseline_weights::Float;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::errors;

/// Parameters of `init_model`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The family, as `model_type` in `config.json`: `gemma2`, `gemma3_text`, `internlm2`, `llama`, `mistral`, `mixtral`,
    /// `mpt`, `olmo2`, `olmoe`, `phi3`, `qwen2`, `qwen2_moe`, `qwen3`, `qwen3_moe`. Experts are eight, two a token.
    pub family: String,
    /// Width of the residual stream; a multiple of `heads`.
    pub hidden_size: i64,
    /// Width inside the feed-forward block.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub layers: i64,
    /// Number of query heads.
    pub heads: i64,
    /// Number of key and value heads; divides `heads`. All heads where absent.
    #[serde(default)]
    pub kv_heads: Option<i64>,
    /// Longest sequence, in tokens.
    pub max_positions: i64,
    /// Whether the head is the embedding's own matrix.
    #[serde(default = "yes")]
    pub tied_embeddings: bool,
    /// Standard deviation of fresh matrices. The default is the published families'; small models learn faster from more.
    #[serde(default = "usual_range")]
    pub initializer_range: f64,
}

/// huggingface/transformers `configuration_llama.py` and its siblings.
const DEFAULT_INITIALIZER_RANGE: f64 = 0.02;

fn usual_range() -> f64 {
    DEFAULT_INITIALIZER_RANGE
}

fn yes() -> bool {
    true
}

impl Config {
    fn model(&self, vocab_size: i64) -> NewModel {
        NewModel {
            family: self.family.clone(),
            vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            max_positions: self.max_positions,
            tied_embeddings: self.tied_embeddings,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            pad_token_id: None,
        }
    }
}

/// See [`Operator::MANUAL`].
pub struct InitModel;

impl Operator for InitModel {
    const NAME: &'static str = "init_model";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "lm.init", version: 1 }];
    const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: true, ..Traits::PURE };
    const MANUAL: &'static str = "\
Makes a new model with random weights.

The weights depend on the sizes and the seed alone: normal with
deviation `initializer_range`, norms at one. The vocabulary, special tokens and chat
template are those of `tokenizer`. The folder loads in transformers unchanged.";
    const EXAMPLE: &'static str = "op: init_model\ninputs: {tokenizer: vocabulary}\n\
        with: {family: qwen2, hidden_size: 96, intermediate_size: 256, layers: 4, heads: 4, max_positions: 128}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![Input::one("tokenizer", Kind::Model, "a tokenizer, or a model whose tokenizer to take")],
            outputs: vec![Output::new("model", Kind::Model, "the new model")],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        for (name, value) in [
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("layers", config.layers),
            ("heads", config.heads),
            ("kv_heads", config.kv_heads.unwrap_or(1)),
            ("max_positions", config.max_positions),
        ] {
            problems.require(value >= 1, name, || format!("{value} must be at least 1"));
        }
        if !problems.0.is_empty() {
            return;
        }
        problems.require(config.hidden_size % config.heads == 0, "heads", || {
            format!("{} does not divide hidden_size {}", config.heads, config.hidden_size)
        });
        let kv_heads = config.kv_heads.unwrap_or(config.heads);
        problems.require(config.heads % kv_heads == 0, "kv_heads", || {
            format!("{kv_heads} does not divide heads {}", config.heads)
        });
        problems.require(config.initializer_range > 0.0, "initializer_range", || "must be above 0".into());
        let family = config.family.as_str();
        problems.require(families::FAMILIES.iter().any(|known| known.model_type == family), "family", || {
            format!("{family:?} is not a known family; known are {}", families::known())
        });
    }
}

impl Execute for InitModel {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        set_threads(run.threads());
        let from = run.model("tokenizer")?.path;
        let tokenizer = Tokenizer::load(&from).map_err(errors::lm)?;
        let id = |token: Option<&fuseline_lm::tokenizer::SpecialToken>| token.map(|token| i64::from(token.id));
        let model = NewModel {
            bos_token_id: id(tokenizer.bos()),
            eos_token_ids: tokenizer.stop_ids().iter().map(|id| i64::from(*id)).collect(),
            pad_token_id: id(tokenizer.pad()),
            ..config.model(tokenizer.vocab_size() as i64)
        };
        let mut fields = new_config(&model).map_err(errors::lm)?;
        fields["initializer_range"] = config.initializer_range.into();
        let architecture = Architecture::from_config(&fields).map_err(errors::lm)?;
        let decoder = Decoder::init(architecture, run.seed(), Device::Cpu, fuseline_lm::Kind::Float);
        let out = run.model_folder("model")?;
        checkpoint::carry_files(&from, &out).map_err(errors::lm)?;
        decoder.save(&out, Float::F32).map_err(errors::lm)
    }
}
