//! Weighted-reward preference optimization: two preferred answers, one from the sources and one from the target
//! itself, against one dispreferred; the sources' weight alpha grows during training. It must not know models or
//! batches.
//!
//! Source: arXiv 2412.03187 and `SLIT-AI/WRPO` `scripts/wrpo_trainer.py`.

use fuseline_torch::tch::Tensor;

use super::{Alpha, Answer, Example, Logps, Moment, Objective, RowLosses, logistic_loss, settings, squared_loss, wins};

/// A prompt with two preferred answers and a dispreferred one.
#[derive(Debug, Clone, PartialEq)]
pub struct WrpoRow {
    /// Prompt tokens, up to where the answer begins.
    pub prompt: Vec<u32>,
    /// The best answer of the source models, y_ws.
    pub source_chosen: Answer,
    /// The best answer of the target itself, y_wt.
    pub target_chosen: Answer,
    /// The worst answer of the target itself, y_l.
    pub rejected: Answer,
    /// Factor on the row's loss; 1 is neutral.
    pub weight: f64,
}

impl From<WrpoRow> for Example {
    fn from(row: WrpoRow) -> Self {
        Example {
            prompt: row.prompt,
            continuations: vec![row.source_chosen.into(), row.target_chosen.into(), row.rejected.into()],
            weight: row.weight,
        }
    }
}

/// The loss on a row; h = s − s_ref in nats, α the sources' weight. The update's loss is the mean over rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WrpoLoss {
    /// `−log σ(β·(α·h_ws + (1−α)·h_wt − h_l))`: sums, never averages. α = 0 is DPO on (y_wt, y_l), α = 1 on (y_ws, y_l).
    Weighted {
        /// β above 0; 0.01 in the published configuration.
        beta: f64,
        /// ε in `0 <= ε < 0.5`.
        label_smoothing: f64,
    },
    /// DPO of each chosen against the rejected, averaged over the two: the ablation without weights, in which alpha
    /// has no part (`loss_type: sigmoid` of the source).
    TwoPairs {
        /// β above 0.
        beta: f64,
        /// ε in `0 <= ε < 0.5`.
        label_smoothing: f64,
    },
    /// `−log σ(β·(α·s_ws/|y_ws| + (1−α)·s_wt/|y_wt| − s_l/|y_l| − γ/β))`, free of a reference. Derived from SimPO; the
    /// paper's own form is not published.
    SimPo {
        /// β above 0.
        beta: f64,
        /// γ/β, at least 0.
        gamma_beta_ratio: f64,
    },
    /// `(z − 1/(2τ))²` with z = α·h_ws/|y_ws| + (1−α)·h_wt/|y_wt| − h_l/|y_l|. Derived from IPO, as above.
    Ipo {
        /// τ above 0.
        tau: f64,
    },
}

/// Weighted-reward preference optimization.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wrpo {
    /// The sources' weight.
    pub alpha: Alpha,
    /// The loss.
    pub loss: WrpoLoss,
}

impl Objective for Wrpo {
    type Row = WrpoRow;
    const ROLES: &'static [&'static str] = &["source_chosen", "target_chosen", "rejected"];

    fn needs_reference(&self) -> bool {
        !matches!(self.loss, WrpoLoss::SimPo { .. })
    }

    fn check(&self) -> Vec<String> {
        settings::check_wrpo(self)
    }

    /// Diagnostics, as the source names them: `cur_alpha`; `rewards/…` are β (or τ) times a side of the difference, with
    /// `chosen` the weighted one (for two pairs, the mean of both); the accuracies are shares of rows whose left side is
    /// strictly larger, compared row by row (the source's `pivot_accuracies` compares every row with every other).
    fn losses(&self, roles: &[Logps], moment: Moment) -> RowLosses {
        let [source, target, rejected] = roles else { unreachable!("as many roles as ROLES") };
        let (scale, length_normalized, alpha) = match self.loss {
            WrpoLoss::Weighted { beta, .. } => (beta, false, self.alpha.at(moment)),
            WrpoLoss::TwoPairs { beta, .. } => (beta, false, 0.5),
            WrpoLoss::SimPo { beta, .. } => (beta, true, self.alpha.at(moment)),
            WrpoLoss::Ipo { tau } => (tau, true, self.alpha.at(moment)),
        };
        let side = |role: &Logps| match self.needs_reference() {
            true => role.score(length_normalized),
            false => &role.policy / &role.lengths,
        };
        let (ws, wt, l) = (side(source), side(target), side(rejected));
        let weighted = &ws * alpha + &wt * (1.0 - alpha);
        let z = &weighted - &l;
        let loss = match self.loss {
            WrpoLoss::Weighted { label_smoothing, .. } => logistic_loss(&(&z * scale), label_smoothing),
            WrpoLoss::TwoPairs { label_smoothing, .. } => {
                let pair = |chosen: &Tensor| logistic_loss(&((chosen - &l) * scale), label_smoothing);
                (pair(&ws) + pair(&wt)) * 0.5
            }
            WrpoLoss::SimPo { gamma_beta_ratio, .. } => logistic_loss(&((&z - gamma_beta_ratio) * scale), 0.0),
            WrpoLoss::Ipo { tau } => squared_loss(&z, tau),
        };
        let [ws, wt, l, weighted] = [ws, wt, l, weighted].map(|side| side.detach() * scale);
        let [s_ws, s_wt, s_l] = [source, target, rejected].map(|role| role.policy.detach());
        let mut diagnostics = vec![
            ("rewards/margins", &weighted - &l),
            ("rewards/accuracies", wins(&weighted, &l)),
            ("rewards/source_accuracies", wins(&ws, &l)),
            ("rewards/pivot_accuracies", wins(&wt, &l)),
            ("rewards/chosen", weighted),
            ("rewards/source_chosen", ws),
            ("rewards/target_chosen", wt),
            ("rewards/rejected", l),
            ("logps/chosen", (&s_ws + &s_wt) * 0.5),
            ("logps/source_chosen", s_ws),
            ("logps/target_chosen", s_wt),
            ("logps/rejected", s_l),
        ];
        if !matches!(self.loss, WrpoLoss::TwoPairs { .. }) {
            diagnostics.push(("cur_alpha", z.detach().full_like(alpha)));
        }
        RowLosses { loss, diagnostics }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{START, cases, close, close_mean, diagnostic, floats, logps};
    use super::*;
    use crate::objectives::AlphaShape;
    use fuseline_torch::tch::Kind;
    use serde_json::{Value, json};

    fn constant(alpha: f64, loss: WrpoLoss) -> Wrpo {
        Wrpo { alpha: Alpha { start: 0.0, end: alpha, shape: AlphaShape::Constant }, loss }
    }

    fn roles(case: &Value) -> Vec<Logps> {
        let input = &case["input"];
        let role = |name: &str| {
            logps(&input["policy_logps"][name], &input["reference_logps"][name], &input["response_lengths"][name])
        };
        ["ws", "wt", "l"].map(role).into()
    }

    fn number(case: &Value, name: &str) -> f64 {
        case["input"][name].as_f64().unwrap_or(0.0)
    }

    fn check(case: &Value, loss: WrpoLoss) {
        let expected = &case["expected"];
        let roles = roles(case);
        let wrpo = constant(number(case, "alpha"), loss);
        assert_eq!(wrpo.check(), Vec::<String>::new());
        let losses = wrpo.losses(&roles, START);
        close(&losses.loss, &expected["loss_per_example"]);
        close_mean(&losses.loss, &expected["loss"]);
        for (name, value) in expected["metrics"].as_object().into_iter().flatten() {
            // The published comparison of every row with every other is a mistake that is not repeated.
            if name != "rewards/pivot_accuracies_as_published_code" {
                close_mean(diagnostic(&losses, name), value);
            }
        }
        losses.loss.mean(Kind::Double).backward();
        for (role, name) in roles.iter().zip(["ws", "wt", "l"]) {
            let expected = &expected["grad_loss_wrt_policy_logps"][name];
            if !expected.is_null() {
                close(&role.policy.grad(), expected);
            }
        }
    }

    #[test]
    fn golden_weighted() {
        for prefix in ["seq_", "pivot_accuracy_broadcast"] {
            for case in cases("wrpo_loss", prefix) {
                let (beta, label_smoothing) = (number(&case, "beta"), number(&case, "label_smoothing"));
                check(&case, WrpoLoss::Weighted { beta, label_smoothing });
            }
        }
    }

    #[test]
    fn golden_two_pairs() {
        let case = &cases("wrpo_loss", "loss_type_sigmoid_two_chosen")[0];
        check(case, WrpoLoss::TwoPairs { beta: number(case, "beta"), label_smoothing: 0.0 });
    }

    #[test]
    fn golden_token_level() {
        for case in cases("wrpo_loss", "token_level_") {
            let input = &case["input"];
            let total = |value: &Value| json!([floats(value).iter().sum::<f64>()]);
            let mut summed = case.clone();
            for role in ["ws", "wt", "l"] {
                let policy = total(&input["policy_token_logps"][role]);
                close(&Tensor::from_slice(&floats(&policy)), &json!([case["expected"]["policy_logps"][role]]));
                summed["input"]["policy_logps"][role] = policy;
                summed["input"]["reference_logps"][role] = total(&input["reference_token_logps"][role]);
            }
            let wrpo = constant(
                number(&case, "alpha"),
                WrpoLoss::Weighted { beta: number(&case, "beta"), label_smoothing: 0.0 },
            );
            close_mean(&wrpo.losses(&roles(&summed), START).loss, &case["expected"]["loss"]);
        }
    }

    #[test]
    fn golden_derived() {
        for case in cases("wrpo_loss", "derived_wrpo_simpo") {
            let gamma_beta_ratio = number(&case, "gamma_beta_ratio");
            check(&case, WrpoLoss::SimPo { beta: number(&case, "beta"), gamma_beta_ratio });
        }
        for case in cases("wrpo_loss", "derived_wrpo_ipo") {
            check(&case, WrpoLoss::Ipo { tau: number(&case, "tau") });
        }
    }

    #[test]
    fn golden_alpha_schedule() {
        for case in cases("wrpo_loss", "alpha_schedule") {
            let alpha = Alpha {
                start: number(&case, "alpha_start"),
                end: number(&case, "alpha_end"),
                shape: AlphaShape::Linear,
            };
            let total = case["input"]["total_updates"].as_u64().unwrap();
            let steps = floats(&case["input"]["steps"]);
            let found: Vec<f64> = steps.iter().map(|step| alpha.at(Moment { update: *step as u64, total })).collect();
            close(&Tensor::from_slice(&found), &case["expected"]["alpha"]);
        }
    }

    #[test]
    fn a_start_above_zero_is_where_alpha_begins() {
        let alpha = Alpha { start: 0.2, end: 0.6, shape: AlphaShape::Linear };
        // 0.2 + 0.4·1/4 = 0.3
        assert!((alpha.at(Moment { update: 1, total: 4 }) - 0.3).abs() < 1e-15);
        assert_eq!(constant(1.5, WrpoLoss::Ipo { tau: 0.1 }).check(), ["alpha.end is 1.5; expected 0 to 1"]);
    }
}
