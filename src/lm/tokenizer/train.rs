//! New tokenizers from texts: byte-level BPE as qwen2 and llama 3 have it, BPE over characters as llama 2 has it, and
//! a unigram vocabulary as gemma's first SentencePiece models and t5 have it, written as the files that transformers'
//! `AutoTokenizer` reads.
//!
//! The bytes depend on the texts and the parameters alone: words are counted into an ordered map, merges are learned
//! by [`super::bpe`], and the unigram trainer of the `tokenizers` crate (Kudo 2018, arXiv 1804.10959) is given sorted
//! words on one thread, since it sums floats by thread and numbers rare letters in a hash set's order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use super::bpe;
use crate::error::{Error, Result};

/// Longest word, in characters, that the unigram trainer sees; longer ones are cut. Its forward sums overflow on
/// very long ones.
const LONGEST_WORD: usize = 256;
/// Log-probability of a byte token in a unigram vocabulary: so low that `<0x41>` in a text is spelled by letters.
const BYTE_SCORE: f64 = -1e4;
/// What the `tokenizers` unigram trainer adds from one letter that it had lost to the next (`unigram/trainer.rs`,
/// `min_score_penalty_delta`).
const LOST_LETTER_STEP: f64 = 0.0001;
/// The characters of a byte token's name; they are always in a unigram alphabet (see [`BYTE_SCORE`]).
const BYTE_NAME_LETTERS: &str = "<0x123456789ABCDEF>";
/// Words by qwen2's rule (`Qwen/Qwen2` `tokenizer.json`): contractions, letters with one leading mark, single digits,
/// marks, line ends, spaces.
const BYTE_LEVEL_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Which vocabulary is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// Merges of characters, spaces written as `▁`, other characters as bytes (`<0x41>`): llama 2, mistral.
    Bpe,
    /// Merges of bytes: qwen2, llama 3, gpt2. Every text decodes to itself.
    ByteLevelBpe,
    /// Pieces by likelihood, spaces written as `▁`, other characters as bytes: gemma, t5.
    Unigram,
}

/// The special tokens of a new vocabulary; they get the first ids in this order: `pad`, `eos`, `bos`, `unk`,
/// `additional`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// Padding.
    pub pad: Option<String>,
    /// End of a text, or of a turn where the chat template ends turns with it.
    pub eos: String,
    /// Beginning of a text; added before every text that is encoded with special tokens.
    pub bos: Option<String>,
    /// What the vocabulary lacks. Unneeded where characters fall back to bytes; kept because loaders of llama and gemma
    /// vocabularies ask for it.
    pub unk: Option<String>,
    /// Marks of the chat template.
    pub additional: Vec<String>,
}

impl SpecialTokens {
    /// Every token once, in the order of ids.
    pub fn all(&self) -> Vec<String> {
        let roles = [self.pad.as_ref(), Some(&self.eos), self.bos.as_ref(), self.unk.as_ref()];
        let mut out: Vec<String> = Vec::new();
        for token in roles.into_iter().flatten().chain(&self.additional) {
            if !out.contains(token) {
                out.push(token.clone());
            }
        }
        out
    }
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// Which vocabulary.
    pub kind: TokenizerKind,
    /// Tokens at most, special and byte tokens included; fewer if the texts give no more.
    pub vocab_size: usize,
    /// Special tokens.
    pub special: SpecialTokens,
    /// Least number of times that a pair must occur to be merged (BPE kinds; the unigram trainer has its own rule).
    #[serde(default = "default_min_frequency")]
    pub min_frequency: u64,
    /// Chat template to write into `tokenizer_config.json`.
    pub chat_template: Option<String>,
}

/// A pair seen once says nothing about the next text; gpt2's and llama's trainers use 2 as well.
fn default_min_frequency() -> u64 {
    2
}

/// A trained tokenizer as the bytes of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`.
    pub config: String,
    /// `special_tokens_map.json`.
    pub special_tokens_map: String,
    /// How many tokens there are.
    pub vocab_size: usize,
}

impl Trained {
    /// Writes the files into a folder that exists.
    pub fn save(&self, dir: &Path) -> Result<()> {
        for (name, text) in [
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.config),
            ("special_tokens_map.json", &self.special_tokens_map),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }
}

/// Learns a vocabulary from texts.
///
/// Special tokens that the texts spell cut them and are not learned from. Text that is made of seen characters
/// decodes to itself; so does every other for the byte-level kind, and by byte tokens for the other two, which
/// however cannot tell a written `▁` from a space.
pub fn train<T: AsRef<str> + Sync>(params: &TrainTokenizer, texts: &[T]) -> Result<Trained> {
    let special = params.special.all();
    let bytes: Vec<String> = match params.kind {
        TokenizerKind::ByteLevelBpe => Vec::new(),
        _ => (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect(),
    };
    let first: Vec<String> = special.iter().chain(&bytes).cloned().collect();
    let least = special.len() + 256 + 1;
    if params.vocab_size < least || params.vocab_size > u32::MAX as usize / 2 {
        return Err(invalid(format!(
            "vocab_size is {}, but {} special tokens and 256 bytes need at least {least}",
            params.vocab_size,
            special.len()
        )));
    }
    if let Some(token) = first.iter().find(|token| token.is_empty()) {
        return Err(invalid(format!("a special token is {token:?}; write its text")));
    }

    let pre_tokenizer = pre_tokenizer(params.kind);
    let words = count_words(&pre_tokenizer, &special, texts)?;
    if words.is_empty() {
        return Err(invalid("there are no texts to learn a vocabulary from".to_string()));
    }
    let room = params.vocab_size - first.len();
    let (model, n_tokens) = match params.kind {
        TokenizerKind::ByteLevelBpe => {
            let mut alphabet: Vec<char> =
                tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
            alphabet.sort_unstable();
            let learned = bpe::learn(&first, &alphabet, &words, params.vocab_size, params.min_frequency);
            (bpe_model(&learned, false, None), learned.tokens.len())
        }
        TokenizerKind::Bpe => {
            let alphabet = alphabet(&words, room);
            let learned = bpe::learn(&first, &alphabet, &words, params.vocab_size, params.min_frequency);
            let unk = params.special.unk.as_deref();
            (bpe_model(&learned, true, unk), learned.tokens.len())
        }
        TokenizerKind::Unigram => {
            let pieces = unigram_pieces(&words, &first, room)?;
            let unk = params.special.unk.as_ref().and_then(|unk| special.iter().position(|token| token == unk));
            let scored = |token: &String| {
                let score = if bytes.contains(token) { BYTE_SCORE } else { 0.0 };
                json!([token, score])
            };
            let vocab: Vec<Value> =
                first.iter().map(scored).chain(pieces.iter().map(|(piece, score)| json!([piece, score]))).collect();
            let n_tokens = vocab.len();
            // The model asks for an `unk_id` even though every character falls back to bytes.
            let model = json!({"type": "Unigram", "unk_id": unk.unwrap_or(0), "vocab": vocab, "byte_fallback": true});
            (model, n_tokens)
        }
    };
    assemble(params, &special, model, n_tokens)
}

/// The model part of `tokenizer.json` for merges.
fn bpe_model(learned: &bpe::Merges, byte_fallback: bool, unk: Option<&str>) -> Value {
    let vocab: serde_json::Map<String, Value> =
        learned.tokens.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id))).collect();
    let merges: Vec<Value> = learned.merges.iter().map(|(left, right)| json!([left, right])).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": byte_fallback, "byte_fallback": byte_fallback, "ignore_merges": false,
        "vocab": vocab, "merges": merges,
    })
}

/// The files around a model; read back once, so that what cannot be loaded is never written.
fn assemble(params: &TrainTokenizer, special: &[String], model: Value, n_tokens: usize) -> Result<Trained> {
    let flags = |content: &str| {
        json!({"content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    };
    let mut added_tokens = Vec::new();
    let mut decoder_tokens = serde_json::Map::new();
    for (id, token) in special.iter().enumerate() {
        decoder_tokens.insert(id.to_string(), flags(token));
        let mut entry = json!({"id": id});
        if let (Value::Object(entry), Value::Object(rest)) = (&mut entry, flags(token)) {
            entry.extend(rest);
        }
        added_tokens.push(entry);
    }
    let post_processor = params.special.bos.as_ref().map(|bos| {
        let id = special.iter().position(|token| token == bos);
        let mark = json!({"SpecialToken": {"id": bos, "type_id": 0}});
        let sequence = |name: &str, type_id: u8| json!({"Sequence": {"id": name, "type_id": type_id}});
        json!({
            "type": "TemplateProcessing",
            "single": [mark, sequence("A", 0)],
            "pair": [mark, sequence("A", 0), {"SpecialToken": {"id": bos, "type_id": 1}}, sequence("B", 1)],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
        })
    });
    let decoder = match params.kind {
        TokenizerKind::ByteLevelBpe => {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false})
        }
        _ => json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]}),
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens, "normalizer": null,
        "pre_tokenizer": pre_tokenizer(params.kind), "post_processor": post_processor, "decoder": decoder,
        "model": model,
    });
    let mut map = serde_json::Map::new();
    for (role, token) in [
        ("bos_token", params.special.bos.as_ref()),
        ("eos_token", Some(&params.special.eos)),
        ("pad_token", params.special.pad.as_ref()),
        ("unk_token", params.special.unk.as_ref()),
    ] {
        if let Some(token) = token {
            map.insert(role.to_string(), Value::from(token.clone()));
        }
    }
    if !params.special.additional.is_empty() {
        map.insert("additional_special_tokens".to_string(), json!(params.special.additional));
    }
    let mut config = serde_json::Map::new();
    config.insert("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast"));
    config.insert("added_tokens_decoder".to_string(), Value::Object(decoder_tokens));
    config.insert("clean_up_tokenization_spaces".to_string(), json!(false));
    config.extend(map.clone());
    if let Some(template) = &params.chat_template {
        config.insert("chat_template".to_string(), json!(template));
    }
    let text = pretty(&tokenizer);
    tokenizers::Tokenizer::from_bytes(text.as_bytes())
        .map_err(|error| invalid(format!("the tokenizers crate refuses what was trained: {error}")))?;
    Ok(Trained {
        tokenizer: text,
        config: pretty(&Value::Object(config)),
        special_tokens_map: pretty(&Value::Object(map)),
        vocab_size: n_tokens,
    })
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("maps with text keys serialise");
    text.push('\n');
    text
}

/// How texts are cut into words, as `tokenizer.json` writes it.
///
/// For `▁` vocabularies: a line end and each digit stand alone (llama 2 splits digits too), and a space begins the
/// word after it; nothing is put before the first word, so that decoding restores the text.
fn pre_tokenizer(kind: TokenizerKind) -> Value {
    match kind {
        TokenizerKind::ByteLevelBpe => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": BYTE_LEVEL_WORDS}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]}),
        _ => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true},
        ]}),
    }
}

/// How often each word occurs.
fn count_words<T: AsRef<str> + Sync>(rule: &Value, special: &[String], texts: &[T]) -> Result<BTreeMap<String, u64>> {
    let rule: PreTokenizerWrapper =
        serde_json::from_value(rule.clone()).map_err(|error| invalid(format!("word rule: {error}")))?;
    let counted = texts
        .par_chunks(256)
        .map(|chunk| {
            let mut counts: HashMap<String, u64> = HashMap::new();
            for text in chunk {
                for part in without_special(text.as_ref(), special) {
                    let mut split = PreTokenizedString::from(part);
                    rule.pre_tokenize(&mut split)
                        .map_err(|error| invalid(format!("a text cannot be cut into words: {error}")))?;
                    for (word, _, _) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                        match counts.get_mut(word) {
                            Some(count) => *count += 1,
                            None => {
                                counts.insert(word.to_string(), 1);
                            }
                        }
                    }
                }
            }
            Ok::<_, Error>(counts)
        })
        .try_reduce(HashMap::new, |mut left, right| {
            for (word, count) in right {
                *left.entry(word).or_default() += count;
            }
            Ok(left)
        })?;
    Ok(counted.into_iter().filter(|(word, _)| !word.is_empty()).collect())
}

/// The parts of a text between special tokens.
fn without_special<'a>(text: &'a str, special: &[String]) -> Vec<&'a str> {
    let mut parts = vec![text];
    for token in special {
        parts = parts.into_iter().flat_map(|part| part.split(token.as_str())).collect();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The characters of the words in order of code points; where there are more than `room`, the most frequent ones.
fn alphabet(words: &BTreeMap<String, u64>, room: usize) -> Vec<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in words {
        for letter in word.chars() {
            *counts.entry(letter).or_default() += count;
        }
    }
    let mut letters: Vec<(char, u64)> = counts.into_iter().collect();
    letters.sort_by_key(|(letter, count)| (std::cmp::Reverse(*count), *letter));
    letters.truncate(room);
    let mut letters: Vec<char> = letters.into_iter().map(|(letter, _)| letter).collect();
    letters.sort_unstable();
    letters
}

/// Pieces with their log-probabilities, most likely first, at most `room`.
fn unigram_pieces(words: &BTreeMap<String, u64>, first: &[String], room: usize) -> Result<Vec<(String, f64)>> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut add = |word: String, count: u64| {
        let held = counts.entry(word).or_default();
        *held = held.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    };
    for letter in BYTE_NAME_LETTERS.chars() {
        add(letter.to_string(), 1);
    }
    let kept: BTreeSet<char> = alphabet(words, room.saturating_sub(BYTE_NAME_LETTERS.len())).into_iter().collect();
    for (word, count) in words {
        // Characters beyond the alphabet's room, and `\0`, which the trainer uses as its border, are left to bytes.
        for run in word.split(|letter| letter == '\0' || !kept.contains(&letter)) {
            let letters: Vec<char> = run.chars().collect();
            for part in letters.chunks(LONGEST_WORD) {
                add(part.iter().collect(), *count);
            }
        }
    }
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(room as u32)
        .build()
        .map_err(|error| invalid(error.to_string()))?;
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| invalid(format!("no thread for the unigram trainer: {error}")))?;
    let sentences: Vec<(String, u32)> = counts.into_iter().collect();
    let mut model = Unigram::default();
    one_thread
        .install(|| trainer.do_train(sentences, &mut model))
        .map_err(|error| invalid(format!("unigram vocabulary of {room} pieces: {error}")))?;
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    settle_lost_letters(&mut pieces);
    pieces.retain(|(piece, _)| !first.contains(piece));
    pieces.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    pieces.truncate(room);
    Ok(pieces)
}

/// Puts the letters that training lost, and which the trainer hands scores `min`, `min + step`, … in the order of
/// a hash set, into the order of their code points.
fn settle_lost_letters(pieces: &mut [(String, f64)]) {
    let lowest = pieces.iter().map(|piece| piece.1).fold(f64::INFINITY, f64::min);
    let mut lost: Vec<usize> = Vec::new();
    let mut penalty = 0.0;
    loop {
        let here: Vec<usize> = (0..pieces.len())
            .filter(|index| pieces[*index].1 == lowest + penalty && pieces[*index].0.chars().count() == 1)
            .collect();
        if here.is_empty() {
            break;
        }
        lost.extend(here);
        penalty += LOST_LETTER_STEP;
    }
    let mut names: Vec<String> = lost.iter().map(|index| pieces[*index].0.clone()).collect();
    names.sort_unstable();
    for (index, name) in lost.iter().zip(names) {
        pieces[*index].0 = name;
    }
}

fn invalid(problem: String) -> Error {
    Error::TrainTokenizer { problem }
}
