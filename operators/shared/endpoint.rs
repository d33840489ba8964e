//! Asking an endpoint for a stage: who it is out of its artifact, how to ask it
//! out of the parameters that stand in the pipeline now.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fuseline_contract::{Cause, Class, Model, Progress, Run, StageError, Usage};
use fuseline_remote::wire::{Answer, Api, Form, LimitName, Params, Question};
use fuseline_remote::{Audience, Client, Limits, Purse, Settings};
use serde::{Deserialize, Serialize};

use crate::endpoint::Config;

/// The one file of an endpoint's artifact.
pub const FILE: &str = "endpoint.json";
/// The file that says what a stage has spent, beside its state.
const SPENT: &str = "spent_usd";
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Who answers, and what decides what is asked of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The address.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The interface.
    pub api: Api,
    /// How the limit of tokens is called.
    pub max_tokens_name: LimitName,
    /// Whether seeds are sent.
    pub send_seed: bool,
    /// What answers must follow.
    pub json_schema: Option<serde_json::Value>,
}

/// An endpoint that is bound to a port, ready to be asked.
pub struct Endpoint {
    client: Client,
    /// Whether it wants seeds.
    pub send_seed: bool,
}

impl Endpoint {
    /// Opens an endpoint for questions that are asked under these parameters.
    pub fn open(model: &Model, params: Params, run: &dyn Run) -> Result<Self, StageError> {
        let settings = model.endpoint.clone().ok_or_else(|| StageError::bug("the model is not an endpoint"))?;
        let config: Config = serde_json::from_value(settings)
            .map_err(|error| StageError::bug(format!("the endpoint's parameters do not decode: {error}")))?;
        let path = model.path.join(FILE);
        let text = std::fs::read(&path).map_err(|error| StageError::io("read", &path, &error))?;
        let identity: Identity = serde_json::from_slice(&text).map_err(|error| {
            StageError::environment(format!("{} is not what an endpoint is: {error}", path.display()))
        })?;
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
        let note = run.checkpoints().folder.join(SPENT);
        let purse = config.max_usd.map(|limit| Purse::open(limit, &note)).transpose().map_err(stage_error)?;
        let client = Client::new(Settings {
            url: config.via.unwrap_or(identity.url),
            api_key: config.api_key.map(|secret| run.secret(&secret)).transpose()?,
            form: Form {
                model: identity.model,
                api: identity.api,
                limit_name: identity.max_tokens_name,
                json_schema: identity.json_schema,
                params,
            },
            limits: Limits {
                max_concurrency: config.max_concurrency,
                requests_per_minute: config.requests_per_minute,
                timeout: seconds(config.timeout_seconds),
                connect_timeout: seconds(config.connect_timeout_seconds),
                max_attempts: config.max_attempts,
            },
            prices: config.prices,
            purse,
        });
        Ok(Self { client: client.map_err(stage_error)?, send_seed: identity.send_seed })
    }

    /// Asks all questions. Each answer, or the reason why there is none, is handed
    /// out with the question's place as soon as it is there. `before` of `total`
    /// rows are done already.
    pub fn ask(
        &self,
        run: &dyn Run,
        questions: &[Question],
        (before, total): (u64, u64),
        on_done: &mut dyn FnMut(usize, Result<Answer, String>) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let (started, mut told) = (Instant::now(), Instant::now());
        let (mut done, mut usd, mut failed) = (0_u64, 0.0, Ok(()));
        let tell = |done: u64, figure| run.progress(Progress { done, total, unit: "rows".into(), figure });
        tell(before, String::new());
        let asked = self.client.ask_all(questions, &|| run.cancelled(), &mut |one| {
            run.used(Usage {
                tokens_in: one.spent.tokens_in,
                tokens_out: one.spent.tokens_out,
                price_usd: one.spent.usd,
            });
            done += 1;
            usd += one.spent.usd.unwrap_or(0.0);
            failed = on_done(one.place, one.answer);
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let money = if usd > 0.0 { format!(", ${usd:.2}") } else { String::new() };
                tell(before + done, format!("{:.1} answers/s{money}", done as f64 / started.elapsed().as_secs_f64()));
            }
            if failed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        failed?;
        run.check_cancelled()?;
        asked.map_err(stage_error)
    }
}

/// An error of the crate for what lies elsewhere.
pub fn stage_error(error: fuseline_remote::Error) -> StageError {
    let cause = match error.audience() {
        Audience::Input => Cause::Input,
        Audience::Environment => Cause::Environment,
    };
    let moment = error.is_of_the_moment();
    let error = StageError::with_hint_line(cause, &error.to_string());
    if moment { error.of_class(Class::Transient) } else { error }
}
