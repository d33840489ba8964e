//! The best answer of a prompt, and its best/worst pairs, each of one source.
//!
//! FuseChat-3.0, section on data construction: an SFT row is the best answer of
//! all sources; a preference pair is the best and the worst answer of the same
//! source, kept if the margin lies in a window. Where answers are verified, the
//! chosen one is correct and the rejected one is not.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Candidate, Pick, best, check_finite, highest, lowest};
use crate::Error;

/// How the two answers of a pair are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Chosen: the highest score; rejected: the lowest. Verdicts are not looked at.
    Score,
    /// Chosen: the highest score among the correct; rejected: the lowest among the incorrect.
    Verdict,
}

/// Which source's pair a prompt takes when several have one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairSource {
    /// The one whose chosen answer has the highest score.
    #[default]
    BestScore,
    /// The one with the widest margin.
    MaxMargin,
    /// Every one.
    All,
}

/// The margins that a pair may have, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The least margin, in the scorer's unit.
    pub min: f64,
    /// The greatest margin, in the scorer's unit.
    pub max: f64,
}

impl Window {
    /// FuseChat-3.0's window for ArmoRM scores of instructions and mathematics.
    pub const FUSECHAT3: Self = Self { min: 0.01, max: 0.1 };
}

/// How the answers to a prompt are selected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How the two answers of a pair are found.
    pub rule: Rule,
    /// The margins a pair may have; none: any.
    pub window: Option<Window>,
    /// Which source's pair is taken.
    pub pair_source: PairSource,
}

impl Settings {
    /// FuseChat-3.0's rules for instruction following.
    pub const INSTRUCTIONS: Self =
        Self { rule: Rule::Score, window: Some(Window::FUSECHAT3), pair_source: PairSource::BestScore };
    /// FuseChat-3.0's rules for mathematics.
    pub const MATHEMATICS: Self =
        Self { rule: Rule::Verdict, window: Some(Window::FUSECHAT3), pair_source: PairSource::BestScore };
    /// FuseChat-3.0's rules for code.
    pub const CODE: Self = Self { rule: Rule::Verdict, window: None, pair_source: PairSource::BestScore };
}

/// Two answers of one source to one prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Position of the source.
    pub source: usize,
    /// Position of the preferred answer among its samples.
    pub chosen: usize,
    /// Position of the other answer.
    pub rejected: usize,
    /// Score of the chosen minus score of the rejected; negative where a verdict overrules the scores.
    pub margin: f64,
}

/// Why a source has no pair for a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NoPair {
    /// It gave no answer.
    NoAnswer,
    /// Its best and its worst score are one.
    SameScore,
    /// None of its answers is correct.
    NoneCorrect,
    /// All of its answers are correct.
    AllCorrect,
    /// The margin lies below the window.
    MarginTooSmall(f64),
    /// The margin lies above the window.
    MarginTooLarge(f64),
}

impl NoPair {
    /// A word for a column of reasons.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::SameScore => "same_score",
            Self::NoneCorrect => "none_correct",
            Self::AllCorrect => "all_correct",
            Self::MarginTooSmall(_) => "margin_too_small",
            Self::MarginTooLarge(_) => "margin_too_large",
        }
    }
}

impl fmt::Display for NoPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("the source gave no answer"),
            Self::SameScore => f.write_str("the best and the worst score are the same"),
            Self::NoneCorrect => f.write_str("no answer is correct"),
            Self::AllCorrect => f.write_str("every answer is correct"),
            Self::MarginTooSmall(margin) => write!(f, "the margin {margin} lies below the window"),
            Self::MarginTooLarge(margin) => write!(f, "the margin {margin} lies above the window"),
        }
    }
}

/// Why a prompt is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPrompt {
    /// No source answered it.
    NoAnswer,
    /// No source has a pair (see [`Selection::sources`] for why), and the rule needs one.
    NoPair,
    /// No answer of any source is correct.
    NoneCorrect,
}

impl NoPrompt {
    /// A word for a column of reasons.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::NoPair => "no_pair",
            Self::NoneCorrect => "none_correct",
        }
    }
}

impl fmt::Display for NoPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAnswer => "no source answered the prompt",
            Self::NoPair => "no source has a pair of answers whose margin is right",
            Self::NoneCorrect => "no answer of any source is correct",
        })
    }
}

/// The part of the training data that a prompt goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It can serve either; [`super::divide`] decides.
    Either,
    /// Supervised fine-tuning.
    Sft,
    /// Preference optimisation.
    Preference,
    /// None.
    Dropped(NoPrompt),
}

/// What is selected for one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The answer to imitate; reported of dropped prompts too.
    pub sft: Option<Pick>,
    /// For each source its pair, or why it has none.
    pub sources: Vec<Result<Pair, NoPair>>,
    /// The pairs that the prompt takes, at most one unless all are asked for.
    pub pairs: Vec<Pair>,
    /// Where the prompt goes.
    pub part: Part,
}

/// Selects among the answers to one prompt, `samples[source][sample]`.
///
/// With [`Rule::Score`] a prompt with a pair may serve either part and one without is dropped, before any division.
/// With [`Rule::Verdict`] a prompt with a pair goes to preference optimisation, else to SFT
/// if some answer is correct, else it is dropped. Only the best and the worst answer of a source are tried: a margin out of
/// the window is not repaired with a milder answer. The window is compared without a tolerance.
///
/// Source: FuseChat-3.0; which source gives the pair and how verified prompts are divided is left open there.
pub fn select(samples: &[Vec<Candidate>], settings: &Settings) -> Result<Selection, Error> {
    check_finite(samples)?;
    if let Some(window) = settings.window
        && (window.min > window.max || window.min.is_nan() || window.max.is_nan())
    {
        return Err(Error::EmptyWindow { min: window.min, max: window.max });
    }
    if settings.rule == Rule::Verdict {
        check_verdicts(samples)?;
    }
    let sft = match settings.rule {
        Rule::Score => best(samples, |_| true),
        Rule::Verdict => best(samples, |candidate| candidate.correct == Some(true)),
    };
    let sources: Vec<_> =
        samples.iter().enumerate().map(|(source, candidates)| pair(source, candidates, settings)).collect();
    let eligible: Vec<Pair> = sources.iter().filter_map(|pair| pair.ok()).collect();
    let pairs = match settings.pair_source {
        PairSource::All => eligible,
        PairSource::BestScore => first_highest(&eligible, |pair| samples[pair.source][pair.chosen].score),
        PairSource::MaxMargin => first_highest(&eligible, |pair| pair.margin),
    };
    let part = match (settings.rule, pairs.is_empty(), sft) {
        _ if samples.iter().all(Vec::is_empty) => Part::Dropped(NoPrompt::NoAnswer),
        (Rule::Score, false, _) => Part::Either,
        (Rule::Score, true, _) => Part::Dropped(NoPrompt::NoPair),
        (Rule::Verdict, false, _) => Part::Preference,
        (Rule::Verdict, true, Some(_)) => Part::Sft,
        (Rule::Verdict, true, None) => Part::Dropped(NoPrompt::NoneCorrect),
    };
    Ok(Selection { sft, sources, pairs, part })
}

fn first_highest(pairs: &[Pair], value: impl Fn(&Pair) -> f64) -> Vec<Pair> {
    let best = highest(pairs.iter().map(&value).enumerate());
    best.map(|(position, _)| pairs[position]).into_iter().collect()
}

/// The pair of one source.
fn pair(source: usize, candidates: &[Candidate], settings: &Settings) -> Result<Pair, NoPair> {
    let scores = |wanted: Option<bool>| {
        let admitted = candidates.iter().enumerate().filter(move |(_, c)| wanted.is_none() || c.correct == wanted);
        admitted.map(|(sample, candidate)| (sample, candidate.score))
    };
    let (chosen, rejected) = match settings.rule {
        Rule::Score => (highest(scores(None)), lowest(scores(None))),
        Rule::Verdict => (highest(scores(Some(true))), lowest(scores(Some(false)))),
    };
    let ((chosen, high), (rejected, low)) = match (chosen, rejected) {
        (Some(chosen), Some(rejected)) => (chosen, rejected),
        (None, None) => return Err(NoPair::NoAnswer),
        (None, Some(_)) => return Err(NoPair::NoneCorrect),
        (Some(_), None) => return Err(NoPair::AllCorrect),
    };
    let margin = high - low;
    if settings.rule == Rule::Score && margin == 0.0 {
        return Err(NoPair::SameScore);
    }
    match settings.window {
        Some(window) if margin < window.min => Err(NoPair::MarginTooSmall(margin)),
        Some(window) if margin > window.max => Err(NoPair::MarginTooLarge(margin)),
        _ => Ok(Pair { source, chosen, rejected, margin }),
    }
}

fn check_verdicts(samples: &[Vec<Candidate>]) -> Result<(), Error> {
    for (source_index, candidates) in samples.iter().enumerate() {
        if let Some(sample_index) = candidates.iter().position(|candidate| candidate.correct.is_none()) {
            return Err(Error::VerdictMissing { source_index, sample_index, rule: "verdict" });
        }
    }
    Ok(())
}
