//! Differences of two numbers of two digits, worked from the ones to the tens.

use super::{Problem, Task, same_number, spaced};
use crate::rng::Rng;

pub const TASK: Task = Task {
    name: "subtraction",
    doc: "subtracts a number of two digits from a larger one, showing ones, borrowing and tens",
    generate,
    grade: same_number,
};

fn generate(rng: &mut Rng) -> Problem {
    let (one, other) = (rng.between(10, 99), rng.between(10, 99));
    let (left, right) = (one.max(other), one.min(other));
    let borrow = u64::from(left % 10 < right % 10);
    let ones = left % 10 + 10 * borrow - right % 10;
    let tens = left / 10 - right / 10 - borrow;
    Problem {
        prompt: format!("subtract {} - {}", spaced(left.to_string().chars()), spaced(right.to_string().chars())),
        answer: (left - right).to_string(),
        solution: format!(
            "ones {} - {} = {ones} borrow {borrow} , tens {} - {} - {borrow} = {tens} => {tens} {ones}",
            left % 10,
            right % 10,
            left / 10,
            right / 10,
        ),
        identity: format!("{left} {right}"),
    }
}
