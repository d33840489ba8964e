//! `\boxed{…}`: the place where a model was told to write its answer.

/// What the last `\boxed{…}` (or, where there is none, `\fbox{…}`) holds, braces matched; none where it is cut off.
/// As hendrycks/math, `modeling/dataset/util.py` (`last_boxed_only_string`), finds it.
pub fn last(text: &str) -> Option<&str> {
    let start = text.rfind("\\boxed").or_else(|| text.rfind("\\fbox"))?;
    let rest = &text[start..];
    let mut depth = 0_i64;
    let end = rest.char_indices().find_map(|(position, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => return None,
        }
        (c == '}' && depth == 0).then_some(position)
    })?;
    rest[..end].strip_prefix("\\boxed{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_counts_with_all_its_braces() {
        assert_eq!(last(r"\boxed{1} or \boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
        assert_eq!(last(r"\boxed{\text{a \{b\}}}"), Some(r"\text{a \{b\}}"));
        assert_eq!(last(r"\boxed{1} and \boxed{2"), None, "the last one is cut off");
        assert_eq!(last(r"\boxed 5"), None);
        assert_eq!(last(r"\fbox{5}"), None, "it ends the search and is no answer");
        assert_eq!(last("none"), None);
    }
}
