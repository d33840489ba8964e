//! The work that the training operators share: a model loaded, trained on rows,
//! written with its curve.

use std::time::{Duration, Instant};

use fuseline_contract::rows::{self, LogProb, Message, Row, Trace};
use fuseline_contract::{Progress, Run, StageError, Usage};
use fuseline_lm::checkpoint::carry_files;
use fuseline_lm::objectives::{Answer, Objective, Reference};
use fuseline_lm::train::{self, Control, Summary};
use fuseline_weights::Float;

use super::chat::{Encoder, Trainee};
use super::errors;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Trains the bound model and writes the outputs.
///
/// `encode` makes the rows; they refer to the prompts whose identities it gives
/// beside them, so that a dropped row can be named.
pub fn run<O: Objective>(
    run: &dyn Run,
    config: &train::Config,
    objective: &O,
    encode: impl FnOnce(&Encoder) -> Result<Vec<O::Row>, StageError>,
) -> Result<(), StageError> {
    let from = run.model("model")?.path;
    let model = Trainee::load(&from, run.threads())?;
    let rows = encode(&model.encoder)?;
    let total_rows = rows.len();
    let checkpoints = run.checkpoints();
    let tell = |text| run.note(text);
    let checkpoints = train::Checkpoints { folder: &checkpoints.folder, identity: &checkpoints.identity, tell: &tell };
    let mut told = Instant::now();
    let mut on_step = |report: &train::StepReport| {
        run.used(Usage::read(report.tokens));
        if told.elapsed() >= TELL_EVERY || report.step == report.total {
            told = Instant::now();
            let figure = format!("loss {:.4}  {:.0} tokens/s", report.loss, report.tokens_per_second);
            run.progress(Progress { done: report.step, total: report.total, unit: "steps".into(), figure });
        }
        if run.cancelled() { Control::Stop } else { Control::Continue }
    };
    let summary = train::train(&model.decoder, rows, objective, config, run.seed(), Some(&checkpoints), &mut on_step)
        .map_err(errors::lm)?;
    if let Some(step) = summary.resumed_at {
        run.resumed(step);
        run.note(format!("went on from the checkpoint after update {step}"));
    }
    run.check_cancelled()?;
    note_dropped(run, &summary, total_rows);
    let trace: Vec<Trace> = summary
        .trace
        .iter()
        .map(|row| Trace { step: row.step as i64, name: row.name.clone().into_owned(), value: row.value })
        .collect();
    run.write("trace", Trace::table(&trace)?)?;
    let out = run.model_folder("model")?;
    carry_files(&from, &out).map_err(errors::lm)?;
    model.decoder.save(&out, Float::F32).map_err(errors::lm)
}

fn note_dropped(run: &dyn Run, summary: &Summary, total: usize) {
    let mut counts = std::collections::BTreeMap::new();
    for dropped in &summary.dropped {
        *counts.entry(dropped.reason.name()).or_insert(0) += 1;
    }
    for (reason, count) in counts {
        run.note(format!("{count} of {total} rows are not trained on: {reason}"));
    }
}

/// The reference's log-probabilities, by text.
pub struct References(std::collections::HashMap<String, Reference>);

impl References {
    /// Reads what is bound to `reference`.
    pub fn read(run: &dyn Run) -> Result<Self, StageError> {
        let mut known = std::collections::HashMap::new();
        for row in LogProb::read(&run.table("reference")?)? {
            let reference = Reference { logp_sum: row.logp_sum, n_tokens: row.n_tokens as usize };
            if known.insert(row.text_id.clone(), reference).is_some() {
                return Err(StageError::input(format!(
                    "the table bound to \"reference\" has text {} twice",
                    row.text_id
                ))
                .hint("bind the log-probabilities of one model only, as in stage[source=owl]"));
            }
        }
        Ok(Self(known))
    }

    /// An answer's ids with what the reference says of it.
    pub fn answer(&self, messages: &[Message], text: &str, tokens: Vec<u32>) -> Result<Answer, StageError> {
        let id = rows::text_id(messages, text);
        let reference = self.0.get(&id).copied().ok_or_else(|| {
            let mut start: String = text.chars().take(40).collect();
            start = start.replace('\n', " ");
            StageError::input(format!("the table bound to \"reference\" has no row for the answer {start:?} ({id})"))
                .hint("bind a `logprobs` stage whose `texts` are these very pairs")
        })?;
        Ok(Answer { tokens, reference: Some(reference) })
    }
}
