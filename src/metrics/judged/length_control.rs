//! The length-controlled win rate of AlpacaEval 2 (Y. Dubois, B. Galambosi, P. Liang, T. Hashimoto, Length-controlled AlpacaEval,
//! arXiv 2404.04475; tatsu-lab/alpaca_eval, `metrics/glm_winrate.py`, `length_controlled_v1`).
//!
//! A logistic regression of the preference on three features without intercept:
//! `P(model preferred) = σ(φ tanh(Δ / s) + ψ difficulty + θ)` with the difference Δ of the baseline's length and the model's in
//! code points and the sample deviation s of Δ over the model's rows; the prediction at Δ = 0, averaged over the rows, is the
//! controlled win rate. Two copies of the baseline that were told to be long and to be short stand in the fit without θ, each
//! row with weight 0.1. The penalty is L1; its strength is the best of ten by cross-validation in five folds.
//!
//! Two things that the method does not fix move the published figures, and both can be chosen: the folds, which depend on the
//! processor (see [`folds`](super::folds)), and the solver, LIBLINEAR, which stops before the minimum and so moves a figure by up
//! to 0.02 points, or by 0.1 where strengths are all but equally good and it makes another one the best.

use super::folds::{Folds, group_folds};
use crate::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::{
    Classified, Features, Penalty, fit_liblinear, fit_logistic, mean, sigmoid, standard_deviation, standard_error,
};

/// Folds of the cross-validation.
const N_FOLDS: usize = 5;
/// Weight of a row of a gamed baseline: 0.2 over two of them.
const GAMED_WEIGHT: f64 = 0.1;
/// The strengths `C` that are tried, evenly spaced logarithms.
const N_STRENGTHS: usize = 10;
/// What scikit-learn seeds LIBLINEAR with for the strengths of a fold, one after another, and for the last fit with the first of
/// them: `numpy.random.RandomState(123).randint(2**31 - 1)`.
const SEEDS: [u32; N_STRENGTHS] = [
    843_828_734,
    914_636_141,
    1_228_959_102,
    1_840_268_610,
    974_319_580,
    819_844_194,
    220_395_238,
    941_243_409,
    942_612_051,
    2_109_339_754,
];
/// Predictions of the validation's loss are kept so far from 0 and 1.
const CLIP: f64 = 1e-15;

/// How the regression is solved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// Step by step as scikit-learn's LIBLINEAR does it, with its early end.
    #[default]
    Liblinear,
    /// To the minimum.
    Exact,
}

/// What the method leaves open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choices {
    /// The folds of the cross-validation.
    pub folds: Folds,
    /// The solver.
    pub solver: Solver,
}

/// A judged answer of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Annotation {
    /// How far the model's answer is preferred to the baseline's, in 0..=1; none where the judge gave nothing. Such a row is
    /// not fitted but predicted.
    pub preference: Option<f64>,
    /// Length of the baseline's answer in code points.
    pub baseline_length: f64,
    /// Length of the model's answer in code points.
    pub model_length: f64,
    /// Difficulty of the instruction.
    pub difficulty: f64,
}

/// A judged answer of a baseline that was told to be long or short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gamed {
    /// How far it is preferred to the plain baseline, in 0..=1.
    pub preference: f64,
    /// Difference of lengths over its deviation.
    pub length_difference: f64,
    /// Difficulty of the instruction.
    pub difficulty: f64,
}

/// The fitted coefficients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// φ, of tanh of the standardised length difference.
    pub length: f64,
    /// ψ, of the difficulty.
    pub difficulty: f64,
    /// θ, of the model.
    pub model: f64,
}

/// A length-controlled win rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LengthControlled {
    /// The win rate at equal lengths, a fraction.
    pub win_rate: f64,
    /// The standard error of the predictions' mean, as published; it does not hold the uncertainty of the fit.
    pub standard_error: Option<f64>,
    /// The fit.
    pub coefficients: Coefficients,
    /// The strength that was chosen, as scikit-learn's `C`; the penalty is its inverse.
    pub c: f64,
}

impl Coefficients {
    /// The probability that the model is preferred at equal lengths.
    pub fn predict(&self, difficulty: f64) -> f64 {
        sigmoid(self.difficulty * difficulty + self.model)
    }
}

/// Fits the regression of one model and predicts its win rate at equal lengths.
///
/// `annotations` are the model's rows in the published order, which decides the folds; `gamed` are the rows of the two gamed
/// baselines.
pub fn length_controlled(
    annotations: &[Annotation],
    gamed: &[Gamed],
    choices: Choices,
) -> Result<LengthControlled, Error> {
    let rows = Training::new(annotations, gamed)?;
    let fold_of = group_folds(rows.targets.len(), N_FOLDS, choices.folds);
    let strengths: Vec<f64> =
        (0..N_STRENGTHS).map(|i| 10_f64.powf(-4.0 + 8.0 * i as f64 / (N_STRENGTHS - 1) as f64)).collect();
    let mut scores = [0.0; N_STRENGTHS];
    for fold in 0..N_FOLDS {
        let held_out = |row: &usize| fold_of[*row] == fold;
        let weights: Vec<f64> =
            (0..rows.weights.len()).map(|row| if held_out(&row) { 0.0 } else { rows.weights[row] }).collect();
        let tested: Vec<usize> = (0..rows.targets.len()).filter(held_out).collect();
        for ((score, c), seed) in scores.iter_mut().zip(&strengths).zip(SEEDS) {
            let beta = rows.fit(&weights, *c, choices.solver, seed)?;
            let log_likelihood = |row: &usize| {
                let p = sigmoid(rows.features.dot(*row, &beta)).clamp(CLIP, 1.0 - CLIP);
                rows.weights[*row] * (rows.targets[*row] * p.ln() + (1.0 - rows.targets[*row]) * (1.0 - p).ln())
            };
            *score += mean(&tested.iter().map(log_likelihood).collect::<Vec<_>>()).unwrap_or(0.0);
        }
    }
    // The first of equals.
    let best = (0..N_STRENGTHS).rev().max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
    let beta = rows.fit(&rows.weights, strengths[best], choices.solver, SEEDS[0])?;
    let coefficients = Coefficients { length: beta[0], difficulty: beta[1], model: beta[2] };
    let predictions: Vec<f64> = annotations.iter().map(|row| coefficients.predict(row.difficulty)).collect();
    Ok(LengthControlled {
        win_rate: mean(&predictions).unwrap_or(f64::NAN),
        standard_error: standard_error(&predictions),
        coefficients,
        c: strengths[best],
    })
}

/// What is fitted: the gamed rows, then the model's.
struct Training {
    features: Features,
    targets: Vec<f64>,
    weights: Vec<f64>,
}

impl Training {
    fn new(annotations: &[Annotation], gamed: &[Gamed]) -> Result<Self, Error> {
        let differences: Vec<f64> = annotations.iter().map(|row| row.baseline_length - row.model_length).collect();
        let n_judged = annotations.iter().filter(|row| row.preference.is_some()).count();
        let deviation = standard_deviation(&differences).filter(|deviation| *deviation > 0.0);
        let Some(deviation) = deviation.filter(|_| n_judged >= 2) else {
            return Err(Error::NoLengthControl { n_rows: annotations.len(), n_judged });
        };
        let mut rows = Self { features: Features::new(3), targets: Vec::new(), weights: Vec::new() };
        for row in gamed {
            rows.features.push([(0, row.length_difference.tanh()), (1, row.difficulty)]);
            rows.targets.push(row.preference);
            rows.weights.push(GAMED_WEIGHT);
        }
        for (row, difference) in annotations.iter().zip(&differences) {
            let Some(preference) = row.preference else { continue };
            rows.features.push([(0, (difference / deviation).tanh()), (1, row.difficulty), (2, 1.0)]);
            rows.targets.push(preference);
            rows.weights.push(1.0);
        }
        Ok(rows)
    }

    /// The coefficients by the rows that have a weight.
    fn fit(&self, weights: &[f64], c: f64, solver: Solver, seed: u32) -> Result<Vec<f64>, Error> {
        match solver {
            Solver::Exact => fit_logistic(&self.features, &self.targets, weights, Penalty::L1(1.0 / c)),
            Solver::Liblinear => Ok(fit_liblinear(&self.classified(weights, c), seed)),
        }
    }

    /// The rows as scikit-learn is given them, because it knows only classes: each twice, as a loss with the probability of one
    /// and as a win with that of the other for its weight.
    fn classified(&self, weights: &[f64], c: f64) -> Classified {
        let mut rows = Classified { columns: vec![Vec::new(); 3], ..Classified::default() };
        for win in [false, true] {
            for (row, (target, weight)) in self.targets.iter().zip(weights).enumerate() {
                let cost = if win { *target } else { 1.0 - target } * weight * c;
                if cost > 0.0 {
                    for (column, value) in self.features.row(row).iter().filter(|(_, value)| *value != 0.0) {
                        rows.columns[*column].push((rows.costs.len(), *value));
                    }
                    rows.costs.push(cost);
                }
            }
            if !win {
                rows.n_negative = rows.costs.len();
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests;
