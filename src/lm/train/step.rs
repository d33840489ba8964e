//! One update of the weights. It must not know data order, schedules or files.
//!
//! Letters: r rows, k roles, b = k·r sequences, t time, d hidden, n trained tokens, v vocabulary.

use fuseline_torch::tch::{Kind, Tensor, no_grad, with_grad};

use crate::decoder::{Decoder, Mask};
use crate::objectives::{Logps, Moment, Objective};

use super::data::Ready;
use super::optim::AdamW;
use super::pack::{Batch, micro_batches};

/// What an update's loss was.
#[derive(Debug)]
pub(super) struct Loss {
    /// The whole update's.
    pub value: f64,
    /// Means over the update's rows.
    pub diagnostics: Vec<(&'static str, f64)>,
}

/// Leaves the gradient of the whole update's loss in `adam`, computed in micro-batches of about `max_tokens` tokens;
/// every row's factor comes from the whole update, so the split does not matter but for rounding.
pub(super) fn gradient<O: Objective>(
    decoder: &Decoder,
    adam: &mut AdamW,
    rows: &[&Ready],
    objective: &O,
    moment: Moment,
    max_tokens: usize,
) -> Loss {
    let lengths: Vec<usize> = rows.iter().map(|row| row.sequences[0].targets.len()).collect();
    let shares = objective.shares(&lengths);
    let mut loss = Loss { value: 0.0, diagnostics: Vec::new() };
    for (index, places) in micro_batches(rows, max_tokens).iter().enumerate() {
        let own: Vec<&Ready> = places.iter().map(|&place| rows[place]).collect();
        let factors: Vec<f64> = places.iter().map(|&place| shares[place] * rows[place].weight).collect();
        let batch = Batch::new(&own, decoder.device());
        let (total, diagnostics) = with_grad(|| {
            let row_losses = objective.losses(&roles(decoder, &batch), moment);
            let factors = Tensor::from_slice(&factors).to_device(decoder.device());
            ((row_losses.loss * factors).sum(Kind::Double), row_losses.diagnostics)
        });
        adam.add_gradient(&total, index == 0);
        loss.value += total.double_value(&[]);
        for (place, (name, sum)) in sums(&diagnostics).into_iter().enumerate() {
            match loss.diagnostics.get_mut(place) {
                Some((_, value)) => *value += sum / rows.len() as f64,
                None => loss.diagnostics.push((name, sum / rows.len() as f64)),
            }
        }
    }
    loss
}

/// Computes the summed log-probabilities of each role's answers, in float64.
fn roles(decoder: &Decoder, batch: &Batch) -> Vec<Logps> {
    let sums_b = sequence_logps(decoder, batch);
    let roles = sums_b.size()[0] / batch.rows;
    let role = |index: i64| {
        let part = |of_b: &Tensor| of_b.narrow(0, index * batch.rows, batch.rows);
        Logps {
            policy: part(&sums_b),
            reference: batch.references_b.as_ref().map(part),
            lengths: part(&batch.lengths_b),
        }
    };
    (0..roles).map(role).collect()
}

/// Sums the log-probabilities of each sequence's trained tokens, `[b]` float64; the head sees only the `n` positions
/// that predict one, and the softmax is in float32 at least.
fn sequence_logps(decoder: &Decoder, batch: &Batch) -> Tensor {
    let hidden_btd = decoder.hidden(&batch.ids_bt, &batch.positions_bt, &Mask::Causal);
    let size = hidden_btd.size();
    let hidden_nd = hidden_btd.reshape([size[0] * size[1], size[2]]).index_select(0, &batch.places_n);
    let logits_nv = decoder.logits(&hidden_nd);
    let kind = if logits_nv.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let logps_n = logits_nv.log_softmax(-1, kind).gather(1, &batch.targets_n1, false).squeeze_dim(1);
    Tensor::zeros([size[0]], (Kind::Double, decoder.device())).index_add(
        0,
        &batch.sequences_n,
        &logps_n.to_kind(Kind::Double),
    )
}

fn sums(diagnostics: &[(&'static str, Tensor)]) -> Vec<(&'static str, f64)> {
    no_grad(|| diagnostics.iter().map(|(name, rows)| (*name, rows.sum(Kind::Double).double_value(&[]))).collect())
}
