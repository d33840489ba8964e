//! PRM800K's grader: openai/prm800k, `prm800k/grading/grader.py` and
//! `math_normalize.py`. A response's answer follows `# Answer`, as in that data
//! set, or stands in the last `\boxed`. Equal texts (also by hendrycks/math's
//! rules) are right; else tuples are compared part by part, integers and fractions
//! strictly as they stand, and other expressions by value.

use std::sync::LazyLock;

use regex::Regex;

use super::algebra::{self, Reading, Value};
use super::{Verifier, boxed, hendrycks};

pub const VERIFIER: Verifier = Verifier {
    name: "prm800k",
    doc: "PRM800K's grader: the answer after \"# Answer\" or in the last \\boxed equals the reference as a text or as an expression; integers and fractions must be in lowest terms",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

fn extract(response: &str) -> Option<String> {
    let marked = response.rsplit_once("# Answer").map(|(_, after)| after.trim()).filter(|answer| !answer.is_empty());
    marked.or_else(|| boxed::last(response)).map(str::to_owned)
}

fn equal(reference: &str, answer: &str) -> bool {
    if answer.is_empty() || answer.chars().count() > algebra::MAX_CHARS {
        return false;
    }
    if by_text(reference) == by_text(answer) {
        return true;
    }
    let (reference, answer) = (normalised(reference), normalised(answer));
    if reference == answer {
        return true;
    }
    if answer.is_empty() {
        return false;
    }
    let (wanted, given) = (parts(&reference), parts(&answer));
    let ends = |text: &str| (text.chars().next(), text.chars().next_back());
    if wanted.len() > 1 && ends(&reference) != ends(&answer) {
        return false;
    }
    wanted.len() == given.len() && wanted.iter().zip(&given).all(|(wanted, given)| same_part(wanted, given))
}

/// The normal form of hendrycks/math, or the text itself where that gives up.
fn by_text(text: &str) -> String {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\\text\{(.+?)\}$"));
    let text = text.trim();
    let text = WHOLE.captures(text).map_or(text, |found| found.get(1).expect("the group").as_str().trim());
    hendrycks::normalised(text).unwrap_or_else(|| text.to_owned())
}

const UNITS: &[&str] = &[
    "degree",
    "cm",
    "centimeter",
    "meter",
    "mile",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
    "foot",
    "feet",
    "inch",
    "yard",
];

fn normalised(text: &str) -> String {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\\text\{(.+?)\}$"));
    static UNIT: LazyLock<Vec<Regex>> =
        LazyLock::new(|| UNITS.iter().map(|unit| pattern(&format!(r"{unit}(es)?(s)? *(\^[0-9]+)?"))).collect());
    static DEGREES: LazyLock<Regex> = LazyLock::new(|| pattern(r"\^ *\\circ"));
    static COMMA: LazyLock<Regex> = LazyLock::new(|| pattern(r",\\! *"));
    static MINUS: LazyLock<Regex> = LazyLock::new(|| pattern("- *"));
    static MIXED: LazyLock<Regex> = LazyLock::new(|| pattern("([0-9]) +([0-9])"));

    let mut text = WHOLE.captures(text).map_or(text, |found| found.get(1).expect("the group").as_str()).to_owned();
    text = text.replace("\\%", "%").replace("\\$", "$").replace(['$', '%'], "");
    text = text.replace(" or ", " , ").replace(" and ", " , ");
    text = text.replace("million", "*10^6").replace("billion", "*10^9").replace("trillion", "*10^12");
    for unit in UNIT.iter() {
        text = unit.replace_all(&text, "").into_owned();
    }
    text = DEGREES.replace_all(&text, "").into_owned();
    if let Some(inside) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        text = inside.to_owned();
    }
    text = COMMA.replace_all(&text, "").into_owned();
    if let Some(whole) = whole_number(&text) {
        text = whole;
    }
    if text.contains('\\') {
        text = plain(&text);
    }
    text = MINUS.replace_all(&text, "-").into_owned();
    text = MIXED.replace_all(&text, "$1+$2").into_owned();
    text = text.replace([' ', '{', '}'], "").to_lowercase();
    whole_number(&without_separators(&text)).unwrap_or(text)
}

/// A number within 1e-7 of a whole one, as that.
fn whole_number(text: &str) -> Option<String> {
    let value: f64 = text.trim().parse().ok().filter(|_| text.contains(|c: char| c.is_ascii_digit()))?;
    (value.is_finite() && (value - value.round()).abs() <= 1e-7 && value.abs() < 1e15)
        .then(|| format!("{value:.0}").replace("-0", "0"))
}

/// LaTeX as plain text, as pylatexenc's `latex2text` writes it where answers need it.
fn plain(text: &str) -> String {
    static ROOT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\sqrt *(?:\{([^{}]*)\}|([^\s{\\]))"));
    static FRACTION: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\\frac *(?:\{([^{}]*)\}|([^\s{\\])) *(?:\{([^{}]*)\}|([^\s{\\]))"));
    static TEXT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\(?:text|mathrm|mathbf|mbox|textbf)\s*\{([^{}]*)\}"));
    static COMMAND: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\([A-Za-z]+) ?"));
    let mut text = text
        .replace("bmatrix", "pmatrix")
        .replace("\\tfrac", "\\frac")
        .replace("\\dfrac", "\\frac")
        .replace("\\frac", " \\frac");
    text = text.replace("\\left", "").replace("\\right", "").replace("\\!", "").replace(['\n', '~'], " ");
    // Innermost first; each turn takes one level away.
    for _ in 0..algebra::MAX_DEPTH {
        let before = text.clone();
        text = TEXT.replace_all(&text, "$1").into_owned();
        text = ROOT.replace_all(&text, "sqrt($1$2)").into_owned();
        text = FRACTION.replace_all(&text, "$1$2/$3$4").into_owned();
        if text == before {
            break;
        }
    }
    for (command, sign) in [
        ("\\pi", "pi"),
        ("\\infty", "inf"),
        ("\\cup", "U"),
        ("\\cdot", "*"),
        ("\\times", "*"),
        ("\\{", ""),
        ("\\}", ""),
        ("\\ ", " "),
        ("\\,", " "),
        ("\\;", " "),
    ] {
        text = text.replace(command, sign);
    }
    COMMAND.replace_all(&text, "$1").trim().to_owned()
}

fn without_separators(text: &str) -> String {
    static SEPARATOR: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d),(\d\d\d)($|\D)"));
    let mut text = text.to_owned();
    // Each turn takes one comma of every number away.
    for _ in 0..algebra::MAX_DEPTH {
        let next = SEPARATOR.replace_all(&text, "$1$2$3").into_owned();
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// The parts of a tuple or an interval without brackets inside, or the whole.
fn parts(text: &str) -> Vec<String> {
    let text = without_separators(text);
    let brackets: &[char] = &['(', ')', '[', ']'];
    let inside = text.strip_prefix(brackets).and_then(|text| text.strip_suffix(brackets));
    match inside.filter(|inside| !inside.is_empty() && !inside.contains(brackets)) {
        Some(inside) => inside.split(',').map(|part| part.trim().to_owned()).collect(),
        None => vec![text],
    }
}

fn same_part(wanted: &str, given: &str) -> bool {
    static FRACTION: LazyLock<Regex> = LazyLock::new(|| pattern(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$"));
    if FRACTION.is_match(wanted) && FRACTION.is_match(given) {
        return wanted == given;
    }
    let is_whole = |text: &str| whole_number(&without_separators(text)).is_some();
    if is_whole(wanted) != is_whole(given) {
        return false;
    }
    same_expression(wanted, given)
}

/// Whether the difference vanishes; texts of more than two letters and large powers are not tried.
fn same_expression(wanted: &str, given: &str) -> bool {
    static POWERS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\^[0-9]+\^|\^[0-9][0-9]+"));
    let both = format!("({wanted})-({given})");
    let mut letters: Vec<char> =
        both.replace("sqrt", "").replace("frac", "").chars().filter(|c| c.is_alphabetic()).collect();
    letters.sort_unstable();
    letters.dedup();
    if letters.len() > 2 || both.contains("^{") || both.contains("^(") || POWERS.is_match(&both) {
        return false;
    }
    let read = |text: &str| match algebra::parse(
        text,
        Reading { words: true, whole: true, mixed: false, separators: false },
    ) {
        Some(Value::Scalar(value)) => Some(value),
        _ => None,
    };
    match (read(wanted), read(given)) {
        (Some(wanted), Some(given)) => wanted.equals(&given),
        _ => false,
    }
}
