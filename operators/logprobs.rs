//! `logprobs`: log-probabilities of given answers under a model.

use std::collections::BTreeMap;

use fuseline_contract::rows::{self, LogProb, Message, Row};
use fuseline_contract::value::Value;
use fuseline_contract::{
    Execute, Input, Kind, Model, Operator, Output, Part, Place, Ports, Progress, RowFunction, RowKey, Run, StageError,
    Table, Traits, Usage,
};
use fuseline_lm::score::{ScoreItem, ScoreLimits, score};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::{CHAT, ChatModel, DECODER, NUMERICS};
use crate::shared::errors;
use crate::shared::failed::{self, Failures, TooLong};
use crate::shared::rows::{column, conversation};

/// Columns that hold an answer to the row's `messages`.
const ANSWERS: &[&str] = &["text", "completion", "chosen", "rejected", "chosen_target"];
/// Rows that are scored and remembered together.
const CHUNK: usize = 256;

/// Parameters of `logprobs`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Also give the log-probability of every token.
    #[serde(default)]
    pub per_token: bool,
    /// Also give so many of the likeliest tokens at every place, with their log-probabilities: the columns `top_ids` and `top_logps`, to learn from the model's distributions; 0 gives none.
    #[serde(default)]
    pub top_k: usize,
    /// What becomes of an answer that is longer with its messages than the model's context: `error` fails it, `skip` leaves it out and lists it in `failed`, `truncate_left` drops the first tokens of the messages, of which one must be left.
    #[serde(default)]
    pub too_long: TooLong,
    /// The model's label in `model`, where no axis gives one.
    #[serde(default)]
    pub label: Option<String>,
    /// How many rows may fail: answers that are longer with their messages than the model's context, or that its chat template refuses. They are left out and listed in the output `failed`; with more of them the stage fails when all others are scored.
    #[serde(default)]
    pub max_failed_rows: u64,
}

/// See [`Operator::MANUAL`].
pub struct LogProbs;

impl Operator for LogProbs {
    const NAME: &'static str = "logprobs";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.score", version: 3 }];
    const TRAITS: Traits = Traits { place: Place::Worker, numerics: Some(NUMERICS), ..Traits::PURE };
    const ADDED: &'static [(&'static str, &'static str)] =
        &[("max_failed_rows", "0"), ("top_k", "0"), ("too_long", "\"error\"")];
    const MANUAL: &'static str = "\
Computes log-probabilities of given answers under a model.

Takes every answer of the table once: the columns `text`, `completion`,
`chosen`, `rejected` and `chosen_target`, those that are there, each as the
assistant's turn after `messages`. A row a distinct answer, sorted by
`text_id`; `logp_sum` is over the answer's tokens with its end token, in nats.
With `per_token` the column `logps` has each token's; with `top_k: K` the lists
`top_ids` and `top_logps` have the K likeliest tokens at each place, the
likeliest first. A row's figures are the same bit for bit whatever is scored
beside it and by however many threads.

`dpo` and `wrpo` take their reference from here, so that a sweep over beta
computes it once.

Every answer's figures are remembered (`memo: off` at the stage switches that
off): more answers cost what is new, and stages that ask about the same answers
under the same model share them.

An answer that cannot be scored (too long with its messages, or refused by the
template) fails the stage, after all others are scored and remembered. With
`max_failed_rows: N` up to N are left out instead: they are listed in `failed`
(text_id, prompt_id where the table has one, reason), and tables that rest on
the rest say so. With `too_long: skip` answers that are too long are listed
there as well, however many, and do not count as failed.";
    const EXAMPLE: &'static str =
        "op: logprobs\ninputs: {texts: pairs.pairs, model: tuned}\nwith: {label: reference}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let logprobs = Output::new("logprobs", Kind::Rows(&rows::LOGPROB), "a row a distinct answer");
        let failed = failed::output(config.max_failed_rows, config.too_long, "text_id, prompt_id, reason");
        Ports {
            inputs: vec![
                Input::one("texts", Kind::AnyTable, "a table with `messages` and answers"),
                Input::one("model", Kind::Model, "the model").labelled(),
            ],
            outputs: std::iter::once(logprobs).chain(failed).collect(),
        }
    }
}

impl Execute for LogProbs {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let texts = distinct(&run.table("texts")?)?;
        let model = run.model("model")?;
        let label = model.label.clone().ok_or_else(|| StageError::bug("the model has no label"))?;
        let (scores, failures) = scores(config, run, &model, &texts)?;
        let mut rows = Vec::with_capacity(texts.len());
        let (mut unscored, mut prompts) = (Vec::new(), Vec::new());
        let (mut top_ids, mut top_logps) = (Vec::new(), Vec::new());
        for (place, ((text_id, text), score)) in texts.iter().zip(scores).enumerate() {
            let Some(score) = score else {
                let failure = failures.at(place);
                let failure = failure.ok_or_else(|| StageError::bug(format!("text {text_id} was not scored")))?;
                unscored.push((text_id.as_str(), failure));
                prompts.push(text.prompt_id.clone());
                continue;
            };
            let logps: Vec<f64> = score.logps.iter().map(|logp| f64::from(*logp)).collect();
            let k = (score.top.len() / logps.len().max(1)).max(1);
            top_ids.push(Some(
                score.top.chunks(k).map(|top| top.iter().map(|(id, _)| i64::from(*id)).collect()).collect(),
            ));
            top_logps.push(Some(
                score.top.chunks(k).map(|top| top.iter().map(|(_, logp)| f64::from(*logp)).collect()).collect(),
            ));
            rows.push(LogProb {
                text_id: text_id.clone(),
                model: label.clone(),
                logp_sum: logps.iter().sum(),
                n_tokens: logps.len() as i64,
                logps: config.per_token.then_some(logps),
            });
        }
        let failed: Vec<(&str, &str)> = unscored
            .iter()
            .filter(|(_, failure)| !failure.skipped)
            .map(|(id, failure)| (*id, failure.reason.as_str()))
            .collect();
        failed::allow(&failed, "text", config.max_failed_rows, texts.len())?;
        if failed::leaves_out(config.max_failed_rows, config.too_long) {
            let ids = failed::texts("text_id", unscored.iter().map(|(id, _)| *id).collect())?;
            let prompts = failed::column("prompt_id", true, prompts)?;
            let reasons =
                failed::texts("reason", unscored.iter().map(|(_, failure)| failure.reason.as_str()).collect())?;
            run.write(failed::OUTPUT, ids.beside(&prompts)?.beside(&reasons)?)?;
        }
        let mut table = LogProb::table(&rows)?;
        if config.top_k > 0 {
            table = table.beside(&failed::column::<Option<Vec<Vec<i64>>>>("top_ids", true, top_ids)?)?;
            table = table.beside(&failed::column::<Option<Vec<Vec<f64>>>>("top_logps", true, top_logps)?)?;
        }
        run.write("logprobs", table)
    }
}

/// An answer to be scored.
struct Text {
    /// The prompt that it was first found with, where the table tells.
    prompt_id: Option<String>,
    messages: Vec<Message>,
    answer: String,
}

/// Every distinct answer, by its identity.
type Texts = BTreeMap<String, Text>;

/// What is known of one text.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    logps: Vec<f32>,
    /// The likeliest tokens at each place, one place after the other.
    top: Vec<(u32, f32)>,
}

/// Figures of every text, remembered or computed.
type Scores = Vec<Option<Known>>;

/// What decides a text's figures besides the text.
fn row_function(config: &Config, model: &Model) -> RowFunction {
    let mut decides = vec![("model", model.content.into())];
    if config.top_k > 0 {
        decides.push(("top_k", Value::from(config.top_k as u64)));
    }
    // The other two policies give no figures that could be remembered.
    if config.too_long == TooLong::TruncateLeft {
        decides.push(("too_long", "truncate_left".into()));
    }
    RowFunction::of::<LogProbs>(decides)
}

/// The scores of texts; why each one without them has none.
fn scores(config: &Config, run: &dyn Run, model: &Model, texts: &Texts) -> Result<(Scores, Failures), StageError> {
    let function = row_function(config, model);
    let memo = run.memo(&function)?;
    let keys: Vec<RowKey> = texts.values().map(|text| key(&function, &text.messages, &text.answer)).collect();
    let mut scores: Scores = vec![None; keys.len()];
    let mut failures = Failures::default();
    memo.get_many(&keys, &mut |place, row| {
        scores[place] = decode(row);
        scores[place].is_some()
    })?;
    let total = scores.len() as u64;
    let mut done = scores.iter().flatten().count() as u64;
    if done == total {
        return Ok((scores, failures));
    }
    let tell = |done| run.progress(Progress { done, total, unit: "rows".into(), figure: String::new() });
    tell(done);
    let mut chat = ChatModel::load(&model.path, run.threads())?;
    let limit = chat.model.arch.max_positions as usize;
    let mut missing = Vec::new();
    for (place, text) in texts.values().enumerate().filter(|(place, _)| scores[*place].is_none()) {
        let item = chat.encoder.answered(&text.messages, &text.answer).and_then(|ids| fit(ids, limit, config.too_long));
        match failures.catch(place, item)? {
            Some(Ok(item)) => missing.push((place, item)),
            Some(Err(reason)) => failures.skip(place..place + 1, &reason),
            None => {}
        }
    }
    for chunk in missing.chunks(CHUNK) {
        run.check_cancelled()?;
        let items: Vec<ScoreItem> = chunk.iter().map(|(_, item)| item.clone()).collect();
        let scored = score(&mut chat.model, &items, config.top_k, &ScoreLimits::default()).map_err(errors::lm)?;
        for ((place, _), scored) in chunk.iter().zip(scored) {
            let known = Known { logps: scored.logps, top: scored.top };
            memo.put(&keys[*place], &encode(&known))?;
            scores[*place] = Some(known);
        }
        run.used(Usage::read(items.iter().map(|item| item.prompt.len() + item.completion.len()).sum()));
        done += chunk.len() as u64;
        tell(done);
    }
    Ok((scores, failures))
}

/// What is scored, brought to as many tokens as the model takes; or why it is left out, where that is asked for.
fn fit(
    (mut prompt, completion): (Vec<u32>, Vec<u32>),
    limit: usize,
    too_long: TooLong,
) -> Result<Result<ScoreItem, String>, StageError> {
    if prompt.is_empty() {
        return Err(StageError::input("its messages have no tokens"));
    }
    let n = prompt.len() + completion.len();
    if n > limit {
        let problem = format!("it has {n} tokens with its messages and the model takes {limit}");
        match too_long {
            TooLong::Skip => return Ok(Err(problem)),
            TooLong::TruncateLeft if completion.len() < limit => prompt = prompt.split_off(n - limit),
            TooLong::TruncateLeft | TooLong::Error => return Err(StageError::input(problem)),
        }
    }
    Ok(Ok(ScoreItem { prompt, completion }))
}

fn key(function: &RowFunction, messages: &[Message], text: &str) -> RowKey {
    function.key(&Value::List(vec![conversation(messages), text.into()]))
}

/// A remembered row, little-endian: how many tokens, their log-probabilities, ids and log-probabilities of the likeliest.
fn encode(known: &Known) -> Vec<u8> {
    let n = known.logps.len() as u32;
    let mut row = n.to_le_bytes().to_vec();
    row.extend(known.logps.iter().flat_map(|logp| logp.to_le_bytes()));
    row.extend(known.top.iter().flat_map(|(id, logp)| [id.to_le_bytes(), logp.to_le_bytes()].concat()));
    row
}

fn decode(row: &[u8]) -> Option<Known> {
    let (words, rest) = row.as_chunks::<4>();
    let (n, words) = words.split_first().filter(|_| rest.is_empty())?;
    let (logps, top) = words.split_at_checked(u32::from_le_bytes(*n) as usize)?;
    let (pairs, rest) = top.as_chunks::<2>();
    Some(Known {
        logps: logps.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        top: pairs.iter().map(|[id, logp]| (u32::from_le_bytes(*id), f32::from_le_bytes(*logp))).collect(),
    })
    .filter(|_| rest.is_empty())
}

fn distinct(table: &Table) -> Result<Texts, StageError> {
    let columns: Vec<&str> = ANSWERS.iter().copied().filter(|name| table.has(name)).collect();
    if columns.is_empty() {
        return Err(StageError::input("the table bound to \"texts\" has no column with answers")
            .hint(format!("it needs one of {}", ANSWERS.join(", "))));
    }
    let messages = column::<Vec<Message>>(table, "messages")?;
    let prompts = if table.has("prompt_id") { column::<Option<String>>(table, "prompt_id")? } else { vec![] };
    let mut texts = BTreeMap::new();
    for name in columns {
        for (row, (messages, answer)) in messages.iter().zip(column::<Option<String>>(table, name)?).enumerate() {
            let Some(answer) = answer else { continue };
            texts.entry(rows::text_id(messages, &answer)).or_insert_with(|| {
                let prompt_id = prompts.get(row).cloned().flatten();
                Text { prompt_id, messages: messages.clone(), answer }
            });
        }
    }
    if texts.is_empty() {
        return Err(StageError::input("the table bound to \"texts\" has no rows"));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_rows_come_back_or_are_not_there() {
        for top in [vec![], vec![(7, -0.5), (3, -1.5), (2, -0.25), (9, -3.0)]] {
            let known = Known { logps: vec![-0.5, -0.25], top };
            let row = encode(&known);
            assert_eq!(decode(&row), Some(known));
            assert_eq!(decode(&row[..row.len() - 1]), None);
        }
        assert_eq!((decode(&[]), decode(&[9, 0, 0, 0])), (None, None));
    }

    #[test]
    fn what_is_too_long_fails_is_cut_or_is_left_out() {
        let ids = || (vec![1, 2, 3, 4], vec![5, 6]);
        let item = |prompt: &[u32]| Ok(Ok(ScoreItem { prompt: prompt.to_vec(), completion: vec![5, 6] }));
        assert_eq!(fit(ids(), 6, TooLong::Error), item(&[1, 2, 3, 4]));
        assert_eq!(fit(ids(), 4, TooLong::TruncateLeft), item(&[3, 4]));
        assert!(fit(ids(), 4, TooLong::Error).is_err());
        let problem = "it has 6 tokens with its messages and the model takes 4".to_owned();
        assert_eq!(fit(ids(), 4, TooLong::Skip), Ok(Err(problem)));
        // No token would be left to condition on.
        assert!(fit(ids(), 2, TooLong::TruncateLeft).is_err());
    }
}
