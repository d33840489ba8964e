//! `rank`: ratings of models from battles of two.

use std::collections::BTreeMap;

use arrow::datatypes::Field;
use fuseline_contract::rows::{self, Cell, Metric, Row};
use fuseline_contract::{
    Execute, Input, Kind, Operator, Output, Part, Ports, Problems, Run, StageError, Table, Traits,
};
use fuseline_metrics::judged;
use fuseline_metrics::judged::bradley_terry::{Battle, Estimate, Rating, Resample, Settings, rate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::rows::column;

/// Resamples as Arena-Hard makes them.
const RESAMPLES: u32 = 100;
/// The share of resamples that an interval spans.
const LEVEL: f64 = 0.95;
/// The task of the metric rows unless another is named.
const TASK: &str = "all";

/// Parameters of `rank`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model that is rated 1000 and that win rates are against. Without it the mean rating is 1000, and there are no win rates.
    #[serde(default)]
    pub baseline: Option<String>,
    /// What a resample draws: `copies` of battles (one of weight three is three, as Arena-Hard does it), `battles` with their weights, or all battles of a value of `cluster`.
    #[serde(default)]
    pub resample: Resample,
    /// The column whose values are drawn with `resample: clusters`, such as the prompt.
    #[serde(default)]
    pub cluster: Option<String>,
    /// How many resamples there are.
    #[serde(default = "resamples")]
    pub resamples: u32,
    /// The share of resamples that an interval spans.
    #[serde(default = "level")]
    pub level: f64,
    /// Style elements to control for; for each NAME the columns `NAME_a` and `NAME_b` hold its amount in both answers.
    #[serde(default)]
    pub style: Vec<String>,
    /// The task of the metric rows.
    #[serde(default = "task")]
    pub task: String,
}

fn resamples() -> u32 {
    RESAMPLES
}

fn level() -> f64 {
    LEVEL
}

fn task() -> String {
    TASK.to_owned()
}

/// See [`Operator::MANUAL`].
pub struct Rank;

impl Operator for Rank {
    const NAME: &'static str = "rank";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "metrics.judged", version: judged::VERSION }];
    const TRAITS: Traits = Traits { uses_seed: true, ..Traits::PURE };
    const MANUAL: &'static str = "\
Rates models by their battles: Bradley and Terry's model by maximum likelihood.

`battles` has a row a battle: `model_a`, `model_b`, `score` (1 where A won, 0.5 for a tie, 0;
null where there is no verdict, which leaves the row out) and, if some count more than
once, `weight`. `P(A beats B) = 1 / (1 + 10^((R_B - R_A) / 400))`.

`ratings` has for each model the `rating` and, with a `baseline`, `win_rate`, the
probability of beating it, each with `low` and `high`, the ends of the bootstrap's
percentile interval, and the resamples' deviation as `stderr`; `n` is the number of its
battles. With `style`, relative differences of those amounts,
(a - b) / (a + b + 1), standardised, are fitted beside the models with a ridge penalty of
one, as Arena-Hard's and Chatbot Arena's control of style does; `styles` has their
coefficients.";
    const EXAMPLE: &'static str =
        "op: rank\ninputs: {battles: battles}\nwith: {baseline: gpt-4-0314, resamples: 1000, style: [length]}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let mut outputs = vec![Output::new("ratings", Kind::Rows(&rows::METRIC), "ratings and win rates, best first")];
        if !config.style.is_empty() {
            outputs.push(Output::new("styles", Kind::AnyTable, "a coefficient a style element"));
        }
        Ports { inputs: vec![Input::one("battles", Kind::AnyTable, "battles of two models")], outputs }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(config.resamples > 0, "resamples", || "expected at least one".to_owned());
        problems.require(config.level > 0.0 && config.level < 1.0, "level", || {
            "expected a number between 0 and 1".to_owned()
        });
        problems.require(config.cluster.is_some() == (config.resample == Resample::Clusters), "cluster", || {
            "`cluster` and `resample: clusters` go together".to_owned()
        });
        for (i, name) in config.style.iter().enumerate() {
            problems.require(!config.style[..i].contains(name), "style", || format!("{name:?} stands there twice"));
        }
    }
}

impl Execute for Rank {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = run.table("battles")?;
        let (models, battles) = read(config, &table)?;
        if battles.len() < table.n_rows() {
            run.note(format!("{} of {} battles have no score", table.n_rows() - battles.len(), table.n_rows()));
        }
        let baseline = match &config.baseline {
            None => None,
            Some(name) => Some(models.iter().position(|model| model == name).ok_or_else(|| {
                StageError::input(format!("no battle has the baseline {name:?}; there are {}", models.join(", ")))
            })?),
        };
        let settings = Settings {
            baseline,
            resample: config.resample,
            n_resamples: config.resamples as usize,
            level: config.level,
            seed: run.seed(),
        };
        let found = rate(&models, &battles, &settings).map_err(|error| StageError::input(error.to_string()))?;
        if !config.style.is_empty() {
            run.write("styles", styles_table(&config.style, &found.style)?)?;
        }
        let mut ranked: Vec<(&String, &Rating)> = models.iter().zip(&found.ratings).collect();
        ranked.sort_by(|a, b| b.1.rating.value.total_cmp(&a.1.rating.value));
        run.write("ratings", ratings_table(&config.task, &ranked)?)
    }
}

/// The models by name, and the battles that have a score.
fn read(config: &Config, table: &Table) -> Result<(Vec<String>, Vec<Battle>), StageError> {
    let (a, b): (Vec<String>, Vec<String>) = (column(table, "model_a")?, column(table, "model_b")?);
    let scores: Vec<Option<f64>> = column(table, "score")?;
    let weights: Vec<f64> = if table.has("weight") { column(table, "weight")? } else { vec![1.0; scores.len()] };
    let clusters: Vec<String> = match &config.cluster {
        Some(name) => column(table, name)?,
        None => vec![String::new(); scores.len()],
    };
    let mut styles: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for name in &config.style {
        styles.push((column(table, &format!("{name}_a"))?, column(table, &format!("{name}_b"))?));
    }
    let number = |names: &mut dyn Iterator<Item = &String>| -> BTreeMap<String, usize> {
        let sorted: BTreeMap<String, usize> = names.map(|name| (name.clone(), 0)).collect();
        sorted.into_keys().enumerate().map(|(i, name)| (name, i)).collect()
    };
    let scored = |row: &usize| scores[*row].is_some();
    let rows: Vec<usize> = (0..scores.len()).filter(scored).collect();
    let models = number(&mut rows.iter().flat_map(|row| [&a[*row], &b[*row]]));
    let clusters_by_name = number(&mut clusters.iter());
    let mut battles = Vec::with_capacity(rows.len());
    for row in rows {
        let here = |message: String| StageError::input(format!("battle {row} ({} and {}): {message}", a[row], b[row]));
        let (score, weight) = (scores[row].unwrap_or(f64::NAN), weights[row]);
        if a[row] == b[row] {
            return Err(here("a model cannot meet itself".into()));
        }
        if !(0.0..=1.0).contains(&score) {
            return Err(here(format!("the score is {score}; expected 1, 0.5 or 0, or a share between")));
        }
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(here(format!("the weight is {weight}; expected a number above 0")));
        }
        let style: Vec<(f64, f64)> = styles.iter().map(|(a, b)| (a[row], b[row])).collect();
        if style.iter().any(|(a, b)| !(*a >= 0.0 && *b >= 0.0 && a.is_finite() && b.is_finite())) {
            return Err(here("an amount of style is negative or not finite".into()));
        }
        battles.push(Battle {
            a: models[&a[row]],
            b: models[&b[row]],
            score,
            weight,
            cluster: clusters_by_name[&clusters[row]],
            style,
        });
    }
    if battles.is_empty() {
        return Err(StageError::input("no battle has a score"));
    }
    Ok((models.into_keys().collect(), battles))
}

fn ratings_table(task: &str, ranked: &[(&String, &Rating)]) -> Result<Table, StageError> {
    let (mut metrics, mut low, mut high) = (Vec::new(), Vec::new(), Vec::new());
    for (model, rating) in ranked {
        let mut add = |metric: &str, estimate: Estimate| {
            metrics.push(Metric {
                model: (*model).clone(),
                task: task.to_owned(),
                metric: metric.to_owned(),
                value: estimate.value,
                stderr: estimate.deviation,
                n: Some(rating.n_battles as i64),
                seed: None,
            });
            low.push(estimate.interval.low);
            high.push(estimate.interval.high);
        };
        add("rating", rating.rating);
        if let Some(win_rate) = rating.win_rate {
            add("win_rate", win_rate);
        }
    }
    let end = |name: &str, values: &[f64]| (Field::new(name, f64::data_type(), false), f64::build(values.iter()));
    let ends = Table::of_columns(vec![end("low", &low), end("high", &high)])?;
    Ok(Metric::table(&metrics)?.beside(&ends)?)
}

fn styles_table(names: &[String], coefficients: &[f64]) -> Result<Table, StageError> {
    Ok(Table::of_columns(vec![
        (Field::new("element", String::data_type(), false), String::build(names.iter())),
        (Field::new("coefficient", f64::data_type(), false), f64::build(coefficients.iter())),
    ])?)
}

#[cfg(test)]
mod tests {
    use arrow::array::ArrayRef;

    use super::*;

    fn config(json: serde_json::Value) -> Config {
        serde_json::from_value(json).expect("parameters")
    }

    fn table(a: &[&str], b: &[&str], scores: &[Option<f64>], more: Vec<(&str, ArrayRef)>) -> Table {
        let texts = |texts: &[&str]| String::build(texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>().iter());
        let mut columns =
            vec![("model_a", texts(a)), ("model_b", texts(b)), ("score", <Option<f64>>::build(scores.iter()))];
        columns.extend(more);
        let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
        Table::of_columns(columns.into_iter().map(|(name, array)| (field(name, &array), array)).collect())
            .expect("one length")
    }

    #[test]
    fn battles_are_read_with_weights_clusters_and_styles() {
        let weight = i64::build([3, 1, 1].iter());
        let prompt = String::build(["p".to_owned(), "q".to_owned(), "p".to_owned()].iter());
        let (long, short) = (i64::build([10, 20, 30].iter()), i64::build([1, 2, 3].iter()));
        let more = vec![("weight", weight), ("prompt", prompt), ("length_a", long), ("length_b", short)];
        let table = table(&["owl", "fox", "owl"], &["fox", "elk", "fox"], &[Some(1.0), None, Some(0.5)], more);
        let config = config(serde_json::json!({"cluster": "prompt", "resample": "clusters", "style": ["length"]}));
        let (models, battles) = read(&config, &table).expect("battles");
        assert_eq!(models, ["fox", "owl"], "elk has no verdict");
        assert_eq!(battles.len(), 2);
        let first = Battle { a: 1, b: 0, score: 1.0, weight: 3.0, cluster: 0, style: vec![(10.0, 1.0)] };
        assert_eq!(battles[0], first);
        assert_eq!((battles[1].cluster, battles[1].score), (0, 0.5));
    }

    #[test]
    fn battles_that_cannot_be_are_named() {
        let plain = config(serde_json::json!({}));
        let said = |a: &str, b: &str, score: f64| {
            read(&plain, &table(&[a], &[b], &[Some(score)], vec![])).expect_err("no battle").message
        };
        assert_eq!(said("owl", "owl", 1.0), "battle 0 (owl and owl): a model cannot meet itself");
        assert!(said("owl", "fox", 2.0).contains("the score is 2"));
        let none = read(&plain, &table(&["owl"], &["fox"], &[None], vec![])).expect_err("no verdict");
        assert_eq!(none.message, "no battle has a score");
        let weightless = table(&["owl"], &["fox"], &[Some(1.0)], vec![("weight", f64::build([0.0].iter()))]);
        assert!(read(&plain, &weightless).expect_err("no weight").message.contains("the weight is 0"));
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let mut problems = Problems::default();
        let odd = serde_json::json!({"resample": "clusters", "resamples": 0, "level": 1.0, "style": ["a", "a"]});
        Rank::check(&config(odd), &mut problems);
        assert_eq!(problems.0.len(), 4, "{problems:?}");
    }
}
