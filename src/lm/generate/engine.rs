//! The loop of generation: prompts are computed in chunks beside the running samples, every running sample gets one
//! token a step, finished ones make room at once.

use std::collections::{HashMap, VecDeque};

use rayon::prelude::*;

use super::room::{self, Need, Room};
use super::row::{Ending, Row};
use super::sampler::{Pick, Scratch, pick, uniform};
use super::{Completion, Control, Params, Request, Sample};
use crate::cpu::{Model, PAGE, Piece, Sequence};
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// How much may be in flight. None of it changes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Samples at once, at least 1.
    pub rows: usize,
    /// Tokens of prompts that are computed in one step beside the running samples, at least 1: a long prompt does not
    /// stall them.
    pub chunk: usize,
    /// Bytes that keys and values may take. Samples that would need more wait; one that needs more alone is refused.
    pub cache_bytes: u64,
}

impl Default for Limits {
    /// 64 samples and 256 tokens of prompts at once, in at most 4 GiB.
    fn default() -> Self {
        Self { rows: 64, chunk: 256, cache_bytes: 4 << 30 }
    }
}

impl Limits {
    /// Says why a prompt of so many tokens cannot be answered by a model within these limits, if it cannot.
    pub fn check(&self, model: &Model, prompt: &[u32], params: &Params) -> Result<()> {
        let request = Request { prompt: prompt.to_vec(), samples: Vec::new() };
        room::check(0, &request, model.arch.max_positions as usize, model.layout(), params, self)
    }

    /// Tokens that a prompt and its answer may have together so that there is room for it, whatever the prompt's length.
    pub fn context(&self, model: &Model) -> usize {
        let pages = (self.cache_bytes / model.layout().page_bytes().max(1)) as usize;
        // The page in which the prompt ends counts twice.
        (pages.saturating_sub(1) * PAGE).min(model.arch.max_positions as usize)
    }
}

/// What a run of [`generate`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompts, each computed once however many samples it has.
    pub prompt_tokens: u64,
    /// Tokens chosen.
    pub completion_tokens: u64,
    /// Passes through the model.
    pub steps: u64,
}

/// Samples every request and hands each completion to `on_done` as soon as it is done, in no fixed order.
///
/// **What a sample depends on.** Its prompt's ids, its seed and `params`: nothing else, bit for bit, log-probabilities
/// included: not the other requests or their order, not `limits`, not the number of threads. The token at position p (0 is
/// the first) is drawn with the number that (seed, p) gives. In float32 this holds across processors as well; in bfloat16
/// among those with the same instructions for it (see [`fuseline_torch::product`]).
///
/// **Length.** A row ends with `length` at `max_tokens` tokens or at the model's last position.
///
/// A prompt that leaves no position for an answer, is empty, holds an id beyond the vocabulary, or needs more memory than
/// there may be, is refused before anything runs. A model whose logits are NaN or infinite gives an error.
pub fn generate(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    requests: &[Request],
    params: &Params,
    limits: &Limits,
    on_done: &mut dyn FnMut(Completion) -> Control,
) -> Result<Usage> {
    let mut model = Model::of(decoder, fuseline_torch::threads())?;
    generate_with(&mut model, tokenizer, requests, params, limits, on_done)
}

/// [`generate`] with a model that is ready for it.
pub fn generate_with(
    model: &mut Model,
    tokenizer: &Tokenizer,
    requests: &[Request],
    params: &Params,
    limits: &Limits,
    on_done: &mut dyn FnMut(Completion) -> Control,
) -> Result<Usage> {
    if let Some(problem) = params.check().into_iter().next() {
        return Err(Error::Generation { problem });
    }
    let max_positions = model.arch.max_positions as usize;
    let known = |id: &&u32| i64::from(**id) >= model.arch.vocab_size;
    for (index, request) in requests.iter().enumerate().filter(|(_, request)| !request.samples.is_empty()) {
        room::check(index, request, max_positions, model.layout(), params, limits)?;
        if let Some(id) = request.prompt.iter().find(known) {
            return Err(Error::TokenOutOfRange { id: i64::from(*id), vocab_size: model.arch.vocab_size });
        }
    }
    let mut given = requests.iter().map(|request| Asked { request: request.clone(), params: params.clone() });
    generate_queue(model, tokenizer, &mut |_| given.next(), limits, on_done)
}

/// A request with parameters of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// How tokens are chosen.
    pub params: Params,
}

/// Samples requests that come while others run, as [`generate`] does, each as it would be alone. It ends when the queue
/// does.
///
/// `next` gives the next request; it is asked whenever there is room for one. It is told whether nothing runs: then it
/// may wait for one, and none ends the work. While others run it must not wait, and none means none yet. Requests are
/// numbered in the order in which they come.
///
/// One that [`generate`] refuses ends the work with its error: who takes requests from elsewhere checks them before, by
/// [`Limits::context`] for instance.
pub fn generate_queue(
    model: &mut Model,
    tokenizer: &Tokenizer,
    next: &mut dyn FnMut(bool) -> Option<Asked>,
    limits: &Limits,
    on_done: &mut dyn FnMut(Completion) -> Control,
) -> Result<Usage> {
    let mut run = Run {
        room: Room::new(model.layout(), limits),
        model,
        tokenizer,
        next,
        ahead: None,
        came: 0,
        requests: HashMap::new(),
        limits: Limits { rows: limits.rows.max(1), chunk: limits.chunk.max(1), ..*limits },
        prompts: VecDeque::new(),
        rows: Vec::new(),
        usage: Usage::default(),
        on_done,
    };
    run.all()?;
    Ok(run.usage)
}

struct Run<'a> {
    model: &'a mut Model,
    tokenizer: &'a Tokenizer,
    next: &'a mut dyn FnMut(bool) -> Option<Asked>,
    /// A request that came before there was room for it.
    ahead: Option<Asked>,
    /// How many requests were taken.
    came: usize,
    /// Those that were taken and have samples that are not done.
    requests: HashMap<usize, Asked>,
    limits: Limits,
    room: Room,
    /// The same in order.
    prompts: VecDeque<Prompt>,
    rows: Vec<Row>,
    usage: Usage,
    on_done: &'a mut dyn FnMut(Completion) -> Control,
}

/// A request that was taken.
struct Prompt {
    request: usize,
    need: Need,
    sequence: Sequence,
    /// After its last token, once it is computed.
    logits: Vec<f32>,
    waiting: VecDeque<Sample>,
    running: usize,
    /// Whether room for a sample was taken with it and is not used yet.
    credit: bool,
}

/// What became of a sample by a token.
enum Next {
    /// It goes on.
    Runs(Row),
    /// It is done.
    Done,
    /// It is done, and the receiver wants no more.
    Enough,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        while self.start_rows()? == Control::Continue {
            self.take_prompts()?;
            if self.prompts.is_empty() || self.step()? == Control::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Starts samples of computed prompts, in order, as far as there is room.
    fn start_rows(&mut self) -> Result<Control> {
        let mut place = 0;
        while let Some(prompt) = self.prompts.get_mut(place) {
            if self.rows.len() == self.limits.rows {
                break;
            }
            if prompt.logits.is_empty() || prompt.waiting.is_empty() {
                place += 1;
                continue;
            }
            if !std::mem::take(&mut prompt.credit) && !self.room.take(prompt.need.sample) {
                break;
            }
            let sample = prompt.waiting.pop_front().expect("one is waiting");
            prompt.running += 1;
            let Asked { request, params } = &self.requests[&prompt.request];
            let row = Row::new(prompt.request, sample, &request.prompt, prompt.sequence.clone(), params);
            let u = uniform(sample.seed, 0);
            let first = pick(&prompt.logits, params, &row.history, u, &mut Scratch::default());
            match self.record(row, first)? {
                Next::Runs(row) => self.rows.push(row),
                // The prompt may have gone with its last sample: the next one stands here then.
                Next::Done => {}
                Next::Enough => return Ok(Control::Stop),
            }
        }
        Ok(Control::Continue)
    }

    /// Takes requests, in order, as long as there is room for them and for their samples.
    fn take_prompts(&mut self) -> Result<()> {
        let mut wanted = self.rows.len() + self.prompts.iter().map(|prompt| prompt.waiting.len()).sum::<usize>();
        while wanted < self.limits.rows {
            let idle = self.prompts.is_empty();
            let Some(asked) = self.ahead.take().or_else(|| (self.next)(idle)) else { return Ok(()) };
            let Asked { request, params } = &asked;
            if !request.samples.is_empty() {
                let max_positions = self.model.arch.max_positions as usize;
                room::check(self.came, request, max_positions, self.model.layout(), params, &self.limits)?;
                let need = Need::of(request.prompt.len(), self.answer_limit(&asked));
                if !self.room.take(need.prompt + need.sample) {
                    self.ahead = Some(asked);
                    return Ok(());
                }
                wanted += request.samples.len();
                self.prompts.push_back(Prompt {
                    request: self.came,
                    need,
                    sequence: self.model.sequence(),
                    logits: Vec::new(),
                    waiting: request.samples.iter().copied().collect(),
                    running: 0,
                    credit: true,
                });
                self.requests.insert(self.came, asked);
            }
            self.came += 1;
        }
        Ok(())
    }

    /// One pass: a token for every running sample, and a chunk of prompts.
    fn step(&mut self) -> Result<Control> {
        let (texts, chunks) = (self.texts(), self.chunks());
        let mut pieces = Vec::with_capacity(self.rows.len() + chunks.len());
        for (row, text) in self.rows.iter_mut().zip(&texts) {
            let length = self.requests[&row.request].request.prompt.len() + row.ids.len();
            let last = row.ids.len() - 1;
            pieces.push(match text {
                None => Piece { sequence: &mut row.sequence, ids: &row.ids[last..], length, wanted: 1 },
                Some(text) => {
                    row.sequence.clear();
                    Piece { sequence: &mut row.sequence, ids: text, length, wanted: 1 }
                }
            });
        }
        let uncomputed = self.prompts.iter_mut().filter(|prompt| prompt.logits.is_empty());
        for (prompt, &n) in uncomputed.zip(&chunks) {
            let ids = &self.requests[&prompt.request].request.prompt;
            let first = prompt.sequence.len();
            let wanted = usize::from(first + n == ids.len());
            pieces.push(Piece {
                sequence: &mut prompt.sequence,
                ids: &ids[first..first + n],
                length: ids.len(),
                wanted,
            });
        }
        let logits = self.model.forward(&mut pieces)?;
        drop(pieces);
        self.usage.steps += 1;
        self.usage.prompt_tokens += chunks.iter().sum::<usize>() as u64;
        let vocabulary = self.model.arch.vocab_size as usize;
        let (of_rows, of_prompts) = logits.split_at(self.rows.len() * vocabulary);
        let mut of_prompts = of_prompts.chunks_exact(vocabulary);
        for prompt in self.prompts.iter_mut().filter(|prompt| prompt.logits.is_empty()) {
            if prompt.sequence.len() == self.requests[&prompt.request].request.prompt.len() {
                prompt.logits = of_prompts.next().expect("logits of every computed prompt").to_vec();
            }
        }
        let picks = self.picks(of_rows, vocabulary);
        for (row, pick) in std::mem::take(&mut self.rows).into_iter().zip(picks) {
            match self.record(row, pick)? {
                Next::Runs(row) => self.rows.push(row),
                Next::Done => {}
                Next::Enough => return Ok(Control::Stop),
            }
        }
        Ok(Control::Continue)
    }

    /// The whole texts of rows whose angles change with this token, so that all of it is computed anew.
    fn texts(&self) -> Vec<Option<Vec<u32>>> {
        let text = |row: &Row| {
            let prompt = &self.requests[&row.request].request.prompt;
            let changes = self.model.changes_at(prompt.len() + row.ids.len());
            changes.then(|| [prompt.as_slice(), &row.ids].concat())
        };
        self.rows.iter().map(text).collect()
    }

    /// How many tokens of each uncomputed prompt come next, in order.
    fn chunks(&self) -> Vec<usize> {
        let mut left = self.limits.chunk;
        let uncomputed = self.prompts.iter().filter(|prompt| prompt.logits.is_empty());
        let next = |prompt: &Prompt| {
            let n = left.min(self.requests[&prompt.request].request.prompt.len() - prompt.sequence.len());
            left -= n;
            n
        };
        uncomputed.map(next).take_while(|n| *n > 0).collect()
    }

    /// The next token of every running sample.
    fn picks(&self, logits: &[f32], vocabulary: usize) -> Vec<Option<Pick>> {
        let (rows, requests) = (&self.rows, &self.requests);
        self.model.with_threads(|| {
            let choose = |scratch: &mut Scratch, (row, logits): (&Row, &[f32])| {
                let u = uniform(row.sample.seed, row.ids.len() as u64);
                pick(logits, &requests[&row.request].params, &row.history, u, scratch)
            };
            rows.par_iter().zip(logits.par_chunks_exact(vocabulary)).map_init(Scratch::default, choose).collect()
        })
    }

    /// Takes a token down, and hands the sample out if that was its last.
    fn record(&mut self, mut row: Row, pick: Option<Pick>) -> Result<Next> {
        let Some(pick) = pick else {
            return Err(Error::NotFinite {
                what: format!("the logits of prompt {} after {} tokens of its answer", row.request, row.ids.len()),
            });
        };
        self.usage.completion_tokens += 1;
        let asked = &self.requests[&row.request];
        match row.push(pick, &asked.params, self.answer_limit(asked), self.tokenizer)? {
            None => Ok(Next::Runs(row)),
            Some(ending) => Ok(self.finish(row, ending)),
        }
    }

    fn finish(&mut self, row: Row, ending: Ending) -> Next {
        let place = self.prompts.iter().position(|prompt| prompt.request == row.request).expect("a row has a prompt");
        let prompt = &mut self.prompts[place];
        prompt.running -= 1;
        self.room.give_back(prompt.need.sample);
        if prompt.running == 0 && prompt.waiting.is_empty() {
            self.room.give_back(prompt.need.prompt);
            self.prompts.remove(place);
            self.requests.remove(&row.request);
        }
        let control = (self.on_done)(Completion {
            request: row.request,
            sample: row.sample.index,
            seed: row.sample.seed,
            ids: row.ids,
            text: ending.text,
            finish_reason: ending.reason,
            logprobs: row.logprobs,
        });
        match control {
            Control::Continue => Next::Done,
            Control::Stop => Next::Enough,
        }
    }

    /// The most tokens that an answer to this request may have.
    fn answer_limit(&self, asked: &Asked) -> usize {
        asked.params.max_tokens.min(self.model.arch.max_positions as usize - asked.request.prompt.len())
    }
}
