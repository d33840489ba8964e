//! Direct preference optimization and its relatives on pairs: DPO, length-normalised DPO, IPO, SimPO. It must not
//! know models or batches.

use fuseline_torch::tch::Tensor;

use super::{Answer, Example, Logps, Moment, Objective, RowLosses, logistic_loss, settings, squared_loss, wins};

/// A prompt with a preferred and a dispreferred answer.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRow {
    /// Prompt tokens, up to where the answer begins.
    pub prompt: Vec<u32>,
    /// The preferred answer.
    pub chosen: Answer,
    /// The dispreferred answer.
    pub rejected: Answer,
    /// Factor on the row's loss; 1 is neutral.
    pub weight: f64,
}

impl From<PairRow> for Example {
    fn from(row: PairRow) -> Self {
        Example { prompt: row.prompt, continuations: vec![row.chosen.into(), row.rejected.into()], weight: row.weight }
    }
}

/// A loss on pairs. With s the summed log-probability of an answer in nats, h = s − s_ref, |y| its length in tokens,
/// w chosen and l rejected; the update's loss is the mean over rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dpo {
    /// `−log σ(β·z)`, `z = h_w − h_l` (arXiv 2305.18290, eq. 7), or `z = h_w/|y_w| − h_l/|y_l|` where
    /// length-normalised (FuseChat-3.0, arXiv 2503.04222; `sigmoid_norm` of `huggingface/trl`).
    Sigmoid {
        /// β above 0: about 0.01 to 0.1 for sums, about 10 for length-normalised scores.
        beta: f64,
        /// Divide each h by its answer's length.
        length_normalized: bool,
        /// ε in `0 <= ε < 0.5`: −(1−ε)·log σ(βz) − ε·log σ(−βz).
        label_smoothing: f64,
        /// Take h = s.
        reference_free: bool,
    },
    /// `(z − 1/(2τ))²`, z as above (arXiv 2310.12036, eq. 17; `huggingface/trl` averages, as length-normalised).
    Ipo {
        /// τ above 0.
        tau: f64,
        /// Divide each h by its answer's length.
        length_normalized: bool,
    },
    /// `−log σ(β·(s_w/|y_w| − s_l/|y_l| − γ/β))`, free of a reference (arXiv 2405.14734, eq. 6).
    SimPo {
        /// β above 0, about 2.5 to 10.
        beta: f64,
        /// γ/β, at least 0.
        gamma_beta_ratio: f64,
    },
}

impl Objective for Dpo {
    type Row = PairRow;
    const ROLES: &'static [&'static str] = &["chosen", "rejected"];

    fn needs_reference(&self) -> bool {
        !matches!(self, Dpo::SimPo { .. } | Dpo::Sigmoid { reference_free: true, .. })
    }

    fn check(&self) -> Vec<String> {
        settings::check_dpo(self)
    }

    /// Diagnostics: `rewards/chosen` and `rewards/rejected` (β or τ times each side of z), `rewards/margins`,
    /// `rewards/accuracies` (chosen strictly above rejected), `logps/chosen`, `logps/rejected`.
    fn losses(&self, roles: &[Logps], _: Moment) -> RowLosses {
        let [chosen, rejected] = roles else { unreachable!("as many roles as ROLES") };
        let (scale, sides) = match *self {
            Dpo::Sigmoid { beta, length_normalized, reference_free: false, .. } => {
                (beta, [chosen, rejected].map(|side| side.score(length_normalized)))
            }
            Dpo::Sigmoid { beta, length_normalized, reference_free: true, .. } => {
                (beta, [chosen, rejected].map(|side| without_reference(side, length_normalized)))
            }
            Dpo::Ipo { tau, length_normalized } => (tau, [chosen, rejected].map(|side| side.score(length_normalized))),
            Dpo::SimPo { beta, .. } => (beta, [chosen, rejected].map(|side| without_reference(side, true))),
        };
        let z = &sides[0] - &sides[1];
        let loss = match *self {
            Dpo::Sigmoid { label_smoothing, .. } => logistic_loss(&(&z * scale), label_smoothing),
            Dpo::Ipo { tau, .. } => squared_loss(&z, tau),
            Dpo::SimPo { gamma_beta_ratio, .. } => logistic_loss(&((&z - gamma_beta_ratio) * scale), 0.0),
        };
        let rewards = sides.map(|side| side.detach() * scale);
        RowLosses {
            loss,
            diagnostics: vec![
                ("rewards/margins", &rewards[0] - &rewards[1]),
                ("rewards/accuracies", wins(&rewards[0], &rewards[1])),
                ("rewards/chosen", rewards[0].shallow_clone()),
                ("rewards/rejected", rewards[1].shallow_clone()),
                ("logps/chosen", chosen.policy.detach()),
                ("logps/rejected", rejected.policy.detach()),
            ],
        }
    }
}

fn without_reference(side: &Logps, length_normalized: bool) -> Tensor {
    match length_normalized {
        false => side.policy.shallow_clone(),
        true => &side.policy / &side.lengths,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{START, cases, close, close_mean, diagnostic, logps};
    use super::*;
    use fuseline_torch::tch::Kind;
    use serde_json::Value;

    fn number(case: &Value, name: &str) -> f64 {
        case["input"][name].as_f64().unwrap_or(0.0)
    }

    fn check(case: &Value, dpo: Dpo) {
        let (input, expected) = (&case["input"], &case["expected"]);
        let roles = [
            logps(&input["policy_chosen"], &input["ref_chosen"], &input["len_chosen"]),
            logps(&input["policy_rejected"], &input["ref_rejected"], &input["len_rejected"]),
        ];
        assert_eq!(dpo.check(), Vec::<String>::new());
        assert_eq!(dpo.needs_reference(), !input["ref_chosen"].is_null(), "{}", case["id"]);
        let losses = dpo.losses(&roles, START);
        close(&losses.loss, &expected["loss_per_example"]);
        close_mean(&losses.loss, &expected["loss"]);
        for (name, diagnosed) in [
            ("reward_chosen", "rewards/chosen"),
            ("reward_rejected", "rewards/rejected"),
            ("margin", "rewards/margins"),
        ] {
            if !expected[name].is_null() {
                close(diagnostic(&losses, diagnosed), &expected[name]);
            }
        }
        if !expected["accuracy"].is_null() {
            close_mean(diagnostic(&losses, "rewards/accuracies"), &expected["accuracy"]);
        }
        losses.loss.mean(Kind::Double).backward();
        for (role, name) in roles.iter().zip(["grad_policy_chosen", "grad_policy_rejected"]) {
            if !expected[name].is_null() {
                close(&role.policy.grad(), &expected[name]);
            }
        }
    }

    #[test]
    fn golden_dpo() {
        for case in cases("base_losses", "dpo_") {
            let dpo = Dpo::Sigmoid {
                beta: number(&case, "beta"),
                length_normalized: false,
                label_smoothing: number(&case, "label_smoothing"),
                reference_free: case["id"].as_str().unwrap().contains("reference_free"),
            };
            check(&case, dpo);
        }
    }

    #[test]
    fn golden_length_normalized() {
        for case in cases("base_losses", "ln_dpo_") {
            let beta = number(&case, "beta");
            let dpo = Dpo::Sigmoid { beta, length_normalized: true, label_smoothing: 0.0, reference_free: false };
            check(&case, dpo);
        }
    }

    #[test]
    fn golden_simpo() {
        for case in cases("base_losses", "simpo_") {
            let gamma_beta_ratio = number(&case, "gamma_beta_ratio");
            check(&case, Dpo::SimPo { beta: number(&case, "beta"), gamma_beta_ratio });
        }
    }

    #[test]
    fn golden_ipo() {
        for case in cases("base_losses", "ipo_") {
            let (input, tau) = (&case["input"], number(&case, "tau"));
            let roles = [
                logps(&input["policy_chosen"], &input["ref_chosen"], &input["len_chosen"]),
                logps(&input["policy_rejected"], &input["ref_rejected"], &input["len_rejected"]),
            ];
            for (length_normalized, name) in
                [(false, "loss_per_example_sum_logps"), (true, "loss_per_example_avg_logps")]
            {
                let losses = Dpo::Ipo { tau, length_normalized }.losses(&roles, START);
                close(&losses.loss, &case["expected"][name]);
            }
        }
    }

    #[test]
    fn wrong_settings_are_named() {
        let dpo = Dpo::Sigmoid { beta: 0.0, length_normalized: false, label_smoothing: 0.5, reference_free: false };
        let problems = dpo.check();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("beta is 0") && problems[1].contains("label_smoothing is 0.5"));
        assert_eq!(Dpo::Ipo { tau: f64::NAN, length_normalized: false }.check().len(), 1);
        assert_eq!(Dpo::SimPo { beta: 1.0, gamma_beta_ratio: -1.0 }.check().len(), 1);
    }
}
