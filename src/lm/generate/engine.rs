//! The loop of generation: free slots are filled from the queue, every running row gets one token a step, finished rows
//! give their slot back at once.

use std::collections::HashMap;

use fuseline_torch::tch::{Device, Kind, Tensor, no_grad};

use super::batch::{Batch, Ending, Row};
use super::sampler::{Pick, Scratch, pick, uniform};
use super::{Completion, Control, Params, Request};
use crate::cache::{Cache, SLOTS};
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// How much may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows at once. Every step computes this many, so that a row's rounding does not depend on the others: leave it at
    /// [`SLOTS`] where samples should be the same tomorrow (see [`generate`]).
    pub slots: usize,
    /// Bytes that the cache of keys and values may take. Where `slots` rows take more, there are fewer; one row always
    /// is.
    pub cache_bytes: u64,
}

impl Default for Limits {
    /// [`SLOTS`] rows in at most 4 GiB.
    fn default() -> Self {
        Self { slots: SLOTS, cache_bytes: 4 << 30 }
    }
}

/// What a run of [`generate`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompts that were computed, each once unless its slots were needed in between.
    pub prompt_tokens: u64,
    /// Tokens chosen.
    pub completion_tokens: u64,
    /// Decoding steps.
    pub steps: u64,
}

/// Samples every request and hands each completion to `on_done` as soon as it is done, in no fixed order.
///
/// **What a sample depends on.** Its prompt's ids, its seed and `params`. The token at position p (0 is the first) is
/// drawn with the number that (seed, p) gives, on the CPU, from logits in f32. A prompt is computed alone, and a step
/// always computes the same number of rows, so on one CPU thread in f32 a sample is the same bit for bit whatever else
/// is asked for. With another number of rows (`limits`), on another device or in bf16, a matrix product may round
/// otherwise: then a draw differs only if it falls within that rounding of the border between two tokens (some 1e-6 of
/// the probability mass in f32), and a greedy choice only between logits that are equal to that rounding.
///
/// **Length.** A row ends with `length` at `max_tokens` tokens or at the model's last position.
///
/// A prompt that leaves no position for an answer, is empty, or holds an id beyond the vocabulary is refused before
/// anything runs. A model whose logits are NaN or infinite gives an error.
pub fn generate(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    requests: &[Request],
    params: &Params,
    limits: &Limits,
    on_done: &mut dyn FnMut(Completion) -> Control,
) -> Result<Usage> {
    if let Some(problem) = params.check().into_iter().next() {
        return Err(Error::Generation { problem });
    }
    check_prompts(decoder, requests)?;
    let samples = requests.iter().map(|request| request.samples.len()).sum::<usize>();
    if samples == 0 {
        return Ok(Usage::default());
    }
    no_grad(|| {
        let max_len = requests
            .iter()
            .map(|request| request.prompt.len() + row_limit(decoder, request, params))
            .max()
            .unwrap_or(1);
        let slots = slots(decoder, max_len, limits);
        let mut run = Run {
            decoder,
            tokenizer,
            requests,
            params,
            cache: decoder.cache(slots, max_len),
            batch: Batch::new(requests, slots),
            prompts: HashMap::new(),
            scratch: Scratch::default(),
            usage: Usage::default(),
            on_done,
        };
        run.all()?;
        Ok(run.usage)
    })
}

fn check_prompts(decoder: &Decoder, requests: &[Request]) -> Result<()> {
    let limit = decoder.arch.max_positions as usize;
    for (index, request) in requests.iter().enumerate() {
        if request.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if request.prompt.len() >= limit {
            return Err(Error::TooLong { what: format!("prompt {index}"), tokens: request.prompt.len(), limit });
        }
        if let Some(id) = request.prompt.iter().find(|id| i64::from(**id) >= decoder.arch.vocab_size) {
            return Err(Error::TokenOutOfRange { id: i64::from(*id), vocab_size: decoder.arch.vocab_size });
        }
    }
    Ok(())
}

/// The most tokens that a row of this request may have.
fn row_limit(decoder: &Decoder, request: &Request, params: &Params) -> usize {
    params.max_tokens.min(decoder.arch.max_positions as usize - request.prompt.len())
}

/// Rows for which the cache has memory.
fn slots(decoder: &Decoder, max_len: usize, limits: &Limits) -> usize {
    let arch = &decoder.arch;
    let element = decoder.kind().elt_size_in_bytes() as u64;
    let row = 2 * (arch.n_layers * arch.n_kv_heads * arch.head_dim) as u64 * element * max_len as u64;
    let room = (limits.cache_bytes / row.max(1)) as usize;
    room.min(limits.slots).max(1)
}

struct Run<'a> {
    decoder: &'a Decoder,
    tokenizer: &'a Tokenizer,
    requests: &'a [Request],
    params: &'a Params,
    cache: Cache,
    batch: Batch,
    /// Logits after a prompt, and how many of its samples still want them.
    prompts: HashMap<usize, (Vec<f32>, usize)>,
    scratch: Scratch,
    usage: Usage,
    on_done: &'a mut dyn FnMut(Completion) -> Control,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        let vocabulary = self.decoder.arch.vocab_size as usize;
        let mut logits = Vec::new();
        loop {
            while let Some((slot, request, sample)) = self.batch.admit() {
                let row = Row::new(request, sample, &self.requests[request].prompt, self.params);
                self.begin(slot, request)?;
                self.batch.rows[slot] = Some(row);
                let (first, left) = self.prompts.remove(&request).expect("begin has just put it there");
                let control = self.choose(slot, &first)?;
                if left > 1 {
                    self.prompts.insert(request, (first, left - 1));
                }
                if control == Control::Stop {
                    return Ok(());
                }
            }
            let tokens: Vec<(usize, i64)> = self.batch.active().map(|slot| (slot, self.last_token(slot))).collect();
            if tokens.is_empty() {
                return Ok(());
            }
            let step = self.decoder.step(&tokens, &mut self.cache)?;
            self.usage.steps += 1;
            to_vec(&step, &mut logits)?;
            for ((slot, _), row) in tokens.iter().zip(logits.chunks_exact(vocabulary)) {
                if self.choose(*slot, row)? == Control::Stop {
                    return Ok(());
                }
            }
        }
    }

    /// Makes a slot hold a request's prompt and nothing after it, by the cheapest way.
    fn begin(&mut self, slot: usize, request: usize) -> Result<()> {
        let prompt = &self.requests[request].prompt;
        let holder = self.batch.holder(request).filter(|_| self.prompts.contains_key(&request));
        match holder.filter(|&holder| self.decoder.keeps_prefix(prompt.len(), self.cache.len(holder))) {
            Some(holder) => {
                if holder != slot {
                    self.cache.copy(holder, &[slot]);
                }
                self.cache.truncate(slot, prompt.len());
            }
            None => {
                let ids: Vec<i64> = prompt.iter().map(|id| i64::from(*id)).collect();
                let mut logits = Vec::new();
                to_vec(&self.decoder.prefill(&ids, slot, &mut self.cache)?, &mut logits)?;
                self.usage.prompt_tokens += prompt.len() as u64;
                let left = match self.prompts.get(&request) {
                    Some((_, left)) => *left,
                    None => self.requests[request].samples.len(),
                };
                self.prompts.insert(request, (logits, left));
            }
        }
        self.batch.holds[slot] = Some(request);
        Ok(())
    }

    /// Chooses the next token of a slot's row, and hands the row out if that was its last.
    fn choose(&mut self, slot: usize, logits: &[f32]) -> Result<Control> {
        let row = self.batch.rows[slot].as_mut().expect("an active slot has a row");
        let request = &self.requests[row.request];
        let u = uniform(row.sample.seed, row.ids.len() as u64);
        let Some(chosen) = pick(logits, self.params, &row.seen, u, &mut self.scratch) else {
            return Err(Error::NotFinite {
                what: format!("the logits of prompt {} after {} tokens of its answer", row.request, row.ids.len()),
            });
        };
        self.usage.completion_tokens += 1;
        let limit = row_limit(self.decoder, request, self.params);
        match self.record(slot, chosen, limit)? {
            Some(ending) => Ok(self.finish(slot, ending)),
            None => Ok(Control::Continue),
        }
    }

    fn record(&mut self, slot: usize, chosen: Pick, limit: usize) -> Result<Option<Ending>> {
        let row = self.batch.rows[slot].as_mut().expect("an active slot has a row");
        row.push(chosen, self.params, limit, self.tokenizer)
    }

    fn finish(&mut self, slot: usize, ending: Ending) -> Control {
        let row = self.batch.rows[slot].take().expect("an active slot has a row");
        (self.on_done)(Completion {
            request: row.request,
            sample: row.sample.index,
            seed: row.sample.seed,
            ids: row.ids,
            text: ending.text,
            finish_reason: ending.reason,
            logprobs: row.logprobs,
        })
    }

    fn last_token(&self, slot: usize) -> i64 {
        let row = self.batch.rows[slot].as_ref().expect("an active slot has a row");
        i64::from(*row.ids.last().expect("a row begins with the token after its prompt"))
    }
}

/// A tensor's values in order, as f32.
fn to_vec(tensor: &Tensor, out: &mut Vec<f32>) -> Result<()> {
    let flat = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let n = flat.numel();
    out.resize(n, 0.0);
    flat.f_copy_data(out, n).map_err(|source| Error::Torch { doing: "failed to read logits".to_string(), source })
}
