//! `evaluate`: figures about models from their scored answers.

use std::collections::BTreeMap;

use fuseline_contract::rows::{self, Metric, Row, Scored};
use fuseline_contract::{Execute, Input, Kind, Operator, Output, Ports, Run, StageError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `evaluate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to measure.
    #[serde(default)]
    pub metric: MetricName,
}

/// What is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// The fraction of answers that are correct; answers without a verdict are an error.
    #[default]
    Accuracy,
    /// The mean score.
    MeanReward,
}

/// See [`Operator::MANUAL`].
pub struct Evaluate;

impl Operator for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const MANUAL: &'static str = "\
Turns scored answers into a figure a model and domain.

A row each for (`source`, `domain`), sorted; `domain` absent is the task
`all`. The value of a prompt is the mean over its samples, so that a prompt
with more samples does not weigh more; the standard error is that of the mean
over prompts, s / sqrt(n) with the sample deviation s.";
    const EXAMPLE: &'static str = "op: evaluate\ninputs: {responses: graded}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![Input::one("responses", Kind::Rows(&rows::SCORED), "scored answers of any number of models")],
            outputs: vec![Output::new("metrics", Kind::Rows(&rows::METRIC), "a figure a model and domain")],
        }
    }
}

impl Execute for Evaluate {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let scored = Scored::read(&run.table("responses")?)?;
        if scored.is_empty() {
            return Err(StageError::input("the table bound to \"responses\" has no rows"));
        }
        run.write("metrics", Metric::table(&metrics(config.metric, &scored)?)?)
    }
}

fn metrics(metric: MetricName, scored: &[Scored]) -> Result<Vec<Metric>, StageError> {
    // model, task → prompt → (sum, samples)
    let mut groups: BTreeMap<(&str, &str), BTreeMap<&str, (f64, f64)>> = BTreeMap::new();
    for row in scored {
        let value = match metric {
            MetricName::MeanReward => row.reward,
            MetricName::Accuracy => match row.correct {
                Some(correct) => f64::from(u8::from(correct)),
                None => {
                    return Err(StageError::input(format!(
                        "the answer of {:?} to prompt {:?} has no verdict, so there is no accuracy",
                        row.source, row.prompt_id
                    ))
                    .hint("bind the output of `verify`, or set metric: mean_reward"));
                }
            },
        };
        let task = row.domain.as_deref().unwrap_or("all");
        let cell = groups.entry((&row.source, task)).or_default().entry(&row.prompt_id).or_default();
        cell.0 += value;
        cell.1 += 1.0;
    }
    let name = match metric {
        MetricName::Accuracy => "accuracy",
        MetricName::MeanReward => "mean_reward",
    };
    let figure = |((model, task), prompts): ((&str, &str), BTreeMap<&str, (f64, f64)>)| {
        let means: Vec<f64> = prompts.values().map(|(sum, samples)| sum / samples).collect();
        Metric {
            model: model.to_owned(),
            task: task.to_owned(),
            metric: name.to_owned(),
            value: fuseline_metrics::stats::mean(&means).unwrap_or(f64::NAN),
            stderr: fuseline_metrics::stats::standard_error(&means),
            n: Some(means.len() as i64),
            seed: None,
        }
    };
    Ok(groups.into_iter().map(figure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(source: &str, prompt: &str, sample: i64, correct: Option<bool>) -> Scored {
        Scored {
            prompt_id: prompt.into(),
            messages: vec![],
            reference: None,
            domain: Some("sums".into()),
            meta: None,
            source: source.into(),
            sample,
            text: String::new(),
            finish_reason: None,
            n_tokens: None,
            seed: None,
            reward: 0.5,
            correct,
            scorer: "exact".into(),
        }
    }

    #[test]
    fn a_prompt_weighs_once_however_often_it_was_sampled() {
        // Prompt a: 1 of 3; prompt b: 1 of 1. Mean (1/3 + 1) / 2 = 2/3.
        // Deviation of (1/3, 1) is sqrt(2)/3, divided by sqrt(2) gives 1/3.
        let rows = [
            row("owl", "a", 0, Some(true)),
            row("owl", "a", 1, Some(false)),
            row("owl", "a", 2, Some(false)),
            row("owl", "b", 0, Some(true)),
        ];
        let metrics = metrics(MetricName::Accuracy, &rows).expect("verdicts are there");
        assert_eq!(metrics.len(), 1);
        assert!((metrics[0].value - 2.0 / 3.0).abs() < 1e-12);
        assert!((metrics[0].stderr.expect("two prompts") - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(metrics[0].n, Some(2));
    }

    #[test]
    fn accuracy_needs_verdicts() {
        let error = metrics(MetricName::Accuracy, &[row("owl", "a", 0, None)]).expect_err("no verdict");
        assert!(error.message.contains("\"owl\""), "{error}");
        assert_eq!(metrics(MetricName::MeanReward, &[row("owl", "a", 0, None)]).expect("a score")[0].value, 0.5);
    }
}
