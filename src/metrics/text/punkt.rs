//! Sentences, as NLTK's Punkt tokenizer cuts English text: T. Kiss and
//! J. Strunk, Unsupervised Multilingual Sentence Boundary Detection,
//! Computational Linguistics 32 (2006).
//!
//! `punkt_english.tsv` holds the model that NLTK's programs load
//! (`punkt_tab/english`): abbreviations, frequent first words of sentences,
//! collocations across a stop, and for each word how it was seen to be written
//! and where. Kiss and Strunk trained it on Wall Street Journal text; NLTK
//! redistributes it and states no licence of its own for it. The algorithm is that
//! of NLTK 3.9.1, `nltk/tokenize/punkt.py`, checked against it
//! (`tests/golden/make_ifeval.py`); from 3.10 on NLTK also takes curly quotation
//! marks for the end of a word, which moves sentences and figures.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::python::{is_digit, is_space, is_word, strip, strip_end};

/// Where a word was seen with a capital: first of a sentence, within one, unknown.
const ANY_UPPER: u8 = 2 + 4 + 8;
const WITHIN_UPPER: u8 = 4;
/// Where it was seen without.
const FIRST_LOWER: u8 = 16;
const ANY_LOWER: u8 = 16 + 32 + 64;

/// The model.
struct Model {
    abbreviations: HashSet<&'static str>,
    starters: HashSet<&'static str>,
    collocations: HashSet<(&'static str, &'static str)>,
    seen: HashMap<&'static str, u8>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let mut model = Model {
        abbreviations: HashSet::new(),
        starters: HashSet::new(),
        collocations: HashSet::new(),
        seen: HashMap::new(),
    };
    for line in include_str!("punkt_english.tsv").lines() {
        let mut fields = line.split('\t');
        match fields.next().expect("a first field") {
            "abbreviations" => model.abbreviations.extend(fields),
            "starters" => model.starters.extend(fields),
            "collocations" => model.collocations.extend(fields.filter_map(|pair| pair.split_once(' '))),
            flags => {
                let flags = flags.parse().expect("flags before words");
                model.seen.extend(fields.map(|word| (word, flags)));
            }
        }
    }
    model
});

/// The sentences of a text, without the space between them.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut starts = 0;
    let mut slices = Vec::new();
    for end in ends(text) {
        if breaks(&text[end.word..end.context]) {
            slices.push((starts, end.stop));
            starts = end.next;
        }
    }
    slices.push((starts, strip_end(text).len()));
    realign(text, &slices)
}

/// A stop that may end a sentence.
struct End {
    /// Where the word before it begins.
    word: usize,
    /// Just behind the stop.
    stop: usize,
    /// Where the next sentence would begin.
    next: usize,
    /// The end of what decides: the word, the stop, what follows.
    context: usize,
}

/// The stops that are followed by a mark, or by space and another word; of several within one word the last.
fn ends(text: &str) -> Vec<End> {
    let mut ends: Vec<End> = Vec::new();
    // The word before the last stop that was seen.
    let (mut word_start, mut word_end) = (0, 0);
    let mut last: Option<End> = None;
    for (at, _) in text.match_indices(['.', '?', '!']) {
        let stop = at + 1;
        let Some(after) = text[stop..].chars().next() else { continue };
        let (next, context) = if is_mark(after) {
            (stop, stop + after.len_utf8())
        } else if is_space(after) {
            let rest = text[stop..].trim_start_matches(is_space);
            let length = rest.find(is_space).unwrap_or(rest.len());
            if length == 0 {
                continue;
            }
            let next = text.len() - rest.len();
            (next, next + length)
        } else {
            continue;
        };
        // A space at the very beginning of what lies between counts as none, as in the original.
        let between = &text[word_end..at];
        let space = between.rfind([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).filter(|index| *index > 0);
        let start = space.map_or(word_start, |index| word_end + index + 1);
        if let Some(last) = last.take()
            && word_end <= start
        {
            ends.push(last);
        }
        (word_start, word_end) = (start, at);
        last = Some(End { word: start, stop, next, context });
    }
    ends.extend(last);
    ends
}

/// Whether a sentence ends before the last token of the context.
fn breaks(context: &str) -> bool {
    let mut tokens: Vec<Token> = Vec::new();
    for line in context.split('\n').filter(|line| !strip(line).is_empty()) {
        tokens.extend(tokens_of(line).into_iter().map(Token::new));
    }
    tokens.windows(2).any(|pair| pair[0].ends_before(&pair[1]))
}

/// Closing quotes and brackets that follow a sentence's stop belong to it.
fn realign<'t>(text: &'t str, slices: &[(usize, usize)]) -> Vec<&'t str> {
    let mut sentences = Vec::new();
    let mut realigned = 0;
    for (index, (start, end)) in slices.iter().enumerate() {
        let (start, mut end) = (start + realigned, *end);
        realigned = 0;
        if let Some((next_start, next_end)) = slices.get(index + 1)
            && let Some((kept, length)) = closing(text.get(*next_start..*next_end).unwrap_or_default())
        {
            end = next_start + kept;
            realigned = length;
        }
        sentences.extend(text.get(start..end).filter(|sentence| !sentence.is_empty()));
    }
    sentences
}

/// The marks at the beginning of a sentence that close the one before, if they stand alone: their length, and that with
/// the space behind them.
fn closing(sentence: &str) -> Option<(usize, usize)> {
    let is_closing = |c: char| matches!(c, '"' | '\'' | ')' | ']' | '}');
    let rest = sentence.trim_start_matches(is_closing);
    let kept = sentence.len() - rest.len();
    if kept == 0 || !(rest.is_empty() || rest.starts_with(is_space) || rest.starts_with("--")) {
        return None;
    }
    Some((kept, sentence.len() - rest.trim_start_matches(is_space).len()))
}

/// Marks that are no part of a word.
fn is_mark(c: char) -> bool {
    matches!(c, ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!')
}

/// The length of the dashes, the dots, or the dots with spaces between them, that a text begins with.
fn repeated(text: &str) -> Option<usize> {
    let dashes = text.len() - text.trim_start_matches('-').len();
    let dots = text.len() - text.trim_start_matches('.').len();
    if dashes >= 2 || dots >= 2 {
        return Some(dashes.max(dots));
    }
    // `(\.\s){2,}\.`: the last of them is a dot.
    let (mut length, mut pairs) = (0, 0);
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        if pairs >= 2 {
            length = text.len() - after.len();
        }
        let Some(space) = after.chars().next().filter(|c| is_space(*c)) else { break };
        rest = &after[space.len_utf8()..];
        pairs += 1;
    }
    (length > 0).then_some(length)
}

/// The tokens of a line: words with the stop behind them, and marks.
fn tokens_of(line: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let length = repeated(rest).unwrap_or_else(|| {
            let starts_no_word = matches!(
                first,
                '(' | '"' | '`' | '{' | '[' | ':' | ';' | '&' | '#' | '*' | '@' | ')' | '}' | ']' | '-' | ','
            );
            if starts_no_word { first.len_utf8() } else { word_length(rest) }
        });
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens
}

/// How far the word reaches that a text begins with: one character at least, then up to space, a mark, or a comma that
/// such a thing follows.
fn word_length(text: &str) -> usize {
    let ends = |rest: &str| match rest.chars().next() {
        None => true,
        Some(c) => is_space(c) || is_mark(c) || repeated(rest).is_some(),
    };
    let mut indices = text.char_indices().skip(1).map(|(index, _)| index);
    let end = indices.find(|index| {
        let rest = &text[*index..];
        ends(rest) || rest.strip_prefix(',').is_some_and(ends)
    });
    end.unwrap_or(text.len())
}

/// What a token is to the first pass, which looks at it alone.
#[derive(Clone, Copy, PartialEq)]
enum Alone {
    /// It ends a sentence.
    Ends,
    /// It is an abbreviation or an ellipsis, which may or may not.
    May,
    /// It does not.
    No,
}

struct Token<'t> {
    text: &'t str,
    /// In lower case, numbers as one.
    kind: String,
    alone: Alone,
}

const NUMBER: &str = "##number##";

impl<'t> Token<'t> {
    fn new(text: &'t str) -> Self {
        let lower = text.to_lowercase();
        let alone = if [".", "?", "!"].contains(&text) {
            Alone::Ends
        } else if text.len() >= 2 && text.bytes().all(|b| b == b'.') {
            Alone::May
        } else if let Some(word) = lower.strip_suffix('.').filter(|word| !word.ends_with('.')) {
            let last = word.rsplit('-').next().unwrap_or(word);
            let known = &MODEL.abbreviations;
            if known.contains(word) || known.contains(last) { Alone::May } else { Alone::Ends }
        } else {
            Alone::No
        };
        let kind = if is_number(&lower) { NUMBER.to_owned() } else { lower };
        Self { text, kind, alone }
    }

    /// The kind without a final stop.
    fn word(&self) -> &str {
        self.kind.strip_suffix('.').filter(|word| !word.is_empty()).unwrap_or(&self.kind)
    }

    /// The kind without a final stop that ends a sentence.
    fn word_as_next(&self) -> &str {
        if self.alone == Alone::Ends { self.word() } else { &self.kind }
    }

    fn is_initial(&self) -> bool {
        let mut chars = self.text.chars();
        chars.next().is_some_and(|c| is_word(c) && !is_digit(c)) && chars.as_str() == "."
    }

    fn first_upper(&self) -> bool {
        self.text.starts_with(char::is_uppercase)
    }

    /// Whether a sentence ends between this token and the next: the second pass.
    fn ends_before(&self, next: &Token) -> bool {
        let ends = self.alone == Alone::Ends;
        if !self.text.ends_with('.') {
            return ends;
        }
        let (word, next_word) = (self.word(), next.word_as_next());
        if MODEL.collocations.contains(&(word, next_word)) {
            return false;
        }
        let initial = self.is_initial();
        let starts = next.starts_sentence();
        if self.alone == Alone::May
            && !initial
            && (starts == Some(true) || (next.first_upper() && MODEL.starters.contains(next_word)))
        {
            return true;
        }
        if initial || word == NUMBER {
            let never_lower = || MODEL.seen.get(next_word).is_none_or(|seen| seen & ANY_LOWER == 0);
            let name = || starts.is_none() && initial && next.first_upper() && never_lower();
            if starts == Some(false) || name() {
                return false;
            }
        }
        ends
    }

    /// Whether its spelling says that it begins a sentence, or that it does not, or neither.
    fn starts_sentence(&self) -> Option<bool> {
        if [";", ":", ",", ".", "!", "?"].contains(&self.text) {
            return Some(false);
        }
        let seen = MODEL.seen.get(self.word_as_next()).copied().unwrap_or(0);
        if self.first_upper() && seen & ANY_LOWER != 0 && seen & WITHIN_UPPER == 0 {
            return Some(true);
        }
        if self.text.starts_with(char::is_lowercase) && (seen & ANY_UPPER != 0 || seen & FIRST_LOWER == 0) {
            return Some(false);
        }
        None
    }
}

/// Whether the whole token is a number with its signs: `-?[.,]?\d[\d,.-]*\.?`.
fn is_number(token: &str) -> bool {
    let token = token.strip_prefix('-').unwrap_or(token);
    let token = token.strip_prefix(['.', ',']).unwrap_or(token);
    token.starts_with(is_digit) && token.chars().all(|c| is_digit(c) || matches!(c, ',' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_of_abbreviations_and_numbers_end_no_sentence() {
        assert_eq!(
            sentences("Dr. Smith went. He is 5.5 ft. tall! (Yes.) No."),
            ["Dr. Smith went.", "He is 5.5 ft. tall!", "(Yes.)", "No."]
        );
        assert_eq!(
            sentences("By J. S. Bach.  Really?! \"Yes,\" he said."),
            ["By J. S. Bach.", "Really?!", "\"Yes,\" he said."]
        );
        assert_eq!(sentences(""), [""; 0]);
        assert_eq!(sentences(" \n"), [""; 0]);
    }

    #[test]
    fn hostile_texts_are_cut() {
        for piece in [".", ". ", "a.", "-", "\"", ".\u{a0}", "é. É"] {
            assert!(sentences(&piece.repeat(20_000)).len() <= 20_001, "{piece:?}");
        }
    }
}
