//! The program in a chat answer, as published harnesses cut it out.

use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::python::{is_space, strip};

/// How a program is found in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Extraction {
    /// The first code block, else the whole answer (OpenCompass for HumanEval).
    #[default]
    FirstBlock,
    /// The last code block, else the whole answer.
    LastBlock,
    /// OpenCompass' rules for MBPP: the first of twenty patterns of brackets and fences.
    OpencompassMbpp,
    /// The answer as it stands.
    Whole,
}

/// Pairs of what begins and ends a program, in the order in which OpenCompass (`datasets/mbpp.py`) tries them.
const MBPP: &[&str] = &[
    r"(?s)\[BEGIN\]\s*'(.*)'\s*\[DONE\]",
    r"(?s)BEGIN\s*'(.*)'\s*\[DONE\]",
    r"(?s)\[BEGIN\]\s*'(.*)'\s*DONE",
    r"(?s)BEGIN\s*'(.*)'\s*DONE",
    r"(?s)\[BEGIN\]\s*'(.*)\s*\[DONE\]",
    r"(?s)BEGIN\s*'(.*)\s*\[DONE\]",
    r"(?s)\[BEGIN\]\s*'(.*)\s*DONE",
    r"(?s)BEGIN\s*'(.*)\s*DONE",
    r"(?s)\[BEGIN\]\s*(.*)\s*\[DONE\]",
    r"(?s)BEGIN\s*(.*)\s*\[DONE\]",
    r"(?s)\[BEGIN\]\s*(.*)\s*DONE",
    r"(?s)BEGIN\s*(.*)\s*DONE",
    r"(?s)```python\s*(.*)\s*```",
    r"(?s)```\s*(.*)\s*```",
    r"(?s)```python\s*(.*)\s*$",
    r"(?s)```\s*(.*)\s*$",
    r"(?s)(.*)\s*```.*",
    r"(?s)\[BEGIN\]\s*'(.*)",
    r"(?s)\[BEGIN\](.*)",
    r"(?s)'(.*)'\s*\[DONE\]",
];

impl Extraction {
    /// The program in an answer.
    pub fn program(self, answer: &str) -> String {
        static BLOCK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?s)```\w*\n(.*?)```").expect("a valid pattern"));
        let mut blocks = BLOCK.captures_iter(answer).map(|found| found.extract::<1>().1[0]);
        let block = match self {
            Self::FirstBlock => blocks.next(),
            Self::LastBlock => blocks.last(),
            Self::OpencompassMbpp => return mbpp(answer),
            Self::Whole => Some(answer),
        };
        block.unwrap_or_else(|| answer.trim_start_matches(is_space)).to_owned()
    }
}

fn mbpp(answer: &str) -> String {
    static PATTERNS: LazyLock<Vec<Regex>> =
        LazyLock::new(|| MBPP.iter().map(|pattern| Regex::new(pattern).expect("a valid pattern")).collect());
    static DONE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"'?\s*\[?DONE\]?").expect("a valid pattern"));
    let found = PATTERNS.iter().find_map(|pattern| pattern.captures(answer));
    let text = found.map_or(answer, |found| found.extract::<1>().1[0]);
    let text = text.split("```").next().unwrap_or_default();
    let text = DONE.split(text).next().unwrap_or_default();
    strip(&text.replace("\\_", "_")).to_owned()
}
