//! The kinds of instructions, and how the arguments of each are read.

use regex::Regex;
use serde_json::Value;

use super::check::{Bound, Check, Relation};
use crate::text::python::strip;

/// Arguments of one instruction by name; those it does not use may be there, null or not.
pub type Arguments = serde_json::Map<String, Value>;

/// What is wrong with an instruction's arguments.
type Problem = String;

/// Every kind of instruction, with the reader of its arguments.
pub const KINDS: &[(&str, fn(&Arguments) -> Result<Check, Problem>)] = &[
    ("change_case:capital_word_frequency", |a| {
        bound(a, "capital_relation", "capital_frequency").map(Check::CapitalWords)
    }),
    ("change_case:english_capital", |_| Ok(Check::EnglishCapital)),
    ("change_case:english_lowercase", |_| Ok(Check::EnglishLowercase)),
    ("combination:repeat_prompt", |a| Ok(Check::Repeats(strip(text(a, "prompt_to_repeat")?).to_lowercase()))),
    ("combination:two_responses", |_| Ok(Check::TwoResponses)),
    ("detectable_content:number_placeholders", |a| number(a, "num_placeholders").map(Check::Placeholders)),
    ("detectable_content:postscript", |a| postscript(strip(text(a, "postscript_marker")?)).map(Check::Contains)),
    ("detectable_format:constrained_response", |_| Ok(Check::ConstrainedResponse)),
    ("detectable_format:json_format", |_| Ok(Check::Json)),
    ("detectable_format:multiple_sections", |a| {
        let mark = pattern(strip(text(a, "section_spliter")?))?;
        let mark = Regex::new(&format!(r"\s?{mark}\s?\d+\s?")).map_err(|error| error.to_string())?;
        Ok(Check::Sections { mark, n: number(a, "num_sections")? })
    }),
    ("detectable_format:number_bullet_lists", |a| number(a, "num_bullets").map(Check::Bullets)),
    ("detectable_format:number_highlighted_sections", |a| number(a, "num_highlights").map(Check::Highlights)),
    ("detectable_format:title", |_| Ok(Check::Title)),
    ("keywords:existence", |a| Ok(Check::ContainsAll(insensitive_all(a, "keywords")?))),
    ("keywords:forbidden_words", |a| Ok(Check::Forbidden(insensitive_all(a, "forbidden_words")?))),
    ("keywords:frequency", |a| {
        let keyword = insensitive(strip(text(a, "keyword")?))?;
        Ok(Check::Occurs { keyword, bound: bound(a, "relation", "frequency")? })
    }),
    ("keywords:letter_frequency", |a| {
        let letters = text(a, "letter")?.to_lowercase();
        let mut chars = letters.chars();
        match (chars.next(), chars.next()) {
            (Some(letter), None) => Ok(Check::Letters { letter, bound: bound(a, "let_relation", "let_frequency")? }),
            _ => Err(format!("\"letter\" must be one character, not {letters:?}")),
        }
    }),
    ("language:response_language", |a| Ok(Check::Language(text(a, "language")?.to_owned()))),
    ("length_constraints:nth_paragraph_first_word", |a| {
        let (n, nth) = (number(a, "num_paragraphs")?, number(a, "nth_paragraph")?);
        if nth == 0 || nth > n {
            return Err(format!("\"nth_paragraph\" must lie between 1 and \"num_paragraphs\", {n}, not at {nth}"));
        }
        Ok(Check::FirstWord { n, nth, word: text(a, "first_word")?.to_lowercase() })
    }),
    ("length_constraints:number_paragraphs", |a| number(a, "num_paragraphs").map(Check::Paragraphs)),
    ("length_constraints:number_sentences", |a| bound(a, "relation", "num_sentences").map(Check::Sentences)),
    ("length_constraints:number_words", |a| bound(a, "relation", "num_words").map(Check::Words)),
    ("punctuation:no_comma", |_| Ok(Check::NoComma)),
    ("startend:end_checker", |a| Ok(Check::EndsWith(strip(text(a, "end_phrase")?).to_lowercase()))),
    ("startend:quotation", |_| Ok(Check::Quoted)),
];

fn given<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a Value, Problem> {
    arguments.get(name).filter(|value| !value.is_null()).ok_or_else(|| format!("the argument {name:?} is missing"))
}

fn text<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a str, Problem> {
    let value = given(arguments, name)?;
    value.as_str().ok_or_else(|| format!("{name:?} must be a text, not {value}"))
}

/// A count; some copies of the data hold it as a float.
fn number(arguments: &Arguments, name: &str) -> Result<usize, Problem> {
    let value = given(arguments, name)?;
    let whole = value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0 && *number < 1e9);
    whole.map(|number| number as usize).ok_or_else(|| format!("{name:?} must be a whole number from 0, not {value}"))
}

fn bound(arguments: &Arguments, relation: &str, n: &str) -> Result<Bound, Problem> {
    let relation = match text(arguments, relation)? {
        "less than" => Relation::LessThan,
        "at least" => Relation::AtLeast,
        other => return Err(format!("{relation:?} must be \"less than\" or \"at least\", not {other:?}")),
    };
    Ok(Bound { relation, n: number(arguments, n)? })
}

/// A text that is used as a pattern, as the original does; one that is no pattern stands for itself.
fn pattern(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err("a word to look for is empty".into());
    }
    Ok(if Regex::new(text).is_ok() { text.to_owned() } else { regex::escape(text) })
}

fn insensitive(text: &str) -> Result<Regex, Problem> {
    Regex::new(&format!("(?i){}", pattern(text)?)).map_err(|error| error.to_string())
}

fn insensitive_all(arguments: &Arguments, name: &str) -> Result<Vec<Regex>, Problem> {
    let value = given(arguments, name)?;
    let words = value.as_array().filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| format!("{name:?} must be a list of texts, not {value}"))?;
    let one = |word: &Value| match word.as_str() {
        Some(word) => insensitive(word),
        None => Err(format!("{name:?} must be a list of texts, not {value}")),
    };
    words.iter().map(one).collect()
}

/// What begins a postscript, in lower case.
fn postscript(marker: &str) -> Result<Regex, Problem> {
    let lower = match marker {
        "P.P.S" => r"p\.\s?p\.\s?s".to_owned(),
        "P.S." => r"p\.\s?s\.".to_owned(),
        other => pattern(&other.to_lowercase())?,
    };
    Regex::new(&lower).map_err(|error| error.to_string())
}
