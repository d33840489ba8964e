//! One token from one row of logits: penalty, temperature, filters, draw; loops in a fixed order, so that equal logits give
//! equal tokens.

use std::cmp::Ordering;

use fuseline_torch::simd::{Loops, vectorised};

use super::Params;
use super::row::History;
use crate::cpu::{LogSumExp, exp, sum};

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pick {
    /// Its id.
    pub id: u32,
    /// Its log-probability under the unchanged logits, in nats; NaN where it was not asked for.
    pub logprob: f32,
}

/// Memory that rows share, so that a step allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    logits: Vec<f32>,
    weights: Vec<f32>,
    candidates: Vec<(f32, u32)>,
}

/// A number in 0..1 with 53 bits for the token at `position` of the completion with this seed.
///
/// Two rounds of SplitMix64's finaliser (Steele, Lea and Flood 2014): of the seed, then of that plus the position times
/// the golden-ratio constant.
pub(super) fn uniform(seed: u64, position: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let bits = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Chooses a token. `history` is what penalties look at; `u` is the draw in 0..1. None where a logit is NaN or none is
/// finite.
pub(super) fn pick(logits: &[f32], params: &Params, history: &History, u: f64, scratch: &mut Scratch) -> Option<Pick> {
    let highest = highest(logits)?;
    let Scratch { logits: changed, weights, candidates } = scratch;
    let penalised = !history.seen.is_empty() || !history.said.is_empty();
    let (row, top) = if penalised {
        changed.clear();
        changed.extend_from_slice(logits);
        for id in &history.seen {
            let penalty = params.repetition_penalty as f32;
            let logit = &mut changed[*id as usize];
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        for (id, times) in &history.said {
            changed[*id as usize] -= (params.frequency_penalty * f64::from(*times) + params.presence_penalty) as f32;
        }
        (changed.as_slice(), self::highest(changed)?)
    } else {
        (logits, highest)
    };
    let id = if params.temperature == 0.0 {
        row.iter().position(|logit| *logit == top)? as u32
    } else {
        weights.resize(row.len(), 0.0);
        vectorised(Weights { logits: row, highest: top, scale: (1.0 / params.temperature) as f32, out: weights });
        if params.top_k == 0 && params.top_p >= 1.0 && params.min_p == 0.0 {
            draw_any(weights, u)
        } else {
            filter(weights, params, candidates);
            draw_of(candidates, u)
        }
    };
    let logprob = match params.logprobs {
        true => (f64::from(logits[id as usize]) - vectorised(LogSumExp(logits))) as f32,
        false => f32::NAN,
    };
    Some(Pick { id, logprob })
}

/// The highest logit; none where one is NaN or none is finite.
fn highest(logits: &[f32]) -> Option<f32> {
    let highest = vectorised(Highest(logits));
    highest.is_finite().then_some(highest)
}

/// The highest of a row, NaN if there is one.
struct Highest<'a>(&'a [f32]);

impl Loops for Highest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        const LANES: usize = 16;
        let (mut best, mut bad) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
        let (whole, rest) = self.0.as_chunks::<LANES>();
        let mut look = |part: &[f32]| {
            for ((best, bad), x) in best.iter_mut().zip(&mut bad).zip(part) {
                *best = if *x > *best { *x } else { *best };
                *bad |= x.is_nan();
            }
        };
        for part in whole {
            look(part);
        }
        look(rest);
        match bad.contains(&true) {
            true => f32::NAN,
            false => best.into_iter().fold(f32::NEG_INFINITY, f32::max),
        }
    }
}

/// What each token weighs, the likeliest 1.
struct Weights<'a> {
    logits: &'a [f32],
    highest: f32,
    scale: f32,
    out: &'a mut [f32],
}

impl Loops for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (out, logit) in self.out.iter_mut().zip(self.logits) {
            *out = exp((logit - self.highest) * self.scale);
        }
    }
}

/// The sum of some weights.
struct Mass<'a>(&'a [f32]);

impl Loops for Mass<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        f64::from(sum(self.0, |weight| weight))
    }
}

/// A draw from all tokens, in the order of ids: by blocks first.
fn draw_any(weights: &[f32], u: f64) -> u32 {
    const BLOCK: usize = 256;
    let masses: Vec<f64> = weights.chunks(BLOCK).map(|block| vectorised(Mass(block))).collect();
    let mut left = u * masses.iter().sum::<f64>();
    let mut block = 0;
    while block + 1 < masses.len() && left >= masses[block] {
        left -= masses[block];
        block += 1;
    }
    let mut last = None;
    for (id, weight) in weights.iter().enumerate().skip(block * BLOCK) {
        if *weight > 0.0 {
            last = Some(id);
            left -= f64::from(*weight);
            if left < 0.0 {
                break;
            }
        }
    }
    // Rounding may leave a rest behind the last token that weighs anything.
    last.or_else(|| weights.iter().rposition(|weight| *weight > 0.0)).unwrap_or_default() as u32
}

/// A draw from some tokens by their weights, in their order.
fn draw_of(candidates: &[(f32, u32)], u: f64) -> u32 {
    let total: f64 = candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
    let mut left = u * total;
    for (weight, id) in candidates {
        left -= f64::from(*weight);
        if left < 0.0 {
            return *id;
        }
    }
    candidates[candidates.len() - 1].1
}

/// The tokens that pass the filters with their weights: likeliest first, lower ids first among equals; at least one.
fn filter(weights: &[f32], params: &Params, candidates: &mut Vec<(f32, u32)>) {
    candidates.clear();
    candidates.extend(weights.iter().copied().zip(0..).filter(|(weight, _)| *weight > 0.0));
    if params.top_k > 0 {
        sort_first(candidates, params.top_k);
        candidates.truncate(params.top_k);
    }
    if params.top_p < 1.0 {
        let wanted = params.top_p * candidates.iter().map(|(weight, _)| f64::from(*weight)).sum::<f64>();
        // Sorting a whole vocabulary is seldom needed: few tokens hold most of the mass.
        let (mut sorted, mut kept, mut mass) = (0, 0, 0.0);
        while kept < candidates.len() && mass < wanted {
            if kept == sorted {
                let more = (7 * sorted).max(16);
                sort_first(&mut candidates[sorted..], more);
                sorted += more;
            }
            mass += f64::from(candidates[kept].0);
            kept += 1;
        }
        candidates.truncate(kept);
    }
    if params.min_p > 0.0 {
        candidates.retain(|(weight, _)| f64::from(*weight) >= params.min_p);
    }
    if params.top_k == 0 && params.top_p >= 1.0 {
        candidates.sort_unstable_by(likelier);
    }
}

/// Puts the `n` likeliest at the front, in order.
fn sort_first(candidates: &mut [(f32, u32)], n: usize) {
    if n < candidates.len() {
        candidates.select_nth_unstable_by(n - 1, likelier);
        candidates[..n].sort_unstable_by(likelier);
    } else {
        candidates.sort_unstable_by(likelier);
    }
}

fn likelier(left: &(f32, u32), right: &(f32, u32)) -> Ordering {
    right.0.total_cmp(&left.0).then(left.1.cmp(&right.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of probabilities 0.4, 0.3, 0.2, 0.1.
    fn row() -> Vec<f32> {
        [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln() + 1.5).collect()
    }

    fn at(params: &Params, u: f64) -> u32 {
        pick(&row(), params, &History::default(), u, &mut Scratch::default()).unwrap().id
    }

    #[test]
    fn draws_follow_the_distribution() {
        let params = Params::default();
        // In the order of ids: 0.1, 0.5, 0.7, 1.0 are the borders.
        for (u, id) in [(0.05, 0), (0.15, 1), (0.49, 1), (0.51, 2), (0.71, 3), (0.999, 3)] {
            assert_eq!(at(&params, u), id, "{u}");
        }
        let counts = (0..20_000).fold([0u32; 4], |mut counts, position| {
            counts[at(&params, uniform(7, position)) as usize] += 1;
            counts
        });
        for (count, p) in counts.iter().zip([0.1, 0.4, 0.2, 0.3]) {
            // Four standard deviations of 20,000 draws are at most 4·sqrt(0.25/20000) = 0.015.
            assert!((f64::from(*count) / 20_000.0 - p).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let kept = |params: Params| {
            let mut ids: Vec<u32> = (0..1000).map(|i| at(&params, i as f64 / 1000.0)).collect();
            ids.dedup();
            ids
        };
        let base = Params::default();
        assert_eq!(kept(Params { temperature: 0.0, ..base.clone() }), [1]);
        assert_eq!(kept(Params { top_k: 2, ..base.clone() }), [1, 3]);
        // 0.4 + 0.3 = 0.7 is short of 0.75: the third token is needed.
        assert_eq!(kept(Params { top_p: 0.75, ..base.clone() }), [1, 3, 2]);
        assert_eq!(kept(Params { top_p: 0.01, ..base.clone() }), [1]);
        // 0.45 · 0.4 = 0.18 <= 0.2
        assert_eq!(kept(Params { min_p: 0.45, ..base.clone() }), [1, 3, 2]);
        assert_eq!(kept(Params { min_p: 0.6, top_k: 3, ..base.clone() }), [1, 3]);
        // At temperature 0.5 the probabilities go as their squares, 16 : 9 : 4 : 1 of 30; 25/30 = 0.833.
        assert_eq!(kept(Params { temperature: 0.5, top_p: 0.83, ..base }), [1, 3]);
    }

    #[test]
    fn the_penalty_is_on_seen_tokens() {
        let params = Params { temperature: 0.0, repetition_penalty: 2.0, ..Params::default() };
        let mut scratch = Scratch::default();
        let seen = |id| History { seen: vec![id], said: vec![] };
        assert_eq!(pick(&[3.0, 2.0, -1.0], &params, &seen(0), 0.0, &mut scratch).unwrap().id, 1);
        assert_eq!(pick(&[-3.0, -2.0, -3.5], &params, &seen(1), 0.0, &mut scratch).unwrap().id, 0);
    }

    #[test]
    fn what_was_said_is_penalised_once_or_as_often() {
        let best = |presence_penalty, frequency_penalty, times| {
            let params = Params { temperature: 0.0, presence_penalty, frequency_penalty, ..Params::default() };
            let history = History { seen: vec![], said: vec![(0, times)] };
            pick(&[3.0, 2.0], &params, &history, 0.0, &mut Scratch::default()).unwrap().id
        };
        // 3 − 0.9 stays ahead of 2 and 3 − 1.1 does not; 3 − 0.4·2 does, 3 − 0.4·3 does not; 3 − 0.6 − 0.3·2 = 1.8.
        assert_eq!([best(0.9, 0.0, 5), best(1.1, 0.0, 1), best(-1.0, 0.0, 1)], [0, 1, 0]);
        assert_eq!([best(0.0, 0.4, 2), best(0.0, 0.4, 3), best(0.6, 0.3, 2)], [0, 1, 1]);
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let params = Params { temperature: 0.3, top_k: 1, logprobs: true, ..Params::default() };
        let pick = pick(&row(), &params, &History::default(), 0.5, &mut Scratch::default()).unwrap();
        assert!((pick.logprob - 0.4f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn bad_logits_are_noticed() {
        let params = Params::default();
        let mut scratch = Scratch::default();
        assert_eq!(pick(&[0.0, f32::NAN], &params, &History::default(), 0.5, &mut scratch), None);
        assert_eq!(pick(&[f32::NEG_INFINITY; 2], &params, &History::default(), 0.5, &mut scratch), None);
        let masked = [f32::NEG_INFINITY, 0.0];
        assert_eq!(pick(&masked, &params, &History::default(), 0.0, &mut scratch).unwrap().id, 1);
    }

    #[test]
    fn large_vocabularies_are_drawn_from_alike() {
        let logits: Vec<f32> = (0..5000).map(|i| (uniform(1, i) * 4.0) as f32).collect();
        let weights: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut scratch = Scratch::default();
        for draw in 0..500 {
            let u = uniform(2, draw);
            let found = pick(&logits, &Params::default(), &History::default(), u, &mut scratch).unwrap().id as usize;
            let before: f64 = weights[..found].iter().sum::<f64>() / total;
            // Sums of float32 in blocks of 256.
            assert!(u > before - 1e-6 && u < before + weights[found] / total + 1e-6, "{u}: {found}");
        }
        // All that weighs anything lies before the end.
        let mut masked = vec![f32::NEG_INFINITY; 600];
        masked[3] = 1.0;
        assert_eq!(pick(&masked, &Params::default(), &History::default(), 0.999_999, &mut scratch).unwrap().id, 3);
    }

    #[test]
    fn large_vocabularies_are_cut_alike() {
        let logits: Vec<f32> = (0..5000).map(|i| (uniform(1, i) * 4.0) as f32).collect();
        let params = Params { top_p: 0.9, ..Params::default() };
        let mut candidates = Vec::new();
        let mut weights = vec![0.0; logits.len()];
        let highest = highest(&logits).unwrap();
        vectorised(Weights { logits: &logits, highest, scale: 1.0, out: &mut weights });
        filter(&weights, &params, &mut candidates);
        let weight = |id: u32| f64::from(logits[id as usize]).exp();
        let total: f64 = (0..5000).map(weight).sum();
        let mass: f64 = candidates.iter().map(|(_, id)| weight(*id)).sum();
        assert!(mass / total >= 0.9 - 1e-6 && (mass - weight(candidates[candidates.len() - 1].1)) / total < 0.9);
        assert!(candidates.windows(2).all(|pair| likelier(&pair[0], &pair[1]) == Ordering::Less));
    }
}
