//! Verdicts, sentences, words and languages of made-up responses beside those of
//! the original program; `tests/golden/make_ifeval.py` made them.

use serde::Deserialize;

use super::*;
use crate::text::{detect_language, sentences, words};

#[derive(Deserialize)]
struct Golden {
    instructions: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    language: Option<String>,
    sentences: Vec<String>,
    words: Vec<String>,
    kwargs: Vec<Arguments>,
    strict: Vec<u8>,
    loose: Vec<u8>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/golden/ifeval.json")).expect("JSON")
}

#[test]
fn verdicts_are_those_of_the_original() {
    let golden = golden();
    assert_eq!(golden.instructions.len(), KINDS.len());
    let mut differ = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for row in &golden.rows {
        let followed = Instructions::read(&golden.instructions, &row.kwargs).expect("instructions").judge(&row.text);
        let bits = |followed: &[bool]| -> Vec<u8> { followed.iter().copied().map(u8::from).collect() };
        for (name, ours, theirs) in
            [("strict", bits(&followed.strict), &row.strict), ("loose", bits(&followed.loose), &row.loose)]
        {
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                let kind = &golden.instructions[index];
                seen.insert((kind.as_str(), *theirs));
                if ours != theirs {
                    differ.push(format!("{name} {kind} {:?} {:?}: {ours}", row.kwargs[index], row.text));
                }
            }
        }
    }
    assert_eq!(seen.len(), 2 * KINDS.len(), "every kind is followed by some text and not by another: {seen:?}");
    assert_eq!(differ, [""; 0]);
}

#[test]
fn sentences_words_and_languages_are_those_of_the_original() {
    for row in golden().rows {
        assert_eq!(sentences(&row.text), row.sentences, "{:?}", row.text);
        assert_eq!(words(&row.text), row.words, "{:?}", row.text);
        assert_eq!(detect_language(&row.text), row.language.as_deref(), "{:?}", row.text);
    }
}

#[test]
fn arguments_that_say_nothing_are_refused() {
    let read = |kind: &str, json: &str| {
        let arguments = serde_json::from_str(json).expect("JSON");
        Instructions::read(&[kind.to_owned()], &[arguments]).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(read("keywords:frequency", r#"{"keyword": "a", "frequency": 2.0, "relation": "at least"}"#), Ok(()));
    for (kind, json, part) in [
        ("keywords:none", "{}", "keywords:existence"),
        ("length_constraints:number_words", "{}", "\"relation\" is missing"),
        ("length_constraints:number_words", r#"{"relation": "at most", "num_words": 1}"#, "not \"at most\""),
        ("length_constraints:number_words", r#"{"relation": "at least", "num_words": -1}"#, "from 0, not -1"),
        ("keywords:existence", r#"{"keywords": []}"#, "a list of texts"),
        ("keywords:existence", r#"{"keywords": [""]}"#, "empty"),
        ("keywords:letter_frequency", r#"{"letter": "ab"}"#, "one character"),
        (
            "length_constraints:nth_paragraph_first_word",
            r#"{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}"#,
            "between 1 and",
        ),
    ] {
        let error = read(kind, json).expect_err(json);
        assert!(error.contains(part), "{error}");
    }
    let error = Instructions::read(&["punctuation:no_comma".to_owned()], &[]).expect_err("no arguments");
    assert!(error.to_string().contains("1 instructions have 0"), "{error}");
}

#[test]
fn keywords_that_are_no_pattern_stand_for_themselves() {
    let arguments = serde_json::from_str(r#"{"keywords": ["(unclosed"]}"#).expect("JSON");
    let instructions = Instructions::read(&["keywords:existence".to_owned()], &[arguments]).expect("a keyword");
    assert!(instructions.judge("an (UNCLOSED bracket").all_strict());
    assert!(!instructions.judge("an unclosed bracket").all_loose());
}

#[test]
fn hostile_responses_are_judged() {
    let golden = golden();
    let instructions = Instructions::read(&golden.instructions, &golden.rows[0].kwargs).expect("instructions");
    for piece in ["*", "[", "<<", "- \n", "\n", "a ", ". ", "'", "```", "\"", "é", "\u{301}", "A.B."] {
        instructions.judge(&piece.repeat((1 << 16) / piece.len()));
    }
}
