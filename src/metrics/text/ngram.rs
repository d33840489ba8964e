//! Runs of words that two texts share, which is how test problems are found in training data (T. Brown and others, Language
//! Models are Few-Shot Learners, appendix C, counts runs of 13).
//!
//! A word is a run of letters and digits, in lower case; everything else only separates words. A run counts once, however
//! often it occurs.

use std::collections::HashSet;

/// The share of `a`'s runs of `n` words that `b` has too, in 0..=1; none where `a` has fewer than `n` words.
///
/// Not symmetric: a question inside a long document gives 1.
pub fn ngram_overlap(a: &str, b: &str, n: usize) -> Option<f64> {
    let (a, b) = (words(a), words(b));
    let (a, b) = (runs(&a, n), runs(&b, n));
    (!a.is_empty()).then(|| a.intersection(&b).count() as f64 / a.len() as f64)
}

/// The runs of `n` words that both texts have over those that at least one has (Jaccard's index), in 0..=1; none where neither
/// has `n` words.
pub fn ngram_jaccard(a: &str, b: &str, n: usize) -> Option<f64> {
    let (a, b) = (words(a), words(b));
    let (a, b) = (runs(&a, n), runs(&b, n));
    let common = a.intersection(&b).count();
    let all = a.len() + b.len() - common;
    (all > 0).then(|| common as f64 / all as f64)
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn runs(words: &[String], n: usize) -> HashSet<&[String]> {
    if n == 0 { HashSet::new() } else { words.windows(n).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "The cat sat.";
    const LONG: &str = "Once, the CAT -- sat on the cat.";

    #[test]
    fn overlaps_by_hand() {
        // Pairs of the short text: the cat, cat sat; of the long one: once the, the cat, cat sat, sat on, on the.
        assert_eq!(ngram_overlap(SHORT, LONG, 2), Some(1.0));
        assert_eq!(ngram_overlap(LONG, SHORT, 2), Some(2.0 / 5.0));
        assert_eq!(ngram_jaccard(SHORT, LONG, 2), Some(2.0 / 5.0));
        // Words: the, cat, sat; and once, the, cat, sat, on.
        assert_eq!(ngram_jaccard(SHORT, LONG, 1), Some(3.0 / 5.0));
        assert_eq!(ngram_jaccard(SHORT, "a dog", 1), Some(0.0));
    }

    #[test]
    fn too_few_words_have_no_overlap() {
        assert_eq!(ngram_overlap(SHORT, LONG, 4), None);
        assert_eq!(ngram_overlap(LONG, SHORT, 4), Some(0.0));
        assert_eq!(ngram_jaccard(SHORT, LONG, 4), Some(0.0));
        assert_eq!(ngram_jaccard("", " .", 1), None);
        assert_eq!(ngram_overlap(SHORT, LONG, 0), None);
    }
}
