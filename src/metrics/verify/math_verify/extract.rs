//! Where a response's answer stands: candidates of five ranks; within a rank
//! the one that ends last comes first, and the first that can be read counts.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::normalise::normalised;
use super::read;

/// Formulas that are joined by commas, "and" or "or" into one list.
const MAX_JOINED: usize = 6;
/// Candidates of one rank that are tried.
const MAX_TRIED: usize = 64;

/// The longest formula, in bytes.
const MAX_FORMULA: usize = 1 << 13;

/// A place that may hold the answer.
struct Candidate {
    place: Range<usize>,
    found: Found,
}

enum Found {
    /// A number or a calculation.
    Plain(String),
    /// From the first box to the last brace of the response.
    Boxes(Range<usize>),
    /// Formulas that are joined, each with whether a percent sign follows.
    Formulas(Vec<(Range<usize>, bool)>),
}

impl Candidate {
    /// The answer's normal form.
    fn answer(&self, text: &str) -> String {
        match &self.found {
            Found::Plain(answer) => answer.clone(),
            Found::Boxes(place) => normalised(&text[place.clone()], false),
            Found::Formulas(parts) => {
                let formula = |(place, percent): &(Range<usize>, bool)| {
                    normalised(&text[place.clone()], true) + if *percent { "\\%" } else { "" }
                };
                let mut answers: Vec<String> = parts.iter().map(formula).collect();
                if answers.len() > 1 && answers.iter().any(|answer| read(answer).is_none()) {
                    answers.truncate(1);
                }
                answers.join(",")
            }
        }
    }
}

/// The answer in normal form: the first that can be read, or else the first found at all.
pub fn answer(text: &str) -> Option<String> {
    let mut first_found = None;
    let ranks: [fn(&str) -> Vec<Candidate>; 5] = [hoped, announced, after_answer_colon, after_answer, anywhere];
    for rank in ranks {
        let mut candidates = rank(text);
        candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.place.end), candidate.place.start));
        for candidate in candidates.iter().take(MAX_TRIED) {
            let answer = candidate.answer(text);
            if read(&answer).is_some() {
                return Some(answer);
            }
            if first_found.is_none() && !answer.is_empty() {
                first_found = Some(answer);
            }
        }
    }
    first_found
}

/// "final answer is … I hope".
fn hoped(text: &str) -> Vec<Candidate> {
    static CLOSING: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\.?\s?I hope"));
    said(text).into_iter().filter(|candidate| CLOSING.is_match(&text[candidate.place.end..])).collect()
}

/// "final answer … is …", and boxes.
fn announced(text: &str) -> Vec<Candidate> {
    let mut found = said(text);
    let mut at = 0;
    while let Some(start) = next_opening(text, at) {
        match joined(text, start, true) {
            Some(candidate) => {
                at = candidate.place.end;
                found.push(candidate);
            }
            None => at = next_char(text, start),
        }
    }
    if let Some(start) = text.find("\\boxed{")
        && let Some(end) = text.rfind('}').filter(|end| *end > start + "\\boxed{".len())
    {
        found.push(Candidate { place: start..end + 1, found: Found::Boxes(start..end + 1) });
    }
    found
}

fn after_answer_colon(text: &str) -> Vec<Candidate> {
    static ANCHOR: LazyLock<Regex> = LazyLock::new(|| pattern("(?i)answer:"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(&format!(r"(?i:answer):(?:.{{0,100}}=\s*|.{{0,50}}?)(?:{EXPRESSION}|{NUMBER_WITH_PREFIX})"))
    });
    anchored(text, &ANCHOR, &NUMBER)
}

fn after_answer(text: &str) -> Vec<Candidate> {
    static ANCHOR: LazyLock<Regex> = LazyLock::new(|| pattern("(?i)answer"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(&format!(r"(?i:answer)(?:.{{0,100}}=\s*|.{{0,50}}?)(?:{EXPRESSION}|{NUMBER_WITH_PREFIX})"))
    });
    anchored(text, &ANCHOR, &NUMBER)
}

/// Every formula and every number.
fn anywhere(text: &str) -> Vec<Candidate> {
    static PATTERNS: LazyLock<[Regex; 2]> = LazyLock::new(|| [pattern(EXPRESSION), pattern(NUMBER_WITH_PREFIX)]);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next_opening(text, at) {
        match joined(text, start, false) {
            Some(candidate) => {
                at = candidate.place.end;
                found.push(candidate);
            }
            None => at = next_char(text, start),
        }
    }
    for pattern in PATTERNS.iter() {
        found.extend(pattern.captures_iter(text).map(|captures| number(&captures)));
    }
    found
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

/// A plain calculation such as `3*4 + 1`.
const EXPRESSION: &str = r"(?:(?:^|\s|=)(?:\*\*)?(?P<expr>-?\(?-?\d[\d.\s+\-*×/^()÷]*[+\-*×/^()÷][\d.\s+\-*×/^()÷]+\)?)(?:\*\*)?(?:\.|,|:|\s|\)|\$|$))";
/// A number, perhaps behind a currency sign and before a percent sign.
const NUMBER_WITH_PREFIX: &str = r"(?:(?:^|\s|=)(?:\*\*)?\p{Sc}?(?:(?P<integer1>-?[1-9]\d{0,2}(?:[ ,]\d{3})+)(?P<decimal1>\.\d+)?|(?P<integer2>-?\d+)(?P<decimal2>[.,]\d+)|(?P<decimal3>\.\d+)|(?P<integer3>-?\d+))(?P<percent>\s*(?:%|[Pp]ercent|[Pp]ercentage|[Pp]ct))?)";

fn number(captures: &Captures<'_>) -> Candidate {
    let group = |names: &[&str]| names.iter().find_map(|name| captures.name(name)).map_or("", |found| found.as_str());
    let integer = group(&["integer1", "integer2", "integer3"]).replace([',', ' '], "");
    let decimal = group(&["decimal1", "decimal2", "decimal3"]).replace(',', ".");
    let percent = if group(&["percent"]).is_empty() { "" } else { "\\%" };
    let answer = if integer.is_empty() && decimal.is_empty() {
        group(&["expr"]).replace("**", "^").trim().to_owned()
    } else {
        format!("{}{decimal}{percent}", if integer.is_empty() { "0" } else { &integer })
    };
    Candidate { place: captures.get(0).expect("the whole match").range(), found: Found::Plain(answer) }
}

/// What follows "final answer … is".
fn said(text: &str) -> Vec<Candidate> {
    static ANCHOR: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?is:final answer.{0,100}?)\s+is:?"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(&format!(r"(?i:final answer.{{0,100}}?)\s+is:?(?:{EXPRESSION}|{NUMBER_WITH_PREFIX})"))
    });
    let mut found: Vec<Candidate> = NUMBER.captures_iter(text).map(|captures| number(&captures)).collect();
    found.extend(ANCHOR.find_iter(text).filter_map(|anchor| {
        let rest = &text[anchor.end()..];
        let start = anchor.end() + (rest.len() - rest.trim_start().len());
        let candidate = joined(text, start, false)?;
        Some(Candidate { place: anchor.start()..candidate.place.end, ..candidate })
    }));
    found
}

/// The first formula within fifty characters behind an anchor, and numbers by their own pattern.
fn anchored(text: &str, anchor: &Regex, numbers: &Regex) -> Vec<Candidate> {
    let follows_equality = |end: usize| text[end..].trim_start().starts_with('=');
    let mut found: Vec<Candidate> = numbers
        .captures_iter(text)
        .map(|captures| number(&captures))
        .filter(|candidate| !follows_equality(candidate.place.end))
        .collect();
    for anchor in anchor.find_iter(text) {
        let mut at = anchor.end();
        for _ in 0..=50 {
            if let Some(candidate) = joined(text, at, false) {
                found.push(Candidate { place: anchor.start()..candidate.place.end, ..candidate });
                break;
            }
            if at >= text.len() {
                break;
            }
            at = next_char(text, at);
        }
    }
    found
}

fn next_char(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

/// The next place from `at` on where a formula may begin.
fn next_opening(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    (at..bytes.len()).find(|&at| match bytes[at] {
        b'$' => true,
        b'\\' | b'-' => {
            text[at..].starts_with("\\[")
                || text[at..].starts_with("\\(")
                || text[at..].trim_start_matches('-').starts_with("\\frac")
        }
        b' ' | b'\n' | b'\t' => bytes.get(at + 1) == Some(&b'['),
        _ => false,
    })
}

/// A formula at `at`, with those that "and", "or" or a comma joins to it.
fn joined(text: &str, at: usize, boxed: bool) -> Option<Candidate> {
    static JOINT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:,?and|,?or|,)\s*"));
    let (first, mut end) = formula(text, at, boxed)?;
    let mut parts = vec![first];
    while parts.len() < MAX_JOINED {
        let Some(joint) = JOINT.find(&text[end..]) else { break };
        let Some((next, next_end)) = formula(text, end + joint.end(), boxed) else { break };
        parts.push(next);
        end = next_end;
    }
    Some(Candidate { place: at..end, found: Found::Formulas(parts) })
}

/// The inside of a formula at `at`, whether a percent sign follows, and where it ends with that.
fn formula(text: &str, at: usize, boxed: bool) -> Option<((Range<usize>, bool), usize)> {
    static PERCENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:\\?%|[Pp]ercentage|[Pp]ercent|[Pp]ct)"));
    let (content, end) = environment(text, at, boxed)?;
    match PERCENT.find(&text[end..]) {
        Some(percent) => Some(((content, true), end + percent.end())),
        None => Some(((content, false), end)),
    }
}

/// The inside of `$$…$$`, `\[…\]`, `$…$`, `\(…\)`, ` […] ` or a bare fraction of numbers at `at`, and where it ends.
fn environment(text: &str, at: usize, boxed: bool) -> Option<(Range<usize>, usize)> {
    static FRACTION: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"^-?\\frac\{-?\d+(?:[.,]\d+)?\}\{-?\d+(?:[.,]\d+)?\}"));
    let rest = &text[at..];
    let before = text[..at].chars().next_back();
    let between = |open: &str, close: &str, inline: bool| -> Option<(Range<usize>, usize)> {
        let inside = rest.strip_prefix(open)?;
        let limit = (0..=MAX_FORMULA.min(inside.len())).rev().find(|limit| inside.is_char_boundary(*limit))?;
        let inside = &inside[..limit];
        let mut from = 0;
        let length = loop {
            let found = from + inside[from..].find(close)?;
            // An escaped dollar sign is a part of the formula.
            if close == "$" && inside[..found].ends_with('\\') {
                from = found + 1;
                continue;
            }
            break found;
        };
        let content = &inside[..length];
        let holds_box =
            || content.find("\\boxed{").is_some_and(|start| content[start + 7..].find('}').is_some_and(|end| end > 0));
        if content.is_empty()
            || content.ends_with('\\')
            || (inline && content.contains('\n'))
            || (boxed && !holds_box())
        {
            return None;
        }
        let start = at + open.len();
        Some((start..start + length, start + length + close.len()))
    };
    let unescaped = before != Some('\\');
    if rest.starts_with("$$") {
        return if unescaped { between("$$", "$$", false) } else { None };
    }
    if rest.starts_with('$') {
        let after_digit = before.is_some_and(|c| c.is_ascii_digit());
        return if unescaped && !after_digit { between("$", "$", true) } else { None };
    }
    if rest.starts_with("\\[") {
        return if unescaped { between("\\[", "\\]", false) } else { None };
    }
    if rest.starts_with("\\(") {
        return if unescaped { between("\\(", "\\)", true) } else { None };
    }
    // A space may be of several bytes.
    let bracketed = rest.strip_prefix(char::is_whitespace).and_then(|after| after.strip_prefix('['));
    if let Some(inside) = bracketed {
        let length = inside.find([']', '[', '\n']).filter(|end| *end > 0 && inside[*end..].starts_with(']'))?;
        let space = inside[length + 1..].chars().next().filter(|c| c.is_whitespace() && !boxed)?;
        let start = at + rest.len() - inside.len();
        return Some((start..start + length, start + length + 1 + space.len_utf8()));
    }
    let fraction = FRACTION.find(rest).filter(|_| !boxed)?;
    Some((at..at + fraction.end(), at + fraction.end()))
}
