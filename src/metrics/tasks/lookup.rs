//! The value of a key in a table of four that the prompt gives.

use super::{Problem, Task, same_number, spaced};
use crate::rng::Rng;

const KEYS: &str = "abcdefghij";
const N_ENTRIES: usize = 4;

pub const TASK: Task =
    Task { name: "lookup", doc: "finds the value of a key in a table of four entries", generate, grade: same_number };

fn generate(rng: &mut Rng) -> Problem {
    let keys = rng.distinct(KEYS, N_ENTRIES);
    let entries: Vec<(char, u64)> = keys.into_iter().map(|key| (key, rng.below(10))).collect();
    let (key, value) = entries[rng.index(N_ENTRIES)];
    let table: Vec<String> = entries.iter().map(|(key, value)| format!("{key} {value}")).collect();
    let mut sorted = entries.clone();
    sorted.sort_unstable();
    Problem {
        prompt: format!("lookup {key} in {}", table.join(" ")),
        answer: value.to_string(),
        solution: format!("entry {key} {value} => {value}"),
        // The order of the entries makes no other problem.
        identity: format!(
            "{key} {}",
            spaced(sorted.iter().flat_map(|(key, value)| format!("{key}{value}").chars().collect::<Vec<_>>()))
        ),
    }
}
