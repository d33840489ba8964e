//! Numeric answers of word problems, GSM8K's kind: finds the final number of a
//! free-text solution and compares it by value.
//!
//! Where the answer is looked for, first find wins:
//! 1. the last `\boxed{…}`;
//! 2. the text after the last `####` (GSM8K's own references);
//! 3. the text after the last "answer is" or "answer:" (also "… answer to … is", `**Answer:**`), to the end of its line;
//! 4. the last number of the whole response.
//!
//! In a text found by 1 to 3 the number after the last `=` counts, or else the
//! first number; a text without any number passes on to the next place.
//!
//! Numbers are whole, decimal, with thousands separators, or simple fractions
//! (`3/4`, `\frac{3}{4}`); `$`, other currency signs, `%` and units beside them
//! are left out, so "50%" is 50. They are compared exactly as fractions, without
//! a tolerance: 0.5 is 1/2, and 0.33 is not 1/3.
//!
//! On 3,144 recorded answers of three models to GSM8K it agrees with OpenCompass on 3,083 (98.1 %) and with the mathematics
//! grader of FuseChat-3.0's evaluation on 3,128 (99.5 %). The 61 differences are right values that OpenCompass, which compares
//! texts, counts as wrong: answers without a box, or with a unit in it.

use std::sync::LazyLock;

use regex::Regex;

use super::Verifier;
use crate::Error;

pub const VERIFIER: Verifier = Verifier {
    name: "numeric",
    doc: "the final number of the response (boxed, after #### or \"the answer is\", or the last one) equals the reference's by value",
    extract,
    equal,
};

fn equal(reference: &str, answer: &str) -> Result<bool, Error> {
    let value = |text: &str| extract(text).and_then(|number| Fraction::parse(&number));
    let wanted = value(reference).ok_or_else(|| Error::ReferenceNotNumeric { reference: reference.to_owned() })?;
    Ok(value(answer) == Some(wanted))
}

/// A number in plain form: `-1234.5` or `-3/4`.
fn extract(text: &str) -> Option<String> {
    let text = plain(text);
    let marked = [last_boxed(&text), after_last(&text, "####"), after_answer(&text)];
    marked
        .into_iter()
        .flatten()
        .find_map(|part| match part.rsplit_once('=').and_then(|(_, value)| first_number(value)) {
            Some(number) => Some(number),
            None => first_number(part),
        })
        .or_else(|| numbers(&text).last())
}

/// The text with LaTeX and typography that stands inside numbers made plain.
fn plain(text: &str) -> String {
    static FRACTION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\\[dtc]?frac\s*(?:\{\s*([\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}|(\d)\s*(\d))")
            .expect("a valid pattern")
    });
    // `{,}`, `\,` and `\!` separate thousands in LaTeX; no-break and thin spaces do in print.
    let text = text.replace("{,}", ",").replace("\\,", "").replace("\\!", "").replace('\u{2212}', "-");
    let text = text.replace("\\$", "$").replace("\\%", "%").replace(['\u{a0}', '\u{2009}', '\u{202f}'], " ");
    FRACTION.replace_all(&text, "$1$3/$2$4").into_owned()
}

/// What the last `\boxed{…}` holds, braces matched.
fn last_boxed(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("\\boxed")?;
    let inside = after.trim_start().strip_prefix('{')?;
    let mut depth = 1;
    for (position, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inside[..position]);
        }
    }
    // Cut off at the token limit: there is no answer in it.
    None
}

fn after_last<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let (_, after) = text.rsplit_once(mark)?;
    after.trim_start().lines().next()
}

fn after_answer(text: &str) -> Option<&str> {
    static ANSWER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)\banswer(?:\s+(?:to|for)\b[^.\n]*?)?\W{0,4}(?:\bis\b|:)").expect("a valid pattern")
    });
    let found = ANSWER.find_iter(text).last()?;
    text[found.end()..].trim_start().lines().next()
}

fn first_number(text: &str) -> Option<String> {
    numbers(text).next()
}

/// Every number of a text in order, in plain form.
fn numbers(text: &str) -> impl Iterator<Item = String> + '_ {
    // A hyphen is a sign only where no digit, letter or bracket stands before it, as in `x-3` or `10-3`.
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        let decimal = r"(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)";
        let sign = r"(?:(?:^|[^\d\w)\]])(-)\s?)?";
        Regex::new(&format!(r"{sign}\p{{Sc}}?\s?({decimal})(?:\s?/\s?({decimal}))?")).expect("a valid pattern")
    });
    NUMBER.captures_iter(text).map(|found| {
        let part = |group| found.get(group).map_or("", |part| part.as_str());
        let slash = if part(3).is_empty() { "" } else { "/" };
        format!("{}{}{slash}{}", part(1), without_separators(part(2)), without_separators(part(3)))
    })
}

/// A number without its thousands separators (also India's, `1,00,000`), or the last one of a list such as `1,2`.
fn without_separators(number: &str) -> String {
    let whole = number.split('.').next().unwrap_or_default();
    let mut groups = whole.rsplit(',');
    let last_fits = groups.next().is_some_and(|last| last.len() == 3);
    if last_fits && groups.all(|group| group.len() <= 3) {
        return number.replace(',', "");
    }
    number.rsplit(',').next().unwrap_or_default().to_owned()
}

/// An exact fraction in lowest terms with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    numerator: i128,
    denominator: i128,
}

impl Fraction {
    /// Reads a number in plain form; none where it is divided by zero or has over thirty digits.
    fn parse(text: &str) -> Option<Self> {
        let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
        let (above, above_scale) = decimal(numerator)?;
        let (below, below_scale) = decimal(denominator)?;
        let numerator = above.checked_mul(below_scale)?;
        let denominator = below.checked_mul(above_scale)?;
        if denominator == 0 {
            return None;
        }
        let divisor = greatest_common_divisor(numerator.unsigned_abs(), denominator.unsigned_abs()) as i128;
        Some(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }
}

/// A decimal as a whole number and the power of ten it is divided by.
fn decimal(text: &str) -> Option<(i128, i128)> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let decimals = decimals.trim_end_matches('0');
    let scale = 10_i128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    Some((format!("{whole}{decimals}").parse().ok()?, scale))
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
