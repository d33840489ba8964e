//! `sample`: answers of a model to prompts.

use std::time::{Duration, Instant};

use fuseline_contract::rows::{self, Prompt, Response, Row};
use fuseline_contract::{
    Execute, Input, Kind, Operator, Output, Part, Place, Ports, Problems, Progress, Run, StageError, Traits,
};
use fuseline_lm::generate::{Completion, Control, Limits, Params, Request, Sample as Draw, generate, row_seed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::{CHAT, ChatModel, DECODER, NUMERICS};
use crate::shared::errors;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Parameters of `sample`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Samples a prompt.
    #[serde(default = "one")]
    pub n: u32,
    /// Logits are divided by it; 0 takes the most likely token.
    #[serde(default = "unit")]
    pub temperature: f64,
    /// Keeps the k most likely tokens; 0 keeps all.
    #[serde(default)]
    pub top_k: usize,
    /// Keeps the fewest tokens that together have this probability, in (0, 1].
    #[serde(default = "unit")]
    pub top_p: f64,
    /// Keeps tokens at least this times as likely as the most likely one, in [0, 1].
    #[serde(default)]
    pub min_p: f64,
    /// Penalty on tokens that occurred (arXiv 1909.05858, section 4.1); 1 does nothing.
    #[serde(default = "unit")]
    pub repetition_penalty: f64,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Texts that end an answer and are cut off it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The model's label in `source`, where no axis gives one.
    #[serde(default)]
    pub label: Option<String>,
}

fn one() -> u32 {
    1
}

fn unit() -> f64 {
    1.0
}

impl Config {
    fn params(&self) -> Params {
        Params {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            stop: self.stop.clone(),
            ignore_eos: false,
            logprobs: false,
        }
    }
}

/// See [`Operator::MANUAL`].
pub struct Sample;

impl Operator for Sample {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.generate", version: 1 }];
    const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: true, numerics: Some(NUMERICS) };
    const MANUAL: &'static str = "\
Samples answers of a model to prompts.

Prompts are rendered with the model's own chat template. Rows come out in the
order of the prompts, samples in order of their index; columns of the prompts
are kept. A row's draws depend on the stage's seed, the prompt's messages and
the sample's index alone, so other prompts never change an answer.
`temperature: 0` is greedy.";
    const EXAMPLE: &'static str = "op: sample\ninputs: {prompts: prompts, model: target}\n\
        with: {n: 5, temperature: 0.8, top_p: 0.95, max_tokens: 64, label: target}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![
                Input::one("prompts", Kind::Rows(&rows::PROMPT), "the prompts"),
                Input::one("model", Kind::Model, "the model that answers").labelled(),
            ],
            outputs: vec![Output::new("responses", Kind::Rows(&rows::RESPONSE), "n rows a prompt")],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(config.n >= 1, "n", || "must be at least 1".into());
        problems.require(config.n == 1 || config.temperature > 0.0, "n", || {
            "greedy samples are all the same: set n: 1, or a temperature above 0".into()
        });
        for problem in config.params().check() {
            let parameter = problem.split_whitespace().next().unwrap_or_default().to_owned();
            problems.add(&parameter, problem);
        }
    }
}

impl Execute for Sample {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = run.table("prompts")?.conform(&rows::PROMPT)?;
        let prompts = Prompt::read(&table)?;
        if prompts.is_empty() {
            return Err(StageError::input("the table bound to \"prompts\" has no rows"));
        }
        let bound = run.model("model")?;
        let label = bound.label.clone().ok_or_else(|| StageError::bug("the model has no label"))?;
        let model = ChatModel::load(&bound.path, run.threads())?;

        let mut requests = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            let content = rows::prompt_id(&prompt.messages);
            let draw = |index| Draw { index, seed: row_seed(run.seed(), content.as_bytes(), index) };
            let ids = model.encoder.prompt(&prompt.messages).map_err(|error| StageError {
                message: format!("prompt {:?}: {}", prompt.prompt_id, error.message),
                ..error
            })?;
            requests.push(Request { prompt: ids, samples: (0..config.n).map(draw).collect() });
        }

        let total = prompts.len() * config.n as usize;
        let mut done: Vec<Option<Completion>> = vec![None; total];
        let (mut finished, mut tokens) = (0u64, 0u64);
        let (started, mut told) = (Instant::now(), Instant::now());
        let mut on_done = |completion: Completion| {
            finished += 1;
            tokens += completion.n_tokens() as u64;
            let place = completion.request * config.n as usize + completion.sample as usize;
            done[place] = Some(completion);
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let figure = format!("{:.0} tokens/s", tokens as f64 / started.elapsed().as_secs_f64());
                run.progress(Progress { done: finished, total: total as u64, unit: "rows".into(), figure });
            }
            if run.cancelled() { Control::Stop } else { Control::Continue }
        };
        generate(
            &model.decoder,
            &model.encoder.tokenizer,
            &requests,
            &config.params(),
            &Limits::default(),
            &mut on_done,
        )
        .map_err(errors::lm)?;
        run.check_cancelled()?;

        let mut responses = Vec::with_capacity(total);
        for (place, completion) in done.into_iter().enumerate() {
            let completion = completion.ok_or_else(|| StageError::bug(format!("row {place} was not generated")))?;
            let prompt = &prompts[completion.request];
            responses.push(Response {
                prompt_id: prompt.prompt_id.clone(),
                messages: prompt.messages.clone(),
                reference: prompt.reference.clone(),
                domain: prompt.domain.clone(),
                meta: prompt.meta.clone(),
                source: label.clone(),
                sample: completion.sample.into(),
                text: completion.text,
                finish_reason: Some(completion.finish_reason.as_str().to_owned()),
                n_tokens: Some(completion.ids.len() as i64),
                // The bits of the seed; SQL has no unsigned integer that all tools read.
                seed: Some(completion.seed as i64),
            });
        }
        let repeated: Vec<usize> = (0..total).map(|place| place / config.n as usize).collect();
        run.write("responses", table.take(&repeated)?.beside(&Response::table(&responses)?)?)
    }
}
