//! Log-probabilities of given completions: for reference models, for reports of likelihood, for choosing by it, and for
//! teaching by a model's distributions.
//!
//! A text's numbers depend on nothing but the text and the model, bit for bit: see [`crate::cpu`]. It must not know tables
//! or objectives; what needs gradients is the trainer's.

use fuseline_torch::simd::vectorised;
use rayon::prelude::*;

use crate::cpu::{LogSumExp, Model, Piece, Sequence};
use crate::error::{Error, Result};

/// Tokens whose log-probabilities are wanted, after those that they are conditioned on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreItem {
    /// The condition, at least one token.
    pub prompt: Vec<u32>,
    /// What is scored, its end token included if that is to count; may be empty.
    pub completion: Vec<u32>,
}

impl ScoreItem {
    fn len(&self) -> usize {
        self.prompt.len() + self.completion.len()
    }
}

/// Log-probabilities of one completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Sum over the completion's tokens, in nats; 0 for an empty one.
    pub logp_sum: f64,
    /// Of each token, in nats.
    pub logps: Vec<f32>,
    /// The likeliest tokens at each place with their log-probabilities, as many as were asked for: the likeliest first,
    /// lower ids first among equals. One place after the other.
    pub top: Vec<(u32, f32)>,
}

/// How much is computed at once. It changes no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreLimits {
    /// Tokens of a pass at most, at least 1.
    pub tokens: usize,
    /// Bytes that the logits of a pass may take at most; one row is always computed.
    pub logits_bytes: usize,
}

impl Default for ScoreLimits {
    /// 512 tokens, and logits of 64 MiB.
    fn default() -> Self {
        Self { tokens: 512, logits_bytes: 64 << 20 }
    }
}

/// Negative log-likelihood of several completions together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Likelihood {
    /// Minus the sum of log-probabilities, in nats.
    pub nats: f64,
    /// Scored tokens.
    pub n_tokens: u64,
}

impl Likelihood {
    /// Over all tokens of some scores.
    pub fn of<'a>(scores: impl IntoIterator<Item = &'a Scored>) -> Self {
        scores.into_iter().fold(Self::default(), |sum, score| Self {
            nats: sum.nats - score.logp_sum,
            n_tokens: sum.n_tokens + score.logps.len() as u64,
        })
    }

    /// Nats per token; NaN where no token was scored.
    pub fn mean(&self) -> f64 {
        self.nats / self.n_tokens as f64
    }

    /// `exp` of [`Self::mean`].
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }
}

/// Scores completions, with the `top` likeliest tokens at each place; the result is in the order of `items`.
///
/// `logps[i] = log softmax(logits)[completion[i]]` at the position before it; the sum over the vocabulary and those over
/// tokens are made in float64. Texts are computed in their order, as many at once as the limits allow, and long ones in
/// several passes.
pub fn score(model: &mut Model, items: &[ScoreItem], top: usize, limits: &ScoreLimits) -> Result<Vec<Scored>> {
    check(model, items)?;
    let vocabulary = model.arch.vocab_size as usize;
    let most_rows = (limits.logits_bytes / (4 * vocabulary)).max(1);
    let mut out = vec![Scored { logp_sum: 0.0, logps: Vec::new(), top: Vec::new() }; items.len()];
    let mut work = items.iter().enumerate().filter(|(_, item)| !item.completion.is_empty());
    let mut open: Vec<Text> = Vec::new();
    loop {
        let mut pass = Pass { tokens: limits.tokens.max(1), rows: most_rows };
        let mut parts: Vec<Part> = open.iter().map(|text| pass.part(text)).collect();
        while pass.tokens > 0
            && let Some((index, item)) = work.next()
        {
            let ids = item.prompt.iter().chain(&item.completion).copied().collect();
            let text = Text { index, item, ids, sequence: model.sequence() };
            parts.push(pass.part(&text));
            open.push(text);
        }
        if open.is_empty() {
            break;
        }
        let mut pieces: Vec<Piece> = Vec::with_capacity(open.len());
        for (text, part) in open.iter_mut().zip(&parts).filter(|(_, part)| part.tokens > 0) {
            let first = text.sequence.len();
            let ids = &text.ids[first..first + part.tokens];
            let length = text.ids.len();
            pieces.push(Piece { sequence: &mut text.sequence, ids, length, wanted: part.rows });
        }
        let logits = model.forward(&mut pieces)?;
        let targets: Vec<(usize, u32)> = open.iter().zip(&parts).flat_map(|(text, part)| text.targets(part)).collect();
        let rows: Vec<(f32, Vec<(u32, f32)>)> = model.with_threads(|| {
            let score = |(row, (_, id)): (&[f32], &(usize, u32))| score_row(row, *id, top);
            logits.par_chunks_exact(vocabulary).zip(&targets).map(score).collect()
        });
        for ((index, _), (logp, top)) in targets.into_iter().zip(rows) {
            if logp.is_nan() {
                return Err(Error::NotFinite { what: format!("the log-probabilities of text {index}") });
            }
            out[index].logps.push(logp);
            out[index].top.extend(top);
        }
        open.retain(|text| text.sequence.len() + 1 < text.ids.len());
    }
    for scored in &mut out {
        scored.logp_sum = scored.logps.iter().map(|logp| f64::from(*logp)).sum();
    }
    Ok(out)
}

/// A text under way.
struct Text<'a> {
    index: usize,
    item: &'a ScoreItem,
    ids: Vec<u32>,
    sequence: Sequence,
}

impl Text<'_> {
    /// What the rows of a part that was just computed are to tell.
    fn targets(&self, part: &Part) -> Vec<(usize, u32)> {
        let next = self.sequence.len() + 1;
        self.ids[next - part.rows..next].iter().map(|id| (self.index, *id)).collect()
    }
}

/// What is left of a pass.
struct Pass {
    tokens: usize,
    rows: usize,
}

/// What a pass computes of a text: so many tokens, and logits after so many of them.
struct Part {
    tokens: usize,
    rows: usize,
}

impl Pass {
    /// Takes as much of a text as there is room for.
    fn part(&mut self, text: &Text) -> Part {
        let first = text.sequence.len();
        let left = text.ids.len() - 1 - first;
        // Tokens that only are a condition, and the last of which tells the first token of the completion.
        let silent = (text.item.prompt.len() - 1).saturating_sub(first).min(left);
        let mut tokens = left.min(self.tokens);
        let rows = tokens.saturating_sub(silent).min(self.rows);
        tokens = tokens.min(silent + rows);
        self.tokens -= tokens;
        self.rows -= rows;
        if self.rows == 0 {
            self.tokens = 0;
        }
        Part { tokens, rows }
    }
}

/// A token's log-probability, and the likeliest tokens with theirs.
fn score_row(logits: &[f32], id: u32, top: usize) -> (f32, Vec<(u32, f32)>) {
    let total = vectorised(LogSumExp(logits));
    let logp = |logit: f32| (f64::from(logit) - total) as f32;
    let own = if total.is_finite() { logp(logits[id as usize]) } else { f32::NAN };
    let likelier = |left: &(u32, f32), right: &(u32, f32)| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0));
    let mut best: Vec<(u32, f32)> = Vec::new();
    if top > 0 {
        best.extend((0..).zip(logits.iter().copied()));
        let n = top.min(best.len());
        best.select_nth_unstable_by(n - 1, likelier);
        best.truncate(n);
        best.sort_unstable_by(likelier);
        best.iter_mut().for_each(|(_, logit)| *logit = logp(*logit));
    }
    (own, best)
}

fn check(model: &Model, items: &[ScoreItem]) -> Result<()> {
    let limit = model.arch.max_positions as usize;
    for (index, item) in items.iter().enumerate() {
        if item.prompt.is_empty() && !item.completion.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        // The last token is scored and not seen.
        if item.len() > limit + 1 {
            return Err(Error::TooLong { what: format!("text {index}"), tokens: item.len(), limit });
        }
        let known = |id: &&u32| i64::from(**id) >= model.arch.vocab_size;
        if let Some(id) = item.prompt.iter().chain(&item.completion).find(known) {
            return Err(Error::TokenOutOfRange { id: i64::from(*id), vocab_size: model.arch.vocab_size });
        }
    }
    Ok(())
}

/// Cuts a text, whose first token is a condition only, as lm-evaluation-harness does for rolling log-likelihoods
/// (EleutherAI/lm-evaluation-harness, `lm_eval/utils.py`, `get_rolling_token_windows` with one token of context): windows
/// of which the model sees `length` tokens, side by side but for the last, which reaches back as far as it can.
///
/// # Panics
/// If `length` is 0.
pub fn rolling(ids: &[u32], length: usize) -> Vec<ScoreItem> {
    assert!(length > 0, "windows of no tokens");
    let mut out = Vec::new();
    let mut scored = 1;
    while scored < ids.len() {
        let end = (scored + length).min(ids.len());
        let start = if scored == 1 { 0 } else { end.saturating_sub(length + 1) };
        out.push(ScoreItem { prompt: ids[start..scored].to_vec(), completion: ids[scored..end].to_vec() });
        scored = end;
    }
    out
}

/// Cuts a long text into items of at most `length` tokens in which every token but the very first is scored once, each
/// after at least `overlap` tokens of what came before (or all there is).
///
/// # Panics
/// If `overlap` is 0 or not below `length`.
pub fn windows(ids: &[u32], length: usize, overlap: usize) -> Vec<ScoreItem> {
    assert!(overlap > 0 && overlap < length, "windows of {length} tokens overlap by {overlap}");
    let mut out = Vec::new();
    let mut scored = 1;
    while scored < ids.len() {
        let start = if scored == 1 { 0 } else { scored.saturating_sub(overlap) };
        let end = (start + length).min(ids.len());
        out.push(ScoreItem { prompt: ids[start..scored].to_vec(), completion: ids[scored..end].to_vec() });
        scored = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use fuseline_torch::tch::{Device, Kind, Tensor};

    use super::*;
    use crate::decoder::{Decoder, Mask};
    use crate::families::FAMILIES;
    use crate::generate::tests::tiny;

    fn ready(decoder: &Decoder) -> Model {
        Model::of(decoder, 1).unwrap()
    }

    fn items() -> Vec<ScoreItem> {
        let item = |prompt: usize, completion: usize| ScoreItem {
            prompt: (0..prompt).map(|i| (i * 7 % 50) as u32).collect(),
            completion: (0..completion).map(|i| (i * 11 % 50 + prompt) as u32 % 60).collect(),
        };
        vec![item(3, 4), item(9, 1), item(1, 12), item(5, 0), item(2, 4), item(6, 6)]
    }

    #[test]
    fn equals_the_decoders_logits_one_by_one() {
        let decoder = tiny("llama", 60);
        for item in items() {
            let scored =
                &score(&mut ready(&decoder), std::slice::from_ref(&item), 3, &ScoreLimits::default()).unwrap()[0];
            let ids: Vec<i64> = item.prompt.iter().chain(&item.completion).map(|id| i64::from(*id)).collect();
            let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
            let hidden = decoder.hidden(&Tensor::from_slice(&ids).unsqueeze(0), &positions, &Mask::Causal);
            let logps = decoder.logits(&hidden).to_kind(Kind::Double).log_softmax(-1, None);
            let mut sum = 0.0;
            for (place, id) in item.completion.iter().enumerate() {
                let at = (item.prompt.len() - 1 + place) as i64;
                let expected = logps.double_value(&[0, at, i64::from(*id)]);
                // f32 logits of a small model agree to a few units of the last place.
                assert!((f64::from(scored.logps[place]) - expected).abs() < 1e-5);
                sum += expected;
                let (values, ids) = logps.get(0).get(at).topk(3, -1, true, true);
                for (best, (id, logp)) in scored.top[3 * place..3 * place + 3].iter().enumerate() {
                    assert_eq!(i64::from(*id), ids.int64_value(&[best as i64]));
                    assert!((f64::from(*logp) - values.double_value(&[best as i64])).abs() < 1e-5);
                }
            }
            assert_eq!((scored.logps.len(), scored.top.len()), (item.completion.len(), 3 * item.completion.len()));
            assert!((scored.logp_sum - sum).abs() < 1e-4);
        }
    }

    /// ASK-10: scores that move with the batch.
    #[test]
    fn ask_10_a_score_does_not_depend_on_the_others_nor_on_limits_nor_on_threads() {
        let item = |i: usize| ScoreItem {
            prompt: (0..3 + i * 7 % 30).map(|k| ((i * 31 + k * 17) % 250) as u32).collect(),
            completion: (0..1 + i * 13 % 37).map(|k| ((i * 11 + k * 29) % 250) as u32).collect(),
        };
        let items: Vec<ScoreItem> = (0..40).map(item).collect();
        for family in FAMILIES.iter().map(|family| family.model_type) {
            let decoder = tiny(family, 258);
            let all = score(&mut ready(&decoder), &items, 2, &ScoreLimits::default()).unwrap();
            for (first, step, threads, tokens, logits_bytes) in
                [(0, 1, 2, 64, 1), (3, 2, 1, 1, 1 << 20), (1, 5, 3, 7, 9000), (20, 90, 2, 512, 1)]
            {
                let places: Vec<usize> = (first..items.len()).step_by(step).rev().collect();
                let some: Vec<ScoreItem> = places.iter().map(|place| items[*place].clone()).collect();
                let expected: Vec<Scored> = places.iter().map(|place| all[*place].clone()).collect();
                let mut model = Model::of(&decoder, threads).unwrap();
                let limits = ScoreLimits { tokens, logits_bytes };
                assert_eq!(score(&mut model, &some, 2, &limits).unwrap(), expected, "{family}, {limits:?}");
            }
        }
    }

    #[test]
    fn rolling_windows_are_those_of_lm_eval() {
        let ids: Vec<u32> = (0..=10).collect();
        let parts: Vec<(Vec<u32>, Vec<u32>)> =
            rolling(&ids, 4).into_iter().map(|part| (part.prompt, part.completion)).collect();
        // Its docstring: of ten tokens after the prefix in windows of four, the last scores two after three.
        let expected = [(vec![0], vec![1, 2, 3, 4]), (vec![4], vec![5, 6, 7, 8]), (vec![6, 7, 8], vec![9, 10])];
        assert_eq!(parts, expected);
        assert!(rolling(&[4], 3).is_empty());
    }

    #[test]
    fn likelihood_by_hand() {
        let scored = |logps: &[f32]| Scored {
            logp_sum: logps.iter().map(|l| f64::from(*l)).sum(),
            logps: logps.to_vec(),
            top: vec![],
        };
        // (1 + 2 + 3) / 3 = 2
        let total = Likelihood::of(&[scored(&[-1.0, -2.0]), scored(&[]), scored(&[-3.0])]);
        assert_eq!((total.n_tokens, total.mean()), (3, 2.0));
        assert!((total.perplexity() - 2f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn windows_score_every_token_once() {
        let ids: Vec<u32> = (0..23).collect();
        for (length, overlap) in [(8, 3), (5, 1), (100, 7), (23, 22)] {
            let parts = windows(&ids, length, overlap);
            let scored: Vec<u32> = parts.iter().flat_map(|part| part.completion.clone()).collect();
            assert_eq!(scored, ids[1..], "{length}, {overlap}");
            assert!(parts.iter().all(|part| part.len() <= length && !part.completion.is_empty()));
            assert!(parts[1..].iter().all(|part| part.prompt.len() == overlap));
        }
        assert!(windows(&[4], 8, 2).is_empty());
    }

    #[test]
    fn refuses_what_cannot_be_scored() {
        let decoder = tiny("llama", 60);
        let mut model = ready(&decoder);
        let mut one = |prompt: Vec<u32>, completion: Vec<u32>| {
            score(&mut model, &[ScoreItem { prompt, completion }], 0, &ScoreLimits::default())
        };
        assert!(one(vec![], vec![1]).is_err());
        assert!(one(vec![1], vec![1_000_000]).is_err());
        assert!(one(vec![1; 100_000], vec![1]).is_err());
    }
}
