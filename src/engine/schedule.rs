//! Runs a plan: decides about each instance as soon as its inputs are known,
//! starts what must run as resources allow, and notes what became of it.
//!
//! All decisions and all bookkeeping are on one thread; a running stage has a
//! thread of its own, which either does the work or waits for a child process.
//! Emits events and prints nothing.

mod ends;
mod queue;
mod stage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use fuseline_contract::{Cause, Digest, Event, Key, Outcome as Fate, Place, Runner, StageError, StageId, Traits};

use crate::attempt::{self, MemoUse, Outcome, Spent};
use crate::decide::{Decider, Overrides, Verdict};
use crate::definition::Definitions;
use crate::error::Error;
use crate::here;
use crate::key::StageKey;
use crate::ledger::{Caller, Last, Latest, Ledger};
use crate::plan::{Node, Plan};
use crate::publisher::Publisher;
use crate::resources::{Granted, Machine, Pool};
use crate::secrets::{self, Vault};
use crate::store::lease::{RUN, Watch};
use crate::store::{Record, Remote, Store, adopt};
use crate::why::Reason;

use queue::Queue;
use stage::Work;

/// How often a cancelled run is noticed; ends of stages are noticed at once.
const CANCEL_EVERY: Duration = Duration::from_millis(50);
/// How often a stage's result is made again because its bytes were lost.
const MOST_REMADE: u32 = 3;
/// Stage threads evaluate deep expressions.
const STACK_BYTES: usize = 16 << 20;

/// How to run a plan.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Indices of instances that are wanted, with all they need; all if none is given.
    pub targets: Option<BTreeSet<usize>>,
    /// Stages at once, at most.
    pub jobs: Option<usize>,
    /// What stages may use.
    pub machine: Machine,
    /// Go on with what does not depend on a failure.
    pub keep_going: bool,
    /// What is asked besides the plan.
    pub overrides: Overrides,
    /// The executable that runs attempts.
    pub worker: PathBuf,
    /// Who asked for the run.
    pub caller: Caller,
}

impl RunOptions {
    /// Everything in the plan, on all of this machine.
    pub fn new(worker: impl Into<PathBuf>) -> Self {
        Self {
            targets: None,
            jobs: None,
            machine: Machine::detect(),
            keep_going: false,
            overrides: Overrides::default(),
            worker: worker.into(),
            caller: Caller::default(),
        }
    }
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// The run's id.
    pub run: String,
    /// Instances that ran, in the order in which they ended.
    pub ran: Vec<StageId>,
    /// Instances whose result was there.
    pub hits: Vec<StageId>,
    /// Instances that failed, and why.
    pub failed: Vec<(StageId, StageError)>,
    /// Instances left out.
    pub skipped: Vec<StageId>,
    /// What each instance of the plan gave, where it is known.
    pub records: Vec<Option<Record>>,
    /// The gravest cause of a failure; none if all went well.
    pub cause: Option<Cause>,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl RunSummary {
    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        self.cause.map_or(0, Cause::exit_code)
    }
}

enum State {
    Waiting,
    Running,
    /// Its result is on its way to the disk, and these go on from it meanwhile.
    Staged(Box<Record>, BTreeSet<usize>),
    Done(Box<Record>),
    Failed,
}

/// What a stage's thread sends.
enum Message {
    /// Its work is done and only the disk is waited for; what it will have made,
    /// if that can be read already.
    Worked { index: usize, granted: Granted, made: Option<Box<Record>> },
    /// It ends.
    Ended(Box<Ended>),
}

struct Ended {
    index: usize,
    end: End,
    /// What it still holds.
    granted: Option<Granted>,
    started_ms: u64,
    seconds: f64,
}

enum End {
    /// It ran, or failed.
    Ran { outcome: Box<Outcome>, stdout: Option<Digest>, stderr: Option<Digest>, spent: Spent, device: Option<String> },
    /// Another process had made it meanwhile.
    Hit(Box<Record>),
    /// An input's bytes are gone or damaged; the instance that made it.
    InputLost(usize),
}

/// What made an input.
struct Needed {
    node: usize,
    output: usize,
    record: Record,
}

/// An instance that must run and waits for resources.
struct Due {
    stage: StageKey,
    reason: Reason,
}

/// What is the same for all stage threads.
struct Shared<'a> {
    plan: &'a Plan,
    store: &'a Store,
    runners: &'a [Runner],
    ledger: &'a Ledger,
    worker: &'a Path,
    publisher: Publisher,
    has_gpus: bool,
    /// What tells of GPUs, looked for when a stage first holds one.
    meter: OnceLock<Option<nvml_wrapper::Nvml>>,
    cancel: &'a AtomicBool,
    on_event: &'a (dyn Fn(Event) + Sync),
}

struct Driver<'a> {
    shared: &'a Shared<'a>,
    options: &'a RunOptions,
    decider: Decider<'a>,
    definitions: Definitions<'a>,
    pool: Pool,
    state: Vec<State>,
    wanted: BTreeSet<usize>,
    consumers: Vec<Vec<usize>>,
    /// How many of the instances that one needs are not done.
    missing: Vec<usize>,
    queue: Queue<Due>,
    /// Keys of instances that run or wait for resources, each with equal ones,
    /// which wait for the first.
    claimed: HashMap<Key, Vec<usize>>,
    /// First causes of what ran, for the reasons of what follows.
    origins: HashMap<usize, String>,
    keys: HashMap<usize, Key>,
    /// How often results were lost.
    remade: BTreeMap<usize, u32>,
    /// Keys with scratch folders when the run began.
    left_over: BTreeSet<Key>,
    running: usize,
    /// Ends that are not noted yet.
    late: Vec<Ended>,
    stop: bool,
    summary: RunSummary,
    broken: Option<Error>,
}

/// Runs a plan. An error is one of the run itself; what failed in a stage is in
/// the summary.
pub fn run(
    plan: &Plan,
    store: &Store,
    options: &RunOptions,
    runners: &[Runner],
    cancel: &AtomicBool,
    on_event: &(dyn Fn(Event) + Sync),
) -> Result<RunSummary, Error> {
    let clock = Instant::now();
    store.prepare()?;
    let wanted = needed(plan, options.targets.as_ref(), &options.overrides);
    let ledger = Ledger::begin(store, &plan.name, wanted.len(), without_secrets(plan, &options.caller))?;
    let name = format!("{RUN}{}", ledger.run());
    let _claim = store.try_claim(&name, ledger.run(), &mut Watch::default())?;
    on_event(Event::RunStarted { run: ledger.run().to_owned(), pipeline: plan.name.clone(), instances: wanted.len() });
    let has_gpus = !options.machine.gpus.is_empty();
    let publisher = Publisher::start(store)?;
    let worker = options.worker.as_path();
    let meter = OnceLock::new();
    let shared = Shared { plan, store, runners, ledger: &ledger, worker, publisher, has_gpus, meter, cancel, on_event };
    let mut driver = Driver::new(&shared, options, wanted);
    let (send, receive) = channel();
    std::thread::scope(|scope| driver.drive(scope, &send, &receive));
    let summary = driver.finish(clock)?;
    let counts = [summary.ran.len(), summary.hits.len(), summary.failed.len(), summary.skipped.len()];
    ledger.end(counts, summary.seconds, summary.exit_code())?;
    on_event(Event::RunEnded {
        run: summary.run.clone(),
        ran: counts[0],
        hits: counts[1],
        failed: counts[2],
        skipped: counts[3],
        seconds: summary.seconds,
    });
    Ok(summary)
}

/// Secrets are never asked for on a command line; what was typed there all the
/// same is not written down.
fn without_secrets(plan: &Plan, caller: &Caller) -> Caller {
    let taking = plan.nodes.iter().filter(|node| !node.entry.secret.is_empty());
    let names = taking.flat_map(|node| secrets::names(&node.resolved.params)).collect();
    Caller { command: Vault::of_process(&names).redact(&caller.command), ..caller.clone() }
}

/// The wanted instances and all that they need; all if none is named.
pub fn needed(plan: &Plan, targets: Option<&BTreeSet<usize>>, overrides: &Overrides) -> BTreeSet<usize> {
    let Some(targets) = targets else { return (0..plan.nodes.len()).collect() };
    let mut needed = targets.clone();
    for index in (0..plan.nodes.len()).rev() {
        if needed.contains(&index) && !overrides.given.contains_key(&index) {
            needed.extend(sources(&plan.nodes[index]));
        }
    }
    needed
}

fn sources(node: &Node) -> impl Iterator<Item = usize> + '_ {
    node.inputs.iter().flat_map(|bound| bound.from.iter().map(|source| source.node))
}

/// What an instance made that others can go on from.
fn made(state: &State) -> &Record {
    match state {
        State::Staged(record, _) | State::Done(record) => record,
        _ => unreachable!("a ready instance has all its inputs"),
    }
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Shared<'a>, options: &'a RunOptions, wanted: BTreeSet<usize>) -> Self {
        let plan = shared.plan;
        let mut consumers = vec![Vec::new(); plan.nodes.len()];
        let mut missing = vec![0; plan.nodes.len()];
        let given = &options.overrides.given;
        for &index in wanted.iter().filter(|index| !given.contains_key(index)) {
            for source in sources(&plan.nodes[index]).collect::<BTreeSet<_>>() {
                consumers[source].push(index);
                missing[index] += 1;
            }
        }
        let ready = wanted.iter().copied().filter(|index| missing[*index] == 0).collect();
        Self {
            shared,
            options,
            decider: Decider::new(plan, shared.store, &options.overrides),
            definitions: Definitions::new(plan),
            pool: Pool::new(options.machine.clone(), options.jobs),
            state: plan.nodes.iter().map(|_| State::Waiting).collect(),
            wanted,
            consumers,
            missing,
            queue: Queue::new(ready),
            claimed: HashMap::new(),
            origins: HashMap::new(),
            keys: HashMap::new(),
            remade: BTreeMap::new(),
            left_over: shared.store.worked_on(),
            running: 0,
            late: Vec::new(),
            stop: false,
            summary: RunSummary {
                run: shared.ledger.run().to_owned(),
                ran: Vec::new(),
                hits: Vec::new(),
                failed: Vec::new(),
                skipped: Vec::new(),
                records: Vec::new(),
                cause: None,
                seconds: 0.0,
            },
            broken: None,
        }
    }

    fn drive<'s>(&mut self, scope: &'s Scope<'s, 'a>, send: &Sender<Message>, receive: &Receiver<Message>)
    where
        'a: 's,
    {
        loop {
            self.stop |= self.shared.cancel.load(Ordering::Relaxed) || self.broken.is_some();
            if !self.stop {
                self.dispatch(scope, send);
            }
            self.warn();
            if self.running == 0 {
                return;
            }
            if let Err(error) = self.shared.ledger.flush() {
                self.broken.get_or_insert(error);
            }
            match receive.recv_timeout(CANCEL_EVERY) {
                Ok(Message::Worked { index, granted, made }) => {
                    self.pool.give(granted);
                    made.into_iter().for_each(|record| self.staged(index, record));
                }
                Ok(Message::Ended(ended)) => {
                    self.late.push(*ended);
                    self.note_ends();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the sender is held by the caller"),
            }
        }
    }

    /// Decides about everything that is ready and starts what may run now.
    fn dispatch<'s>(&mut self, scope: &'s Scope<'s, 'a>, send: &Sender<Message>)
    where
        'a: 's,
    {
        self.start_what_fits(scope, send);
        // A hit makes later ones ready, which are decided in the same pass.
        while !self.stop {
            let Some(index) = self.queue.take_ready() else { return };
            match self.decide(index) {
                Ok(None) => {}
                Ok(Some(due)) => self.await_start(index, due),
                Err(error) => self.fail(index, error.into(), None),
            }
            self.start_what_fits(scope, send);
        }
    }

    fn await_start(&mut self, index: usize, due: Due) {
        if let Some(equal) = self.claimed.get_mut(&due.stage.key) {
            equal.push(index);
            return;
        }
        let resources = &self.shared.plan.nodes[index].resources;
        match self.pool.refuse(resources) {
            Some(error) => self.fail(index, error, None),
            None => {
                self.claimed.insert(due.stage.key, Vec::new());
                self.queue.await_start(index, resources, due);
            }
        }
    }

    fn start_what_fits<'s>(&mut self, scope: &'s Scope<'s, 'a>, send: &Sender<Message>)
    where
        'a: 's,
    {
        while !self.stop {
            let Some((index, due, granted)) = self.queue.take_due(|resources| self.pool.take(resources)) else {
                return;
            };
            self.start(scope, send, index, due, granted);
        }
    }

    /// Nobody works on a key any more. Equal instances that waited are decided
    /// anew: most often they are hits now.
    fn unclaim(&mut self, key: &Key) {
        for index in self.claimed.remove(key).unwrap_or_default() {
            if matches!(self.state[index], State::Waiting) && self.is_fed(index) {
                self.queue.ready(index);
            }
        }
    }

    /// Decides about a ready instance; a hit is noted and gives nothing to do.
    fn decide(&mut self, index: usize) -> Result<Option<Due>, Error> {
        if let Some(record) = self.options.overrides.given.get(&index) {
            self.hit(index, Box::new(record.clone()));
            return Ok(None);
        }
        let state = &self.state;
        let content = |source: &crate::plan::Source| made(&state[source.node]).outputs[source.output].content;
        let (stage, verdict) = self.decider.decide(index, &content)?;
        self.keys.insert(index, stage.key);
        match verdict {
            Verdict::Hit(found) if found.here && !self.shared.store.rely_on(&found.record) => self.decide(index),
            Verdict::Hit(found) => {
                if !found.here {
                    // Made elsewhere: what later differs from it is explained here.
                    self.shared.store.remember_key(&stage)?;
                }
                if self.left_over.contains(&stage.key) {
                    stage::sweep(self.shared.store, &stage.key);
                }
                self.hit(index, Box::new(found.record));
                Ok(None)
            }
            Verdict::Accept(record, _) => {
                self.shared.store.remember_key(&stage)?;
                adopt::adopt(self.shared.store, &record)?;
                if let Some(word) = &record.accepted {
                    let text = format!("the result for key {} is accepted: {}", word.from.short(), word.why);
                    (self.shared.on_event)(Event::Note { stage: self.shared.plan.nodes[index].id.clone(), text });
                }
                self.hit(index, record);
                Ok(None)
            }
            Verdict::Run(mut reason) => {
                self.trace(index, &mut reason);
                self.shared.store.remember_key(&stage)?;
                Ok(Some(Due { stage, reason }))
            }
        }
    }

    /// Follows a changed input to what ran before it in this run.
    fn trace(&self, index: usize, reason: &mut Reason) {
        if !reason.code.is_input() {
            return;
        }
        let plan = self.shared.plan;
        let ports: Vec<&str> = reason.ports().collect();
        let bound = plan.nodes[index].inputs.iter().filter(|bound| ports.contains(&bound.port.as_str()));
        let origin = bound
            .flat_map(|bound| &bound.from)
            .find_map(|source| self.origins.get(&source.node).map(|text| (&plan.nodes[source.node].id, text)));
        if let Some((id, text)) = origin {
            reason.text = format!("{} ({id}: {text})", reason.text);
        }
    }

    fn start<'s>(&mut self, scope: &'s Scope<'s, 'a>, send: &Sender<Message>, index: usize, due: Due, granted: Granted)
    where
        'a: 's,
    {
        let node = &self.shared.plan.nodes[index];
        let (key, reason) = (due.stage.key, due.reason.text);
        self.origins.insert(index, reason.clone());
        let attempt = ulid::Ulid::new().to_string();
        let record = |source: usize| made(&self.state[source]).clone();
        let trees = match self.decider.trees(index) {
            Ok(trees) => trees,
            Err(error) => {
                self.pool.give(granted);
                self.unclaim(&key);
                self.fail(index, error.into(), None);
                return;
            }
        };
        let given = attempt::Given {
            store: self.shared.store.root(),
            run: self.shared.ledger.run(),
            attempt: &attempt,
            key,
            trees: &trees,
            records: &record,
            threads: granted.cpus,
            supersedes: self.decider.always_runs(index),
            memo: self.memo_use(index),
            attended: self.shared.plan.traits(node).place == Place::Worker,
        };
        let spec = attempt::spec(self.shared.plan, node, &given);
        let sources = node.inputs.iter().flat_map(|bound| &bound.from);
        let inputs: Vec<Needed> = sources
            .map(|source| Needed { node: source.node, output: source.output, record: record(source.node) })
            .collect();
        (self.shared.on_event)(Event::StageStarted {
            stage: node.id.clone(),
            operator: node.entry.name.to_owned(),
            reason,
        });
        self.state[index] = State::Running;
        self.running += 1;
        let (shared, send, retry) = (self.shared, send.clone(), node.retry);
        let Traits { place, promise, .. } = shared.plan.traits(node);
        let (held, gpus) = (granted.clone(), granted.gpus.clone());
        let work = move || {
            let (started_ms, clock) = (here::now_ms(), Instant::now());
            let granted = Mutex::new(Some(granted));
            // The receiver lives as long as the scope.
            let worked = |made: Option<Record>| {
                if let Some(granted) = granted.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    let _ = send.send(Message::Worked { index, granted, made: made.map(Box::new) });
                }
            };
            let end = stage::run(
                shared,
                spec,
                &Work { place, promise, retry, inputs: &inputs, gpus: &gpus, worked: &worked },
            );
            let granted = granted.into_inner().unwrap_or_else(PoisonError::into_inner);
            let seconds = clock.elapsed().as_secs_f64();
            let _ = send.send(Message::Ended(Box::new(Ended { index, end, granted, started_ms, seconds })));
        };
        let thread = std::thread::Builder::new().name(node.id.to_string()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn_scoped(scope, work) {
            self.running -= 1;
            self.unclaim(&key);
            self.pool.give(held);
            self.fail(index, StageError::environment(format!("failed to start a thread: {error}")), None);
        }
    }

    /// Rows of a stage that always runs are not determined by their keys; a
    /// rerun that was asked for is to compute, and its rows replace the old ones.
    fn memo_use(&self, index: usize) -> MemoUse {
        let node = &self.shared.plan.nodes[index];
        if !node.memo || node.uncacheable {
            MemoUse::Off
        } else if self.decider.always_runs(index) {
            MemoUse::Renew
        } else {
            MemoUse::On
        }
    }

    /// Passes on what the remote store has to say.
    fn warn(&self) {
        for text in self.shared.store.remote().into_iter().flat_map(Remote::troubles) {
            (self.shared.on_event)(Event::Warning { text });
        }
    }

    /// Notes what was left out, remembers keys, and sums up.
    fn finish(mut self, clock: Instant) -> Result<RunSummary, Error> {
        let cancelled = self.shared.cancel.load(Ordering::Relaxed);
        for index in self.wanted.clone() {
            if matches!(self.state[index], State::Waiting) {
                let entry = self.entry(index);
                self.summary.skipped.push(entry.id.clone());
                self.note(entry, Fate::Skipped, None);
            }
        }
        let ended = self.state.iter().enumerate().filter_map(|(index, state)| {
            let failed = match state {
                State::Done(_) => false,
                State::Failed => true,
                State::Waiting | State::Running | State::Staged(..) => return None,
            };
            Some((self.shared.plan.nodes[index].id.clone(), Last { key: *self.keys.get(&index)?, failed }))
        });
        Latest::update(self.shared.store, &self.shared.plan.name, ended)?;
        if let Some(error) = self.broken {
            return Err(error);
        }
        let mut summary = self.summary;
        let unfinished = !summary.failed.is_empty() || !summary.skipped.is_empty();
        summary.cause = match cancelled && unfinished {
            true => Some(Cause::Interrupted),
            false => summary.failed.iter().map(|(_, error)| error.cause).max_by_key(|cause| cause.exit_code()),
        };
        summary.records = self
            .state
            .into_iter()
            .map(|state| match state {
                State::Done(record) => Some(*record),
                _ => None,
            })
            .collect();
        summary.seconds = clock.elapsed().as_secs_f64();
        Ok(summary)
    }
}

#[cfg(test)]
mod tests;
