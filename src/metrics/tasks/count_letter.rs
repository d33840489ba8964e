//! How often a letter occurs in a row of six, with a running tally.

use super::{Problem, Task, same_number, spaced};
use crate::rng::Rng;

const ALPHABET: [char; 4] = ['a', 'b', 'c', 'd'];
const N_LETTERS: usize = 6;

pub const TASK: Task = Task {
    name: "count_letter",
    doc: "counts a letter in a row of six, keeping a tally letter by letter",
    generate,
    grade: same_number,
};

fn generate(rng: &mut Rng) -> Problem {
    let wanted = ALPHABET[rng.index(ALPHABET.len())];
    let letters: Vec<char> = (0..N_LETTERS).map(|_| ALPHABET[rng.index(ALPHABET.len())]).collect();
    let tally: Vec<String> =
        (1..=N_LETTERS).map(|n| letters[..n].iter().filter(|c| **c == wanted).count().to_string()).collect();
    let answer = tally[N_LETTERS - 1].clone();
    Problem {
        prompt: format!("count {wanted} in {}", spaced(letters.iter().copied())),
        solution: format!("tally {} => {answer}", tally.join(" ")),
        identity: format!("{wanted} {}", letters.iter().collect::<String>()),
        answer,
    }
}
