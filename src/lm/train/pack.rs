//! Rows of an update put together for computing: split into micro-batches of like length, and laid out as tensors.
//! It must not know losses or optimizers.
//!
//! Letters: r rows, k roles, b = k·r sequences, t time, n trained tokens.

use fuseline_torch::tch::{Device, Tensor};

use super::data::Ready;
use crate::decoder::row_positions;

/// A new micro-batch begins where a row is shorter than this part of the longest one …
const LIKE_LENGTH: f64 = 0.75;
/// … if this part of the allowed tokens is used by then.
const WORTH_SPLITTING: f64 = 0.25;

/// Splits rows, by their places in `rows`, into micro-batches of at most `max_tokens` tokens, filling included, or one
/// row where a row alone has more. Longest rows come first, so that what does not fit into memory fails at once.
pub(super) fn micro_batches(rows: &[&Ready], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&place| (std::cmp::Reverse(rows[place].longest()), place));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for place in order {
        let (roles, own) = (rows[place].sequences.len(), rows[place].longest());
        match batches.last_mut() {
            Some(batch) if fits(rows[batch[0]].longest(), own, batch.len(), roles, max_tokens) => batch.push(place),
            _ => batches.push(vec![place]),
        }
    }
    batches
}

/// Says whether a row of length `own` joins `held` rows of which the longest has `longest` tokens.
fn fits(longest: usize, own: usize, held: usize, roles: usize, max_tokens: usize) -> bool {
    let too_many = (held + 1) * roles * longest > max_tokens;
    let unlike = (own as f64) < LIKE_LENGTH * longest as f64;
    let used = (held * roles * longest) as f64;
    !(too_many || unlike && used >= WORTH_SPLITTING * max_tokens as f64)
}

/// A micro-batch as tensors. Sequences lie role by role: first all rows' first answers, then their second.
#[derive(Debug)]
pub(super) struct Batch {
    /// `[b, t]` i64, filled on the right, where the causal mask hides it.
    pub ids_bt: Tensor,
    /// `[b, t]` i64, see [`row_positions`].
    pub positions_bt: Tensor,
    /// `[n]` i64: rows of the hidden states, seen as `[b·t, d]`, that predict trained tokens.
    pub places_n: Tensor,
    /// `[n, 1]` i64: those tokens.
    pub targets_n1: Tensor,
    /// `[n]` i64: the sequence, in 0..b, that each belongs to.
    pub sequences_n: Tensor,
    /// `[b]` f64: trained tokens of each sequence.
    pub lengths_b: Tensor,
    /// `[b]` f64 in nats; none where a sequence has none.
    pub references_b: Option<Tensor>,
    /// Rows.
    pub rows: i64,
}

impl Batch {
    /// Lays rows out on a device.
    pub fn new(rows: &[&Ready], device: Device) -> Self {
        let roles = rows.first().map_or(0, |row| row.sequences.len());
        let t = rows.iter().map(|row| row.longest()).max().unwrap_or(0);
        let sequences: Vec<_> = (0..roles).flat_map(|role| rows.iter().map(move |row| &row.sequences[role])).collect();
        let mut ids = vec![0i64; sequences.len() * t];
        let (mut places, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (index, sequence) in sequences.iter().enumerate() {
            ids[index * t..index * t + sequence.inputs.len()].copy_from_slice(&sequence.inputs);
            for &(place, target) in &sequence.targets {
                places.push((index * t + place) as i64);
                targets.push(target);
                owners.push(index as i64);
            }
        }
        let lengths: Vec<f64> = sequences.iter().map(|sequence| sequence.targets.len() as f64).collect();
        let references: Option<Vec<f64>> = sequences.iter().map(|sequence| sequence.reference).collect();
        let on_device = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self {
            ids_bt: on_device(&ids).view([-1, t as i64]),
            positions_bt: row_positions(sequences.iter().map(|sequence| sequence.inputs.len()), t, device),
            places_n: on_device(&places),
            targets_n1: on_device(&targets).unsqueeze(1),
            sequences_n: on_device(&owners),
            lengths_b: Tensor::from_slice(&lengths).to_device(device),
            references_b: references.map(|values| Tensor::from_slice(&values).to_device(device)),
            rows: rows.len() as i64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::Sequence;
    use super::*;

    fn ready(lengths: &[usize]) -> Ready {
        let sequence = |length: &usize| Sequence {
            inputs: (0..*length as i64).collect(),
            targets: vec![(length - 1, 9)],
            reference: Some(-(*length as f64)),
        };
        Ready { sequences: lengths.iter().map(sequence).collect(), weight: 1.0 }
    }

    #[test]
    fn rows_of_like_length_go_together() {
        let rows = [[2, 3], [9, 1], [3, 3], [1, 8]].map(|lengths| ready(&lengths));
        let rows: Vec<&Ready> = rows.iter().collect();
        // Two roles: 9·2 + 9·2 = 36 tokens, then 3·2 + 3·2.
        assert_eq!(micro_batches(&rows, 40), [vec![1, 3], vec![0, 2]]);
        assert_eq!(micro_batches(&rows, 1), [vec![1], vec![3], vec![0], vec![2]]);
        // All fit, and too little would be saved by a split.
        assert_eq!(micro_batches(&rows, 1000), [vec![1, 3, 0, 2]]);
    }

    #[test]
    fn sequences_lie_role_by_role() {
        let rows = [ready(&[2, 3]), ready(&[1, 2])];
        let batch = Batch::new(&rows.iter().collect::<Vec<_>>(), Device::Cpu);
        let ids = Vec::<i64>::try_from(batch.ids_bt.view([-1])).unwrap();
        assert_eq!(ids, [0, 1, 0, 0, 0, 0, 0, 1, 2, 0, 1, 0]);
        assert_eq!(Vec::<i64>::try_from(&batch.places_n).unwrap(), [1, 3, 8, 10]);
        assert_eq!(Vec::<i64>::try_from(&batch.sequences_n).unwrap(), [0, 1, 2, 3]);
        assert_eq!(Vec::<f64>::try_from(batch.references_b.unwrap()).unwrap(), [-2.0, -1.0, -3.0, -2.0]);
    }
}
