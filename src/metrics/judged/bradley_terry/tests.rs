//! Ratings against the published program, on made-up battles, and by law.

use serde_json::Value;

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn battle(a: usize, b: usize, score: f64, weight: f64, cluster: usize) -> Battle {
    Battle { a, b, score, weight, cluster, style: Vec::new() }
}

fn settings(baseline: Option<usize>, resample: Resample, n_resamples: usize) -> Settings {
    Settings { baseline, resample, n_resamples, level: 0.95, seed: 1 }
}

#[test]
fn ratings_and_styles_are_those_of_the_published_program() {
    let text = include_str!("../../../../tests/golden/judged.json");
    let golden = &serde_json::from_str::<Value>(text).expect("the golden file is JSON")["arena_hard"];
    let models = ["base", "owl", "fox", "elk"];
    let read = |style: bool| -> Vec<Battle> {
        let rows = golden["battles"].as_array().expect("battles").iter();
        rows.map(|row| {
            let place = |side: &str| models.iter().position(|name| row[side] == **name).expect("a known model");
            let amount = |name: &str| row[name].as_f64().expect("a count");
            Battle {
                a: place("model_a"),
                b: place("model_b"),
                score: match row["winner"].as_str() {
                    Some("model_a") => 1.0,
                    Some("model_b") => 0.0,
                    _ => 0.5,
                },
                weight: amount("weight"),
                cluster: 0,
                style: if style {
                    vec![(amount("length_a"), amount("length_b")), (amount("bold_a"), amount("bold_b"))]
                } else {
                    Vec::new()
                },
            }
        })
        .collect()
    };
    // Ratings are in points; scikit-learn stops at a gradient of 1e-8 without style, 1e-11 with it.
    for (style, key, tolerance) in [(false, "elo", 1e-3), (true, "controlled", 1e-3)] {
        let found = rate(&names(&models), &read(style), &settings(Some(0), Resample::Copies, 1)).expect("ratings");
        for (name, rating) in models.iter().zip(&found.ratings) {
            let expected = golden[key][name].as_f64().expect("a rating");
            assert!((rating.rating.value - expected).abs() < tolerance, "{key} {name}: {rating:?}, {expected}");
        }
        let expected = golden["style"].as_array().expect("coefficients");
        for (found, expected) in found.style.iter().zip(expected) {
            assert!((found - expected.as_f64().expect("a number")).abs() < 1e-4, "{found} {expected}");
        }
        assert_eq!(found.style.len(), if style { 2 } else { 0 });
    }
}

#[test]
fn one_opponent_is_the_share_of_wins() {
    // 3 · 1 + 0.5 of 3 + 1 + 1 = 3.5 / 5 = 0.7 for the second model.
    let battles = [battle(0, 1, 0.0, 3.0, 0), battle(1, 0, 0.5, 1.0, 1), battle(0, 1, 1.0, 1.0, 1)];
    let found = rate(&names(&["base", "owl"]), &battles, &settings(Some(0), Resample::Copies, 200)).expect("ratings");
    let owl = found.ratings[1].win_rate.expect("there is a baseline");
    assert!((owl.value - 0.7).abs() < 1e-8, "{owl:?}");
    assert_eq!((found.ratings[1].n_battles, found.ratings[0].rating.value), (5.0, 1000.0));
    // 400 log10(7/3).
    assert!((found.ratings[1].rating.value - 1000.0 - 400.0 * (7.0_f64 / 3.0).log10()).abs() < 1e-5);
    assert!(owl.interval.low < 0.7 && owl.interval.high > 0.7);
    let base = found.ratings[0].win_rate.expect("there is a baseline");
    assert_eq!((base.value, base.interval), (0.5, Interval { low: 0.5, high: 0.5 }));
}

#[test]
fn three_that_beat_each_other_in_turn_are_equal() {
    let battles = [battle(0, 1, 1.0, 1.0, 0), battle(1, 2, 1.0, 1.0, 0), battle(2, 0, 1.0, 1.0, 0)];
    let found = rate(&names(&["a", "b", "c"]), &battles, &settings(None, Resample::Battles, 10)).expect("ratings");
    for rating in &found.ratings {
        assert!((rating.rating.value - 1000.0).abs() < 1e-6, "{rating:?}");
        assert_eq!(rating.win_rate, None);
    }
}

#[test]
fn clusters_make_wider_intervals_where_verdicts_of_a_prompt_agree() {
    // 40 prompts, each decided the same way five times.
    let battles: Vec<Battle> =
        (0..200).map(|i| battle(0, 1, f64::from(u8::from(i / 5 % 3 == 0)), 1.0, i / 5)).collect();
    let width = |resample| {
        let found = rate(&names(&["base", "owl"]), &battles, &settings(Some(0), resample, 500)).expect("ratings");
        let interval = found.ratings[1].win_rate.expect("there is a baseline").interval;
        interval.high - interval.low
    };
    // The square root of five in expectation.
    assert!(width(Resample::Clusters) > 1.8 * width(Resample::Battles));
    assert_eq!(width(Resample::Copies), width(Resample::Battles), "weights of one are copies of one");
}

#[test]
fn what_cannot_be_rated_says_why() {
    let rate = |models: &[&str], battles: &[Battle], settings: &Settings| rate(&names(models), battles, settings);
    let plain = settings(None, Resample::Copies, 10);
    let apart = [battle(0, 1, 1.0, 1.0, 0), battle(2, 3, 1.0, 1.0, 0)];
    let error = rate(&["a", "b", "c", "d"], &apart, &plain).expect_err("two worlds");
    assert_eq!(error, Error::Unconnected { one: "a".into(), other: "c".into() });
    let half = [battle(0, 1, 1.0, 0.5, 0)];
    assert_eq!(rate(&["a", "b"], &half, &plain), Err(Error::WeightNotWhole { weight: 0.5 }));
    assert!(rate(&["a", "b"], &half, &settings(None, Resample::Battles, 3)).is_ok());
    assert!(rate(&["a", "b"], &half, &settings(None, Resample::Battles, 0)).is_err());
    let mut styled = battle(0, 1, 1.0, 1.0, 0);
    styled.style = vec![(3.0, 3.0)];
    assert_eq!(rate(&["a", "b"], &[styled], &plain), Err(Error::StyleWithoutSpread { element: 0 }));
    // A model that wins everything has a finite rating.
    let found = rate(&["a", "b"], &[battle(0, 1, 1.0, 4.0, 0)], &plain).expect("ratings");
    assert!(found.ratings[0].rating.value.is_finite() && found.ratings[0].rating.value > 1500.0);
}
