//! Log-probabilities of given completions: for reference models, for reports of likelihood, for choosing by it.
//!
//! Letters: b texts of a batch, t time, d hidden, n scored positions, v vocabulary. It must not know tables or
//! objectives; what needs gradients is the trainer's.
//!
//! A text's numbers do not depend on the others: matrix products round by their shape, so the shapes here follow from
//! the text's own length alone. Its length is rounded up, its batch always has as many rows as that length gets, and
//! the head sees the same number of positions every time; what is missing is filled up and thrown away.

use std::collections::BTreeMap;

use fuseline_torch::tch::{Device, Kind, Tensor, no_grad};

use crate::decoder::{Decoder, Mask, row_positions};
use crate::error::{Error, Result};

/// Texts of a batch at most; more are hardly faster.
const ROWS: usize = 8;
/// Lengths are rounded up to a multiple of this, as far as the model's positions go.
const STEP: usize = 16;
/// Positions that the head sees at once at most.
const POSITIONS: usize = 256;

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
}

/// How much is computed at once; it decides speed and memory, and the last digits: results are promised for equal
/// limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreLimits {
    /// Tokens of a batch at most, padding included (b·t).
    pub batch_tokens: usize,
    /// Bytes that the logits of one part of a batch may take in f32 (n·v·4) at most.
    pub logits_bytes: usize,
}

impl Default for ScoreLimits {
    fn default() -> Self {
        Self { batch_tokens: 8192, logits_bytes: 64 << 20 }
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

/// Scores completions; the result is in the order of `items`.
///
/// `logps[i] = log softmax(logits)[completion[i]]` at the position before it, in f32 whatever the model's kind; the
/// sums are made in f64. Texts of like length share a batch, padded on the right where the causal mask hides it; the
/// head is applied at scored positions only. On one CPU thread in f32 a text's numbers are the same bit for bit
/// whatever else is scored.
pub fn score(decoder: &Decoder, items: &[ScoreItem], limits: &ScoreLimits) -> Result<Vec<Scored>> {
    check(decoder, items)?;
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.completion.is_empty()) {
        let length = item.len().next_multiple_of(STEP).min(decoder.arch.max_positions as usize);
        by_length.entry(length).or_default().push(index);
    }
    let empty = Scored { logp_sum: 0.0, logps: Vec::new() };
    let mut out = vec![empty; items.len()];
    // The longest first, so that what does not fit into memory shows at once.
    for (length, indices) in by_length.into_iter().rev() {
        let rows = (limits.batch_tokens / length).clamp(1, ROWS);
        for batch in indices.chunks(rows) {
            let logps = no_grad(|| score_batch(decoder, items, batch, (rows, length), limits))?;
            let mut logps = logps.into_iter();
            for index in batch {
                let own: Vec<f32> = logps.by_ref().take(items[*index].completion.len()).collect();
                if own.iter().any(|logp| logp.is_nan()) {
                    return Err(Error::NotFinite { what: format!("the log-probabilities of text {index}") });
                }
                out[*index] = Scored { logp_sum: own.iter().map(|logp| f64::from(*logp)).sum(), logps: own };
            }
        }
    }
    Ok(out)
}

/// Log-probabilities of a batch's completions, one after the other, computed in a batch of this many rows and this
/// length.
fn score_batch(
    decoder: &Decoder,
    items: &[ScoreItem],
    batch: &[usize],
    (rows, length): (usize, usize),
    limits: &ScoreLimits,
) -> Result<Vec<f32>> {
    let (b, t) = (rows as i64, length as i64);
    let mut ids = vec![0i64; rows * length];
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for (row, index) in batch.iter().enumerate() {
        let item = &items[*index];
        let start = row * length;
        for (place, id) in item.prompt.iter().chain(&item.completion).enumerate() {
            ids[start + place] = i64::from(*id);
        }
        for (place, id) in item.completion.iter().enumerate() {
            places.push((start + item.prompt.len() - 1 + place) as i64);
            targets.push(i64::from(*id));
        }
    }
    let device = decoder.device();
    let ids_bt = Tensor::from_slice(&ids).view([b, t]).to_device(device);
    let lengths = batch.iter().map(|index| items[*index].len()).chain(std::iter::repeat(0)).take(rows);
    let positions_bt = row_positions(lengths, length, device);
    let hidden_btd = decoder.hidden(&ids_bt, &positions_bt, &Mask::Causal);
    let width = hidden_btd.size()[2];
    let n = (limits.logits_bytes / (4 * decoder.arch.vocab_size as usize)).clamp(1, POSITIONS);
    let wanted = targets.len();
    places.resize(wanted.next_multiple_of(n), 0);
    targets.resize(places.len(), 0);
    let places = Tensor::from_slice(&places).to_device(device);
    let hidden_nd = hidden_btd.reshape([b * t, width]).index_select(0, &places);

    let mut out = Vec::with_capacity(targets.len());
    for (part, targets) in targets.chunks(n).enumerate() {
        let hidden = hidden_nd.narrow(0, (part * n) as i64, n as i64);
        let logits_nv = decoder.logits(&hidden).to_kind(Kind::Float);
        let targets = Tensor::from_slice(targets).to_device(device).unsqueeze(1);
        let logps = logits_nv.gather(1, &targets, false).squeeze_dim(1) - logits_nv.logsumexp([1], false);
        let logps = logps.to_device(Device::Cpu).contiguous();
        let start = out.len();
        out.resize(start + logps.numel(), 0.0);
        logps
            .f_copy_data(&mut out[start..], logps.numel())
            .map_err(|source| Error::Torch { doing: "failed to read log-probabilities".to_string(), source })?;
    }
    out.truncate(wanted);
    Ok(out)
}

fn check(decoder: &Decoder, items: &[ScoreItem]) -> Result<()> {
    let limit = decoder.arch.max_positions as usize;
    for (index, item) in items.iter().enumerate() {
        if item.prompt.is_empty() && !item.completion.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if item.len() > limit {
            return Err(Error::TooLong { what: format!("text {index}"), tokens: item.len(), limit });
        }
        let known = |id: &&u32| i64::from(**id) >= decoder.arch.vocab_size;
        if let Some(id) = item.prompt.iter().chain(&item.completion).find(known) {
            return Err(Error::TokenOutOfRange { id: i64::from(*id), vocab_size: decoder.arch.vocab_size });
        }
    }
    Ok(())
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
    use super::*;
    use crate::families::FAMILIES;
    use crate::generate::tests::tiny;

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
        for limits in [
            ScoreLimits::default(),
            ScoreLimits { batch_tokens: 1, logits_bytes: 1 },
            ScoreLimits { batch_tokens: 30, logits_bytes: 2000 },
        ] {
            let scores = score(&decoder, &items(), &limits).unwrap();
            for (item, scored) in items().iter().zip(scores) {
                let ids: Vec<i64> = item.prompt.iter().chain(&item.completion).map(|id| i64::from(*id)).collect();
                let t = ids.len() as i64;
                let positions = Tensor::arange(t, (Kind::Int64, Device::Cpu)).unsqueeze(0);
                let hidden = decoder.hidden(&Tensor::from_slice(&ids).unsqueeze(0), &positions, &Mask::Causal);
                let logps = decoder.logits(&hidden).to_kind(Kind::Double).log_softmax(-1, None);
                let mut sum = 0.0;
                for (place, id) in item.completion.iter().enumerate() {
                    let at = (item.prompt.len() - 1 + place) as i64;
                    let expected = logps.double_value(&[0, at, i64::from(*id)]);
                    // f32 logits of a small model agree to a few units of the last place.
                    assert!((f64::from(scored.logps[place]) - expected).abs() < 1e-5);
                    sum += expected;
                }
                assert_eq!(scored.logps.len(), item.completion.len());
                assert!((scored.logp_sum - sum).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_score_does_not_depend_on_the_others() {
        let item = |i: usize| ScoreItem {
            prompt: (0..3 + i * 7 % 30).map(|k| ((i * 31 + k * 17) % 250) as u32).collect(),
            completion: (0..1 + i * 13 % 37).map(|k| ((i * 11 + k * 29) % 250) as u32).collect(),
        };
        let items: Vec<ScoreItem> = (0..120).map(item).collect();
        for family in FAMILIES.iter().map(|family| family.model_type) {
            let decoder = tiny(family, 258);
            let all = score(&decoder, &items, &ScoreLimits::default()).unwrap();
            for (first, step) in [(0, 1), (3, 2), (1, 5), (40, 90), (7, 200)] {
                let places: Vec<usize> = (first..items.len()).step_by(step).rev().collect();
                let some: Vec<ScoreItem> = places.iter().map(|place| items[*place].clone()).collect();
                let expected: Vec<Scored> = places.iter().map(|place| all[*place].clone()).collect();
                assert_eq!(score(&decoder, &some, &ScoreLimits::default()).unwrap(), expected, "{family}, {step}");
            }
        }
    }

    #[test]
    fn likelihood_by_hand() {
        let scored =
            |logps: &[f32]| Scored { logp_sum: logps.iter().map(|l| f64::from(*l)).sum(), logps: logps.to_vec() };
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
        let one = |prompt: Vec<u32>, completion: Vec<u32>| {
            score(&decoder, &[ScoreItem { prompt, completion }], &ScoreLimits::default())
        };
        assert!(one(vec![], vec![1]).is_err());
        assert!(one(vec![1], vec![1_000_000]).is_err());
        assert!(one(vec![1; 100_000], vec![1]).is_err());
    }
}
