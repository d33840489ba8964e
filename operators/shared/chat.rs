//! A chat model, loaded for a stage: decoder, tokenizer and template.

use std::path::Path;

use fuseline_contract::rows::Message;
use fuseline_contract::{Part, StageError};
use fuseline_lm::template::{self, ChatTemplate};
use fuseline_lm::tokenizer::Tokenizer;
use fuseline_lm::{Decoder, Device, Kind, set_threads};

use super::errors;

/// Shared code that every stage with a chat model uses.
pub const DECODER: Part = Part { name: "lm.decoder", version: 1 };
/// Rendering and encoding of conversations.
pub const CHAT: Part = Part { name: "lm.chat", version: 1 };
/// The numerics class of stages with a model.
pub const NUMERICS: &str = "f32/cpu";

/// A tokenizer with its chat template.
pub struct Encoder {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Encoder {
    /// Loads both from a model folder.
    pub fn load(folder: &Path) -> Result<Self, StageError> {
        let tokenizer = Tokenizer::load(folder).map_err(errors::lm)?;
        let template = ChatTemplate::load(folder, &tokenizer).map_err(errors::lm)?.ok_or_else(|| {
            StageError::input("the model has no chat template")
                .hint("add chat_template.jinja to its folder, or chat_template to its tokenizer_config.json")
        })?;
        Ok(Self { tokenizer, template })
    }

    /// Ids of a prompt with the header of the assistant's turn.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, StageError> {
        self.template.encode_prompt(&self.tokenizer, &turns(messages)).map_err(errors::lm)
    }

    /// Ids of a prompt and of an answer with its end token.
    pub fn answered(&self, messages: &[Message], answer: &str) -> Result<(Vec<u32>, Vec<u32>), StageError> {
        self.template.encode_chat(&self.tokenizer, &turns(messages), answer).map_err(errors::lm)
    }
}

fn turns(messages: &[Message]) -> Vec<template::Message> {
    messages.iter().map(|message| template::Message::new(&message.role, &message.content)).collect()
}

/// A chat model.
pub struct ChatModel {
    /// The weights.
    pub decoder: Decoder,
    /// Tokenizer and template.
    pub encoder: Encoder,
}

impl ChatModel {
    /// Checks that a folder can be loaded, and gives its encoder; the weights are not read.
    pub fn check(folder: &Path) -> Result<Encoder, StageError> {
        let encoder = Encoder::load(folder)?;
        let architecture = Decoder::check(folder).map_err(errors::lm)?;
        encoder.tokenizer.check_model(architecture.vocab_size as usize).map_err(errors::lm)?;
        Ok(encoder)
    }

    /// Loads a model folder in float32 on the CPU, for so many threads.
    pub fn load(folder: &Path, threads: usize) -> Result<Self, StageError> {
        set_threads(threads);
        let encoder = Self::check(folder)?;
        let decoder = Decoder::load(folder, Device::Cpu, Kind::Float).map_err(errors::lm)?;
        Ok(Self { decoder, encoder })
    }
}
