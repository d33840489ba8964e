//! The model at work: one thread that holds it and answers what waits in a
//! bounded queue, all of it together.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fuseline_lm::cpu::{Model, Number};
use fuseline_lm::generate::{Asked, Completion, Control, Limits, Params, Request, Sample, generate_queue};
use fuseline_lm::template::ChatTemplate;
use fuseline_lm::tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::wire::Prompt;

/// How often an idle engine looks whether to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much the engine takes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Samples that may wait.
    pub queue: usize,
    /// Tokens of a prompt and its answer together at most; the model's own limit if that is less.
    pub context: usize,
    /// Threads.
    pub threads: usize,
}

/// Samples of one prompt, and where their completions go.
struct Job {
    asked: Asked,
    answer: Sender<Completion>,
}

/// Why samples are not taken.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// They cannot be generated.
    Wrong(String),
    /// Too many wait.
    Full,
    /// The server ends, or the model failed.
    Ending,
}

/// A model that answers.
pub struct Engine {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    /// What prompts are checked against: the model without its weights.
    limits: Bounds,
    jobs: Mutex<Option<Sender<Job>>>,
    /// Samples that wait or run.
    pending: Arc<AtomicUsize>,
    queue: usize,
    ending: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

/// What a prompt must fit.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    context: usize,
    vocabulary: usize,
}

impl Engine {
    /// Loads a model folder in float32 on the CPU, as `sample` does, and starts its thread.
    pub fn start(folder: &Path, room: Room) -> Result<Self> {
        let tokenizer = Arc::new(Tokenizer::load(folder)?);
        let template = ChatTemplate::load(folder, &tokenizer)?;
        let mut model = Model::load(folder, Number::F32, room.threads)?;
        tokenizer.check_model(model.arch.vocab_size as usize)?;
        let context = room.context.min(Limits::default().context(&model));
        let limits = Bounds { context, vocabulary: model.arch.vocab_size as usize };
        let (send, jobs) = channel();
        let (pending, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let worker = Worker { tokenizer: tokenizer.clone(), pending: pending.clone(), ending: ending.clone() };
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker.run(&mut model, &jobs))
            .map_err(|source| Error::System { what: "start the engine's thread", source })?;
        Ok(Self {
            tokenizer,
            template,
            limits,
            jobs: Mutex::new(Some(send)),
            pending,
            queue: room.queue,
            ending,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The ids of a prompt.
    pub fn encode(&self, prompt: &Prompt) -> std::result::Result<Vec<u32>, String> {
        let ids = match prompt {
            Prompt::Ids(ids) => ids.clone(),
            Prompt::Text(text) => self.tokenizer.encode(text, true).map_err(|error| error.to_string())?,
            Prompt::Chat(turns) => {
                let template = self.template.as_ref();
                let template = template.ok_or("the model has no chat template; ask /v1/completions")?;
                template.encode_prompt(&self.tokenizer, turns).map_err(|error| error.to_string())?
            }
        };
        let Bounds { context, vocabulary } = self.limits;
        if ids.is_empty() {
            return Err("the prompt has no tokens".to_owned());
        }
        if ids.len() >= context {
            return Err(format!("the prompt has {} tokens, and {context} are taken with its answer", ids.len()));
        }
        match ids.iter().find(|id| **id as usize >= vocabulary) {
            Some(id) => Err(format!("token {id} is beyond the vocabulary of {vocabulary}")),
            None => Ok(ids),
        }
    }

    /// Whether there is a template for conversations.
    pub fn takes_chats(&self) -> bool {
        self.template.is_some()
    }

    /// The text of each token of an answer.
    pub fn pieces(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|id| self.tokenizer.decode(&[*id], false).unwrap_or_default()).collect()
    }

    /// Makes room for so many samples, or says why there is none. Each of them must then be submitted.
    pub fn admit(&self, n: usize) -> std::result::Result<(), Refusal> {
        let most = self.queue + Limits::default().rows;
        if n > most {
            return Err(Refusal::Wrong(format!("{n} answers are asked for, and {most} are taken at once (--queue)")));
        }
        if self.ending.load(Ordering::SeqCst) {
            return Err(Refusal::Ending);
        }
        let room = |pending: usize| (pending + n <= most).then_some(pending + n);
        match self.pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::Full),
        }
    }

    /// Queues samples of one prompt, for which there is room. Their completions
    /// come as they are done; the receiver's early end means that the engine failed.
    /// The prompt is one that [`Engine::encode`] gave.
    pub fn submit(&self, prompt: Vec<u32>, samples: Vec<Sample>, mut params: Params) -> Receiver<Completion> {
        params.max_tokens = params.max_tokens.min(self.limits.context - prompt.len());
        let (answer, completions) = channel();
        let job = Job { asked: Asked { request: Request { prompt, samples }, params }, answer };
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            // An engine that ended drops it, and the receiver is told.
            let _ = jobs.send(job);
        }
        completions
    }

    /// Samples that wait or run.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Whether it can still answer.
    pub fn is_alive(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        !self.ending.load(Ordering::SeqCst) && thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes no more, finishes what was taken, and says how it went.
    pub fn end(&self) -> Result<()> {
        self.ending.store(true, Ordering::SeqCst);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(Error::Setting { problem: "the engine's thread panicked".to_owned() }),
        }
    }
}

struct Worker {
    tokenizer: Arc<Tokenizer>,
    pending: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, model: &mut Model, jobs: &Receiver<Job>) -> Result<()> {
        // By the number of the request: who waits for it, and for how many samples.
        let answers: Mutex<std::collections::HashMap<usize, (Sender<Completion>, usize)>> = Mutex::default();
        let mut came = 0;
        let mut next = |idle: bool| {
            let job = match idle {
                true => self.wait(jobs)?,
                false => match jobs.try_recv() {
                    Ok(job) => job,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
                },
            };
            let waiting = (job.answer, job.asked.request.samples.len());
            answers.lock().unwrap_or_else(PoisonError::into_inner).insert(came, waiting);
            came += 1;
            Some(job.asked)
        };
        let mut on_done = |completion: Completion| {
            self.pending.fetch_sub(1, Ordering::SeqCst);
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((answer, left)) = answers.get_mut(&completion.request) {
                *left -= 1;
                let (request, last) = (completion.request, *left == 0);
                // Who asked may have gone; the others have not.
                let _ = answer.send(completion);
                if last {
                    answers.remove(&request);
                }
            }
            Control::Continue
        };
        let done = generate_queue(model, &self.tokenizer, &mut next, &Limits::default(), &mut on_done);
        self.ending.store(true, Ordering::SeqCst);
        done.map(drop).map_err(Error::from)
    }

    /// The next job; nothing when there will be none.
    fn wait(&self, jobs: &Receiver<Job>) -> Option<Job> {
        loop {
            match jobs.recv_timeout(LOOK_EVERY) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.ending.load(Ordering::SeqCst) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
