//! `sample`: answers of a model to prompts.

mod asked;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fuseline_contract::rows::{self, Prompt, Response, Row};
use fuseline_contract::value::Value;
use fuseline_contract::{
    Ask, Digest, Execute, Input, Kind, Memo, Model, Operator, Output, Part, Place, Ports, Problems, Progress,
    RowFunction, RowKey, Run, StageError, Table, Traits, Usage,
};
use fuseline_lm::generate::{Completion, Control, Limits, Params, Request, Sample as Draw, generate_with, row_seed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::{CHAT, ChatModel, DECODER, NUMERICS};
use crate::shared::errors;
use crate::shared::failed::{self, Failure, Failures, TooLong};
use crate::shared::rows::conversation;

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
    /// Taken off the logits of tokens that the answer has, in [-2, 2] (OpenAI's API); 0 does nothing.
    #[serde(default)]
    pub presence_penalty: f64,
    /// The same, as often as the answer has them.
    #[serde(default)]
    pub frequency_penalty: f64,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Texts that end an answer and are cut off it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Also give the log-probability of every token of an answer, in the column `logps`: in nats, under the model's own distribution (temperature 1, no penalty, no filter).
    #[serde(default)]
    pub logprobs: bool,
    /// What becomes of a prompt that leaves the model no room for an answer: `error` fails it, `skip` leaves it out and lists it in `failed`, `truncate_left` drops the first tokens of every prompt as far as `max_tokens`, or half the context if that is less, would not fit behind it.
    #[serde(default)]
    pub too_long: TooLong,
    /// The model's label in `source`, where no axis gives one.
    #[serde(default)]
    pub label: Option<String>,
    /// How many rows may fail: prompts that leave the model no room for an answer, or that its chat template refuses. They are left out and listed in the output `failed`; with more of them the stage fails when all others are answered.
    #[serde(default)]
    pub max_failed_rows: u64,
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
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            stop: self.stop.clone(),
            ignore_eos: false,
            logprobs: self.logprobs,
        }
    }
}

/// See [`Operator::MANUAL`].
pub struct Sample;

impl Operator for Sample {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.generate", version: 2 }];
    const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: true, numerics: Some(NUMERICS), ..Traits::PURE };
    const ADDED: &'static [(&'static str, &'static str)] = &[
        ("max_failed_rows", "0"),
        ("presence_penalty", "0.0"),
        ("frequency_penalty", "0.0"),
        ("logprobs", "false"),
        ("too_long", "\"error\""),
    ];
    const MANUAL: &'static str = "\
Samples answers of a model to prompts.

Prompts are rendered with the model's own chat template. Rows come out in the
order of the prompts, samples in order of their index; columns of the prompts
are kept. A row depends on the model, the parameters, the stage's seed, the
prompt's messages and the sample's index alone, bit for bit: neither other
prompts nor the number of threads change an answer or its `logps`.
`temperature: 0` is greedy.

Every answer is remembered as soon as it is finished (`memo: off` at the stage
switches that off): more prompts or a larger `n` cost what is new, a stage that
was killed goes on where it was, and stages and pipelines that ask the same of
the same model share the answers. A model whose answers are all remembered is
not even loaded.

A prompt that cannot be asked (too long, or refused by the template) fails the
stage, after all others are answered and remembered. With `max_failed_rows: N`
up to N rows, one a sample, are left out instead: they are listed in `failed`
(prompt_id, sample, reason), and tables that rest on the rest say so. With
`too_long: skip` prompts that are too long are listed there as well, however
many, and do not count as failed; `too_long: truncate_left` keeps their end.

The model may be an `endpoint`. Then there is a request a sample, the seed is
sent where the endpoint takes one, and nobody promises the same answer twice;
what was answered is remembered all the same.";
    const EXAMPLE: &'static str = "op: sample\ninputs: {prompts: prompts, model: target}\n\
        with: {n: 5, temperature: 0.8, top_p: 0.95, max_tokens: 64, label: target}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let responses = Output::new("responses", Kind::Rows(&rows::RESPONSE), "n rows a prompt");
        let failed = failed::output(config.max_failed_rows, config.too_long, "prompt_id, sample, reason");
        Ports {
            inputs: vec![
                Input::one("prompts", Kind::Rows(&rows::PROMPT), "the prompts"),
                Input::one("model", Kind::AnyModel, "the model that answers").labelled(),
            ],
            outputs: std::iter::once(responses).chain(failed).collect(),
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
        work(config, run, generate_missing)
    }
}

impl Ask for Sample {
    fn ask(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        work(config, run, asked::missing)
    }
}

/// Gives the answers that are not remembered, each remembered at once; why each place without an answer has none.
type Missing = fn(
    &Config,
    &dyn Run,
    &Model,
    &Questions<'_>,
    &dyn Memo,
    &[RowKey],
    &mut [Option<Answer>],
) -> Result<Failures, StageError>;

fn work(config: &Config, run: &dyn Run, missing: Missing) -> Result<(), StageError> {
    let table = run.table("prompts")?.conform(&rows::PROMPT)?;
    let prompts = Prompt::read(&table)?;
    if prompts.is_empty() {
        return Err(StageError::input("the table bound to \"prompts\" has no rows"));
    }
    let bound = run.model("model")?;
    let label = bound.label.clone().ok_or_else(|| StageError::bug("the model has no label"))?;
    let n = config.n as usize;
    let questions = Questions::new(&prompts, config, run.seed());
    let (answers, failures) = answer(config, run, &bound, &questions, missing)?;

    let mut responses = Vec::with_capacity(prompts.len() * n);
    // The prompt of each response, its log-probabilities, and what was left out: prompt, sample, why.
    let (mut asked, mut logps, mut unanswered) = (Vec::with_capacity(prompts.len() * n), Vec::new(), Vec::new());
    for (row, (prompt, question)) in prompts.iter().zip(&questions.of_prompt).enumerate() {
        for sample in 0..n {
            let place = question * n + sample;
            let Some(answer) = &answers[place] else {
                let failure = failures.at(place);
                let failure = failure.ok_or_else(|| StageError::bug(format!("row {place} was not generated")))?;
                unanswered.push((prompt.prompt_id.as_str(), sample as i64, failure));
                continue;
            };
            asked.push(row);
            logps.push(answer.logps.clone().map(|logps| logps.into_iter().map(f64::from).collect::<Vec<f64>>()));
            responses.push(Response {
                prompt_id: prompt.prompt_id.clone(),
                messages: prompt.messages.clone(),
                reference: prompt.reference.clone(),
                domain: prompt.domain.clone(),
                meta: prompt.meta.clone(),
                source: label.clone(),
                sample: sample as i64,
                text: answer.text.clone(),
                finish_reason: Some(answer.finish_reason.clone()),
                n_tokens: answer.n_tokens,
                // The bits of the seed; SQL has no unsigned integer that all tools read.
                seed: Some(questions.draws[place].seed as i64),
            });
        }
    }
    let failed: Vec<(&str, &str)> = unanswered
        .iter()
        .filter(|(_, _, failure)| !failure.skipped)
        .map(|(id, _, failure)| (*id, failure.reason.as_str()))
        .collect();
    failed::allow(&failed, "prompt", config.max_failed_rows, prompts.len() * n)?;
    if failed::leaves_out(config.max_failed_rows, config.too_long) {
        run.write(failed::OUTPUT, left_out(&unanswered)?)?;
    }
    let mut answers = table.take(&asked)?.beside(&Response::table(&responses)?)?;
    if config.logprobs {
        answers = answers.beside(&failed::column("logps", true, logps)?)?;
    }
    run.write("responses", answers)
}

/// The rows that have no answer.
fn left_out(rows: &[(&str, i64, &Failure)]) -> Result<Table, StageError> {
    let ids = failed::texts("prompt_id", rows.iter().map(|(id, ..)| *id).collect())?;
    let samples = failed::column("sample", false, rows.iter().map(|(_, sample, _)| *sample).collect())?;
    let reasons = failed::texts("reason", rows.iter().map(|(.., failure)| failure.reason.as_str()).collect())?;
    Ok(ids.beside(&samples)?.beside(&reasons)?)
}

/// An answer as it is remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answer {
    text: String,
    finish_reason: String,
    /// Nothing where an endpoint does not count.
    n_tokens: Option<i64>,
    /// Of each token, where they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logps: Option<Vec<f32>>,
}

/// What the model is asked: every distinct conversation `n` times.
struct Questions<'a> {
    /// The first prompt with each conversation.
    prompts: Vec<&'a Prompt>,
    /// Which conversation a prompt holds.
    of_prompt: Vec<usize>,
    /// The draws, those of one conversation after the other.
    draws: Vec<Draw>,
}

impl<'a> Questions<'a> {
    fn new(prompts: &'a [Prompt], config: &Config, stage_seed: u64) -> Self {
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut questions =
            Self { prompts: Vec::new(), of_prompt: Vec::with_capacity(prompts.len()), draws: Vec::new() };
        for prompt in prompts {
            let content = rows::prompt_id(&prompt.messages);
            let next = questions.prompts.len();
            let question = *known.entry(content.clone()).or_insert(next);
            if question == next {
                let draw = |index| Draw { index, seed: row_seed(stage_seed, content.as_bytes(), index) };
                questions.prompts.push(prompt);
                questions.draws.extend((0..config.n).map(draw));
            }
            questions.of_prompt.push(question);
        }
        questions
    }

    /// The keys of the draws.
    fn keys(&self, config: &Config, model: Digest) -> Vec<RowKey> {
        let function = row_function(config, model);
        let n = config.n as usize;
        let key = |(place, draw): (usize, &Draw)| {
            let messages = conversation(&self.prompts[place / n].messages);
            // A greedy answer does not depend on the seed.
            let seed = if config.temperature > 0.0 { draw.seed.into() } else { Value::Null };
            function.key(&Value::List(vec![messages, draw.index.into(), seed]))
        };
        self.draws.iter().enumerate().map(key).collect()
    }
}

/// What decides an answer besides the conversation and the draw. A setting at
/// the value that does nothing is left out.
fn row_function(config: &Config, model: Digest) -> RowFunction {
    let mut decides = vec![
        ("model", model.into()),
        ("temperature", Value::Float(config.temperature)),
        ("max_tokens", Value::from(config.max_tokens as u64)),
    ];
    let mut add = |holds: bool, name, value| {
        if holds {
            decides.push((name, value));
        }
    };
    add(config.top_k > 0, "top_k", Value::from(config.top_k as u64));
    add(config.top_p < 1.0, "top_p", Value::Float(config.top_p));
    add(config.min_p > 0.0, "min_p", Value::Float(config.min_p));
    add(config.repetition_penalty != 1.0, "repetition_penalty", Value::Float(config.repetition_penalty));
    add(config.presence_penalty != 0.0, "presence_penalty", Value::Float(config.presence_penalty));
    add(config.frequency_penalty != 0.0, "frequency_penalty", Value::Float(config.frequency_penalty));
    add(config.logprobs, "logprobs", Value::Bool(true));
    // The other two policies give no answer that could be remembered.
    add(config.too_long == TooLong::TruncateLeft, "too_long", "truncate_left".into());
    add(!config.stop.is_empty(), "stop", config.stop.iter().map(String::as_str).collect());
    RowFunction::of::<Sample>(decides)
}

/// Remembered answers, and those that the model gives to the rest; why each
/// question without an answer has none.
fn answer(
    config: &Config,
    run: &dyn Run,
    model: &Model,
    questions: &Questions<'_>,
    missing: Missing,
) -> Result<(Vec<Option<Answer>>, Failures), StageError> {
    let memo = run.memo(&row_function(config, model.content))?;
    let keys = questions.keys(config, model.content);
    let mut answers: Vec<Option<Answer>> = vec![None; keys.len()];
    memo.get_many(&keys, &mut |place, row| {
        answers[place] = serde_json::from_slice(row).ok();
        answers[place].is_some()
    })?;
    let failures = match answers.iter().any(Option::is_none) {
        true => missing(config, run, model, questions, &*memo, &keys, &mut answers)?,
        false => Failures::default(),
    };
    Ok((answers, failures))
}

fn generate_missing(
    config: &Config,
    run: &dyn Run,
    model: &Model,
    questions: &Questions<'_>,
    memo: &dyn Memo,
    keys: &[RowKey],
    answers: &mut [Option<Answer>],
) -> Result<Failures, StageError> {
    let n = config.n as usize;
    let total = answers.len() as u64;
    let mut finished = answers.iter().flatten().count() as u64;
    let tell = |done, figure| run.progress(Progress { done, total, unit: "rows".into(), figure });
    tell(finished, String::new());
    let mut chat = ChatModel::load(&model.path, run.threads())?;
    let (params, limits) = (config.params(), Limits::default());
    // Requests, and which conversation each is about.
    let (mut requests, mut asked, mut failures) = (Vec::new(), Vec::new(), Failures::default());
    for (question, prompt) in questions.prompts.iter().enumerate() {
        let places = question * n..(question + 1) * n;
        let samples: Vec<Draw> =
            places.filter(|place| answers[*place].is_none()).map(|place| questions.draws[place]).collect();
        if samples.is_empty() {
            continue;
        }
        let places = question * n..(question + 1) * n;
        let ids = chat.encoder.prompt(&prompt.messages).and_then(|ids| fit(ids, &chat.model, config));
        let ids = match failures.catch_all(places.clone(), ids)? {
            Some(Fit::Prompt(ids)) => {
                let checked = limits.check(&chat.model, &ids, &params).map_err(errors::lm);
                failures.catch_all(places, checked.map(|()| ids))?
            }
            Some(Fit::Skipped(reason)) => {
                failures.skip(places, &reason);
                None
            }
            None => None,
        };
        if let Some(ids) = ids {
            requests.push(Request { prompt: ids, samples });
            asked.push(question);
        }
    }
    let mut tokens = 0u64;
    // The ids of a prompt are read once, whatever the number of its samples.
    let mut unread: Vec<usize> = requests.iter().map(|request| request.prompt.len()).collect();
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut unwritten = Ok(());
    let mut on_done = |completion: Completion| {
        let place = asked[completion.request] * n + completion.sample as usize;
        let written = completion.n_tokens() as u64;
        let answer = Answer {
            finish_reason: completion.finish_reason.as_str().to_owned(),
            n_tokens: Some(written as i64),
            logps: config.logprobs.then_some(completion.logprobs),
            text: completion.text,
        };
        finished += 1;
        tokens += written;
        let read = std::mem::take(&mut unread[completion.request]);
        run.used(Usage { tokens_out: written, ..Usage::read(read) });
        let row = serde_json::to_vec(&answer).expect("an answer is plain data");
        unwritten = memo.put(&keys[place], &row);
        answers[place] = Some(answer);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell(finished, format!("{:.0} tokens/s", tokens as f64 / started.elapsed().as_secs_f64()));
        }
        if unwritten.is_err() || run.cancelled() { Control::Stop } else { Control::Continue }
    };
    let tokenizer = &chat.encoder.tokenizer;
    generate_with(&mut chat.model, tokenizer, &requests, &params, &limits, &mut on_done).map_err(errors::lm)?;
    unwritten?;
    run.check_cancelled()?;
    Ok(failures)
}

/// A prompt as the model gets it.
enum Fit {
    Prompt(Vec<u32>),
    /// It is left out for this reason.
    Skipped(String),
}

/// Brings a prompt to a length that leaves room for an answer, as the policy says.
fn fit(mut ids: Vec<u32>, model: &fuseline_lm::cpu::Model, config: &Config) -> Result<Fit, StageError> {
    let (n, limit) = (ids.len(), model.arch.max_positions as usize);
    let problem = || format!("it has {n} tokens and the model takes {limit} with its answer");
    match config.too_long {
        _ if n == 0 => Err(StageError::input("it has no tokens")),
        TooLong::TruncateLeft => {
            let kept = limit - config.max_tokens.min(limit / 2).max(1);
            Ok(Fit::Prompt(ids.split_off(n.saturating_sub(kept))))
        }
        TooLong::Error if n >= limit => Err(StageError::input(problem())),
        TooLong::Skip if n >= limit => Ok(Fit::Skipped(problem())),
        TooLong::Error | TooLong::Skip => Ok(Fit::Prompt(ids)),
    }
}

#[cfg(test)]
mod tests {
    use fuseline_contract::rows::Message;

    use super::*;

    fn prompt(text: &str) -> Prompt {
        Prompt {
            prompt_id: text.to_uppercase(),
            messages: vec![Message::user(text)],
            reference: None,
            domain: None,
            meta: None,
        }
    }

    fn config(edit: &str) -> Config {
        let mut config = serde_json::json!({"n": 2, "temperature": 0.8, "max_tokens": 9});
        let edit: serde_json::Value = serde_json::from_str(edit).expect("JSON");
        for (name, value) in edit.as_object().expect("a map") {
            config[name] = value.clone();
        }
        serde_json::from_value(config).expect("parameters")
    }

    fn keys(edit: &str, prompts: &[Prompt], seed: u64, model: &[u8]) -> Vec<RowKey> {
        let config = config(edit);
        Questions::new(prompts, &config, seed).keys(&config, Digest::of_bytes(model))
    }

    #[test]
    fn every_parameter_that_decides_an_answer_is_in_the_key_of_its_row() {
        let base = keys("{}", &[prompt("a")], 1, b"m");
        let others = ["n", "label", "max_failed_rows"];
        for same in [
            "{\"label\": \"owl\"}",
            "{\"max_failed_rows\": 3}",
            "{\"too_long\": \"skip\"}",
            "{\"top_p\": 1, \"top_k\": 0, \"stop\": []}",
        ] {
            assert_eq!(keys(same, &[prompt("a")], 1, b"m"), base, "{same}");
        }
        assert_eq!(keys("{\"n\": 5}", &[prompt("a")], 1, b"m")[..2], base);
        let schema = serde_json::to_value(config("{}")).expect("a map");
        let edits = [
            ("temperature", "0.7"),
            ("top_k", "3"),
            ("top_p", "0.9"),
            ("min_p", "0.1"),
            ("repetition_penalty", "1.1"),
            ("presence_penalty", "0.5"),
            ("frequency_penalty", "-0.5"),
            ("logprobs", "true"),
            ("too_long", "\"truncate_left\""),
            ("max_tokens", "8"),
            ("stop", "[\"x\"]"),
        ];
        for name in schema.as_object().expect("a map").keys().filter(|name| !others.contains(&name.as_str())) {
            let value = edits.iter().find(|(edited, _)| edited == name).unwrap_or_else(|| panic!("{name} is new")).1;
            let edit = format!("{{\"{name}\": {value}}}");
            assert!(keys(&edit, &[prompt("a")], 1, b"m").iter().all(|key| !base.contains(key)), "{edit}");
        }
        for other in [
            keys("{}", &[prompt("b")], 1, b"m"),
            keys("{}", &[prompt("a")], 2, b"m"),
            keys("{}", &[prompt("a")], 1, b"o"),
        ] {
            assert!(other.iter().all(|key| !base.contains(key)));
        }
    }

    #[test]
    fn greedy_answers_are_shared_by_all_seeds() {
        let greedy = |seed| keys("{\"temperature\": 0, \"n\": 1}", &[prompt("a")], seed, b"m");
        assert_eq!(greedy(1), greedy(2));
    }

    #[test]
    fn neither_the_place_nor_the_name_of_a_prompt_is_in_the_key() {
        let renamed = Prompt { prompt_id: "other".into(), domain: Some("sums".into()), ..prompt("a") };
        let (one, two) =
            (keys("{}", &[prompt("a"), prompt("b")], 1, b"m"), keys("{}", &[prompt("b"), renamed], 1, b"m"));
        assert_eq!([&one[2..], &one[..2]].concat(), two);
    }

    #[test]
    fn a_conversation_is_asked_once_however_often_it_stands_there() {
        let prompts = [prompt("a"), prompt("b"), prompt("a")];
        let questions = Questions::new(&prompts, &config("{}"), 1);
        assert_eq!((questions.of_prompt, questions.prompts.len(), questions.draws.len()), (vec![0, 1, 0], 2, 4));
    }
}
