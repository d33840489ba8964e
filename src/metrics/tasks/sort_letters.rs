//! Five different letters in the order of the alphabet.

use super::{Problem, Task, same_symbols, spaced};
use crate::rng::Rng;

const ALPHABET: &str = "abcdefghij";
const N_LETTERS: usize = 5;

pub const TASK: Task =
    Task { name: "sort_letters", doc: "sorts five different letters by the alphabet", generate, grade: same_symbols };

fn generate(rng: &mut Rng) -> Problem {
    let letters = rng.distinct(ALPHABET, N_LETTERS);
    let mut sorted = letters.clone();
    sorted.sort_unstable();
    Problem {
        prompt: format!("sort {}", spaced(letters.iter().copied())),
        answer: sorted.iter().collect(),
        solution: format!("sorted => {}", spaced(sorted)),
        identity: letters.iter().collect(),
    }
}
