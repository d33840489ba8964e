//! Replies of a model to conversations that an operator makes up itself, such as
//! a judge's: remembered, or asked of a local model or an endpoint.

use std::collections::HashMap;

use fuseline_contract::rows::Message;
use fuseline_contract::value::Value;
use fuseline_contract::{Memo, Model, Progress, RowFunction, RowKey, Run, StageError, Usage};
use fuseline_lm::generate::{Completion, Control, Limits, Params, Request, Sample, generate_with};
use fuseline_remote::wire::{Params as WireParams, Question, Turn};
use serde::{Deserialize, Serialize};

use super::chat::ChatModel;
use super::endpoint::Endpoint;
use super::errors;
use super::failed::Failures;
use super::rows::conversation;

/// How replies are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// Temperature; 0 is greedy.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Tokens of a reply at most.
    pub max_tokens: usize,
}

impl Draws {
    fn params(&self) -> Params {
        let Self { temperature, top_p, max_tokens } = *self;
        Params { temperature, top_p, max_tokens, ..Params::default() }
    }

    /// What is wrong with these values, each with the parameter's name first.
    pub fn check(&self) -> Vec<String> {
        self.params().check()
    }

    /// What decides a reply besides the conversation and the seed.
    pub fn decide(&self, model: &Model) -> Vec<(&'static str, Value)> {
        let mut decides = vec![
            ("model", model.content.into()),
            ("temperature", Value::Float(self.temperature)),
            ("max_tokens", Value::from(self.max_tokens as u64)),
        ];
        if self.top_p < 1.0 {
            decides.push(("top_p", Value::Float(self.top_p)));
        }
        decides
    }
}

/// A conversation that wants a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The conversation.
    pub messages: Vec<Message>,
    /// The seed of the draws.
    pub seed: u64,
    /// Which of several replies to the same conversation.
    pub index: u32,
}

/// A reply as it is remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The text.
    pub text: String,
    /// `stop`, `length`, or another word of a server.
    pub finish_reason: String,
}

/// Gives the replies that are not remembered yet: to these places among what is asked.
pub type Missing = fn(
    run: &dyn Run,
    model: &Model,
    draws: &Draws,
    asked: &[Asked],
    places: &[usize],
    take: &mut dyn FnMut(usize, Result<Reply, String>) -> Result<(), StageError>,
) -> Result<(), StageError>;

/// A reply to everything that is asked, and why there is none where there is none.
pub fn replies(
    run: &dyn Run,
    model: &Model,
    function: &RowFunction,
    draws: &Draws,
    asked: &[Asked],
    missing: Missing,
) -> Result<(Vec<Option<Reply>>, Failures), StageError> {
    let memo: Box<dyn Memo + '_> = run.memo(function)?;
    let key = |asked: &Asked| -> RowKey {
        // A greedy reply does not depend on the seed.
        let seed = if draws.temperature > 0.0 { asked.seed.into() } else { Value::Null };
        function.key(&Value::List(vec![conversation(&asked.messages), asked.index.into(), seed]))
    };
    let keys: Vec<RowKey> = asked.iter().map(key).collect();
    let mut replies: Vec<Option<Reply>> = vec![None; asked.len()];
    memo.get_many(&keys, &mut |place, row| {
        replies[place] = serde_json::from_slice(row).ok();
        replies[place].is_some()
    })?;
    // What is asked twice is paid for once.
    let mut first: HashMap<RowKey, usize> = HashMap::new();
    let unknown = (0..asked.len()).filter(|place| replies[*place].is_none());
    let places: Vec<usize> = unknown.filter(|place| *first.entry(keys[*place]).or_insert(*place) == *place).collect();
    let mut failures = Failures::default();
    if !places.is_empty() {
        missing(run, model, draws, asked, &places, &mut |place, reply| {
            match reply {
                Err(reason) => failures.add(place, reason),
                Ok(reply) => {
                    memo.put(&keys[place], &serde_json::to_vec(&reply).expect("a reply is plain data"))?;
                    replies[place] = Some(reply);
                }
            }
            Ok(())
        })?;
    }
    for place in 0..asked.len() {
        let Some(same) = first.get(&keys[place]).copied().filter(|same| *same != place) else { continue };
        replies[place] = replies[same].clone();
        if let Some(reason) = failures.reason(same).map(str::to_owned) {
            failures.add(place, reason);
        }
    }
    Ok((replies, failures))
}

/// Replies of an endpoint.
pub fn of_endpoint(
    run: &dyn Run,
    model: &Model,
    draws: &Draws,
    asked: &[Asked],
    places: &[usize],
    take: &mut dyn FnMut(usize, Result<Reply, String>) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let params = WireParams {
        max_tokens: draws.max_tokens,
        temperature: draws.temperature,
        top_p: draws.top_p,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        stop: Vec::new(),
        logprobs: false,
    };
    let endpoint = Endpoint::open(model, params, run)?;
    let question = |place: &usize| {
        let turns = asked[*place].messages.iter();
        Question {
            turns: turns.map(|turn| Turn { role: turn.role.clone(), content: turn.content.clone() }).collect(),
            seed: (endpoint.send_seed && draws.temperature > 0.0).then(|| asked[*place].seed as i64),
        }
    };
    let questions: Vec<Question> = places.iter().map(question).collect();
    let counts = ((asked.len() - places.len()) as u64, asked.len() as u64);
    endpoint.ask(run, &questions, counts, &mut |index, answer| {
        let reply = answer.map(|answer| Reply { text: answer.text, finish_reason: answer.finish_reason });
        take(places[index], reply)
    })
}

/// Replies of a model folder.
pub fn of_folder(
    run: &dyn Run,
    model: &Model,
    draws: &Draws,
    asked: &[Asked],
    places: &[usize],
    take: &mut dyn FnMut(usize, Result<Reply, String>) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let total = asked.len() as u64;
    let mut done = total - places.len() as u64;
    let tell = |done| run.progress(Progress { done, total, unit: "rows".into(), figure: String::new() });
    tell(done);
    let mut chat = ChatModel::load(&model.path, run.threads())?;
    let (params, limits) = (draws.params(), Limits::default());
    let limit = chat.model.arch.max_positions as usize;
    let (mut requests, mut of_request) = (Vec::new(), Vec::new());
    for &place in places {
        let one = &asked[place];
        let mut failures = Failures::default();
        let Some(prompt) = failures.catch(place, chat.encoder.prompt(&one.messages))? else {
            take(place, Err(failures.reason(place).unwrap_or_default().to_owned()))?;
            continue;
        };
        match prompt.len() {
            0 => take(place, Err("it has no tokens".to_owned()))?,
            n if n >= limit => {
                take(place, Err(format!("it has {n} tokens and the model takes {limit} with its answer")))?;
            }
            _ => {
                limits.check(&chat.model, &prompt, &params).map_err(errors::lm)?;
                requests.push(Request { prompt, samples: vec![Sample { index: one.index, seed: one.seed }] });
                of_request.push(place);
            }
        }
    }
    let mut failed = Ok(());
    let mut on_done = |completion: Completion| {
        let written = completion.n_tokens() as u64;
        run.used(Usage { tokens_out: written, ..Usage::read(requests[completion.request].prompt.len()) });
        done += 1;
        tell(done);
        let reply = Reply { finish_reason: completion.finish_reason.as_str().to_owned(), text: completion.text };
        failed = take(of_request[completion.request], Ok(reply));
        if failed.is_err() || run.cancelled() { Control::Stop } else { Control::Continue }
    };
    let tokenizer = &chat.encoder.tokenizer;
    generate_with(&mut chat.model, tokenizer, &requests, &params, &limits, &mut on_done).map_err(errors::lm)?;
    failed?;
    run.check_cancelled()
}
