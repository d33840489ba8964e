//! Training objectives: pure functions of log-probabilities and lengths to a loss per row, one a file.
//!
//! What they share lies here: what a row of training data is to the trainer, what an objective gets and what it
//! gives. It must not know models, batches, optimizers or schedules. A new objective is one new file: its row, its
//! settings, [`Objective`] for them, and hand-worked tests.
//!
//! Letters: r rows of a micro-batch; s(y) the sum of the log-probabilities of an answer's trained tokens, in nats.

mod dpo;
pub mod settings;
mod sft;
mod wrpo;

pub use dpo::{Dpo, PairRow};
pub use settings::{Alpha, AlphaShape, Reduction};
pub use sft::{Sft, SftRow};
pub use wrpo::{Wrpo, WrpoLoss, WrpoRow};

use fuseline_torch::tch::{Kind, Tensor};

/// The log-probability that a fixed reference model gives to an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// Sum over the answer's tokens, in nats.
    pub logp_sum: f64,
    /// How many tokens the sum is over; it must be what is trained, or the two do not compare.
    pub n_tokens: usize,
}

/// An answer of a preference row.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its tokens, end token included if that is to be trained.
    pub tokens: Vec<u32>,
    /// What the reference model says of it; none where the objective is free of a reference.
    pub reference: Option<Reference>,
}

/// A row of any objective as the trainer sees it: a prompt and its continuations.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// What all continuations have before them; nothing of it is trained.
    pub prompt: Vec<u32>,
    /// As many as the objective has roles, in its order.
    pub continuations: Vec<Continuation>,
    /// Factor on the row's loss; 1 is neutral, 0 switches the row off.
    pub weight: f64,
}

/// What follows a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuation {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Which of them carry loss; as long as `tokens`.
    pub trained: Vec<bool>,
    /// What the reference model says of the trained ones.
    pub reference: Option<Reference>,
}

impl From<Answer> for Continuation {
    fn from(answer: Answer) -> Self {
        Self { trained: vec![true; answer.tokens.len()], tokens: answer.tokens, reference: answer.reference }
    }
}

/// Log-probabilities of one role's answers in a micro-batch; all `[r]`.
#[derive(Debug)]
pub struct Logps {
    /// s under the model in training, with gradient.
    pub policy: Tensor,
    /// s under the reference; none where the objective is free of one.
    pub reference: Option<Tensor>,
    /// Trained tokens, at least 1.
    pub lengths: Tensor,
}

impl Logps {
    /// h(y) = s(y) − s_ref(y); without a reference, s(y).
    fn log_ratio(&self) -> Tensor {
        match &self.reference {
            None => self.policy.shallow_clone(),
            Some(reference) => &self.policy - reference,
        }
    }

    /// [`Self::log_ratio`], divided by |y| where `length_normalized`.
    fn score(&self, length_normalized: bool) -> Tensor {
        match length_normalized {
            false => self.log_ratio(),
            true => self.log_ratio() / &self.lengths,
        }
    }
}

/// When an update takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Finished updates: 0 for the first.
    pub update: u64,
    /// Updates of the whole training.
    pub total: u64,
}

/// What an objective says of the rows of a micro-batch; all tensors `[r]`.
#[derive(Debug)]
pub struct RowLosses {
    /// The loss of each row, with gradient; the trainer adds them up, each times its share and its weight.
    pub loss: Tensor,
    /// Named values without gradient; the trainer reports their plain means over the update's rows.
    pub diagnostics: Vec<(&'static str, Tensor)>,
}

/// A training objective.
pub trait Objective {
    /// What it is trained on.
    type Row: Into<Example>;
    /// What its continuations are called, in order.
    const ROLES: &'static [&'static str];

    /// Says whether every continuation needs its [`Reference`].
    fn needs_reference(&self) -> bool;

    /// Returns every problem of the settings, each naming its field.
    fn check(&self) -> Vec<String>;

    /// Returns the factor of each row's loss in the loss of an update whose rows, in their order, have so many
    /// trained tokens in their first continuation. The default is the mean over rows.
    ///
    /// It sees the whole update, so that the loss does not depend on how the update is split for computing.
    fn shares(&self, lengths: &[usize]) -> Vec<f64> {
        vec![1.0 / lengths.len() as f64; lengths.len()]
    }

    /// Returns the losses of rows from their log-probabilities, one [`Logps`] for each role.
    fn losses(&self, roles: &[Logps], moment: Moment) -> RowLosses;
}

/// −(1 − ε)·log σ(u) − ε·log σ(−u), finite for every finite u. `u: [r]`.
///
/// Source: label smoothing of `SLIT-AI/WRPO` `scripts/wrpo_trainer.py`; ε = 0 is plain DPO.
fn logistic_loss(u: &Tensor, label_smoothing: f64) -> Tensor {
    let right = -u.log_sigmoid();
    match label_smoothing == 0.0 {
        true => right,
        false => right * (1.0 - label_smoothing) - (-u).log_sigmoid() * label_smoothing,
    }
}

/// (z − 1/(2τ))². Source: arXiv 2310.12036, eq. 17; `z: [r]`.
fn squared_loss(z: &Tensor, tau: f64) -> Tensor {
    (z - 1.0 / (2.0 * tau)).square()
}

/// 1 where the left is strictly larger, else 0.
fn wins(left: &Tensor, right: &Tensor) -> Tensor {
    left.gt_tensor(right).to_kind(Kind::Double)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    /// The cases of a golden file whose id begins so.
    pub(crate) fn cases(file: &str, prefix: &str) -> Vec<Value> {
        let path = format!("{}/../../tests/golden/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = golden["cases"].as_array().unwrap().clone();
        let cases: Vec<Value> =
            cases.into_iter().filter(|case| case["id"].as_str().unwrap().starts_with(prefix)).collect();
        assert!(!cases.is_empty(), "no case {prefix} in {file}");
        cases
    }

    pub(crate) fn floats(value: &Value) -> Vec<f64> {
        value.as_array().unwrap_or_else(|| panic!("a list, not {value}")).iter().map(|v| v.as_f64().unwrap()).collect()
    }

    /// One role's log-probabilities; the policy's ask for gradients.
    pub(crate) fn logps(policy: &Value, reference: &Value, lengths: &Value) -> Logps {
        let policy = Tensor::from_slice(&floats(policy)).set_requires_grad(true);
        let reference = (!reference.is_null()).then(|| Tensor::from_slice(&floats(reference)));
        let lengths = match lengths.is_null() {
            true => policy.ones_like().set_requires_grad(false),
            false => Tensor::from_slice(&floats(lengths)),
        };
        Logps { policy, reference, lengths }
    }

    /// Compares with a golden list: absolute 1e-12 or relative 1e-9.
    #[track_caller]
    pub(crate) fn close(found: &Tensor, expected: &Value) {
        let found = Vec::<f64>::try_from(found.detach().to_kind(Kind::Double).view([-1])).unwrap();
        let expected = floats(expected);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let allowed = 1e-12 + 1e-9 * expected.abs();
            assert!((found - expected).abs() <= allowed, "{found} is not {expected}");
        }
    }

    #[track_caller]
    pub(crate) fn close_mean(found: &Tensor, expected: &Value) {
        close(&found.detach().mean(Kind::Double), &Value::from(vec![expected.as_f64().unwrap()]));
    }

    pub(crate) fn diagnostic<'a>(losses: &'a RowLosses, name: &str) -> &'a Tensor {
        &losses.diagnostics.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    pub(crate) const START: Moment = Moment { update: 0, total: 1 };

    #[test]
    fn the_logistic_loss_stays_finite() {
        let u = Tensor::from_slice(&[-1000.0, 0.0, 1000.0]);
        close(&logistic_loss(&u, 0.0), &serde_json::json!([1000.0, 2f64.ln(), 0.0]));
        // Half of the weight each way: log 2 at 0, and 500 at either end.
        close(&logistic_loss(&u, 0.5), &serde_json::json!([500.0, 2f64.ln(), 500.0]));
    }
}
