//! The book of slots: which sample runs in which slot of the cache, what it has said so far, and whether it is done.
//! It knows ids and text, no tensors.

use std::collections::VecDeque;

use super::sampler::Pick;
use super::{FinishReason, Params, Request, Sample};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// A sample under way.
#[derive(Debug)]
pub(super) struct Row {
    /// Index of its request.
    pub request: usize,
    /// Which sample.
    pub sample: Sample,
    /// Tokens chosen so far.
    pub ids: Vec<u32>,
    /// Their log-probabilities, where wanted.
    pub logprobs: Vec<f32>,
    /// Ids of prompt and completion, each once, where a repetition penalty needs them.
    pub seen: Vec<u32>,
}

/// How a row ended.
#[derive(Debug, PartialEq)]
pub(super) struct Ending {
    pub reason: FinishReason,
    pub text: String,
}

impl Row {
    pub(super) fn new(request: usize, sample: Sample, prompt: &[u32], params: &Params) -> Self {
        let mut seen = Vec::new();
        if params.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        Self { request, sample, ids: Vec::new(), logprobs: Vec::new(), seen }
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
        if params.repetition_penalty != 1.0
            && let Err(place) = self.seen.binary_search(&pick.id)
        {
            self.seen.insert(place, pick.id);
        }
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

/// Samples waiting, in the order of requests, and the slots they run in.
#[derive(Debug)]
pub(super) struct Batch {
    waiting: VecDeque<(usize, Sample)>,
    /// By slot.
    pub rows: Vec<Option<Row>>,
    /// By slot: the request whose prompt's keys and values lie at its front, whether or not a row still runs there.
    pub holds: Vec<Option<usize>>,
}

impl Batch {
    pub(super) fn new(requests: &[Request], slots: usize) -> Self {
        let waiting = requests
            .iter()
            .enumerate()
            .flat_map(|(index, request)| request.samples.iter().map(move |sample| (index, *sample)))
            .collect();
        Self { waiting, rows: (0..slots).map(|_| None).collect(), holds: vec![None; slots] }
    }

    /// The next sample with the slot that it shall run in: one that already holds its prompt if such a slot is free,
    /// else the lowest.
    pub(super) fn admit(&mut self) -> Option<(usize, usize, Sample)> {
        let (request, _) = *self.waiting.front()?;
        let free = |slot: &usize| self.rows[*slot].is_none();
        let slot = (0..self.rows.len())
            .filter(free)
            .find(|slot| self.holds[*slot] == Some(request))
            .or_else(|| (0..self.rows.len()).find(free))?;
        let (request, sample) = self.waiting.pop_front()?;
        Some((slot, request, sample))
    }

    /// A slot that holds a request's prompt.
    pub(super) fn holder(&self, request: usize) -> Option<usize> {
        self.holds.iter().position(|held| *held == Some(request))
    }

    /// Slots with a row, ascending.
    pub(super) fn active(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().enumerate().filter_map(|(slot, row)| row.as_ref().map(|_| slot))
    }
}
