//! Texts: how alike two are (how many edits lie between them, how many runs of
//! words they share), how one falls into sentences and words, in which language
//! it is written, and whether it is JSON. Pure functions; they must not know who wrote a text
//! or why it is looked at.

mod bleu;
mod edit;
mod entities;
mod json;
mod language;
mod mersenne;
mod ngram;
mod punkt;
pub mod python;
mod rouge;
mod treebank;

pub use bleu::BleuCounts;
pub use edit::{edit_distance, edit_similarity};
pub use entities::{Entities, EntityRules};
pub use json::{is_json, json_members};
pub use language::detect as detect_language;
pub use ngram::{ngram_jaccard, ngram_overlap};
pub use punkt::sentences;
pub use rouge::{rouge_l, rouge_n};
pub use treebank::words;

#[cfg(test)]
mod tests;
