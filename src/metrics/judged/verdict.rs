//! What a judge decided, read from its text. Nothing that is read this way is guessed: a judge that says two things, or none,
//! has said nothing.

/// The rating in a judge's text: the number in the first `[[…]]`, or else in the first `[…]` that holds nothing but a number
/// (lm-sys/FastChat, `llm_judge/common.py`, output format `[[rating]]`).
pub fn rating(text: &str) -> Option<f64> {
    bracketed(text, "[[", "]]").find_map(plain_number).or_else(|| bracketed(text, "[", "]").find_map(plain_number))
}

/// The verdict in the format of Arena-Hard (lmarena/arena-hard-auto, `gen_judgment.py`): the one label of `A`, `B`, `<`, `>`
/// and `=` that stands in `[[…]]`, however often; none where there is no label, or there are several different ones.
///
/// The labels that the judge is asked for are `A>>B`, `A>B`, `A=B`, `B>A` and `B>>A`; [`arena_score`] knows what they mean.
pub fn arena_verdict(text: &str) -> Option<&str> {
    let mut labels = bracketed(text, "[[", "]]").filter(|label| {
        !label.is_empty() && label.bytes().all(|byte| matches!(byte, b'A' | b'B' | b'<' | b'>' | b'='))
    });
    let first = labels.next()?;
    labels.all(|label| label == first).then_some(first)
}

/// The share of a battle that answer A wins by a label of Arena-Hard: 1, 0.5 or 0; none for any other label.
pub fn arena_score(label: &str) -> Option<f64> {
    match label {
        "A>>B" | "A>B" => Some(1.0),
        "A=B" => Some(0.5),
        "B>A" | "B>>A" => Some(0.0),
        _ => None,
    }
}

/// Whether a label of Arena-Hard says "significantly", which counts as `several` battles (three, as published).
pub fn arena_weight(label: &str, several: f64) -> f64 {
    if label.contains(">>") { several } else { 1.0 }
}

/// The verdict in MT-Bench's pairwise format: `A` or `B` for the better answer, `C` for a tie, of which the first in that order
/// that stands in the text as `[[A]]` counts (lm-sys/FastChat, `llm_judge/common.py`, output format `[[A]]`).
pub fn pair_verdict(text: &str) -> Option<&'static str> {
    [("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "C")].into_iter().find(|(mark, _)| text.contains(mark)).map(|(_, v)| v)
}

/// The texts between marks, at every place where the opening one stands, overlapping ones too.
fn bracketed<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices('[').filter_map(move |(start, _)| {
        let inner = text[start..].strip_prefix(open)?;
        // Labels are short; a close mark far away belongs to something else.
        let near = inner.char_indices().nth(LONGEST_LABEL).map_or(inner, |(end, _)| &inner[..end]);
        near.find(close).map(|end| &near[..end])
    })
}

/// Characters that a label or rating with its closing mark may have.
const LONGEST_LABEL: usize = 64;

/// Digits with at most one point after the first: `8`, `7.5`, `8.`.
fn plain_number(text: &str) -> Option<f64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(rest) {
        return None;
    }
    text.trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_as_judges_write_them() {
        for (text, expected) in [
            ("Rating: [[8]]", Some(8.0)),
            ("Rating: [[7.5]] out of [[10]]", Some(7.5)),
            ("so I give [9] points", Some(9.0)),
            ("step [1] is wrong. Rating: [[3]]", Some(3.0)),
            ("[[rating]] is [[6.]]", Some(6.0)),
            ("[2] [[[5]]]", Some(5.0)),
            ("Rating: 8", None),
            ("[[]] [x] [-1] [1e3] [.5] [1.2.3]", None),
            ("[[8", None),
            ("", None),
        ] {
            assert_eq!(rating(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_verdict_is_the_only_label() {
        for (text, expected) in [
            ("My final verdict is [[A>>B]].", Some("A>>B")),
            ("[[B>A]], that is [[B>A]]", Some("B>A")),
            ("[[A>B]] or [[A=B]]", None),
            ("[[A > B]]", None),
            ("[[]] [[A=B]] [[C]]", Some("A=B")),
            ("A>>B", None),
        ] {
            assert_eq!(arena_verdict(text), expected, "{text:?}");
        }
        assert_eq!(["A>>B", "A>B", "A=B", "B>A", "B>>A"].map(arena_score), [1.0, 1.0, 0.5, 0.0, 0.0].map(Some));
        assert_eq!(["A<B", "AB", ""].map(arena_score), [None; 3]);
        assert_eq!((arena_weight("B>>A", 3.0), arena_weight("A=B", 3.0)), (3.0, 1.0));
    }

    #[test]
    fn pair_verdicts_have_an_order() {
        assert_eq!(pair_verdict("better: [[B]]"), Some("B"));
        assert_eq!(pair_verdict("[[C]] rather than [[A]]"), Some("A"));
        assert_eq!(pair_verdict("a tie: [[C]]"), Some("C"));
        assert_eq!(pair_verdict("A"), None);
    }

    #[test]
    fn large_and_odd_texts_are_read_in_one_pass() {
        let text = "[".repeat(1 << 20) + &"é]".repeat(1 << 18);
        assert_eq!(rating(&text), None);
        assert_eq!(arena_verdict(&text), None);
    }
}
