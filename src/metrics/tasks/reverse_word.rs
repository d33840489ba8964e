//! A row of five different letters, backwards.

use super::{Problem, Task, same_symbols, spaced};
use crate::rng::Rng;

const ALPHABET: &str = "abcdefghij";
const N_LETTERS: usize = 5;

pub const TASK: Task =
    Task { name: "reverse_word", doc: "writes five different letters backwards", generate, grade: same_symbols };

fn generate(rng: &mut Rng) -> Problem {
    let letters = rng.distinct(ALPHABET, N_LETTERS);
    Problem {
        prompt: format!("reverse {}", spaced(letters.iter().copied())),
        answer: letters.iter().rev().collect(),
        solution: format!("reversed => {}", spaced(letters.iter().rev().copied())),
        identity: letters.iter().collect(),
    }
}
