//! The string grader that came with MATH: hendrycks/math,
//! `modeling/math_equivalence.py`; the answer is the last `\boxed`
//! (`modeling/dataset/util.py`). Normalised texts are compared, not values:
//! `0.5` is `\frac{1}{2}` only because that one case is written in it.

use super::{Verifier, boxed, rewrite};

pub const VERIFIER: Verifier = Verifier {
    name: "hendrycks",
    doc: "the string grader of the MATH data set (hendrycks/math): the last \\boxed, normalised, equals the normalised reference",
    extract,
    equal: |reference, answer| Ok(equal(reference, answer)),
};

fn extract(response: &str) -> Option<String> {
    boxed::last(response).map(str::to_owned)
}

fn equal(reference: &str, answer: &str) -> bool {
    if answer.is_empty() {
        return false;
    }
    match (normalised(answer), normalised(reference)) {
        (Some(answer), Some(reference)) => answer == reference,
        _ => answer == reference,
    }
}

/// The normal form of `_strip_string`; none where that stops with an exception.
pub(super) fn normalised(text: &str) -> Option<String> {
    let text = text.replace('\n', "").replace("\\!", "").replace("\\\\", "\\");
    let text = text.replace("tfrac", "frac").replace("dfrac", "frac").replace("\\left", "").replace("\\right", "");
    let text = text.replace("^{\\circ}", "").replace("^\\circ", "").replace("\\$", "");
    // A text after a space is a unit; with two of them the original gives up.
    let mut parts = text.split("\\text{ ");
    let text = parts.next().unwrap_or_default().to_owned();
    if parts.next().is_some() && parts.next().is_some() {
        return None;
    }
    let mut text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.");
    if text.is_empty() {
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    let text = roots(&rewrite::without_short_left_side(text))?.replace(' ', "");
    let text = rewrite::fractions(&text, false)?;
    let text = if text == "0.5" { "\\frac{1}{2}".to_owned() } else { text };
    Some(match rewrite::slash(&text, |_| false) {
        rewrite::Slash::Rewritten(fraction) => fraction,
        rewrite::Slash::Kept | rewrite::Slash::NotNumbers => text,
    })
}

/// `\sqrt3` to `\sqrt{3}`; none where nothing follows.
fn roots(text: &str) -> Option<String> {
    let mut parts = text.split("\\sqrt");
    let mut rewritten = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let first = part.chars().next()?;
        if first == '{' {
            rewritten.push_str(&format!("\\sqrt{part}"));
        } else {
            rewritten.push_str(&format!("\\sqrt{{{first}}}{}", &part[first.len_utf8()..]));
        }
    }
    Some(rewritten)
}
