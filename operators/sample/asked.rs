//! Answers of an endpoint, one request a sample. Must not know weights.

use fuseline_contract::{Memo, Model, RowKey, Run, StageError};
use fuseline_remote::wire::{Params, Question, Turn};

use super::{Answer, Config, Questions};
use crate::shared::endpoint::Endpoint;
use crate::shared::failed::{Failures, TooLong};

/// Asks for the answers that are missing.
pub(super) fn missing(
    config: &Config,
    run: &dyn Run,
    model: &Model,
    questions: &Questions<'_>,
    memo: &dyn Memo,
    keys: &[RowKey],
    answers: &mut [Option<Answer>],
) -> Result<Failures, StageError> {
    if config.too_long != TooLong::Error {
        return Err(StageError::input(
            "too_long is for models that are here: only the endpoint knows how long a prompt is",
        )
        .hint("leave too_long out; prompts that the endpoint refuses count for max_failed_rows"));
    }
    let params = Params {
        max_tokens: config.max_tokens,
        temperature: config.temperature,
        top_p: config.top_p,
        top_k: config.top_k,
        min_p: config.min_p,
        repetition_penalty: config.repetition_penalty,
        presence_penalty: config.presence_penalty,
        frequency_penalty: config.frequency_penalty,
        stop: config.stop.clone(),
        logprobs: config.logprobs,
    };
    let endpoint = Endpoint::open(model, params, run)?;
    let places: Vec<usize> = (0..answers.len()).filter(|place| answers[*place].is_none()).collect();
    let question = |place: &usize| {
        let turns = questions.prompts[place / config.n as usize].messages.iter();
        Question {
            turns: turns.map(|turn| Turn { role: turn.role.clone(), content: turn.content.clone() }).collect(),
            // A greedy answer has no draws.
            seed: (endpoint.send_seed && config.temperature > 0.0).then(|| questions.draws[*place].seed as i64),
        }
    };
    let asked: Vec<Question> = places.iter().map(question).collect();
    let counts = ((answers.len() - places.len()) as u64, answers.len() as u64);
    let mut failures = Failures::default();
    endpoint.ask(run, &asked, counts, &mut |index, answer| {
        let place = places[index];
        match answer {
            Err(reason) => failures.add(place, reason),
            Ok(answer) => {
                let answer = Answer {
                    text: answer.text,
                    finish_reason: answer.finish_reason,
                    n_tokens: answer.usage.map(|(_, written)| written as i64),
                    logps: answer.logprobs.map(|tokens| tokens.into_iter().map(|(_, logp)| logp as f32).collect()),
                };
                memo.put(&keys[place], &serde_json::to_vec(&answer).expect("an answer is plain data"))?;
                answers[place] = Some(answer);
            }
        }
        Ok(())
    })?;
    Ok(failures)
}
