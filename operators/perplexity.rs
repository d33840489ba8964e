//! `perplexity`: how likely given texts are under a model.

use std::collections::BTreeMap;

use fuseline_contract::rows::{self, Metric, Row};
use fuseline_contract::value::Value;
use fuseline_contract::{
    Execute, Input, Kind, Model, Operator, Output, Part, Place, Ports, Problems, Progress, RowFunction, RowKey, Run,
    StageError, Traits, Usage,
};
use fuseline_lm::score::{Likelihood, ScoreItem, ScoreLimits, rolling, score, windows};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::chat::{DECODER, NUMERICS, TextModel};
use crate::shared::errors;
use crate::shared::failed;
use crate::shared::rows::column;

/// Texts that are scored and remembered together.
const CHUNK: usize = 32;

/// Parameters of `perplexity`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column that holds the texts.
    #[serde(default = "text")]
    pub column: String,
    /// Tokens of a window, the model's context if it is left out.
    #[serde(default)]
    pub length: Option<usize>,
    /// Tokens from the beginning of one window to the next; less than `length`, so that what is scored has seen the rest of a window. Left out, windows stand side by side, as lm-evaluation-harness has them.
    #[serde(default)]
    pub stride: Option<usize>,
    /// Begins every text with the tokenizer's begin token, or its end token where it has no other, so that the first token is scored as well.
    #[serde(default = "yes")]
    pub begin: bool,
    /// The model's label in `model`, where no axis gives one.
    #[serde(default)]
    pub label: Option<String>,
}

fn text() -> String {
    "text".into()
}

fn yes() -> bool {
    true
}

/// See [`Operator::MANUAL`].
pub struct Perplexity;

impl Operator for Perplexity {
    const NAME: &'static str = "perplexity";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[DECODER, Part { name: "lm.score", version: 3 }];
    const TRAITS: Traits = Traits { place: Place::Worker, numerics: Some(NUMERICS), ..Traits::PURE };
    const MANUAL: &'static str = "\
Computes how likely given texts are under a model.

`metrics` has five figures for each value of the column `domain` (the task
`all` where there is none): `nll`, nats a token; `perplexity`, its exponential;
`word_perplexity` and `byte_perplexity`, exp of the nats over words (as many as
pieces between white space) and over bytes of UTF-8; `bits_per_byte`. They are
over all tokens, words or bytes of the task's texts, and `n` counts the texts.
`texts` has the rows that came in, with each text's `nats`, `n_scored`,
`n_words` and `n_bytes`.

A text is cut into windows where it is longer than one. Without `stride` they
are those of lm-evaluation-harness, whose figures these are; with it and
`begin: false` those of transformers' guide to perplexity. Every text's figure
is remembered (`memo: off` at the stage switches that off) and is the same bit
for bit whatever is scored beside it.";
    const EXAMPLE: &'static str = "op: perplexity\ninputs: {texts: wikitext, model: merged}\n\
        with: {length: 1024, stride: 512, label: merged}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![
                Input::one("texts", Kind::AnyTable, "a table with a column of texts"),
                Input::one("model", Kind::Model, "the model").labelled(),
            ],
            outputs: vec![
                Output::new("metrics", Kind::Rows(&rows::METRIC), "five figures a task"),
                Output::new("texts", Kind::AnyTable, "the rows with nats, n_scored, n_words, n_bytes"),
            ],
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(config.length != Some(0), "length", || "must be at least 1".into());
        problems.require(config.stride != Some(0), "stride", || "must be at least 1".into());
        if let (Some(length), Some(stride)) = (config.length, config.stride) {
            problems.require(stride < length, "stride", || {
                format!("is {stride} and windows have {length} tokens: it must be less, or be left out")
            });
        }
    }
}

impl Execute for Perplexity {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = run.table("texts")?;
        let texts = column::<String>(&table, &config.column)?;
        if texts.is_empty() {
            return Err(StageError::input("the table bound to \"texts\" has no rows"));
        }
        let domains = match table.has("domain") {
            true => column::<Option<String>>(&table, "domain")?,
            false => vec![None; texts.len()],
        };
        let model = run.model("model")?;
        let label = model.label.clone().ok_or_else(|| StageError::bug("the model has no label"))?;
        let found = likelihoods(config, run, &model, &texts)?;
        let mut tasks: BTreeMap<&str, Total> = BTreeMap::new();
        for ((text, domain), likelihood) in texts.iter().zip(&domains).zip(&found) {
            tasks.entry(domain.as_deref().unwrap_or("all")).or_default().add(text, likelihood);
        }
        let metrics: Vec<Metric> = tasks.iter().flat_map(|(task, total)| total.metrics(&label, task)).collect();
        run.write("metrics", Metric::table(&metrics)?)?;
        let counts = |of: fn(&str) -> u64| texts.iter().map(|text| of(text) as i64).collect::<Vec<i64>>();
        let scored = found.iter().map(|likelihood| likelihood.n_tokens as i64).collect();
        let rows = table
            .beside(&failed::column("nats", false, found.iter().map(|likelihood| likelihood.nats).collect())?)?
            .beside(&failed::column::<i64>("n_scored", false, scored)?)?
            .beside(&failed::column("n_words", false, counts(n_words))?)?
            .beside(&failed::column("n_bytes", false, counts(n_bytes))?)?;
        run.write("texts", rows)
    }
}

/// What is known of a task's texts together.
#[derive(Debug, Default)]
struct Total {
    likelihood: Likelihood,
    words: u64,
    bytes: u64,
    texts: i64,
}

impl Total {
    fn add(&mut self, text: &str, likelihood: &Likelihood) {
        self.likelihood.nats += likelihood.nats;
        self.likelihood.n_tokens += likelihood.n_tokens;
        self.words += n_words(text);
        self.bytes += n_bytes(text);
        self.texts += 1;
    }

    fn metrics(&self, model: &str, task: &str) -> Vec<Metric> {
        let nats = self.likelihood.nats;
        let figures = [
            ("nll", self.likelihood.mean()),
            ("perplexity", self.likelihood.perplexity()),
            ("word_perplexity", (nats / self.words as f64).exp()),
            ("byte_perplexity", (nats / self.bytes as f64).exp()),
            ("bits_per_byte", nats / self.bytes as f64 / std::f64::consts::LN_2),
        ];
        let row = |(metric, value): (&str, f64)| Metric {
            model: model.to_owned(),
            task: task.to_owned(),
            metric: metric.to_owned(),
            value,
            stderr: None,
            n: Some(self.texts),
            seed: None,
        };
        figures.into_iter().map(row).collect()
    }
}

/// Pieces between runs of white space, those before the first and after the last included, though they be empty
/// (EleutherAI/lm-evaluation-harness, `lm_eval/tasks/wikitext/preprocess_wikitext.py`).
fn n_words(text: &str) -> u64 {
    let spaces = text.chars().map(char::is_whitespace);
    let runs = spaces.fold((0, false), |(runs, within), space| (runs + u64::from(space && !within), space)).0;
    runs + 1
}

fn n_bytes(text: &str) -> u64 {
    text.len() as u64
}

/// Every text's likelihood, remembered or computed.
fn likelihoods(config: &Config, run: &dyn Run, model: &Model, texts: &[String]) -> Result<Vec<Likelihood>, StageError> {
    let length = |length: Option<usize>| length.map_or(Value::Null, |length| Value::from(length as u64));
    let function = RowFunction::of::<Perplexity>([
        ("model", model.content.into()),
        ("length", length(config.length)),
        ("stride", length(config.stride)),
        ("begin", Value::Bool(config.begin)),
    ]);
    let memo = run.memo(&function)?;
    let keys: Vec<RowKey> = texts.iter().map(|text| function.key(&text.as_str().into())).collect();
    let mut found: Vec<Option<Likelihood>> = vec![None; texts.len()];
    memo.get_many(&keys, &mut |place, row| {
        found[place] = decode(row);
        found[place].is_some()
    })?;
    let total = texts.len() as u64;
    let mut done = found.iter().flatten().count() as u64;
    let tell = |done| run.progress(Progress { done, total, unit: "texts".into(), figure: String::new() });
    tell(done);
    if done < total {
        let mut loaded = TextModel::load(&model.path, run.threads())?;
        let missing: Vec<usize> = (0..texts.len()).filter(|place| found[*place].is_none()).collect();
        for chunk in missing.chunks(CHUNK) {
            run.check_cancelled()?;
            let of_texts: Vec<Vec<ScoreItem>> =
                chunk.iter().map(|place| items(config, &loaded, &texts[*place])).collect::<Result<_, _>>()?;
            let items = of_texts.concat();
            let scored = score(&mut loaded.model, &items, 0, &ScoreLimits::default()).map_err(errors::lm)?;
            let mut scored = scored.iter();
            for (place, windows) in chunk.iter().zip(&of_texts) {
                let likelihood = Likelihood::of(scored.by_ref().take(windows.len()));
                memo.put(&keys[*place], &encode(&likelihood))?;
                found[*place] = Some(likelihood);
            }
            run.used(Usage::read(items.iter().map(|item| item.prompt.len() + item.completion.len()).sum()));
            done += chunk.len() as u64;
            tell(done);
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// The windows of a text.
fn items(config: &Config, loaded: &TextModel, text: &str) -> Result<Vec<ScoreItem>, StageError> {
    let limit = loaded.model.arch.max_positions as usize;
    let length = config.length.unwrap_or(limit);
    if length > limit {
        return Err(StageError::input(format!("length is {length} and the model takes {limit} tokens"))
            .hint(format!("set length: {limit}, or leave it out")));
    }
    let mut ids = Vec::new();
    if config.begin {
        let token = loaded.tokenizer.bos().or(loaded.tokenizer.eos()).ok_or_else(|| {
            StageError::input("the model's tokenizer has neither a begin nor an end token").hint("set begin: false")
        })?;
        ids.push(token.id);
    }
    ids.extend(loaded.tokenizer.encode(text, false).map_err(errors::lm)?);
    match config.stride {
        None => Ok(rolling(&ids, length)),
        Some(stride) if stride < length => Ok(windows(&ids, length, length - stride)),
        Some(stride) => Err(StageError::input(format!("stride is {stride} and the model takes {limit} tokens"))
            .hint(format!("set a stride below {limit}, or leave it out"))),
    }
}

/// A remembered row, little-endian: nats, scored tokens.
fn encode(likelihood: &Likelihood) -> Vec<u8> {
    [likelihood.nats.to_le_bytes(), likelihood.n_tokens.to_le_bytes()].concat()
}

fn decode(row: &[u8]) -> Option<Likelihood> {
    let (nats, n_tokens) = row.split_first_chunk::<8>()?;
    let n_tokens = u64::from_le_bytes(n_tokens.try_into().ok()?);
    Some(Likelihood { nats: f64::from_le_bytes(*nats), n_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let mut total = Total::default();
        // Four tokens, 8 nats; "a b" has 2 words and 3 bytes, "c " 2 and 2.
        total.add("a b", &Likelihood { nats: 5.0, n_tokens: 3 });
        total.add("c ", &Likelihood { nats: 3.0, n_tokens: 1 });
        let found: Vec<(String, f64)> =
            total.metrics("owl", "all").into_iter().map(|metric| (metric.metric, metric.value)).collect();
        let expected = [
            ("nll", 2.0),
            ("perplexity", 2f64.exp()),
            ("word_perplexity", 2f64.exp()),
            ("byte_perplexity", 1.6f64.exp()),
            ("bits_per_byte", 1.6 / 2f64.ln()),
        ];
        for ((name, value), (expected_name, expected)) in found.iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert!((value - expected).abs() < 1e-12, "{name}");
        }
    }

    #[test]
    fn words_are_counted_as_python_splits_them() {
        // len(re.split(r"\s+", text))
        let cases = [("", 1), ("a", 1), ("a  b\n", 3), (" a", 2), ("\n\n", 2), ("a\u{a0}b", 2)];
        assert_eq!(cases.map(|(text, _)| n_words(text)), cases.map(|(_, n)| n));
    }

    #[test]
    fn remembered_rows_come_back_or_are_not_there() {
        let likelihood = Likelihood { nats: 1.25, n_tokens: 7 };
        assert_eq!(decode(&encode(&likelihood)), Some(likelihood));
        assert_eq!(decode(&encode(&likelihood)[1..]), None);
    }
}
