//! BLEU: K. Papineni and others, BLEU: a Method for Automatic Evaluation of
//! Machine Translation (ACL 2002), as sacrebleu 2.6 computes it with its
//! defaults: tokens of mteval-v13a, up to four words, exponential smoothing, one
//! reference.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::python::{split, strip_end};

/// The longest runs of words that are counted.
const MAX_ORDER: usize = 4;

/// What BLEU is made of; those of many sentences add up to a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// Runs of one to four words of the text that the reference has too.
    pub matched: [u64; MAX_ORDER],
    /// Runs of one to four words of the text.
    pub total: [u64; MAX_ORDER],
    /// Words of the text.
    pub length: u64,
    /// Words of the reference.
    pub reference_length: u64,
}

impl BleuCounts {
    /// The counts of one text beside its reference.
    pub fn of(text: &str, reference: &str) -> Self {
        let (text, reference) = (tokens(text), tokens(reference));
        let mut counts =
            Self { length: text.len() as u64, reference_length: reference.len() as u64, ..Self::default() };
        for order in 1..=MAX_ORDER {
            let mut left: HashMap<&[String], u64> = HashMap::new();
            for run in reference.windows(order) {
                *left.entry(run).or_default() += 1;
            }
            for run in text.windows(order) {
                counts.total[order - 1] += 1;
                if let Some(left) = left.get_mut(run).filter(|left| **left > 0) {
                    *left -= 1;
                    counts.matched[order - 1] += 1;
                }
            }
        }
        counts
    }

    /// Adds the counts of another text.
    pub fn add(&mut self, other: &Self) {
        for order in 0..MAX_ORDER {
            self.matched[order] += other.matched[order];
            self.total[order] += other.total[order];
        }
        self.length += other.length;
        self.reference_length += other.reference_length;
    }

    /// BLEU of a corpus, 0 to 100.
    pub fn corpus(&self) -> f64 {
        self.score(false)
    }

    /// BLEU of a sentence, 0 to 100: only as many orders count as the sentence has.
    pub fn sentence(&self) -> f64 {
        self.score(true)
    }

    fn score(&self, effective_order: bool) -> f64 {
        if self.matched.iter().all(|matched| *matched == 0) {
            return 0.0;
        }
        let (length, reference_length) = (self.length as f64, self.reference_length as f64);
        let brevity = if length < reference_length { (1.0 - reference_length / length).exp() } else { 1.0 };
        let (mut smoothing, mut logarithms, mut orders) = (1.0, 0.0, 0);
        for (matched, total) in self.matched.into_iter().zip(self.total) {
            if total == 0 {
                break;
            }
            orders += 1;
            // An order without a match counts as half a match, the next one as a quarter.
            let matched = if matched == 0 {
                smoothing *= 2.0;
                1.0 / smoothing
            } else {
                matched as f64
            };
            logarithms += (100.0 * matched / total as f64).ln();
        }
        if orders < MAX_ORDER && !effective_order {
            return 0.0;
        }
        brevity * (logarithms / orders as f64).exp()
    }
}

/// The tokens of mteval-v13a.
fn tokens(text: &str) -> Vec<String> {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"([{-~\[-` -&(-+:-@/])", " $1 "),
            (r"([^0-9])([.,])", "$1 $2 "),
            (r"([.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(pattern, by)| (Regex::new(pattern).expect("a valid pattern"), by))
        .into()
    });
    let mut text = strip_end(text).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (name, sign) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(name, sign);
    }
    text = format!(" {text} ");
    for (pattern, by) in RULES.iter() {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    split(&text).map(str::to_owned).collect()
}
