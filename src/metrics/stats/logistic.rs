//! Logistic regression with targets that are probabilities, by Newton's method on the exact Hessian: quadratic steps with a
//! proximal part for an L1 penalty (J. Lee, Y. Sun, M. Saunders, Proximal Newton-type methods, SIAM J. Optim. 24, 2014).
//!
//! Rows are sparse, because a battle of two models among sixty has two entries. The minimum is found to the last digits that
//! sums of so many rows have, so that a result depends on the data and not on a solver's tolerance.

use crate::Error;

/// How many Newton steps are tried; some ten suffice for data that have a minimum.
const MOST_STEPS: usize = 200;
/// A step this small against the coefficients is the last one.
const STEP_TOLERANCE: f64 = 1e-12;

/// Rows of features, sparse.
#[derive(Debug, Clone, Default)]
pub struct Features {
    n_columns: usize,
    starts: Vec<usize>,
    entries: Vec<(usize, f64)>,
}

impl Features {
    /// No rows yet, of so many columns.
    pub fn new(n_columns: usize) -> Self {
        Self { n_columns, starts: vec![0], entries: Vec::new() }
    }

    /// Adds a row by its entries (column and value); absent columns are zero.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (usize, f64)>) {
        self.entries.extend(entries);
        debug_assert!(self.entries[self.starts[self.starts.len() - 1]..].iter().all(|(j, _)| *j < self.n_columns));
        self.starts.push(self.entries.len());
    }

    /// How many rows there are.
    pub fn n_rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The entries of a row.
    pub fn row(&self, row: usize) -> &[(usize, f64)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    /// A row times coefficients.
    pub fn dot(&self, row: usize, coefficients: &[f64]) -> f64 {
        self.row(row).iter().map(|(column, value)| value * coefficients[*column]).sum()
    }
}

/// What keeps coefficients small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Penalty {
    /// `strength · Σ |β|`. scikit-learn's `C` with `penalty="l1"` is `1 / strength`.
    L1(f64),
    /// `strength / 2 · Σ β²`. scikit-learn's `C` with `penalty="l2"` is `1 / strength`.
    L2(f64),
}

/// `1 / (1 + exp(-x))`, without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `ln(1 + exp(x))`, without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The coefficients β that minimise `Σ weight · (softplus(z) − target · z) + penalty(β)` with `z = x·β`, that is the weighted
/// logarithmic loss of probabilities `target`, without intercept.
///
/// `targets` lie in 0..=1 and `weights` are not negative, one each a row. A row of weight zero has no influence.
pub fn fit_logistic(
    features: &Features,
    targets: &[f64],
    weights: &[f64],
    penalty: Penalty,
) -> Result<Vec<f64>, Error> {
    let problem = Problem { features, targets, weights, penalty };
    let mut beta = vec![0.0; features.n_columns];
    let mut value = problem.value(&beta);
    for _ in 0..MOST_STEPS {
        let (gradient, hessian) = problem.derivatives(&beta);
        let step = match penalty {
            Penalty::L1(strength) => l1_step(&beta, &gradient, &hessian, strength),
            Penalty::L2(_) => solve(hessian, gradient.iter().map(|g| -g).collect()),
        };
        let mut share = 1.0;
        loop {
            let small =
                step.iter().zip(&beta).all(|(step, b)| (share * step).abs() <= STEP_TOLERANCE * (1.0 + b.abs()));
            let moved: Vec<f64> = beta.iter().zip(&step).map(|(beta, step)| beta + share * step).collect();
            let moved_value = problem.value(&moved);
            let better = moved_value <= value;
            if better {
                (beta, value) = (moved, moved_value);
            }
            // So near the minimum, rounding may hide that the last step is one down.
            if small {
                return Ok(beta);
            }
            if better {
                break;
            }
            share /= 2.0;
        }
    }
    Err(Error::NoConvergence { steps: MOST_STEPS })
}

struct Problem<'a> {
    features: &'a Features,
    targets: &'a [f64],
    weights: &'a [f64],
    penalty: Penalty,
}

impl Problem<'_> {
    fn value(&self, beta: &[f64]) -> f64 {
        let loss = |row: usize| {
            let z = self.features.dot(row, beta);
            self.weights[row] * (softplus(z) - self.targets[row] * z)
        };
        let used = (0..self.features.n_rows()).filter(|row| self.weights[*row] > 0.0);
        let penalty = match self.penalty {
            Penalty::L1(strength) => strength * beta.iter().map(|beta| beta.abs()).sum::<f64>(),
            Penalty::L2(strength) => strength / 2.0 * beta.iter().map(|beta| beta * beta).sum::<f64>(),
        };
        used.map(loss).sum::<f64>() + penalty
    }

    /// Gradient and Hessian (row after row); of the penalty only an L2 one, which has them.
    fn derivatives(&self, beta: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = beta.len();
        let (mut gradient, mut hessian) = (vec![0.0; n], vec![0.0; n * n]);
        for row in 0..self.features.n_rows() {
            let weight = self.weights[row];
            if weight <= 0.0 {
                continue;
            }
            let probability = sigmoid(self.features.dot(row, beta));
            let (slope, bend) =
                (weight * (probability - self.targets[row]), weight * probability * (1.0 - probability));
            let entries = self.features.row(row);
            for (i, x) in entries {
                gradient[*i] += slope * x;
                for (j, y) in entries {
                    hessian[i * n + j] += bend * x * y;
                }
            }
        }
        if let Penalty::L2(strength) = self.penalty {
            for i in 0..n {
                gradient[i] += strength * beta[i];
                hessian[i * n + i] += strength;
            }
        }
        (gradient, hessian)
    }
}

/// The step to the minimum of the quadratic model plus `strength · Σ |β|`, by cyclic coordinate descent.
fn l1_step(beta: &[f64], gradient: &[f64], hessian: &[f64], strength: f64) -> Vec<f64> {
    let n = beta.len();
    let mut step = vec![0.0; n];
    // Each round solves every coordinate exactly; a few hundred rounds settle even nearly dependent columns.
    for _ in 0..1000 {
        let mut change: f64 = 0.0;
        for j in 0..n {
            let bend = hessian[j * n + j];
            if bend <= 0.0 {
                continue;
            }
            let slope: f64 =
                gradient[j] + (0..n).filter(|k| *k != j).map(|k| hessian[j * n + k] * step[k]).sum::<f64>();
            let free = beta[j] - slope / bend;
            let shrunk = free.signum() * (free.abs() - strength / bend).max(0.0);
            change = change.max((shrunk - beta[j] - step[j]).abs());
            step[j] = shrunk - beta[j];
        }
        if change < STEP_TOLERANCE / 100.0 {
            break;
        }
    }
    step
}

/// Solves a symmetric, positive definite system by Cholesky's decomposition.
fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for j in 0..n {
        for i in j..n {
            let sum: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let rest = matrix[i * n + j] - sum;
            // Rounding can take a diagonal that is all but zero below it.
            matrix[i * n + j] = if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / matrix[j * n + j] };
        }
    }
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| matrix[i * n + k] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| matrix[k * n + i] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[i * n + i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One column of ones, so that β is the logit of the mean target.
    fn constant(targets: &[f64], weights: &[f64], penalty: Penalty) -> f64 {
        let mut features = Features::new(1);
        targets.iter().for_each(|_| features.push([(0, 1.0)]));
        fit_logistic(&features, targets, weights, penalty).expect("it converges")[0]
    }

    #[test]
    fn a_constant_by_hand() {
        // Mean 3/4: ln 3. With weights 1, 3 on 0, 1 the same.
        let logit = 3.0_f64.ln();
        assert!((constant(&[1.0, 1.0, 1.0, 0.0], &[1.0; 4], Penalty::L2(0.0)) - logit).abs() < 1e-12);
        assert!((constant(&[0.0, 1.0], &[1.0, 3.0], Penalty::L2(0.0)) - logit).abs() < 1e-12);
        assert!((constant(&[0.75], &[2.0], Penalty::L2(0.0)) - logit).abs() < 1e-12);
        // L1: 4 (σ(β) − 3/4) + 1/2 = 0 gives σ(β) = 5/8, ln(5/3); at strength 1 = 4 (3/4 − 1/2) nothing is left.
        let l1 = |strength| constant(&[1.0, 1.0, 1.0, 0.0], &[1.0; 4], Penalty::L1(strength));
        assert!((l1(0.5) - (5.0_f64 / 3.0).ln()).abs() < 1e-12);
        assert_eq!(l1(1.0), 0.0);
    }

    #[test]
    fn the_gradient_is_zero_at_the_minimum_of_correlated_columns() {
        let mut features = Features::new(3);
        let mut rng = crate::rng::Rng::new(3);
        let mut uniform = || rng.below(1 << 30) as f64 / f64::from(1 << 30);
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let (a, b) = (uniform() * 2.0 - 1.0, uniform());
            features.push([(0, a), (1, b), (2, a + 0.1 * b + 0.05 * uniform())]);
            targets.push(uniform());
            weights.push(uniform());
        }
        let beta = fit_logistic(&features, &targets, &weights, Penalty::L2(0.3)).expect("it converges");
        let problem = Problem { features: &features, targets: &targets, weights: &weights, penalty: Penalty::L2(0.3) };
        assert!(problem.derivatives(&beta).0.iter().all(|g| g.abs() < 1e-9), "{beta:?}");
        let beta = fit_logistic(&features, &targets, &weights, Penalty::L1(0.7)).expect("it converges");
        let problem = Problem { features: &features, targets: &targets, weights: &weights, penalty: Penalty::L1(0.7) };
        for (g, beta) in problem.derivatives(&beta).0.iter().zip(&beta) {
            let met = if *beta == 0.0 { g.abs() <= 0.7 } else { (g + 0.7 * beta.signum()).abs() < 1e-9 };
            assert!(met, "gradient {g} at {beta}");
        }
    }

    #[test]
    fn what_can_be_separated_stays_finite_under_a_penalty() {
        let beta = constant(&[1.0; 20], &[1.0; 20], Penalty::L2(1e-6));
        assert!(beta.is_finite() && beta > 10.0, "{beta}");
    }
}
