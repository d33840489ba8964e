//! Rows made ready for training: cut to the limit, checked, or dropped with the reason; and the order in which a
//! training sees them. It must not know batches of tensors, losses or optimizers.

use std::fmt;

use crate::arch::Architecture;
use crate::error::{Error, Result};
use crate::objectives::{Continuation, Example, Reference};

use super::lengths::Limits;

/// A row that is not trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    /// Its place in the data.
    pub row: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a row is not trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It is longer than the limit, and the rule for that leaves nothing to train.
    TooLong {
        /// Prompt and longest answer.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// One of its answers has no token that can be trained.
    NothingTrained {
        /// Which answer.
        role: &'static str,
    },
    /// The reference's log-probability is of another number of tokens than would be trained.
    ReferenceLength {
        /// Which answer.
        role: &'static str,
        /// Tokens that would be trained.
        tokens: usize,
        /// Tokens that the reference was computed over.
        reference: usize,
    },
}

impl Reason {
    /// A word for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::TooLong { .. } => "too_long",
            Reason::NothingTrained { .. } => "nothing_trained",
            Reason::ReferenceLength { .. } => "reference_length",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::TooLong { tokens, limit } => write!(out, "{tokens} tokens where {limit} are the limit"),
            Reason::NothingTrained { role } => write!(out, "{role} has no token to train"),
            Reason::ReferenceLength { role, tokens, reference } => write!(
                out,
                "{role} trains {tokens} tokens, its reference log-probability is of {reference}; they differ where \
                 max_length cuts an answer or the tokenizers differ"
            ),
        }
    }
}

/// A row ready for training.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    /// One for each role.
    pub sequences: Vec<Sequence>,
    /// The row's weight.
    pub weight: f64,
}

/// A prompt with one continuation.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// All tokens but the last, which predicts nothing.
    pub inputs: Vec<i64>,
    /// Where a trained token is predicted, and the token.
    pub targets: Vec<(usize, i64)>,
    /// Sum of the reference's log-probabilities over the targets.
    pub reference: Option<f64>,
}

impl Ready {
    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.inputs.len()).max().unwrap_or(0)
    }
}

/// Cuts and checks rows; returns the usable ones and the others with their reasons.
pub(super) fn prepare(
    rows: Vec<Example>,
    roles: &[&'static str],
    needs_reference: bool,
    limits: &Limits,
    arch: &Architecture,
) -> Result<(Vec<Ready>, Vec<Dropped>)> {
    let limits = Limits { max_length: limits.max_length.min(arch.max_positions.max(1) as usize), ..*limits };
    let (mut ready, mut dropped) = (Vec::with_capacity(rows.len()), Vec::new());
    for (row, example) in rows.into_iter().enumerate() {
        check(row, &example, roles, needs_reference, arch)?;
        match cut(&example, roles, &limits) {
            Ok(fitting) => ready.push(fitting),
            Err(reason) => dropped.push(Dropped { row, reason }),
        }
    }
    Ok((ready, dropped))
}

/// Refuses what a row may never hold.
fn check(
    row: usize,
    example: &Example,
    roles: &[&'static str],
    needs_reference: bool,
    arch: &Architecture,
) -> Result<()> {
    let refuse = |problem: String| Err(Error::TrainingRow { row, problem });
    if !(example.weight.is_finite() && example.weight >= 0.0) {
        return refuse(format!("the weight is {}; expected a finite number of at least 0", example.weight));
    }
    if example.continuations.len() != roles.len() {
        return refuse(format!("it has {} answers; expected {}", example.continuations.len(), roles.join(", ")));
    }
    for (continuation, role) in example.continuations.iter().zip(roles) {
        let Continuation { tokens, trained, reference } = continuation;
        if tokens.len() != trained.len() {
            return refuse(format!("{role} has {} tokens but {} marks of training", tokens.len(), trained.len()));
        }
        match reference {
            None if needs_reference => {
                return refuse(format!("{role} has no reference log-probability, which this objective needs"));
            }
            Some(Reference { logp_sum, .. }) if !logp_sum.is_finite() => {
                return refuse(format!("the reference log-probability of {role} is {logp_sum}"));
            }
            _ => {}
        }
    }
    let tokens = example.continuations.iter().flat_map(|continuation| &continuation.tokens);
    let ids: Vec<i64> = example.prompt.iter().chain(tokens).map(|id| i64::from(*id)).collect();
    arch.check_tokens(&ids)
}

fn cut(example: &Example, roles: &[&'static str], limits: &Limits) -> std::result::Result<Ready, Reason> {
    let lengths: Vec<usize> = example.continuations.iter().map(|continuation| continuation.tokens.len()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let too_long = Reason::TooLong { tokens: example.prompt.len() + longest, limit: limits.max_length };
    let kept = limits.fit(example.prompt.len(), &lengths).ok_or_else(|| too_long.clone())?;
    let prompt = &example.prompt[kept.prompt];
    let mut sequences = Vec::with_capacity(roles.len());
    for ((continuation, length), &role) in example.continuations.iter().zip(kept.answers).zip(roles) {
        let text = prompt.iter().chain(&continuation.tokens[..length]);
        let mut inputs: Vec<i64> = text.map(|id| i64::from(*id)).collect();
        let targets: Vec<(usize, i64)> = (prompt.len().max(1)..inputs.len())
            .filter(|place| continuation.trained[place - prompt.len()])
            .map(|place| (place - 1, inputs[place]))
            .collect();
        if targets.is_empty() {
            let was_cut = length < continuation.tokens.len();
            return Err(if was_cut { too_long } else { Reason::NothingTrained { role } });
        }
        if let Some(Reference { n_tokens, .. }) = continuation.reference
            && n_tokens != targets.len()
        {
            return Err(Reason::ReferenceLength { role, tokens: targets.len(), reference: n_tokens });
        }
        inputs.truncate(targets[targets.len() - 1].0 + 1);
        let reference = continuation.reference.map(|reference| reference.logp_sum);
        sequences.push(Sequence { inputs, targets, reference });
    }
    Ok(Ready { sequences, weight: example.weight })
}

/// Returns the rows of an epoch in a random order that depends on the seed, the epoch and their number alone.
///
/// Fisher and Yates's shuffle (Knuth, volume 2, algorithm 3.4.2P) on SplitMix64.
pub(super) fn shuffled(rows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut state = split_mix(seed ^ split_mix(epoch));
    for last in (1..rows).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The high half of a product of 128 bits is a number below last + 1, its bias below 2^-32.
        let pick = (u128::from(split_mix(state)) * (last as u128 + 1)) >> 64;
        order.swap(last, pick as usize);
    }
    order
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn split_mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::tests::tiny;
    use crate::objectives::{Answer, PairRow, SftRow};
    use crate::train::lengths::Truncate;

    const LIMITS: Limits = Limits { max_length: 8, max_prompt_length: 4, truncate: Truncate::Tail };
    const PAIR: &[&str] = &["chosen", "rejected"];

    fn pair(prompt: usize, chosen: usize, rejected: usize, scored: usize) -> Example {
        let answer = |length: usize| Answer {
            tokens: vec![7; length],
            reference: Some(Reference { logp_sum: -1.0, n_tokens: length.min(scored) }),
        };
        PairRow { prompt: vec![5; prompt], chosen: answer(chosen), rejected: answer(rejected), weight: 1.0 }.into()
    }

    #[test]
    fn rows_are_kept_cut_or_dropped_with_the_reason() {
        let arch = &tiny("llama", 60).arch;
        let rows = vec![pair(3, 2, 4, 9), pair(8, 1, 1, 9), pair(3, 9, 2, 9), pair(3, 9, 2, 5), pair(3, 0, 2, 9)];
        let (ready, dropped) = prepare(rows, PAIR, true, &LIMITS, arch).unwrap();
        assert_eq!(ready.len(), 2);
        assert_eq!(ready[0].sequences[0].targets, [(2, 7), (3, 7)]);
        assert_eq!(ready[0].sequences[0].inputs, [5, 5, 5, 7]);
        assert_eq!(ready[1].sequences[0].targets.len(), 5);
        let names: Vec<_> = dropped.iter().map(|dropped| (dropped.row, dropped.reason.name())).collect();
        assert_eq!(names, [(1, "too_long"), (2, "reference_length"), (4, "nothing_trained")]);
        assert_eq!(dropped[0].reason.to_string(), "9 tokens where 8 are the limit");
    }

    #[test]
    fn only_marked_tokens_are_targets_and_what_follows_them_is_not_computed() {
        let arch = &tiny("llama", 60).arch;
        let trained = vec![true, false, true, true, false];
        let row = SftRow { tokens: vec![1, 2, 3, 4, 5], trained, weight: 1.0 };
        let (ready, _) = prepare(vec![row.into()], &["answer"], false, &LIMITS, arch).unwrap();
        assert_eq!(ready[0].sequences[0].targets, [(1, 3), (2, 4)]);
        assert_eq!(ready[0].sequences[0].inputs, [1, 2, 3]);
    }

    #[test]
    fn impossible_rows_are_refused_by_name() {
        let arch = &tiny("llama", 60).arch;
        let refusal = |change: fn(&mut Example)| {
            let mut example = pair(2, 2, 2, 9);
            change(&mut example);
            prepare(vec![example], PAIR, true, &LIMITS, arch).unwrap_err().to_string()
        };
        assert!(refusal(|row| row.continuations[1].reference = None).contains("rejected has no reference"));
        assert!(refusal(|row| row.weight = f64::NAN).contains("weight is NaN"));
        assert!(refusal(|row| row.prompt[0] = 60).contains("token id 60"));
        assert!(refusal(|row| _ = row.continuations.pop()).contains("expected chosen, rejected"));
    }

    #[test]
    fn orders_are_permutations_that_depend_on_seed_and_epoch() {
        let order = shuffled(100, 3, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, shuffled(100, 3, 0));
        assert_ne!(order, shuffled(100, 3, 1));
        assert_ne!(order, shuffled(100, 4, 0));
        assert_eq!(shuffled(1, 3, 0), [0]);
        assert!(shuffled(0, 3, 0).is_empty());
    }

    #[test]
    fn every_row_is_first_about_equally_often() {
        let mut counts = [0; 5];
        for seed in 0..5000 {
            counts[shuffled(5, seed, 0)[0]] += 1;
        }
        // 1000 expected; five deviations of a binomial are 5·√(5000·0.2·0.8) = 141.
        assert!(counts.iter().all(|count| (859..1141).contains(count)), "{counts:?}");
    }
}
