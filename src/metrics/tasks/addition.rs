//! Sums of two numbers of two digits, worked from the ones to the tens.

use super::{Problem, Task, same_number, spaced};
use crate::rng::Rng;

pub const TASK: Task = Task {
    name: "addition",
    doc: "adds two numbers of two digits, showing ones, carry and tens",
    generate,
    grade: same_number,
};

fn generate(rng: &mut Rng) -> Problem {
    let (left, right) = (rng.between(10, 99), rng.between(10, 99));
    let ones = left % 10 + right % 10;
    let carry = ones / 10;
    let tens = left / 10 + right / 10 + carry;
    // Every column is written with two digits and the sum with three, so that
    // each symbol has its place.
    let column = |sum: u64| spaced(format!("{sum:02}").chars());
    Problem {
        prompt: format!("add {} + {}", spaced(left.to_string().chars()), spaced(right.to_string().chars())),
        answer: (left + right).to_string(),
        solution: format!(
            "ones {} + {} = {} , tens {} + {} + {carry} = {} => {} {}",
            left % 10,
            right % 10,
            column(ones),
            left / 10,
            right / 10,
            column(tens),
            column(tens),
            ones % 10
        ),
        identity: format!("{} {}", left.min(right), left.max(right)),
    }
}
