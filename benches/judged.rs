//! Measures the figures of judged benchmarks: a length-controlled win rate, the bootstrap of an Arena-Hard leaderboard, and a
//! paired bootstrap. `benches/judged.py` makes the data, runs this and the published programs on them, and prints the table.
//!
//!     cargo bench --workspace --bench judged -- DATA.json
//!
//! Prints a line of JSON: the median seconds of each, and the figures, so that both sides can be compared.

use std::time::Instant;

use fuseline_metrics::judged::bradley_terry::{Battle, Resample, Settings, rate};
use fuseline_metrics::judged::length_control::{Annotation, Choices, Gamed, length_controlled};
use fuseline_metrics::stats::paired_bootstrap;
use serde_json::{Value, json};

/// How often everything is measured.
const ROUNDS: usize = 7;
/// The questions of GSM8K's test part.
const ITEMS: usize = 1319;
/// Draws of the paired bootstrap.
const DRAWS: usize = 100_000;

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// The median time of a piece of work, and what it gave.
fn median<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        last = Some(work());
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[ROUNDS / 2], last.expect("at least one round"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [path] = arguments.as_slice() else {
        println!("skipped: name the data that benches/judged.py makes");
        return;
    };
    let text = std::fs::read_to_string(path).expect("the data can be read");
    let data: Value = serde_json::from_str(&text).expect("the data are JSON");
    let rows = |name: &str| data[name].as_array().expect("rows").iter();
    let gamed: Vec<Gamed> = rows("gamed")
        .map(|row| Gamed {
            preference: number(&row[0]),
            length_difference: number(&row[2]),
            difficulty: number(&row[3]),
        })
        .collect();
    let annotations: Vec<Annotation> = rows("annotations")
        .zip(rows("difficulty"))
        .map(|(row, difficulty)| Annotation {
            preference: Some(number(&row[0]) - 1.0),
            baseline_length: number(&row[1]),
            model_length: number(&row[2]),
            difficulty: number(difficulty),
        })
        .collect();
    let battles: Vec<Battle> = rows("battles")
        .map(|row| Battle {
            a: 0,
            b: 1,
            score: number(&row[0]),
            weight: number(&row[1]),
            cluster: 0,
            style: Vec::new(),
        })
        .collect();
    let differences: Vec<f64> =
        (0..ITEMS).map(|i| f64::from(u8::from(i % 7 == 0)) - f64::from(u8::from(i % 9 == 0))).collect();

    let (length, controlled) =
        median(|| length_controlled(&annotations, &gamed, Choices::default()).expect("a fit").win_rate);
    let models = ["base".to_owned(), "model".to_owned()];
    let settings = Settings { baseline: Some(0), resample: Resample::Copies, n_resamples: 100, level: 0.95, seed: 1 };
    let (arena, ratings) = median(|| rate(&models, &battles, &settings).expect("ratings"));
    let (paired, _) = median(|| paired_bootstrap(&differences, 0.95, DRAWS, 1).expect("valid"));
    let score = ratings.ratings[1].win_rate.expect("there is a baseline").value;
    println!(
        "{}",
        json!({"length": {"seconds": length, "figure": 100.0 * controlled}, "arena": {"seconds": arena, "figure": 100.0 * score},
            "paired": {"seconds": paired}})
    );
}
