//! The regression against the published program, on made-up data, and by law.

use serde_json::Value;

use super::*;
use crate::judged::win_rate::{preference, win_rate};

fn golden() -> Value {
    let text = include_str!("../../../../tests/golden/judged.json");
    serde_json::from_str::<Value>(text).expect("the golden file is JSON")["alpaca_eval"].clone()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn gamed(golden: &Value) -> Vec<Gamed> {
    let row = |row: &Value| Gamed {
        preference: number(&row[0]),
        length_difference: number(&row[2]),
        difficulty: number(&row[3]),
    };
    golden["gamed"].as_array().expect("rows").iter().map(row).collect()
}

fn annotations(golden: &Value, model: &Value) -> Vec<Annotation> {
    let rows = model["rows"].as_array().expect("rows").iter().zip(golden["difficulty"].as_array().expect("a list"));
    let annotation = |(row, difficulty): (&Value, &Value)| Annotation {
        preference: row[0].as_f64().and_then(preference),
        baseline_length: number(&row[1]),
        model_length: number(&row[2]),
        difficulty: number(difficulty),
    };
    rows.map(annotation).collect()
}

#[test]
fn figures_are_those_of_the_published_program() {
    let golden = golden();
    let gamed = gamed(&golden);
    for model in golden["models"].as_array().expect("models") {
        let rows = annotations(&golden, model);
        let judged: Vec<f64> = rows.iter().filter_map(|row| row.preference).collect();
        let raw = win_rate(&judged).expect("preferences");
        let all = [("avx512", Folds::Avx512), ("scalar", Folds::Scalar)].into_iter();
        // The minimum lies up to 0.02 points from where LIBLINEAR stops; its own steps end in the same digits.
        let all = all.flat_map(|folds| [(folds, Solver::Liblinear, 1e-7), (folds, Solver::Exact, 0.02)]);
        for ((name, folds), solver, tolerance) in all {
            let figures = &model["figures"][name];
            let near = |found: f64, figure: &str, tolerance: f64| {
                let expected = number(&figures[figure]);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{} {name} {figure}: {found}, {expected}",
                    model["model"]
                );
            };
            near(100.0 * raw.win_rate, "win_rate", 1e-10);
            near(100.0 * raw.standard_error.expect("many rows"), "standard_error", 1e-10);
            near(100.0 * raw.discrete_win_rate, "discrete_win_rate", 1e-10);
            near(raw.n_wins as f64, "n_wins", 0.0);
            near(raw.n_wins_base as f64, "n_wins_base", 0.0);
            near(raw.n_draws as f64, "n_draws", 0.0);
            near(raw.n_total as f64, "n_total", 0.0);
            let found = length_controlled(&rows, &gamed, Choices { folds, solver }).expect("a fit");
            near(100.0 * found.win_rate, "length_controlled_winrate", tolerance);
            near(100.0 * found.standard_error.expect("many rows"), "lc_standard_error", tolerance);
        }
    }
}

#[test]
fn equal_skill_is_a_half_whatever_the_lengths() {
    // Preferences that depend on length alone and cancel: θ and ψ are nothing.
    let rows: Vec<Annotation> = (0..100)
        .map(|i| {
            let longer = if i % 2 == 0 { 400.0 } else { -400.0 };
            Annotation {
                preference: Some(if longer > 0.0 { 0.8 } else { 0.2 }),
                baseline_length: 1000.0,
                model_length: 1000.0 + longer,
                difficulty: f64::from(i / 2 % 7) - 3.0,
            }
        })
        .collect();
    let gamed = [(0.8, -1.0), (0.2, 1.0)].map(|(preference, length_difference)| Gamed {
        preference,
        length_difference,
        difficulty: 0.0,
    });
    let choices = Choices { folds: Folds::Scalar, solver: Solver::Exact };
    let found = length_controlled(&rows, &gamed.repeat(20), choices).expect("a fit");
    assert!((found.win_rate - 0.5).abs() < 1e-9 && found.coefficients.length < -0.5, "{found:?}");
}

#[test]
fn without_lengths_that_differ_there_is_nothing_to_control() {
    let row = Annotation { preference: Some(0.4), baseline_length: 10.0, model_length: 30.0, difficulty: 0.0 };
    let error = length_controlled(&[row; 5], &[], Choices::default()).expect_err("all the same");
    assert_eq!(error, Error::NoLengthControl { n_rows: 5, n_judged: 5 });
    assert!(length_controlled(&[], &[], Choices::default()).is_err());
}
