//! `train_tokenizer`: a vocabulary learned from texts.

use fuseline_contract::rows::Message;
use fuseline_contract::{
    Execute, Input, Kind, Operator, Output, Part, Place, Ports, Problems, Run, StageError, Table, Traits,
};
use fuseline_lm::template::ChatStyle;
use fuseline_lm::tokenizer::{TokenizerKind, TrainTokenizer, train};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{errors, rows::column};

/// A pair seen once says nothing about the next text; the trainers of gpt2 and llama use 2 as well.
const DEFAULT_MIN_FREQUENCY: u64 = 2;

/// Parameters of `train_tokenizer`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The vocabulary's kind.
    pub kind: KindName,
    /// Tokens at most; special tokens and the 256 bytes count.
    pub vocab_size: usize,
    /// The chat format, which brings its template and special tokens.
    pub chat: ChatName,
    /// How often a pair must occur to be merged; for the two BPE kinds.
    #[serde(default = "default_min_frequency")]
    pub min_frequency: u64,
}

fn default_min_frequency() -> u64 {
    DEFAULT_MIN_FREQUENCY
}

/// A vocabulary's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    /// Merges of characters, as llama 2 has.
    Bpe,
    /// Merges of bytes, as qwen2 and llama 3 have.
    ByteLevelBpe,
    /// Pieces by likelihood, as gemma has.
    Unigram,
}

/// A chat format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatName {
    /// `<|im_start|>role … <|im_end|>`, as qwen2 writes it.
    Chatml,
    /// `<|start_header_id|>role<|end_header_id|> … <|eot_id|>`, as llama 3 writes it.
    Llama3,
    /// `<start_of_turn>user … <end_of_turn>`, as gemma writes it.
    Gemma,
}

/// See [`Operator::MANUAL`].
pub struct TrainTokenizerOperator;

impl Operator for TrainTokenizerOperator {
    const NAME: &'static str = "train_tokenizer";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "lm.tokenizer", version: 1 }];
    const TRAITS: Traits = Traits { place: Place::Worker, ..Traits::PURE };
    const MANUAL: &'static str = "\
Learns a vocabulary from texts.

Learns from every text column it knows: the contents of `messages`,
`completion`, `text`, `chosen` and `rejected`. The output is a folder with
`tokenizer.json`, its configuration and a chat template, to be given to
`init_model`; transformers loads it unchanged.";
    const EXAMPLE: &'static str = "op: train_tokenizer\ninputs: {texts: lessons.examples}\n\
        with: {kind: byte_level_bpe, vocab_size: 400, chat: chatml}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![Input::one("texts", Kind::AnyTable, "a table with text columns")],
            outputs: vec![Output::new("tokenizer", Kind::Model, "the tokenizer's files")],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(config.vocab_size >= 270, "vocab_size", || {
            format!("{} is too small: 256 bytes and the special tokens alone need about 270", config.vocab_size)
        });
        problems.require(config.min_frequency >= 1, "min_frequency", || "must be at least 1".into());
    }
}

impl Execute for TrainTokenizerOperator {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let texts = texts(&run.table("texts")?)?;
        if texts.is_empty() {
            return Err(StageError::input("the table bound to \"texts\" holds no text")
                .hint("it needs a column messages, completion, text, chosen or rejected with at least one row"));
        }
        let chat = match config.chat {
            ChatName::Chatml => ChatStyle::Chatml,
            ChatName::Llama3 => ChatStyle::Llama3,
            ChatName::Gemma => ChatStyle::Gemma,
        };
        let params = TrainTokenizer {
            kind: match config.kind {
                KindName::Bpe => TokenizerKind::Bpe,
                KindName::ByteLevelBpe => TokenizerKind::ByteLevelBpe,
                KindName::Unigram => TokenizerKind::Unigram,
            },
            vocab_size: config.vocab_size,
            special: chat.special_tokens(),
            min_frequency: config.min_frequency,
            chat_template: Some(chat.template().to_owned()),
        };
        let trained = train(&params, &texts).map_err(errors::lm)?;
        if trained.vocab_size < config.vocab_size {
            run.note(format!("the texts give {} tokens, fewer than {}", trained.vocab_size, config.vocab_size));
        }
        trained.save(&run.model_folder("tokenizer")?).map_err(errors::lm)
    }
}

/// Every text of the columns that hold any.
fn texts(table: &Table) -> Result<Vec<String>, StageError> {
    let mut texts = Vec::new();
    if table.has("messages") {
        texts.extend(column::<Vec<Message>>(table, "messages")?.into_iter().flatten().map(|message| message.content));
    }
    for name in ["completion", "text", "chosen", "rejected"] {
        if table.has(name) {
            texts.extend(column::<Option<String>>(table, name)?.into_iter().flatten());
        }
    }
    Ok(texts)
}
