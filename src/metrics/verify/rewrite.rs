//! Rewritings of LaTeX that several published string graders share; all go
//! back to hendrycks/math, `modeling/math_equivalence.py`, which also says what
//! they are for. A grader that stops with an exception there gets none here.

/// `\frac12` to `\frac{1}{2}`, also `\frac1{72}`; a text in which a fraction lacks its digits stays as it is.
/// None where nothing at all follows a `\frac`, unless `empty_is_kept`.
pub fn fractions(text: &str, empty_is_kept: bool) -> Option<String> {
    let mut parts = text.split("\\frac");
    let mut rewritten = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rewritten.push_str("\\frac");
        if part.starts_with('{') {
            rewritten.push_str(part);
            continue;
        }
        if part.is_empty() && !empty_is_kept {
            return None;
        }
        let mut chars = part.chars();
        let (Some(a), Some(b)) = (chars.next(), chars.next()) else { return Some(text.to_owned()) };
        rewritten.push_str(&format!("{{{a}}}"));
        if b == '{' {
            rewritten.push('{');
        } else {
            rewritten.push_str(&format!("{{{b}}}"));
        }
        rewritten.push_str(chars.as_str());
    }
    Some(rewritten)
}

/// How Python's `int` takes a text.
#[derive(Debug, PartialEq, Eq)]
enum Integer {
    /// It prints as it stands.
    Canonical,
    /// It is one, but prints differently.
    Other,
    NotOne,
}

fn integer(text: &str) -> Integer {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    let groups: Vec<&str> = digits.split('_').collect();
    if groups.iter().any(|group| group.is_empty() || !group.chars().all(|c| c.is_ascii_digit())) {
        return Integer::NotOne;
    }
    let zero_led = digits.len() > 1 && digits.starts_with('0');
    let canonical = trimmed == text && groups.len() == 1 && !zero_led && !text.starts_with('+') && text != "-0";
    if canonical { Integer::Canonical } else { Integer::Other }
}

/// What becomes of `a/b`.
#[derive(Debug, PartialEq, Eq)]
pub enum Slash {
    /// It has no single slash, or numbers in an unusual form.
    Kept,
    Rewritten(String),
    /// A side is no whole number.
    NotNumbers,
}

/// `3/4` to `\frac{3}{4}` where both sides are whole numbers, or where `accepted` takes a side that is not.
pub fn slash(text: &str, accepted: impl Fn(&str) -> bool) -> Slash {
    let mut sides = text.split('/');
    let (Some(a), Some(b), None) = (sides.next(), sides.next(), sides.next()) else { return Slash::Kept };
    let mut canonical = true;
    for side in [a, b] {
        if accepted(side) {
            continue;
        }
        match integer(side) {
            Integer::NotOne => return Slash::NotNumbers,
            Integer::Other => canonical = false,
            Integer::Canonical => {}
        }
    }
    if canonical { Slash::Rewritten(format!("\\frac{{{a}}}{{{b}}}")) } else { Slash::Kept }
}

/// Every non-overlapping match of `open`, then as little as possible, then `}`, on one line, replaced by what stood between.
pub fn unwrap_command(text: &str, open: &str) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let inside = &rest[start + open.len()..];
        let Some(end) = inside.find(['}', '\n']) else { break };
        if inside[end..].starts_with('}') {
            rewritten.push_str(&rest[..start]);
            rewritten.push_str(&inside[..end]);
        } else {
            // Nothing that opens before the end of the line closes.
            rewritten.push_str(&rest[..start + open.len() + end + 1]);
        }
        rest = &inside[end + 1..];
    }
    rewritten.push_str(rest);
    rewritten
}

/// A text of the form `x=3`, where the left side has at most two characters, to its right side.
pub fn without_short_left_side(text: String) -> String {
    let mut sides = text.split('=');
    match (sides.next(), sides.next(), sides.next()) {
        (Some(left), Some(right), None) if left.chars().count() <= 2 => right.to_owned(),
        _ => text,
    }
}
