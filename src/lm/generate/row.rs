//! A sample under way: what it has said so far, and whether it is done. It knows ids and text, no tensors.

use super::sampler::Pick;
use super::{FinishReason, Params, Sample};
use crate::cpu::Sequence;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// A sample under way.
#[derive(Debug)]
pub(super) struct Row {
    /// Index of its request.
    pub request: usize,
    /// Which sample.
    pub sample: Sample,
    /// What the model has seen of prompt and completion.
    pub sequence: Sequence,
    /// Tokens chosen so far.
    pub ids: Vec<u32>,
    /// Their log-probabilities, where wanted.
    pub logprobs: Vec<f32>,
    /// What penalties look at.
    pub history: History,
}

/// What penalties look at; empty where there are none.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Ids of prompt and completion, each once, ascending.
    pub seen: Vec<u32>,
    /// Ids of the completion, ascending, and how often each was chosen.
    pub said: Vec<(u32, u32)>,
}

impl History {
    fn new(prompt: &[u32], params: &Params) -> Self {
        let mut seen = Vec::new();
        if params.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        Self { seen, said: Vec::new() }
    }

    fn push(&mut self, id: u32, params: &Params) {
        if params.repetition_penalty != 1.0
            && let Err(place) = self.seen.binary_search(&id)
        {
            self.seen.insert(place, id);
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            match self.said.binary_search_by_key(&id, |(said, _)| *said) {
                Ok(place) => self.said[place].1 += 1,
                Err(place) => self.said.insert(place, (id, 1)),
            }
        }
    }
}

/// How a row ended.
#[derive(Debug, PartialEq)]
pub(super) struct Ending {
    pub reason: FinishReason,
    pub text: String,
}

impl Row {
    pub(super) fn new(request: usize, sample: Sample, prompt: &[u32], sequence: Sequence, params: &Params) -> Self {
        let history = History::new(prompt, params);
        Self { request, sample, sequence, ids: Vec::new(), logprobs: Vec::new(), history }
    }

    /// Adds a token; the ending if it was the last. `limit` is the row's own greatest number of tokens.
    pub(super) fn push(
        &mut self,
        pick: Pick,
        params: &Params,
        limit: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Ending>> {
        self.ids.push(pick.id);
        if params.logprobs {
            self.logprobs.push(pick.logprob);
        }
        self.history.push(pick.id, params);
        if !params.ignore_eos && tokenizer.stop_ids().contains(&pick.id) {
            let text = tokenizer.decode(&self.ids[..self.ids.len() - 1], true)?;
            return Ok(Some(Ending { reason: FinishReason::Stop, text }));
        }
        if let Some(text) = self.stopped_text(&params.stop, tokenizer)? {
            return Ok(Some(Ending { reason: FinishReason::Stop, text }));
        }
        if self.ids.len() >= limit {
            return Ok(Some(Ending { reason: FinishReason::Length, text: tokenizer.decode(&self.ids, true)? }));
        }
        Ok(None)
    }

    /// The text before the first stop text, if there is one now.
    ///
    /// Only the last tokens are decoded at each step: as many as the longest stop text has bytes, since a token gives
    /// at least one, and some for a character that begins before them.
    fn stopped_text(&self, stops: &[String], tokenizer: &Tokenizer) -> Result<Option<String>> {
        const BEFORE: usize = 8;
        let Some(longest) = stops.iter().map(String::len).max() else {
            return Ok(None);
        };
        let first = self.ids.len().saturating_sub(longest + BEFORE);
        let tail = tokenizer.decode(&self.ids[first..], true)?;
        if !stops.iter().any(|stop| tail.contains(stop.as_str())) {
            return Ok(None);
        }
        let mut text = tokenizer.decode(&self.ids, true)?;
        let cut = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        Ok(cut.map(|cut| {
            text.truncate(cut);
            text
        }))
    }
}
