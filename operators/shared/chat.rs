//! A chat model, loaded for a stage: decoder, tokenizer and template.

use std::path::Path;

use fuseline_contract::rows::Message;
use fuseline_contract::{Part, StageError};
use fuseline_lm::cpu::{Model, Number};
use fuseline_lm::template::{self, ChatTemplate};
use fuseline_lm::tokenizer::Tokenizer;
use fuseline_lm::{Architecture, Decoder, Device, Kind, set_threads};

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

    /// [`Self::load`], of a folder that can be loaded as a model; the weights are not read.
    pub fn check(folder: &Path) -> Result<Self, StageError> {
        let encoder = Self::load(folder)?;
        check_model(&encoder.tokenizer, folder)?;
        Ok(encoder)
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

/// Fails if a folder cannot be loaded as a model, or the tokenizer is another model's.
fn check_model(tokenizer: &Tokenizer, folder: &Path) -> Result<(), StageError> {
    // Before the weights, whose shapes would be wrong for the same reason.
    let architecture = Architecture::read(folder).map_err(errors::lm)?;
    tokenizer.check_model(architecture.vocab_size as usize).map_err(errors::lm)?;
    Decoder::check(folder).map_err(errors::lm)
}

fn turns(messages: &[Message]) -> Vec<template::Message> {
    messages.iter().map(|message| template::Message::new(&message.role, &message.content)).collect()
}

/// A chat model that answers and scores.
pub struct ChatModel {
    /// The weights, laid out for that.
    pub model: Model,
    /// Tokenizer and template.
    pub encoder: Encoder,
}

impl ChatModel {
    /// Loads a model folder in float32 on the CPU, for so many threads.
    pub fn load(folder: &Path, threads: usize) -> Result<Self, StageError> {
        let encoder = Encoder::check(folder)?;
        let model = Model::load(folder, Number::F32, threads).map_err(errors::lm)?;
        Ok(Self { model, encoder })
    }
}

/// A chat model that is trained.
pub struct Trainee {
    /// The weights.
    pub decoder: Decoder,
    /// Tokenizer and template.
    pub encoder: Encoder,
}

impl Trainee {
    /// Loads a model folder in float32 on the CPU, for so many threads.
    pub fn load(folder: &Path, threads: usize) -> Result<Self, StageError> {
        set_threads(threads);
        let encoder = Encoder::check(folder)?;
        let decoder = Decoder::load(folder, Device::Cpu, Kind::Float).map_err(errors::lm)?;
        Ok(Self { decoder, encoder })
    }
}

/// A model that scores plain texts; it needs no chat template.
pub struct TextModel {
    /// The weights, laid out for that.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

impl TextModel {
    /// Loads a model folder in float32 on the CPU, for so many threads.
    pub fn load(folder: &Path, threads: usize) -> Result<Self, StageError> {
        let tokenizer = Tokenizer::load(folder).map_err(errors::lm)?;
        check_model(&tokenizer, folder)?;
        let model = Model::load(folder, Number::F32, threads).map_err(errors::lm)?;
        Ok(Self { model, tokenizer })
    }
}
