//! Exact match of the whole response, but for case, spacing and a final stop.

use super::Verifier;

pub const VERIFIER: Verifier = Verifier {
    name: "exact",
    doc: "the whole response is the reference, but for case, runs of white space and one final full stop",
    extract,
    equal: |reference, answer| Ok(normalise(reference) == normalise(answer)),
};

fn extract(response: &str) -> Option<String> {
    Some(normalise(response)).filter(|answer| !answer.is_empty())
}

/// Lower case, one space between words, none around them, no final full stop.
fn normalise(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let text = words.join(" ");
    text.strip_suffix('.').unwrap_or(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_spacing_and_a_final_stop_do_not_count() {
        let correct = |reference, response| VERIFIER.verify(reference, response).expect("never fails").correct;
        assert!(correct("New York", "  new\n york. "));
        assert!(correct("a.b", "A.B"));
        assert!(!correct("New York", "It is New York"));
        assert!(!correct("a b", "ab"));
        assert!(!correct("3.0", "3"));
        assert!(correct("", " "));
    }

    #[test]
    fn the_extracted_answer_is_the_normal_form() {
        assert_eq!(VERIFIER.verify("x", " Two  Words. ").expect("never fails").extracted.as_deref(), Some("two words"));
    }
}
