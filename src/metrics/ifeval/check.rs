//! What each kind of instruction asks of a response.

use std::cell::OnceCell;
use std::sync::LazyLock;

use regex::Regex;

use crate::text::python::{is_lower, is_upper, split, strip, word_runs};
use crate::text::{detect_language, is_json, sentences, words};

/// A number that a count must reach, or stay below.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub relation: Relation,
    pub n: usize,
}

/// How a count compares with its bound.
#[derive(Debug, Clone, Copy)]
pub enum Relation {
    LessThan,
    AtLeast,
}

impl Bound {
    fn holds(self, count: usize) -> bool {
        match self.relation {
            Relation::LessThan => count < self.n,
            Relation::AtLeast => count >= self.n,
        }
    }
}

/// An instruction with its arguments.
#[derive(Debug)]
pub enum Check {
    CapitalWords(Bound),
    EnglishCapital,
    EnglishLowercase,
    /// In lower case.
    Repeats(String),
    TwoResponses,
    Placeholders(usize),
    /// Somewhere in the response in lower case.
    Contains(Regex),
    ConstrainedResponse,
    Json,
    Sections {
        mark: Regex,
        n: usize,
    },
    Bullets(usize),
    Highlights(usize),
    Title,
    ContainsAll(Vec<Regex>),
    Forbidden(Vec<Regex>),
    Occurs {
        keyword: Regex,
        bound: Bound,
    },
    Letters {
        letter: char,
        bound: Bound,
    },
    Language(String),
    FirstWord {
        n: usize,
        nth: usize,
        word: String,
    },
    Paragraphs(usize),
    Sentences(Bound),
    Words(Bound),
    NoComma,
    /// In lower case.
    EndsWith(String),
    Quoted,
}

/// A response, with what several instructions may ask of it computed once.
pub struct Text<'r> {
    text: &'r str,
    lower: OnceCell<String>,
    language: OnceCell<Option<&'static str>>,
}

impl<'r> Text<'r> {
    pub fn new(text: &'r str) -> Self {
        Self { text, lower: OnceCell::new(), language: OnceCell::new() }
    }

    pub fn is_blank(&self) -> bool {
        strip(self.text).is_empty()
    }

    fn lower(&self) -> &str {
        self.lower.get_or_init(|| self.text.to_lowercase())
    }

    /// Whether the text is in a language; one that cannot be told counts as any.
    fn is_in(&self, language: &str) -> bool {
        self.language.get_or_init(|| detect_language(self.text)).is_none_or(|found| found == language)
    }
}

macro_rules! pattern {
    ($pattern:expr) => {{
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a valid pattern"));
        &*PATTERN
    }};
}

impl Check {
    /// Whether a response does what is asked.
    pub fn holds(&self, response: &Text) -> bool {
        let text = response.text;
        let count = |pattern: &Regex| pattern.find_iter(text).count();
        match self {
            Self::CapitalWords(bound) => bound.holds(words(text).iter().filter(|word| is_upper(word)).count()),
            Self::EnglishCapital => is_upper(text) && response.is_in("en"),
            Self::EnglishLowercase => is_lower(text) && response.is_in("en"),
            Self::Repeats(prompt) => strip(text).to_lowercase().starts_with(prompt.as_str()),
            Self::TwoResponses => two_responses(text),
            Self::Placeholders(n) => count(pattern!(r"\[.*?\]")) >= *n,
            Self::Contains(pattern) => pattern.is_match(response.lower()),
            Self::ConstrainedResponse => {
                ["My answer is yes.", "My answer is no.", "My answer is maybe."].iter().any(|own| text.contains(own))
            }
            Self::Json => is_json(without_fence(text)),
            Self::Sections { mark, n } => count(mark) >= *n,
            Self::Bullets(n) => count(pattern!(r"(?m)^\s*\*[^*].*$")) + count(pattern!(r"(?m)^\s*-.*$")) == *n,
            Self::Highlights(n) => highlights(text) >= *n,
            Self::Title => pattern!(r"<<[^\n]+>>").find_iter(text).any(|title| {
                let title = title.as_str().trim_start_matches('<').trim_end_matches('>');
                !strip(title).is_empty()
            }),
            Self::ContainsAll(keywords) => keywords.iter().all(|keyword| keyword.is_match(text)),
            Self::Forbidden(words) => !words.iter().any(|word| stands_alone(word, text)),
            Self::Occurs { keyword, bound } => bound.holds(count(keyword)),
            Self::Letters { letter, bound } => bound.holds(response.lower().chars().filter(|c| c == letter).count()),
            Self::Language(language) => response.is_in(language),
            Self::FirstWord { n, nth, word } => first_word(text, *n, *nth).is_some_and(|first| first == *word),
            Self::Paragraphs(n) => paragraphs(text) == Some(*n),
            Self::Sentences(bound) => bound.holds(sentences(text).len()),
            Self::Words(bound) => bound.holds(word_runs(text).count()),
            Self::NoComma => !text.contains(','),
            Self::EndsWith(phrase) => strip(text).trim_matches('"').to_lowercase().ends_with(phrase.as_str()),
            Self::Quoted => {
                let text = strip(text);
                text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
        }
    }
}

/// Two different texts, and only two, with six asterisks between them.
fn two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(strip).collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    if inner.iter().any(|part| part.is_empty()) {
        return false;
    }
    let said: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    said.len() == 2 && said[0] != said[1]
}

/// The text between the marks of a code block.
fn without_fence(text: &str) -> &str {
    let mut text = strip(text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    strip(text.strip_suffix("```").unwrap_or(text))
}

/// Texts between single asterisks and between double ones, where there is something between.
fn highlights(text: &str) -> usize {
    let single = pattern!(r"\*[^\n*]*\*").find_iter(text).map(|found| found.as_str().trim_matches('*'));
    let double = pattern!(r"\*\*[^\n*]*\*\*").find_iter(text);
    let double = double.map(|found| found.as_str().trim_start_matches("**").trim_end_matches("**"));
    single.filter(|inner| !strip(inner).is_empty()).count() + double.filter(|inner| !strip(inner).is_empty()).count()
}

/// Whether a match of the pattern has no word character at either side, in Python's sense of `\b`.
fn stands_alone(pattern: &Regex, text: &str) -> bool {
    let is_word = crate::text::python::is_word;
    let edge = |at: usize| {
        let before = text[..at].chars().next_back().is_some_and(is_word);
        before != text[at..].chars().next().is_some_and(is_word)
    };
    let mut from = 0;
    while let Some(found) = pattern.find_at(text, from) {
        if edge(found.start()) && edge(found.end()) {
            return true;
        }
        let Some(first) = text[found.start()..].chars().next() else { break };
        from = found.start() + first.len_utf8();
    }
    false
}

/// How many paragraphs the divider `***` makes; none where one within is empty.
fn paragraphs(text: &str) -> Option<usize> {
    let parts: Vec<&str> = pattern!(r"\s?\*\*\*\s?").split(text).collect();
    let is_empty = |part: &&str| strip(part).is_empty();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    if inner.iter().any(is_empty) {
        return None;
    }
    Some(parts.iter().filter(|part| !is_empty(part)).count())
}

/// The first word of the `nth` paragraph in lower case, where there are `n` paragraphs with an empty line between them.
fn first_word(text: &str, n: usize, nth: usize) -> Option<String> {
    let paragraphs: Vec<&str> = text.split("\n\n").collect();
    let n_said = paragraphs.iter().filter(|paragraph| !strip(paragraph).is_empty()).count();
    if n_said != n || nth > n_said {
        return None;
    }
    let word = split(paragraphs[nth - 1]).next()?;
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let end = word.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(word.len());
    Some(word[..end].chars().flat_map(char::to_lowercase).collect())
}
