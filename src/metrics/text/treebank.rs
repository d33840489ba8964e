//! Words, as NLTK's `word_tokenize` cuts English text: sentences first
//! ([`super::sentences`]), then in each the rules of the Penn Treebank with
//! the changes of NLTK 3.9.1 (`nltk/tokenize/destructive.py`). Quotation marks become
//! `` `` `` and `''`, as there.

use std::sync::LazyLock;

use regex::Regex;

use super::punkt::sentences;
use super::python::{is_space, is_word};

/// A pattern and what takes its place.
type Rule = (Regex, &'static str);

fn rules(rules: &[(&str, &'static str)]) -> Vec<Rule> {
    let compile = |(pattern, by): &(&str, &'static str)| (Regex::new(pattern).expect("a valid pattern"), *by);
    rules.iter().map(compile).collect()
}

static OPENING: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[("([«“‘„]|`+)", " $1 "), ("^\"", "``"), ("(``)", " $1 "), (r#"([ (\[{<])("|'{2})"#, "$1 `` ")])
});

static MARKS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*$"#, "$1 $2 $3 "),
        (r"([:,])(\D)", " $1 $2"),
        ("([:,])$", " $1 "),
        (r"\.{2,}", " $0 "),
        ("[;@#$%&]", " $0 "),
        (r#"([^.])(\.)([\])}>"']*)\s*$"#, "$1 $2$3 "),
        ("[?!]", " $0 "),
        ("([^'])' ", "$1 ' "),
        (r"[*]", " $0 "),
        (r"[\]\[(){}<>]", " $0 "),
        ("--", " -- "),
    ])
});

static CLOSING: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        ("([»”’])", " $1 "),
        ("''", " '' "),
        ("\"", " '' "),
        (r"\s+", " "),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
        (r"(?i)\b(can)(not)\b", " $1 $2 "),
        (r"(?i)\b(d)('ye)\b", " $1 $2 "),
        (r"(?i)\b(gim)(me)\b", " $1 $2 "),
        (r"(?i)\b(gon)(na)\b", " $1 $2 "),
        (r"(?i)\b(got)(ta)\b", " $1 $2 "),
        (r"(?i)\b(lem)(me)\b", " $1 $2 "),
        (r"(?i)\b(more)('n)\b", " $1 $2 "),
        (r"(?i)\b(wan)(na)(\s)", " $1 $2 $3"),
        (r"(?i) ('t)(is)\b", " $1 $2 "),
        (r"(?i) ('t)(was)\b", " $1 $2 "),
    ])
});

/// The words of a text, in order.
pub fn words(text: &str) -> Vec<String> {
    sentences(text).into_iter().flat_map(words_of_sentence).collect()
}

fn words_of_sentence(sentence: &str) -> Vec<String> {
    let apply = |mut text: String, rules: &[Rule]| {
        for (pattern, by) in rules {
            if let std::borrow::Cow::Owned(changed) = pattern.replace_all(&text, *by) {
                text = changed;
            }
        }
        text
    };
    let text = apply(part_opening_apostrophes(&apply(sentence.to_owned(), &OPENING)), &MARKS);
    let text = apply(format!(" {text} "), &CLOSING);
    text.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Sets an apostrophe apart from a word of one character behind it, unless that is what is left of a contraction (`'s`).
fn part_opening_apostrophes(text: &str) -> String {
    let mut parted = String::with_capacity(text.len());
    for (index, c) in text.char_indices() {
        parted.push(c);
        let mut after = text[index + c.len_utf8()..].chars();
        if c == '\''
            && let Some(first) = after.next().filter(|first| is_word(*first))
            && !after.next().is_some_and(is_word)
            && !['m', 't', 's', 'd', 'n'].contains(&first.to_ascii_lowercase())
        {
            parted.push(' ');
        }
    }
    parted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_in_the_treebank() {
        assert_eq!(
            words("I CANNOT do \"IT\", don't (at $3.88)."),
            ["I", "CAN", "NOT", "do", "``", "IT", "''", ",", "do", "n't", "(", "at", "$", "3.88", ")", "."]
        );
        assert_eq!(
            words("'Tis Joe's: wanna go... 'quoted' words 'x'"),
            ["'T", "is", "Joe", "'s", ":", "wan", "na", "go", "...", "'quoted", "'", "words", "'", "x", "'"]
        );
    }
}
