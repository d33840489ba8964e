//! Texts: how alike two are (how many edits lie between them, how many runs of
//! words they share), how one falls into sentences and words, and in which
//! language it is written. Pure functions; they must not know who wrote a text
//! or why it is looked at.

mod edit;
mod language;
mod mersenne;
mod ngram;
mod punkt;
pub mod python;
mod treebank;

pub use edit::{edit_distance, edit_similarity};
pub use language::detect as detect_language;
pub use ngram::{ngram_jaccard, ngram_overlap};
pub use punkt::sentences;
pub use treebank::words;
