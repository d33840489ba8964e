//! One token from one row of logits: penalty, temperature, filters, draw; plain loops in a fixed order over f32 with f64
//! sums, so that equal logits give equal tokens.

use std::cmp::Ordering;

use super::Params;
use super::row::History;

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
    let highest = argmax(logits)?;
    let logprob = |id: u32| {
        if params.logprobs { log_softmax_at(logits, logits[highest as usize], id) } else { f32::NAN }
    };
    let penalised = !history.seen.is_empty() || !history.said.is_empty();
    let Scratch { logits: changed, candidates } = scratch;
    let (row, top) = if penalised {
        changed.clear();
        changed.extend_from_slice(logits);
        for id in &history.seen {
            if let Some(logit) = changed.get_mut(*id as usize) {
                let penalty = params.repetition_penalty as f32;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for (id, times) in &history.said {
            changed[*id as usize] -= (params.frequency_penalty * f64::from(*times) + params.presence_penalty) as f32;
        }
        (changed.as_slice(), argmax(changed)?)
    } else {
        (logits, highest)
    };
    let id = if params.temperature == 0.0 {
        top
    } else if params.top_k == 0 && params.top_p >= 1.0 && params.min_p == 0.0 {
        draw_any(row, row[top as usize], params.temperature, u)
    } else {
        filter(row, row[top as usize], params, candidates);
        draw_of(candidates, u)
    };
    Some(Pick { id, logprob: logprob(id) })
}

/// The lowest id of the highest logit.
fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if *logit > logits[best] {
            best = id;
        }
    }
    logits.get(best).filter(|logit| logit.is_finite()).map(|_| best as u32)
}

/// `logits[id] - log(sum(exp(logits)))`.
fn log_softmax_at(logits: &[f32], highest: f32, id: u32) -> f32 {
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - highest).exp())).sum();
    (f64::from(logits[id as usize] - highest) - sum.ln()) as f32
}

/// A draw from all tokens, in the order of ids.
fn draw_any(logits: &[f32], highest: f32, temperature: f64, u: f64) -> u32 {
    let scale = (1.0 / temperature) as f32;
    let weight = |logit: f32| f64::from(((logit - highest) * scale).exp());
    let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let mut left = u * total;
    let mut last = 0;
    for (id, logit) in logits.iter().enumerate() {
        let weight = weight(*logit);
        if weight > 0.0 {
            last = id;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    last as u32
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

/// The tokens that pass the filters with their weights, the likeliest's being 1: likeliest first, lower ids first among
/// equals; at least one.
fn filter(logits: &[f32], highest: f32, params: &Params, candidates: &mut Vec<(f32, u32)>) {
    let scale = (1.0 / params.temperature) as f32;
    let weights = logits.iter().map(|logit| ((logit - highest) * scale).exp());
    candidates.clear();
    candidates.extend(weights.zip(0..).filter(|(weight, _)| *weight > 0.0));
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
    fn large_vocabularies_are_cut_alike() {
        let logits: Vec<f32> = (0..5000).map(|i| (uniform(1, i) * 4.0) as f32).collect();
        let params = Params { top_p: 0.9, ..Params::default() };
        let mut candidates = Vec::new();
        filter(&logits, logits[argmax(&logits).unwrap() as usize], &params, &mut candidates);
        let weight = |id: u32| f64::from(logits[id as usize]).exp();
        let total: f64 = (0..5000).map(weight).sum();
        let mass: f64 = candidates.iter().map(|(_, id)| weight(*id)).sum();
        assert!(mass / total >= 0.9 - 1e-6 && (mass - weight(candidates[candidates.len() - 1].1)) / total < 0.9);
        assert!(candidates.windows(2).all(|pair| likelier(&pair[0], &pair[1]) == Ordering::Less));
    }
}
