//! OpenCompass' string grader for MATH and its like: open-compass/opencompass,
//! `opencompass/datasets/math.py`, second post-processing version
//! (`math_postprocess_v2`) and evaluator version v2. Three normal forms of the
//! texts are compared, never values: `0.5` and `\frac{1}{2}` differ.

use std::sync::LazyLock;

use regex::Regex;

use super::{Verifier, boxed, rewrite};

pub const VERIFIER: Verifier = Verifier {
    name: "opencompass",
    doc: "the string grader of OpenCompass for MATH (second post-processing, evaluator v2): the last \\boxed or the sentence of the answer, normalised, equals the normalised reference",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

fn extract(response: &str) -> Option<String> {
    static DOUBLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\{(.*)\}\n?$"));
    if let Some(answer) = boxed::last(response) {
        let answer = DOUBLE.captures(answer).map_or(answer, |found| found.get(1).expect("the group").as_str());
        if !answer.is_empty() {
            return Some(answer.to_owned());
        }
    }
    let says_so = |sentence: &&str| {
        let sentence = sentence.to_lowercase();
        sentence.contains("final answer") || sentence.contains("answer is")
    };
    let sentence = response.split('.').find(says_so).or_else(|| response.split('.').next());
    Some(final_answer(sentence.unwrap_or_default())).filter(|answer| !answer.is_empty())
}

fn equal(reference: &str, answer: &str) -> bool {
    if answer.is_empty() {
        return false;
    }
    if let (Some(answer), Some(reference)) = (stripped(answer), stripped(reference))
        && (answer == reference || final_answer(&answer) == final_answer(&reference))
    {
        return true;
    }
    final_answer(answer) == final_answer(reference)
}

/// The normal form of `_strip_string_v2`; none where that stops with an exception.
fn stripped(text: &str) -> Option<String> {
    static UNIT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\text\{.*?\}$"));
    static MBOX: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\mbox\{.*?\}"));
    static ZEROS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d+)\.0+([^\d])"));
    static ZEROS_LAST: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d+)\.0+$"));
    static ROOT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\sqrt(\w+)"));

    let text = text.trim().replace('\n', "");
    let text = text.trim_end_matches('.').replace("\\!", "").replace("\\ ", "");
    let text = text.replace("\\\\", "\\").replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac");
    let mut text = text.replace("\\left", "").replace("\\right", "");
    let without_unit = UNIT.replace_all(&text, "").trim().to_owned();
    if !without_unit.is_empty() {
        text = without_unit;
    }
    for gone in ["^{\\circ}", "^\\circ", "\\$", "$", "\\text", "x\\in", "\\%", "%"] {
        text = text.replace(gone, "");
    }
    text = text.replace(" .", " 0.").replace("{.", "{0.").replace("\\cdot", "").replace("infinity", "\\infty");
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
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    let text = rewrite::without_short_left_side(text);
    let text = ROOT.replace_all(&text, r"\sqrt{$1}").replace(' ', "");
    let text = rewrite::fractions(&text, true)?;
    match rewrite::slash(&text, |_| false) {
        rewrite::Slash::Kept => Some(text),
        rewrite::Slash::Rewritten(fraction) => Some(fraction),
        rewrite::Slash::NotNumbers => None,
    }
}

/// Replaced in this order.
const SUBSTITUTIONS: &[(&str, &str)] = &[
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
];
/// Left out in this order, after the substitutions.
const REMOVED: &[&str] = &[
    "square",
    "ways",
    "integers",
    "dollars",
    "mph",
    "inches",
    "ft",
    "hours",
    "km",
    "units",
    "\\ldots",
    "sue",
    "points",
    "feet",
    "minutes",
    "digits",
    "cents",
    "degrees",
    "cm",
    "gm",
    "pounds",
    "meters",
    "meals",
    "edges",
    "students",
    "childrentickets",
    "multiples",
    "\\text{s}",
    "\\text{.}",
    "\\text{\ns}",
    "\\text{}^2",
    "\\text{}^3",
    "\\text{\n}",
    "\\text{}",
    "\\mathrm{th}",
    "^\\circ",
    "^{\\circ}",
    "\\;",
    ",\\!",
    "{,}",
    "\"",
    "\\dots",
];

/// A text after the substitutions and removals of the Minerva paper (Lewkowycz and others, arXiv 2206.14858, appendix D), which
/// other graders take over with additions of their own.
pub(super) fn without_units(text: &str, more: &[(&str, &str)]) -> String {
    let text = text.to_owned();
    let text = SUBSTITUTIONS.iter().chain(more).fold(text, |text, (before, after)| text.replace(before, after));
    REMOVED.iter().fold(text, |text, gone| text.replace(gone, ""))
}

/// The normal form of `normalize_final_answer`.
fn final_answer(text: &str) -> String {
    static BRACKETED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\text\{\((.*?)\)\}"));
    static BOXED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\boxed\{(.*)\}"));
    static SAID: LazyLock<[Regex; 4]> =
        LazyLock::new(|| [r"finalansweris(.*)", r"answer?is:?(.*)", r"oxed\{(.*?)\}", r"\$(.*?)\$"].map(pattern));
    let text = without_units(text, &[("\\le", "<")]).replace(['\n', '\r', '\u{c}'], "");
    let text = BRACKETED.replace_all(&text, "$1");
    let text = ["\\text{", "\\textbf{", "\\overline{"]
        .iter()
        .fold(text.into_owned(), |text, open| rewrite::unwrap_command(&text, open));
    let mut text = BOXED.replace_all(&text, "$1").into_owned();
    for said in SAID.iter() {
        if let Some(found) = said.captures_iter(&text).last() {
            text = found.get(1).expect("the group").as_str().to_owned();
        }
    }
    let text = text.trim();
    let text =
        if text.contains("rac") && !text.contains("\\frac") { text.replace("rac", "\\frac") } else { text.to_owned() };
    shorthand(&text)
}

/// `\frac12` and `\sqrt3` in full, without dollar signs and without the commas of one number.
pub(super) fn shorthand(text: &str) -> String {
    static FRACTION: LazyLock<Regex> = LazyLock::new(|| pattern(r"(frac)([^{])(.)"));
    static ROOT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(sqrt)([^{])"));
    let text = FRACTION.replace_all(text, "frac{$2}{$3}");
    let text = ROOT.replace_all(&text, "sqrt{$2}").replace('$', "");
    let digits = text.replace(',', "");
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    if is_number { digits } else { text }
}
