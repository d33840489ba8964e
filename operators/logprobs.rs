//! `logprobs`: log-probabilities of given answers under a model.

use std::collections::BTreeMap;

use fuseline_contract::rows::{self, LogProb, Message, Row};
use fuseline_contract::value::Value;
use fuseline_contract::{
    Execute, Input, Kind, Model, Operator, Output, Part, Place, Ports, Progress, RowFunction, RowKey, Run, StageError,
    Table, Traits, Usage,
};
use fuseline_lm::Decoder;
use fuseline_lm::score::{ScoreItem, ScoreLimits, score};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::{CHAT, ChatModel, DECODER, NUMERICS};
use crate::shared::errors;
use crate::shared::failed::{self, Failures};
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
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.score", version: 2 }];
    const TRAITS: Traits = Traits { place: Place::Worker, numerics: Some(NUMERICS), ..Traits::PURE };
    const ADDED: &'static [(&'static str, &'static str)] = &[("max_failed_rows", "0")];
    const MANUAL: &'static str = "\
Computes log-probabilities of given answers under a model.

Takes every answer of the table once: the columns `text`, `completion`,
`chosen`, `rejected` and `chosen_target`, those that are there, each as the
assistant's turn after `messages`. A row a distinct answer, sorted by
`text_id`; `logp_sum` is over the answer's tokens with its end token, in nats.
`dpo` and `wrpo` take their reference from here, so that a sweep over beta
computes it once.

Every answer's figures are remembered (`memo: off` at the stage switches that
off): more answers cost what is new, and stages that ask about the same answers
under the same model share them.

An answer that cannot be scored (too long with its messages, or refused by the
template) fails the stage, after all others are scored and remembered. With
`max_failed_rows: N` up to N are left out instead: they are listed in `failed`
(text_id, prompt_id where the table has one, reason), and tables that rest on
the rest say so.";
    const EXAMPLE: &'static str =
        "op: logprobs\ninputs: {texts: pairs.pairs, model: tuned}\nwith: {label: reference}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let logprobs = Output::new("logprobs", Kind::Rows(&rows::LOGPROB), "a row a distinct answer");
        let failed = failed::output(config.max_failed_rows, "text_id, prompt_id, reason");
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
        let (scores, failures) = scores(run, &model, &texts)?;
        let mut rows = Vec::with_capacity(texts.len());
        let (mut unscored, mut prompts) = (Vec::new(), Vec::new());
        for (place, ((text_id, text), logps)) in texts.iter().zip(scores).enumerate() {
            let Some(logps) = logps else {
                let reason = failures.reason(place);
                let reason = reason.ok_or_else(|| StageError::bug(format!("text {text_id} was not scored")))?;
                unscored.push((text_id.as_str(), reason));
                prompts.push(text.prompt_id.clone());
                continue;
            };
            rows.push(LogProb {
                text_id: text_id.clone(),
                model: label.clone(),
                logp_sum: logps.iter().sum(),
                n_tokens: logps.len() as i64,
                logps: config.per_token.then_some(logps),
            });
        }
        failed::allow(&unscored, "text", config.max_failed_rows, texts.len())?;
        if config.max_failed_rows > 0 {
            let ids = failed::texts("text_id", unscored.iter().map(|(id, _)| *id).collect())?;
            let prompts = failed::column("prompt_id", true, prompts)?;
            let reasons = failed::texts("reason", unscored.iter().map(|(_, reason)| *reason).collect())?;
            run.write(failed::OUTPUT, ids.beside(&prompts)?.beside(&reasons)?)?;
        }
        run.write("logprobs", LogProb::table(&rows)?)
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

/// Log-probabilities of the tokens of every text, remembered or computed.
type Scores = Vec<Option<Vec<f64>>>;

/// The scores of texts; why each one without them has none.
fn scores(run: &dyn Run, model: &Model, texts: &Texts) -> Result<(Scores, Failures), StageError> {
    let function = RowFunction::of::<LogProbs>([("model", model.content.into())]);
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
    let model = ChatModel::load(&model.path, run.threads())?;
    let mut missing = Vec::new();
    for (place, text) in texts.values().enumerate().filter(|(place, _)| scores[*place].is_none()) {
        let item = model.encoder.answered(&text.messages, &text.answer).and_then(|ids| fits(ids, &model.decoder));
        missing.extend(failures.catch(place, item)?.map(|item| (place, item)));
    }
    // Texts of like length fill whole batches; the longest first, so that what does not fit into memory shows at once.
    missing.sort_by_key(|(_, item)| std::cmp::Reverse(item.prompt.len() + item.completion.len()));
    for chunk in missing.chunks(CHUNK) {
        run.check_cancelled()?;
        let items: Vec<ScoreItem> = chunk.iter().map(|(_, item)| item.clone()).collect();
        let scored = score(&model.decoder, &items, &ScoreLimits::default()).map_err(errors::lm)?;
        for ((place, _), scored) in chunk.iter().zip(scored) {
            memo.put(&keys[*place], &encode(&scored.logps))?;
            scores[*place] = Some(scored.logps.iter().map(|logp| f64::from(*logp)).collect());
        }
        run.used(Usage::read(items.iter().map(|item| item.prompt.len() + item.completion.len()).sum()));
        done += chunk.len() as u64;
        tell(done);
    }
    Ok((scores, failures))
}

/// What is scored, if the model takes that many tokens.
fn fits((prompt, completion): (Vec<u32>, Vec<u32>), decoder: &Decoder) -> Result<ScoreItem, StageError> {
    let (n, limit) = (prompt.len() + completion.len(), decoder.arch.max_positions as usize);
    if n > limit {
        return Err(StageError::input(format!("it has {n} tokens with its messages and the model takes {limit}")));
    }
    if prompt.is_empty() {
        return Err(StageError::input("its messages have no tokens"));
    }
    Ok(ScoreItem { prompt, completion })
}

fn key(function: &RowFunction, messages: &[Message], text: &str) -> RowKey {
    function.key(&Value::List(vec![conversation(messages), text.into()]))
}

/// A remembered row: the float32 of every token, little-endian.
fn encode(logps: &[f32]) -> Vec<u8> {
    logps.iter().flat_map(|logp| logp.to_le_bytes()).collect()
}

fn decode(row: &[u8]) -> Option<Vec<f64>> {
    let (logps, rest) = row.as_chunks::<4>();
    rest.is_empty().then(|| logps.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
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
