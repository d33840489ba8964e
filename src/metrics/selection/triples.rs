//! WRPO's triples: the best answer of the sources, and the target's own best and worst.

use std::fmt;

use super::{Candidate, Pick, best, check_finite, highest, lowest};
use crate::Error;

/// The target's own two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Position of its best answer, y_wt.
    pub best: usize,
    /// Position of its worst answer, y_l.
    pub worst: usize,
}

/// Why a prompt has no triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTriple {
    /// No source answered it.
    NoSourceAnswer,
    /// The target did not answer it.
    NoOwnAnswer,
    /// The target's answers are one text.
    SameText,
    /// The target's best and worst score are one, so that best and worst would be one answer.
    SameScore,
}

impl NoTriple {
    /// A word for a column of reasons.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSourceAnswer => "no_source_answer",
            Self::NoOwnAnswer => "no_own_answer",
            Self::SameText => "same_text",
            Self::SameScore => "same_score",
        }
    }
}

impl fmt::Display for NoTriple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSourceAnswer => "no source answered the prompt",
            Self::NoOwnAnswer => "the target did not answer the prompt",
            Self::SameText => "all answers of the target are one text",
            Self::SameScore => "the target's best and worst score are the same",
        })
    }
}

/// What is selected for one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triple {
    /// The best answer of all sources, y_ws; reported of dropped prompts too.
    pub of_sources: Option<Pick>,
    /// The target's own answers, or why the prompt is dropped.
    pub own: Result<Own, NoTriple>,
}

/// Selects a triple for one prompt from `source_scores[source][sample]` and the target's own samples.
///
/// y_ws is the highest score of all sources, y_wt and y_l the target's highest and lowest. The prompt is dropped if the target's
/// samples are one text, as in princeton-nlp/SimPO `on_policy_data_gen`, or if their scores are all equal. There is no margin window.
///
/// Source: WRPO (arXiv 2412.03187), data construction.
pub fn triple(source_scores: &[Vec<f64>], own_scores: &[f64], own_texts: &[&str]) -> Result<Triple, Error> {
    if own_scores.len() != own_texts.len() {
        return Err(Error::LengthMismatch { n_scores: own_scores.len(), n_texts: own_texts.len() });
    }
    let unverified = |scores: &[f64]| scores.iter().map(|score| Candidate { score: *score, correct: None }).collect();
    let sources: Vec<Vec<Candidate>> = source_scores.iter().map(|scores| unverified(scores)).collect();
    check_finite(&sources)?;
    // The target stands after the sources in the message.
    if let Some(sample_index) = own_scores.iter().position(|score| !score.is_finite()) {
        let (source_index, score) = (source_scores.len(), own_scores[sample_index]);
        return Err(Error::ScoreNotFinite { source_index, sample_index, score });
    }
    let of_sources = best(&sources, |_| true);
    let scores = || own_scores.iter().copied().enumerate();
    let own = match (highest(scores()), lowest(scores())) {
        _ if of_sources.is_none() => Err(NoTriple::NoSourceAnswer),
        (Some(_), Some(_)) if own_texts.iter().all(|text| *text == own_texts[0]) => Err(NoTriple::SameText),
        (Some((_, high)), Some((_, low))) if high == low => Err(NoTriple::SameScore),
        (Some((best, _)), Some((worst, _))) => Ok(Own { best, worst }),
        _ => Err(NoTriple::NoOwnAnswer),
    };
    Ok(Triple { of_sources, own })
}
