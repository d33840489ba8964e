//! Win rates against one baseline, as AlpacaEval 2 counts them (tatsu-lab/alpaca_eval, `metrics/winrate.py` and `helpers.py`).

use crate::stats::{mean, standard_error};

/// How often a model's answers are preferred to the baseline's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WinRate {
    /// Mean of the preferences, a fraction.
    pub win_rate: f64,
    /// Its standard error, s / sqrt(n); none for fewer than two preferences.
    pub standard_error: Option<f64>,
    /// Wins and half the draws over all, a preference counting as what it rounds to.
    pub discrete_win_rate: f64,
    /// Its standard error.
    pub discrete_standard_error: Option<f64>,
    /// Preferences above one half.
    pub n_wins: usize,
    /// Preferences below one half.
    pub n_wins_base: usize,
    /// Preferences of exactly one half.
    pub n_draws: usize,
    /// All of them.
    pub n_total: usize,
}

/// A preference as AlpacaEval writes it, 1 (the baseline's answer) to 2 (the model's), 0 or 1.5 for a draw, as a fraction; none
/// for what is no preference, which the published program leaves out, too.
pub fn preference(written: f64) -> Option<f64> {
    let written = if written == 0.0 { 1.5 } else { written };
    (1.0..=2.0).contains(&written).then_some(written - 1.0)
}

/// Counts preferences, each a fraction (see [`preference`]). None for no preferences.
///
/// A draw is what is exactly one half, so a weighted preference is a win or a loss nearly always.
pub fn win_rate(preferences: &[f64]) -> Option<WinRate> {
    let count = |wanted: fn(f64) -> bool| preferences.iter().filter(|p| wanted(**p)).count();
    let (n_wins, n_wins_base) = (count(|p| p > 0.5), count(|p| p < 0.5));
    let rounded: Vec<f64> = preferences
        .iter()
        .map(|p| p.partial_cmp(&0.5).map_or(f64::NAN, |order| f64::from(order as i8 + 1) / 2.0))
        .collect();
    Some(WinRate {
        win_rate: mean(preferences)?,
        standard_error: standard_error(preferences),
        discrete_win_rate: mean(&rounded)?,
        discrete_standard_error: standard_error(&rounded),
        n_wins,
        n_wins_base,
        n_draws: preferences.len() - n_wins - n_wins_base,
        n_total: preferences.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_preferences_by_hand() {
        // 0.9, 0.5, 0.2, 0.8: mean 2.4 / 4; two wins, a draw, a loss: 2.5 / 4.
        let found = win_rate(&[0.9, 0.5, 0.2, 0.8]).expect("preferences");
        assert!((found.win_rate - 0.6).abs() < 1e-15);
        assert_eq!(found.discrete_win_rate, 0.625);
        assert_eq!((found.n_wins, found.n_wins_base, found.n_draws, found.n_total), (2, 1, 1, 4));
        // Squares 0.09 + 0.01 + 0.16 + 0.04 = 0.3; 0.3 / 3 / 4.
        assert!((found.standard_error.expect("four") - 0.025_f64.sqrt()).abs() < 1e-15);
        assert_eq!(win_rate(&[]), None);
        assert_eq!(win_rate(&[1.0]).expect("one").standard_error, None);
    }

    #[test]
    fn what_is_written_becomes_a_fraction_or_nothing() {
        assert_eq!([1.0, 1.5, 2.0, 0.0].map(preference), [Some(0.0), Some(0.5), Some(1.0), Some(0.5)]);
        assert_eq!([0.5, 2.1, -1.0, f64::NAN, f64::INFINITY].map(preference), [None; 5]);
    }
}
