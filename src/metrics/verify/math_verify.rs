//! The rules of Hugging Face's Math-Verify 0.9.0 (huggingface/Math-Verify,
//! `src/math_verify/parser.py` and `grader.py`; latex2sympy2_extended,
//! `math_normalization.py`), as `verify(parse("$reference$"), parse(response))`
//! with its defaults judges: the response's last box, announced answer, formula or
//! number, whichever comes first in that order and can be read, equals the
//! reference as a number, expression, set, interval, matrix or relation.
//!
//! Numbers: decimals are rounded to six places, `9\%` is 9 as well as 0.09, all else is exact. Sets are unordered; a tuple is
//! ordered; `(1,2)` is an interval and a pair; of `x = 3` the right side is enough.
//!
//! Differences: expressions are compared at random points where the original simplifies with SymPy, and sets of equations
//! are not solved. Only the last [`MAX_BYTES`] bytes of a response are looked at; the original stops after five seconds.

use std::sync::LazyLock;

use regex::Regex;

use super::Verifier;
use super::algebra::{self, Expr, LATEX, Rules, Value};

mod extract;
mod normalise;

pub const VERIFIER: Verifier = Verifier {
    name: "math_verify",
    doc: "the rules of Math-Verify: the last box, announced answer, formula or number equals the reference as a number, expression, set, interval, matrix or relation",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

/// How much of a response is looked at, from its end.
const MAX_BYTES: usize = 1 << 17;
/// Decimals are compared after rounding to this many places.
const PLACES: i32 = 6;

const RULES: Rules = Rules { scalar: same_scalar, unordered: true, rearranged: true };

fn extract(response: &str) -> Option<String> {
    let start = response.len().saturating_sub(MAX_BYTES);
    let start = (start..=response.len()).find(|start| response.is_char_boundary(*start)).unwrap_or(response.len());
    extract::answer(&response[start..])
}

fn equal(reference: &str, answer: &str) -> bool {
    if answer.is_empty() {
        return false;
    }
    let Some(reference) = extract(&format!("${reference}$")) else { return false };
    reference == answer
        || match (read(&reference), read(answer)) {
            (Some(reference), Some(answer)) => reference.equals(&answer, &RULES),
            _ => false,
        }
}

/// Reads a normalised formula; of a chain of equations that cannot be read, its end.
fn read(text: &str) -> Option<Value> {
    static THOUSANDS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?:\\%)?$").expect("a valid pattern"));
    if THOUSANDS.is_match(text) {
        return algebra::parse(&text.replace(',', ""), LATEX);
    }
    algebra::parse(text, LATEX).or_else(|| {
        let last = text.rsplit('=').next().filter(|_| text.matches('=').count() > 1 && !text.contains([',', ';']))?;
        algebra::parse(last, LATEX)
    })
}

fn same_scalar(gold: &Expr, answer: &Expr) -> bool {
    // A plain number, the number within a percentage, and which of them it was.
    let atom = |expr: &Expr| match expr {
        Expr::Percent(inner) => inner.literal(),
        other => other.literal(),
    };
    let (a, b) = (atom(gold), atom(answer));
    let is_decimal = |atom: &Option<String>| atom.as_ref().is_some_and(|literal| literal.contains('.'));
    if is_decimal(&a) || is_decimal(&b) {
        let rounded = |value: f64| (value * 10_f64.powi(PLACES)).round_ties_even();
        if let (Some(gold), Some(answer)) = (gold.real(), answer.real())
            && rounded(gold) == rounded(answer)
        {
            return true;
        }
    } else if let (Expr::Percent(a), b) | (b, Expr::Percent(a)) = (gold, answer)
        && a.equals(b)
    {
        return true;
    }
    gold.equals(answer)
}

#[cfg(test)]
mod tests;
