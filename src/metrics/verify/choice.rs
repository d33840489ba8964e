//! Letters of multiple-choice answers, as published scripts read them from free
//! text. The reference is the letter of the right choice.
//!
//! Some of the scripts draw a letter at random where they find none; such an
//! answer has nothing extracted here and is wrong.

use std::sync::LazyLock;

use regex::Regex;

use super::Verifier;
use crate::text::python::strip;

macro_rules! pattern {
    ($pattern:expr) => {{
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a valid pattern"));
        &*PATTERN
    }};
}

/// TIGER-AI-Lab/MMLU-Pro, `evaluate_from_local.py`; FuseChat-3.0's `MC-Eval` has the same three patterns for MMLU-Pro,
/// MMLU and GPQA.
pub const MMLU_PRO: Verifier = Verifier {
    name: "mmlu_pro",
    doc: "MMLU-Pro's script: the letter after \"answer is\", else after \"Answer:\", else the last capital A to J alone",
    extract: |response| {
        letter(pattern!(r"answer is \(?([A-J])\)?"), response)
            .or_else(|| letter(pattern!(r".*[aA]nswer:\s*([A-J])"), response))
            .or_else(|| pattern!(r"\b[A-J]\b").find_iter(response).last().map(|found| found.as_str().to_owned()))
    },
    equal: |reference, answer| Ok(reference.trim() == answer),
};

/// MMLU-Pro, `compute_accuracy.py`, level 1.
pub const MMLU_PRO_FIRST: Verifier = Verifier {
    name: "mmlu_pro_first",
    doc: "the first pattern of MMLU-Pro's script: the letter after \"answer is\"",
    extract: |response| letter(pattern!(r"answer is \(?([A-J])\)?"), response),
    equal: |reference, answer| Ok(reference.trim() == answer),
};

/// openai/simple-evals, `common.py` (`ANSWER_PATTERN_MULTICHOICE`), with which it reads GPQA.
pub const SIMPLE_EVALS: Verifier = Verifier {
    name: "simple_evals",
    doc: "openai/simple-evals for GPQA: the letter A to D after \"Answer:\", in either case",
    extract: |response| letter(pattern!(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?"), response),
    equal: |reference, answer| Ok(reference.trim() == answer),
};

/// WildEval/ZeroEval, `src/evaluation/mcqa_eval.py`, which made MMLU-Redux's leaderboard; its rules for single models
/// are left out.
pub const ZERO_EVAL: Verifier = Verifier {
    name: "zero_eval",
    doc: "ZeroEval for MMLU-Redux: the member \"answer\" of the response's JSON is the letter, or holds it before a bracket",
    extract: |response| {
        member_of_object(response).or_else(|| member_of_text(response)).filter(|found| !found.is_empty())
    },
    equal: |reference, answer| Ok(answer == reference.trim() || answer.contains(&format!("{})", reference.trim()))),
};

/// EleutherAI/lm-evaluation-harness, `arc_challenge_chat`: the response goes on after "The best answer is".
pub const ARC_CHAT: Verifier = Verifier {
    name: "arc_chat",
    doc: "lm-eval's arc_challenge_chat: the whole response is the letter, but for case, punctuation and space",
    extract: |response| {
        let mut text = strip(response).to_lowercase();
        text.retain(|c| !c.is_ascii_punctuation());
        Some(text.to_uppercase()).filter(|text| !text.is_empty())
    },
    equal: |reference, answer| Ok(reference.trim().to_uppercase() == answer),
};

/// The first group of the first match.
fn letter(pattern: &Regex, response: &str) -> Option<String> {
    Some(pattern.captures(response)?[1].to_owned())
}

/// The member "answer" of the first object in braces that is whole; none where that is no JSON.
fn member_of_object(response: &str) -> Option<String> {
    let start = response.find('{')?;
    let mut depth = 0_usize;
    let end = response[start..].char_indices().find_map(|(index, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(start + index + 1)
    })?;
    let object: serde_json::Value = serde_json::from_str(&response[start..end].replace('\n', "")).ok()?;
    match object.get("answer")? {
        serde_json::Value::String(answer) => Some(answer.clone()),
        serde_json::Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// What stands behind `answer:` in a text that only looks like JSON.
fn member_of_text(response: &str) -> Option<String> {
    letter(pattern!(r#""answer"\s*:\s*"([^"]*?)""#), response)
        .or_else(|| letter(pattern!(r#""answer"\s*:\s*([^,\s]*)"#), response))
        .or_else(|| letter(pattern!(r"answer\s*:\s*([^,\s]*)"), response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_where_the_scripts_look() {
        let found = |verifier: &Verifier, response: &str| (verifier.extract)(response).unwrap_or_default();
        assert_eq!(found(&MMLU_PRO, "The answer is (C). But the answer is D."), "C");
        assert_eq!(found(&MMLU_PRO, "so\nanswer: B or Answer: E, I think"), "E");
        assert_eq!(found(&MMLU_PRO, "Either A or G\nno K"), "G");
        assert_eq!(found(&MMLU_PRO, "None of the above: BAD"), "");
        assert_eq!(found(&MMLU_PRO_FIRST, "answer: B"), "");
        assert_eq!(found(&SIMPLE_EVALS, "ANSWER : $b$"), "b");
        assert_eq!(found(&ZERO_EVAL, "{\"reasoning\": \"x\",\n \"answer\": \"C) three\"} {}"), "C) three");
        assert_eq!(found(&ZERO_EVAL, "{broken \"answer\": B, }"), "B");
        assert_eq!(found(&ZERO_EVAL, "} {\"answer\": {\"a\": 1}}"), "{\"a\":1}");
        assert_eq!(found(&ARC_CHAT, " (c). "), "C");
    }

    #[test]
    fn the_letter_decides() {
        let correct = |verifier: &Verifier, response: &str| verifier.verify("C", response).expect("a letter").correct;
        assert!(correct(&ZERO_EVAL, "{\"answer\": \"C) three\"}") && correct(&ZERO_EVAL, "\"answer\": \"C\""));
        assert!(!correct(&ZERO_EVAL, "{\"answer\": \"CC\"}"));
        assert!(correct(&ARC_CHAT, "c.") && !correct(&ARC_CHAT, "c d"));
        // The original compares the letter as it was written.
        assert!(!correct(&SIMPLE_EVALS, "Answer: c") && correct(&SIMPLE_EVALS, "answer: C"));
    }
}
