//! GSM8K's usual grader: the number after the last `####`, the mark of the data
//! set's own solutions (openai/grade-school-math,
//! `grade_school_math/dataset.py`), or else the last number of the response, as
//! open-compass/opencompass (`opencompass/datasets/gsm8k.py`) and
//! EleutherAI/lm-evaluation-harness (`lm_eval/tasks/gsm8k`, `flexible-extract`)
//! take it. Numbers are compared by value, to 1e-6.

use std::sync::LazyLock;

use regex::Regex;

use super::Verifier;

pub const VERIFIER: Verifier = Verifier {
    name: "gsm8k",
    doc: "the usual grader of GSM8K: the number after ####, or else the last number, equals the reference's",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

/// Difference of numbers that count as equal.
const TOLERANCE: f64 = 1e-6;

fn extract(response: &str) -> Option<String> {
    let marked = response.rsplit_once("####").and_then(|(_, after)| numbers(after).next());
    marked.or_else(|| numbers(response).last())
}

/// Every number of a text, without dollar signs and thousands separators.
fn numbers(text: &str) -> impl Iterator<Item = String> + '_ {
    static NUMBER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"-?\$?\d+(?:,\d+)*(?:\.\d+)?").expect("a valid pattern"));
    NUMBER.find_iter(text).map(|found| found.as_str().replace(['$', ','], ""))
}

fn equal(reference: &str, answer: &str) -> bool {
    let value = |text: &str| extract(text).and_then(|number| number.parse::<f64>().ok());
    match (value(reference), value(answer)) {
        (Some(reference), Some(answer)) => (reference - answer).abs() < TOLERANCE,
        _ => false,
    }
}
