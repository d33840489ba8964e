//! `merge`: several models of one architecture become one.

use std::ops::ControlFlow;

use fuseline_contract::{
    Cause, Execute, Input, Kind, Operator, Output, Part, Ports, Problems, Progress, Run, StageError,
};
use fuseline_weights::{Audience, Folder, Method, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Parameters of `merge`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The method and its parameters: `{method: ties, weights: 1.0, density: 0.5}`.
    #[serde(deserialize_with = "with_defaults")]
    #[schemars(with = "Method")]
    pub how: Method,
}

/// A default that is written out is no change.
fn with_defaults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    Method::deserialize(deserializer).map(Method::with_defaults)
}

/// See [`Operator::MANUAL`].
pub struct Merge;

impl Operator for Merge {
    const NAME: &'static str = "merge";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "weights.methods", version: 1 }];
    const MANUAL: &'static str = "\
Merges models of one architecture into one, tensor by tensor.

Methods: `linear`, `task_arithmetic`, `ties` (arXiv 2306.01708), `sce`
(arXiv 2408.07990). All but `linear` work on the differences to `base`. The
order of `models` is the order of `weights`. Configuration, tokenizer and chat
template come from the base, without one from the first model.";
    const EXAMPLE: &'static str = "op: merge\ninputs: {base: tuned, models: [dpo, wrpo]}\nwith: {how: {method: ties, weights: 1.0, density: 0.5}}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let base = if config.how.row().needs_base { Input::one } else { Input::optional };
        Ports {
            inputs: vec![
                Input::many("models", Kind::Model, "the models to merge"),
                base("base", Kind::Model, "the model that they were tuned from"),
            ],
            outputs: vec![Output::new("model", Kind::Model, "the merged model")],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        for message in config.how.check() {
            problems.add("how", message);
        }
    }
}

impl Execute for Merge {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let open = |path: &std::path::Path| Folder::open(path).map_err(weights_error);
        let base = if run.has("base") { Some(open(&run.model("base")?.path)?) } else { None };
        let models = run.models("models")?.iter().map(|model| open(&model.path)).collect::<Result<Vec<Folder>, _>>()?;
        let models: Vec<&Folder> = models.iter().collect();
        let out = run.model_folder("model")?;
        let mut watch = |done: usize, total: usize| {
            let unit = "tensors".to_owned();
            run.progress(Progress { done: done as u64, total: total as u64, unit, figure: String::new() });
            if run.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let summary =
            fuseline_weights::merge(&config.how, base.as_ref(), &models, &out, &Options::default(), &mut watch);
        run.check_cancelled()?;
        summary.map(|_| ()).map_err(weights_error)
    }
}

/// An error of the weights crate, with who can act on it.
fn weights_error(error: fuseline_weights::Error) -> StageError {
    let cause = match error.audience() {
        Audience::Input => Cause::Input,
        Audience::Environment => Cause::Environment,
        Audience::Bug => Cause::Bug,
    };
    StageError::with_hint_line(cause, &error.to_string())
}
