//! The larger of two numbers of three digits, compared digit by digit.

use std::cmp::Ordering;

use super::{Problem, Task, same_number};
use crate::rng::Rng;

pub const TASK: Task = Task {
    name: "compare_numbers",
    doc: "names the larger of two numbers of three digits, comparing digit by digit",
    generate,
    grade: same_number,
};

fn generate(rng: &mut Rng) -> Problem {
    let mut left = [rng.between(1, 9), rng.below(10), rng.below(10)];
    let mut right = [rng.between(1, 9), rng.below(10), rng.below(10)];
    // In a third of the problems the first digit decides, in a third the
    // second, in a third the last; drawn freely, nine in ten would be the first kind.
    let n_shared = rng.index(3);
    right[..n_shared].copy_from_slice(&left[..n_shared]);
    if left[n_shared] == right[n_shared] {
        // The first digit is never 0, so a step within 1..=9 keeps it valid.
        left[n_shared] = left[n_shared] % 9 + 1;
    }
    let digits = |number: &[u64; 3]| number.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let sign = |(a, b): (&u64, &u64)| {
        let sign = match a.cmp(b) {
            Ordering::Less => '<',
            Ordering::Equal => '=',
            Ordering::Greater => '>',
        };
        format!("{a} {sign} {b}")
    };
    let working: Vec<String> = left.iter().zip(&right).map(sign).collect();
    let larger = left.max(right);
    Problem {
        prompt: format!("larger {} or {}", digits(&left), digits(&right)),
        answer: larger.iter().map(u64::to_string).collect(),
        solution: format!("digits {} => {}", working.join(" , "), digits(&larger)),
        identity: format!("{} {}", digits(&left.min(right)), digits(&larger)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_larger_number() {
        let mut rng = Rng::new(1);
        for _ in 0..2000 {
            let problem = generate(&mut rng);
            let numbers: Vec<u32> = problem.prompt["larger ".len()..]
                .split(" or ")
                .map(|number| number.replace(' ', "").parse().expect("a number"))
                .collect();
            assert_ne!(numbers[0], numbers[1]);
            assert_eq!(problem.answer, numbers[0].max(numbers[1]).to_string());
            assert!(numbers.iter().all(|number| (100..1000).contains(number)), "{numbers:?}");
        }
    }
}
