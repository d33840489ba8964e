//! The grader of Minerva's evaluation on MATH: EleutherAI/lm-evaluation-harness,
//! `lm_eval/tasks/minerva_math/utils.py` (its `exact_match`). The answer stands
//! in "Final Answer: The final answer is … I hope it is correct."; both sides are
//! normalised by appendix D of the paper (Lewkowycz and others, arXiv
//! 2206.14858) and equal where their difference simplifies to zero. What cannot
//! be read as one expression (tuples, intervals, matrices) is never equal.
//!
//! Difference: a response without that sentence, which no chat model writes of itself, is judged by its last `\boxed`,
//! where the original finds no answer.

use std::sync::LazyLock;

use regex::Regex;

use super::algebra::{self, Reading, Value};
use super::{Verifier, boxed, opencompass, rewrite};

pub const VERIFIER: Verifier = Verifier {
    name: "minerva",
    doc: "the grader of Minerva's evaluation (lm-evaluation-harness): the final answer, or else the last \\boxed, normalised, equals the reference as an expression",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

fn extract(response: &str) -> Option<String> {
    let said = response.split("Final Answer: The final answer is").skip(1).find_map(|after| {
        let end = after.find(" I hope it is correct.")?;
        let answer = &after[..end];
        // One character, usually a full stop, stands between the answer and the closing words.
        let answer = answer.char_indices().next_back().map_or("", |(last, _)| &answer[..last]);
        (!answer.contains('\n')).then(|| answer.trim().to_owned())
    });
    said.or_else(|| boxed::last(response).map(str::to_owned)).filter(|answer| !answer.is_empty())
}

fn equal(reference: &str, answer: &str) -> bool {
    let read = |text: &str| match algebra::parse(
        &normalised(text),
        Reading { words: false, whole: false, mixed: false, separators: true },
    ) {
        Some(Value::Scalar(value)) => Some(value),
        _ => None,
    };
    match (read(reference), read(answer)) {
        (Some(reference), Some(answer)) => reference.equals(&answer),
        _ => false,
    }
}

fn normalised(text: &str) -> String {
    static MATHS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r".*?\$(.*?)\$.*").expect("a valid pattern"));
    static BOXED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\boxed\{(.*)\}").expect("a valid pattern"));
    let text = text.rsplit('=').next().unwrap_or_default();
    let text = opencompass::without_units(text, &[]);
    let text = MATHS.replace_all(&text, "$$$1$$").into_owned();
    let text =
        ["\\text{", "\\textbf{", "\\overline{"].iter().fold(text, |text, open| rewrite::unwrap_command(&text, open));
    opencompass::shorthand(&BOXED.replace_all(&text, "$1"))
}
