//! The mathematics grader of FuseChat-3.0's evaluation: fanqiwan/FuseAI,
//! `FuseChat-3.0/FuseEval/Math-Eval` (`parser.py`, `grader.py`), which is
//! Qwen2.5-Math's. Numbers are compared to a relative 1e-4 and up to a factor of
//! a hundred either way, all else as texts and then as expressions.
//!
//! Its readers of LaTeX take the longest beginning that they understand, so that `x,y` equals `x,z` there; this is kept.
//! Its π, e and i are names without a value. Answers are normalised once, as the recorded ones were.
//! Where the original ran past its time limit there is no verdict to match.

use std::sync::LazyLock;

use regex::Regex;

use super::algebra::{self, Expr, Reading, Rules, Value};
use super::{Verifier, rewrite, word_number};

pub const VERIFIER: Verifier = Verifier {
    name: "fuseeval",
    doc: "the mathematics grader of FuseChat-3.0's evaluation (Qwen2.5-Math's): the boxed answer or the last number equals the reference as a number (to 1e-4, percent or not), a text or an expression",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

/// Relative difference of numbers that count as equal.
const TOLERANCE: f64 = 1e-4;
/// How deep brackets within brackets are taken apart.
const MAX_NESTING: usize = 8;

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

fn extract(response: &str) -> Option<String> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"-?\d*\.?\d+"));
    static BREAK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\n\s*"));
    let answer = if response.contains("final answer is $") && response.contains("$. I hope") {
        let after = response.split_once("final answer is $").map_or("", |(_, after)| after);
        after.split("$. I hope").next().unwrap_or_default().trim().to_owned()
    } else if let Some((_, after)) = response.rsplit_once("boxed") {
        if after.is_empty() {
            return None;
        }
        match after.strip_prefix('{') {
            Some(inside) => inside[..closing(inside)].to_owned(),
            None => after.split('$').next().unwrap_or_default().trim().to_owned(),
        }
    } else if let Some((_, after)) =
        response.rsplit_once("he answer is").or_else(|| response.rsplit_once("final answer is"))
    {
        after.trim().to_owned()
    } else if let Some((_, after)) = response.split_once("答案是") {
        let after = after.split("答案是").next().unwrap_or_default().trim();
        after.split("\n\n").next().unwrap_or_default().trim().to_owned()
    } else {
        let text = response.replace(',', "");
        NUMBER.find_iter(&text).last().map_or("", |found| found.as_str()).to_owned()
    };
    let answer = BREAK.replace_all(&answer, "");
    let answer = answer.strip_prefix(':').unwrap_or(&answer);
    let answer = answer.strip_suffix('.').unwrap_or(answer);
    let answer = answer.strip_suffix('/').unwrap_or(answer);
    if answer.chars().count() > algebra::MAX_CHARS {
        return None;
    }
    Some(stripped(answer)).filter(|answer| !answer.is_empty())
}

/// Where the brace before `inside` closes, or the end.
fn closing(inside: &str) -> usize {
    let mut depth = 1;
    for (position, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return position;
        }
    }
    inside.len()
}

/// Units that are left out wherever they stand alone, in this order; a full stop stands for any character.
const UNITS: &[&str] = &[
    "east",
    "degree",
    "mph",
    "kmph",
    "ft",
    "m sqaure",
    " m east",
    "sq m",
    "deg",
    "mile",
    "q .",
    "monkey",
    "prime",
    "ratio",
    "profit of rs",
    "rd",
    "o",
    "gm",
    "p . m",
    "lb",
    "tile",
    "per",
    "dm",
    "lt",
    "gain",
    "ab",
    "way",
    "west",
    "a .",
    "b .",
    "c .",
    "d .",
    "e .",
    "f .",
    "g .",
    "h .",
    "t",
    "a",
    "h",
    "no change",
    "men",
    "soldier",
    "pie",
    "bc",
    "excess",
    "st",
    "inches",
    "noon",
    "percent",
    "by",
    "gal",
    "kmh",
    "c",
    "acre",
    "rise",
    "a . m",
    "th",
    "π r 2",
    "sq",
    "mark",
    "l",
    "toy",
    "coin",
    "sq . m",
    "gallon",
    "° f",
    "profit",
    "minw",
    "yr",
    "women",
    "feet",
    "am",
    "pm",
    "hr",
    "cu cm",
    "square",
    "v â € ™",
    "are",
    "rupee",
    "rounds",
    "cubic",
    "cc",
    "mtr",
    "s",
    "ohm",
    "number",
    "kmph",
    "day",
    "hour",
    "minute",
    "min",
    "second",
    "man",
    "woman",
    "sec",
    "cube",
    "mt",
    "sq inch",
    "mp",
    "∏ cm ³",
    "hectare",
    "more",
    "sec",
    "unit",
    "cu . m",
    "cm 2",
    "rs .",
    "rs",
    "kg",
    "g",
    "month",
    "km",
    "m",
    "cm",
    "mm",
    "apple",
    "liter",
    "loss",
    "yard",
    "pure",
    "year",
    "increase",
    "decrease",
    "d",
    "less",
    "Surface",
    "litre",
    "pi sq m",
    "s .",
    "metre",
    "meter",
    "inch",
];

/// Leaves a unit out wherever no letter, digit or underscore stands beside it. What stands beside one match is not looked at for the next.
fn without_unit(text: &[char], unit: &[char]) -> Vec<char> {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let fits = |at: usize| {
        unit.iter()
            .enumerate()
            .all(|(i, wanted)| text.get(at + i).is_some_and(|c| c == wanted || (*wanted == '.' && *c != '\n')))
    };
    let matched = |at: usize| -> Option<(usize, usize)> {
        let starts = [(at == 0).then_some(at), text.get(at).is_some_and(|c| !is_word(c)).then_some(at + 1)];
        starts.into_iter().flatten().find_map(|start| {
            let end = start + unit.len();
            (fits(start) && text.get(end).is_none_or(|c| !is_word(c))).then_some((start, end))
        })
    };
    let mut rest = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match matched(at) {
            Some((start, end)) => {
                rest.extend(&text[at..start]);
                rest.extend(text.get(end));
                at = end + 1;
            }
            None => {
                rest.push(text[at]);
                at += 1;
            }
        }
    }
    rest
}

fn without_units(text: &str) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..2 {
        for plural in [false, true] {
            for unit in UNITS {
                let unit: Vec<char> = unit.chars().chain(plural.then_some('s')).collect();
                let without = without_unit(&text, &unit);
                if !without.is_empty() {
                    text = without;
                }
            }
        }
    }
    text.into_iter().collect()
}

/// The normal form of `strip_string`.
fn stripped(text: &str) -> String {
    static ARRAY: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\begin\{array\}\{.*?\}"));
    static UNIT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\text\{.*?\}$"));
    static MBOX: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\mbox\{.*?\}"));
    static ZEROS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d+)\.0*([^\d])"));
    static ZEROS_LAST: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d+)\.0*$"));
    static ROOT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\sqrt(\w+)"));

    let text = text.trim().replace('\n', "");
    let text = text.trim_end_matches('.').replace("\\!", "");
    let text = ARRAY
        .replace_all(&text, r"\begin{pmatrix}")
        .replace("\\end{array}", "\\end{pmatrix}")
        .replace("bmatrix", "pmatrix");
    let text = text.replace("tfrac", "frac").replace("dfrac", "frac");
    let text = text.replace("\\neq", "\\ne").replace("\\leq", "\\le").replace("\\geq", "\\ge");
    let mut text = text.replace("\\left", "").replace("\\right", "").replace("\\{", "{").replace("\\}", "}");
    let without = UNIT.replace_all(&text, "").trim().to_owned();
    if !without.is_empty() {
        text = without;
    }
    text = without_units(&text);
    for gone in ["^{\\circ}", "^\\circ", "\\$", "$", "\\(", "\\)"] {
        text = text.replace(gone, "");
    }
    text = word_number::to_digits(&text).unwrap_or(text);
    text = rewrite::unwrap_command(&text, "\\text{");
    for gone in ["x=", "y=", "z=", "x\\in", "y\\in", "z\\in", "x\\to", "y\\to", "z\\to"] {
        text = text.replace(gone, "");
    }
    text = text.replace("\\emptyset", "{}").replace("(-\\infty,\\infty)", "\\mathbb{R}");
    text = text
        .replace("\\%", "")
        .replace('%', "")
        .replace(" .", " 0.")
        .replace("{.", "{0.")
        .replace("infinity", "\\infty");
    if !text.contains("\\infty") {
        text = text.replace("inf", "\\infty");
    }
    text = text.replace("+\\inity", "\\infty").replace("and", "").replace("\\mathbf", "");
    text = MBOX.replace_all(&text, "").into_owned();
    if text.contains('j') && !text.contains('i') {
        text = text.replace('j', "i");
    }
    text = ZEROS.replace_all(&text, "$1$2").into_owned();
    text = ZEROS_LAST.replace_all(&text, "$1").into_owned();
    if text.is_empty() {
        return text;
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    let text = rewrite::without_short_left_side(text);
    let text = ROOT.replace_all(&text, r"\sqrt{$1}").replace(' ', "");
    let text = rewrite::fractions(&text, true).expect("empty parts are kept");
    match rewrite::slash(&text, |side| side.contains("sqrt")) {
        rewrite::Slash::Rewritten(fraction) => fraction,
        rewrite::Slash::Kept | rewrite::Slash::NotNumbers => text,
    }
}

fn equal(reference: &str, answer: &str) -> bool {
    if answer.chars().count() > algebra::MAX_CHARS || reference.chars().count() > algebra::MAX_CHARS {
        return false;
    }
    same(answer, &stripped(reference), MAX_NESTING)
}

/// `math_equal` of two normal forms.
fn same(answer: &str, reference: &str, nesting: usize) -> bool {
    if answer.trim().to_lowercase() == reference.trim().to_lowercase() {
        return true;
    }
    if matches!(reference, "A" | "B" | "C" | "D" | "E") && choice(answer) == reference {
        return true;
    }
    if let (Some(answer), Some(reference)) = (digits(answer), digits(reference)) {
        return [reference / 100.0, reference, reference * 100.0].iter().any(|wanted| near(answer, *wanted));
    }
    if answer.is_empty() || nesting == 0 {
        return false;
    }
    let (answer, reference) = (answer.trim(), reference.trim());
    if without_brackets(answer, reference) {
        return true;
    }
    if parts_of(answer).zip(parts_of(reference)).is_some_and(|(a, b)| all_same(&a, &b, nesting)) {
        return true;
    }
    if let (Some(a), Some(b)) = (matrix_rows(answer), matrix_rows(reference))
        && a.len() == b.len()
        && a.iter()
            .zip(&b)
            .all(|(a, b)| all_same(&a.split('&').collect::<Vec<_>>(), &b.split('&').collect::<Vec<_>>(), nesting))
    {
        return true;
    }
    match (sides(answer), sides(reference)) {
        (Some((a, b)), Some((c, d))) => {
            let (given, wanted) = (format!("{a} - ({b})"), format!("{c} - ({d})"));
            if same_expression(&given, &wanted) || same_expression(&format!("-({given})"), &wanted) {
                return true;
            }
        }
        (Some((name, value)), None)
            if name.chars().count() <= 2 && !reference.contains('=') && same(value, reference, nesting - 1) =>
        {
            return true;
        }
        (None, Some((name, value)))
            if name.chars().count() <= 2 && !answer.contains('=') && same(answer, value, nesting - 1) =>
        {
            return true;
        }
        _ => {}
    }
    same_expression(answer, reference)
}

fn all_same(a: &[&str], b: &[&str], nesting: usize) -> bool {
    a.len() == b.len() && a.len() <= algebra::MAX_ITEMS && a.iter().zip(b).all(|(a, b)| same(a, b, nesting - 1))
}

/// The last letter A to E that stands alone.
fn choice(text: &str) -> String {
    static LETTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b([ABCDE])\b"));
    let upper = text.to_uppercase();
    LETTER.find_iter(&upper).last().map_or("", |found| found.as_str()).to_owned()
}

/// A number, with any commas and a percent sign.
fn digits(text: &str) -> Option<f64> {
    let number = |text: &str| {
        let plain = text.trim();
        let looks_like_one =
            plain.chars().any(|c| c.is_ascii_digit()) || matches!(plain.trim_start_matches(['-', '+']), "inf" | "nan");
        if looks_like_one { plain.parse::<f64>().ok() } else { None }
    };
    let text = text.replace(',', "");
    number(&text).or_else(|| {
        let percent = text.strip_suffix('%')?;
        number(percent.strip_suffix('\\').unwrap_or(percent)).map(|number| number / 100.0)
    })
}

fn near(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// Whether the texts are equal without their brackets and braces.
fn without_brackets(answer: &str, reference: &str) -> bool {
    let (mut a, mut b) = (answer, reference);
    let in_brackets = |open: char, close: char, other: char| {
        answer.starts_with(open) && answer.ends_with(close) && !reference.starts_with(other)
    };
    if in_brackets('[', ']', '(') || in_brackets('(', ')', '[') {
        let brackets: &[char] = &['[', ']', '(', ')'];
        (a, b) = (a.trim_matches(brackets), b.trim_matches(brackets));
    }
    let plain = |text: &str| text.replace(['{', '}', '(', ')'], "").to_lowercase();
    plain(a) == plain(b)
}

/// What commas divide between the first and the last character, where brackets stand there.
fn parts_of(text: &str) -> Option<Vec<&str>> {
    static BRACKETED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\(|\[).+(\)|\])"));
    if !BRACKETED.is_match(text) {
        return None;
    }
    let inside = text.get(1..)?;
    let last = inside.chars().next_back()?;
    Some(inside[..inside.len() - last.len_utf8()].split(',').collect())
}

fn matrix_rows(text: &str) -> Option<Vec<&str>> {
    let inside = text.strip_prefix("\\begin{pmatrix}")?.strip_suffix("\\end{pmatrix}")?;
    Some(inside.split("\\\\").map(str::trim).filter(|row| !row.is_empty()).collect())
}

/// The two sides of a text with one equality sign.
fn sides(text: &str) -> Option<(&str, &str)> {
    let (a, b) = text.split_once('=')?;
    (!b.contains('=')).then(|| (a.trim(), b.trim()))
}

/// `symbolic_equal`: as LaTeX, else as a plain formula, else as texts.
fn same_expression(a: &str, b: &str) -> bool {
    let rules = Rules { scalar: same_value, unordered: false, rearranged: false };
    match (read(a), read(b)) {
        (Some(a), Some(b)) => b.equals(&a, &rules),
        (None, None) => a == b,
        _ => false,
    }
}

fn read(text: &str) -> Option<Value> {
    let latex = Reading { words: false, whole: false, mixed: false, separators: true };
    let plain = Reading { words: true, whole: true, ..latex };
    algebra::parse(&text.replace("\\\\", "\\"), latex)
        .or_else(|| algebra::parse(text, latex))
        .or_else(|| algebra::parse(text, plain))
}

fn same_value(a: &Expr, b: &Expr) -> bool {
    a.equals(b) || (!a.has_constants() && !b.has_constants() && algebra::close(a, b, TOLERANCE))
}
