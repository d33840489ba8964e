//! ROUGE-N and ROUGE-L: C.-Y. Lin, ROUGE: A Package for Automatic Evaluation of
//! Summaries (2004), as google-research's `rouge_score` computes them without a
//! stemmer: tokens are runs of ASCII letters and digits in lower case, and
//! ROUGE-L looks at the whole text as one sentence.

use std::collections::HashMap;

/// Share of runs of `n` words that two texts have in common, as the harmonic mean of precision and recall, 0 to 1.
pub fn rouge_n(text: &str, reference: &str, n: usize) -> f64 {
    let (text, reference) = (tokens(text), tokens(reference));
    let runs = |tokens: &[String]| tokens.len().saturating_sub(n.saturating_sub(1));
    let (n_text, n_reference) = (runs(&text), runs(&reference));
    if n == 0 || n_text == 0 || n_reference == 0 {
        return 0.0;
    }
    let mut left: HashMap<&[String], usize> = HashMap::new();
    for run in reference.windows(n) {
        *left.entry(run).or_default() += 1;
    }
    let mut shared = 0;
    for run in text.windows(n) {
        if let Some(left) = left.get_mut(run).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1;
        }
    }
    f_measure(shared, n_text, n_reference)
}

/// The longest common subsequence of words over the words of either text, as above.
pub fn rouge_l(text: &str, reference: &str) -> f64 {
    let (text, reference) = (tokens(text), tokens(reference));
    if text.is_empty() || reference.is_empty() {
        return 0.0;
    }
    // A row of the table at a time.
    let mut row = vec![0; text.len() + 1];
    for word in &reference {
        let mut diagonal = 0;
        for (index, other) in text.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if word == other { diagonal + 1 } else { above.max(row[index]) };
            diagonal = above;
        }
    }
    f_measure(row[text.len()], text.len(), reference.len())
}

fn f_measure(shared: usize, n_text: usize, n_reference: usize) -> f64 {
    let (precision, recall) = (shared as f64 / n_text as f64, shared as f64 / n_reference as f64);
    if shared == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

fn tokens(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
