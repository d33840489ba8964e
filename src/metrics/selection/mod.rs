//! Which sampled answers become training data: the best answer of all sources,
//! pairs of one source, triples with the target's own answers, and the division
//! of prompts among them. Every refusal has a reason.
//!
//! The rules are those of FuseChat-3.0 (arXiv 2503.04222, data construction) and
//! WRPO (arXiv 2412.03187, data construction). They see scores, verdicts and
//! positions, one prompt at a time; they must not know texts' meaning, tables or models.
//!
//! Scores are f64, in the scorer's unit, higher is better. Answers lie in a list
//! of sources, each a list of samples, and a position in both names an answer.
//! The lowest source, then the lowest sample, wins a tie; both papers leave that open.

use crate::Error;

mod pairs;
mod share;
mod triples;

pub use pairs::{NoPair, NoPrompt, Pair, PairSource, Part, Rule, Selection, Settings, Window, select};
pub use share::{Share, divide};
pub use triples::{NoTriple, Own, Triple, triple};

/// Raised when a selection changes.
pub const VERSION: u32 = 1;

/// One sampled answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its score; finite.
    pub score: f64,
    /// Whether a verifier found it right; none where nothing was verified.
    pub correct: Option<bool>,
}

/// The place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Position of its source.
    pub source: usize,
    /// Position among that source's samples.
    pub sample: usize,
}

/// Position and value of the highest score; of equal ones the first.
fn highest(scores: impl Iterator<Item = (usize, f64)>) -> Option<(usize, f64)> {
    scores.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// Position and value of the lowest score; of equal ones the first.
fn lowest(scores: impl Iterator<Item = (usize, f64)>) -> Option<(usize, f64)> {
    scores.reduce(|worst, next| if next.1 < worst.1 { next } else { worst })
}

/// The answer with the highest score over all sources, among those that `admits` lets through.
fn best(samples: &[Vec<Candidate>], admits: impl Fn(&Candidate) -> bool) -> Option<Pick> {
    let per_source = samples.iter().enumerate().filter_map(|(source, candidates)| {
        let admitted = candidates.iter().enumerate().filter(|(_, candidate)| admits(candidate));
        let (sample, score) = highest(admitted.map(|(sample, candidate)| (sample, candidate.score)))?;
        Some((Pick { source, sample }, score))
    });
    let best = per_source.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map(|(pick, _)| pick)
}

/// Refuses scores that cannot be ordered.
fn check_finite(samples: &[Vec<Candidate>]) -> Result<(), Error> {
    for (source_index, candidates) in samples.iter().enumerate() {
        for (sample_index, candidate) in candidates.iter().enumerate() {
            if !candidate.score.is_finite() {
                return Err(Error::ScoreNotFinite { source_index, sample_index, score: candidate.score });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
