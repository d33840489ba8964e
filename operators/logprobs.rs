//! `logprobs`: log-probabilities of given answers under a model.

use std::collections::BTreeMap;

use fuseline_contract::rows::{self, LogProb, Message, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Output, Part, Place, Ports, Run, StageError, Table, Traits};
use fuseline_lm::score::{ScoreItem, ScoreLimits, score};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::{CHAT, ChatModel, DECODER, NUMERICS};
use crate::shared::{errors, rows::column};

/// Columns that hold an answer to the row's `messages`.
const ANSWERS: &[&str] = &["text", "completion", "chosen", "rejected", "chosen_target"];
/// Rows between two looks at whether the run was cancelled.
const CHUNK: usize = 512;

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
}

/// See [`Operator::MANUAL`].
pub struct LogProbs;

impl Operator for LogProbs {
    const NAME: &'static str = "logprobs";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, CHAT, Part { name: "lm.score", version: 2 }];
    const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: false, numerics: Some(NUMERICS) };
    const MANUAL: &'static str = "\
Computes log-probabilities of given answers under a model.

Takes every answer of the table once: the columns `text`, `completion`,
`chosen`, `rejected` and `chosen_target`, those that are there, each as the
assistant's turn after `messages`. A row a distinct answer, sorted by
`text_id`; `logp_sum` is over the answer's tokens with its end token, in nats.
`dpo` and `wrpo` take their reference from here, so that a sweep over beta
computes it once.";
    const EXAMPLE: &'static str =
        "op: logprobs\ninputs: {texts: pairs.pairs, model: tuned}\nwith: {label: reference}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![
                Input::one("texts", Kind::AnyTable, "a table with `messages` and answers"),
                Input::one("model", Kind::Model, "the model").labelled(),
            ],
            outputs: vec![Output::new("logprobs", Kind::Rows(&rows::LOGPROB), "a row a distinct answer")],
        }
    }
}

impl Execute for LogProbs {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let texts = distinct(&run.table("texts")?)?;
        let bound = run.model("model")?;
        let label = bound.label.clone().ok_or_else(|| StageError::bug("the model has no label"))?;
        let model = ChatModel::load(&bound.path, run.threads())?;
        let mut items = Vec::with_capacity(texts.len());
        for (messages, text) in texts.values() {
            let (prompt, completion) = model.encoder.answered(messages, text)?;
            items.push(ScoreItem { prompt, completion });
        }
        let mut scores = Vec::with_capacity(items.len());
        for chunk in items.chunks(CHUNK) {
            run.check_cancelled()?;
            scores.extend(score(&model.decoder, chunk, &ScoreLimits::default()).map_err(errors::lm)?);
            run.progress(fuseline_contract::Progress {
                done: scores.len() as u64,
                total: items.len() as u64,
                unit: "rows".into(),
                figure: String::new(),
            });
        }
        let rows: Vec<LogProb> = texts
            .keys()
            .zip(&scores)
            .map(|(text_id, score)| LogProb {
                text_id: text_id.clone(),
                model: label.clone(),
                logp_sum: score.logp_sum,
                n_tokens: score.logps.len() as i64,
                logps: config.per_token.then(|| score.logps.iter().map(|logp| f64::from(*logp)).collect()),
            })
            .collect();
        run.write("logprobs", LogProb::table(&rows)?)
    }
}

/// Every distinct answer, by its identity.
fn distinct(table: &Table) -> Result<BTreeMap<String, (Vec<Message>, String)>, StageError> {
    let columns: Vec<&str> = ANSWERS.iter().copied().filter(|name| table.has(name)).collect();
    if columns.is_empty() {
        return Err(StageError::input("the table bound to \"texts\" has no column with answers")
            .hint(format!("it needs one of {}", ANSWERS.join(", "))));
    }
    let messages = column::<Vec<Message>>(table, "messages")?;
    let mut texts = BTreeMap::new();
    for name in columns {
        for (messages, text) in messages.iter().zip(column::<Option<String>>(table, name)?) {
            if let Some(text) = text {
                texts.entry(rows::text_id(messages, &text)).or_insert_with(|| (messages.clone(), text));
            }
        }
    }
    if texts.is_empty() {
        return Err(StageError::input("the table bound to \"texts\" has no rows"));
    }
    Ok(texts)
}
