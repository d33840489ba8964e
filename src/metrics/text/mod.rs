//! Likeness of two texts: how many edits lie between them, and how many runs of
//! words they share. Pure functions of two texts; they must not know who wrote
//! them or why they are compared.

mod edit;
mod ngram;

pub use edit::{edit_distance, edit_similarity};
pub use ngram::{ngram_jaccard, ngram_overlap};
