//! One stage on its own thread: the right to its key, then attempts until one
//! succeeds, one fails for good, or all are spent. Must not know what else runs.

use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuseline_contract::{Digest, Event, Key, Place, Promise, StageError};

use super::{CANCEL_EVERY, End, Needed, Shared};
use crate::attempt::{Outcome, Report, Spec, Spent};
use crate::device::{self, Meter};
use crate::error::{At, Error};
use crate::executor::local;
use crate::here;
use crate::ledger::AttemptEntry;
use crate::plan::Retry;
use crate::run::discard;
use crate::store::lease::{Asked, Claim, Watch};
use crate::store::publish::{self, Pending};
use crate::store::{Record, Store};
use crate::worker;

/// After which waiting for another run's stage is told.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// However often an attempt failed, it is tried again after this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What a stage's thread knows besides the specification.
pub(super) struct Work<'a> {
    pub(super) place: Place,
    pub(super) promise: Promise,
    pub(super) retry: Retry,
    /// Where each input came from.
    pub(super) inputs: &'a [Needed],
    pub(super) gpus: &'a [u32],
    /// To be called when it needs its processors no more; with what it will
    /// have made, if stages of this process can read it already.
    pub(super) worked: &'a dyn Fn(Option<Record>),
}

/// Makes what a key asks for, unless it is there.
pub(super) fn run(shared: &Shared<'_>, mut spec: Spec, work: &Work<'_>) -> End {
    loop {
        let claim = match claim(shared, &spec) {
            Ok(claim) => claim,
            Err(error) => return unstarted(error),
        };
        let end = under(shared, &mut spec, work);
        let lost = matches!(&end, End::Ran { outcome, .. } if outcome.result.is_err()) && !claim.is_ours();
        if !lost || shared.is_cancelled() {
            return end;
        }
        // Another host took us for dead and swept our folder; it makes the result, or has.
    }
}

/// The same under a claim.
fn under(shared: &Shared<'_>, spec: &mut Spec, work: &Work<'_>) -> End {
    let store = shared.store;
    if !spec.supersedes
        && let Ok(record) = store.lookup(&spec.key)
    {
        return End::Hit(Box::new(record));
    }
    for input in work.inputs {
        // What is only in a remote store comes now.
        let artifact = &input.record.outputs[input.output].artifact;
        match store.verify_artifact(artifact).and_then(|()| store.take_over(&input.record)) {
            Ok(()) => {}
            Err(Error::BlobMissing { .. } | Error::BlobCorrupt { .. }) => return End::InputLost(input.node),
            Err(error) => return unstarted(error.into()),
        }
    }
    if spec.supersedes {
        // Done anew whatever is there, so not from its checkpoint either.
        let _ = fs::remove_dir_all(store.checkpoint(&spec.key));
    }
    let (mut number, mut all) = (1, Spent::default());
    loop {
        let mut end = attempt(shared, spec, number, work);
        let End::Ran { outcome, spent, .. } = &mut end else { return end };
        all = all.then(*spent);
        *spent = all;
        let again = outcome.result.as_ref().err().filter(|error| error.class.is_tried_again());
        let Some(error) = again.filter(|_| number <= work.retry.times && !shared.is_cancelled()) else { return end };
        let pause = pause(work.retry, number, &spec.attempt);
        let text = format!(
            "attempt {number} of {} failed ({}): {error}; the next one begins in {:.1} s",
            work.retry.times + 1,
            error.class.name(),
            pause.as_secs_f64(),
        );
        (shared.on_event)(Event::Note { stage: spec.stage.clone(), text });
        let until = Instant::now() + pause;
        while !shared.is_cancelled() && Instant::now() < until {
            std::thread::sleep(CANCEL_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
        if shared.is_cancelled() {
            return end;
        }
        number += 1;
        spec.attempt = ulid::Ulid::new().to_string();
    }
}

impl Shared<'_> {
    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// How long to wait after an attempt: the pause doubles each time, and is longer
/// or shorter by up to a half, so that what failed together does not come back
/// together. The attempt's name decides by how much.
pub(super) fn pause(retry: Retry, number: u32, attempt: &str) -> Duration {
    let hash = Digest::of_bytes(attempt.as_bytes()).hash;
    let share = f64::from(u16::from_le_bytes([hash[0], hash[1]])) / f64::from(u16::MAX);
    let seconds = retry.backoff_seconds * f64::from(2_u32.saturating_pow(number - 1)) * (0.5 + share);
    Duration::from_secs_f64(seconds.min(LONGEST_PAUSE.as_secs_f64()))
}

/// The end of an attempt that never began.
fn unstarted(error: StageError) -> End {
    let outcome = Outcome { result: Err(error), seconds: 0.0, peak_bytes: None, host: here::host(), exit: None };
    End::Ran { outcome: Box::new(outcome), stdout: None, stderr: None, spent: Spent::default(), device: None }
}

/// One attempt, noted in the ledger.
fn attempt(shared: &Shared<'_>, spec: &Spec, number: u32, work: &Work<'_>) -> End {
    let store = shared.store;
    let started_ms = here::now_ms();
    clear(store, &spec.key);
    let folder = store.attempt(&spec.key, &spec.attempt);
    if work.place == Place::Worker
        && let Err(error) = fs::create_dir_all(&folder).at("create", &folder)
    {
        return unstarted(error.into());
    }
    let cancelled = || shared.is_cancelled();
    let spent = Mutex::new(Spent::default());
    let promise = work.promise;
    let report = |report| {
        let stage = spec.stage.clone();
        match report {
            Report::Progress(progress) => (shared.on_event)(Event::Progress { stage, progress }),
            Report::Note(text) => (shared.on_event)(Event::Note { stage, text }),
            Report::Rows(rows) => spent.lock().unwrap_or_else(PoisonError::into_inner).rows = Some(rows),
            Report::Differed => (shared.on_event)(differed(spec, promise)),
            Report::Usage(usage) => spent.lock().unwrap_or_else(PoisonError::into_inner).usage = Some(usage),
        }
    };
    let execute = || match work.place {
        Place::Worker => {
            // A stage that asked for no GPU sees none, so that what is counted is what is used.
            let gpus = shared.has_gpus.then_some(work.gpus);
            local::run(shared.worker, store, spec, &folder, gpus, &cancelled, &report)
        }
        Place::Thread => {
            let clock = Instant::now();
            let publish = |result: Pending| {
                let (record, fresh) = (result.record().clone(), store.lend(&result));
                let taken = shared.publisher.take(result);
                if !shared.publisher.is_behind() {
                    // Whoever goes on from it is published after it.
                    (work.worked)(fresh.is_some().then_some(record));
                }
                let committed = taken.committed();
                drop(fresh);
                committed
            };
            let result = worker::execute(store, spec, &folder, shared.runners, &cancelled, &report, publish);
            let seconds = clock.elapsed().as_secs_f64();
            Outcome { result, seconds, peak_bytes: None, host: here::host(), exit: None }
        }
    };
    let meter = if work.gpus.is_empty() { None } else { shared.meter.get_or_init(device::library).as_ref() };
    let (outcome, drawn) = device::measure(meter.map(|meter| meter as &dyn Meter), work.gpus, execute);
    let log = |name: &str| {
        let bytes = fs::read(folder.join(name)).ok().filter(|bytes| !bytes.is_empty())?;
        publish::put_bytes(store, &bytes).ok()
    };
    let (stdout, stderr) = (log("stdout.log"), log("stderr.log"));
    let (record, error) = (outcome.result.as_ref().ok(), outcome.result.as_ref().err());
    let mut spent = spent.into_inner().unwrap_or_else(PoisonError::into_inner);
    spent.energy_joules = drawn.energy_joules;
    let noted = shared.ledger.attempt(&AttemptEntry {
        attempt: spec.attempt.clone(),
        stage: spec.stage.clone(),
        key: spec.key,
        number,
        class: error.map(|error| error.class),
        error: error.map(|error| error.message.clone()),
        exit: outcome.exit.clone(),
        host: outcome.host.clone(),
        started_ms,
        seconds: outcome.seconds,
        peak_bytes: outcome.peak_bytes,
        resumed_at_step: record.and_then(|record| record.made.resumed_at_step),
        usage: spent.usage,
        device: Some(drawn.device.clone()),
        energy_joules: drawn.energy_joules,
        stdout,
        stderr,
    });
    if let Err(error) = noted {
        return unstarted(error.into());
    }
    match &outcome.result {
        Ok(_) => drop(fs::remove_dir_all(store.work(&spec.key))),
        Err(_) => discard(&folder),
    }
    if let Err(source) = store.faults().pass("work-removed") {
        return unstarted(Error::io("remove", &folder, source).into());
    }
    End::Ran { outcome: Box::new(outcome), stdout, stderr, spent, device: Some(drawn.device) }
}

/// What is said of a result that differs from the one that is there for its key.
pub(super) fn differed(spec: &Spec, promise: Promise) -> Event {
    let (operator, key) = (&spec.operator, spec.key.short());
    let text =
        format!("operator {operator:?} gave another result than before for the same key {key}: the first is kept");
    match promise {
        Promise::Sampled => Event::Note { stage: spec.stage.clone(), text },
        Promise::Deterministic => {
            let text =
                format!("{}: {text}; it promises the same bytes, so this is a bug of it or of the machine", spec.stage);
            Event::Warning { text }
        }
    }
}

/// Removes what dead attempts left: the claim is ours, so none of them lives.
/// Their checkpoint stays.
fn clear(store: &Store, key: &Key) {
    let checkpoint = store.checkpoint(key);
    let left = fs::read_dir(store.work(key)).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in left.filter(|path| *path != checkpoint) {
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes what a process left that died after its result was complete.
pub(super) fn sweep(store: &Store, key: &Key) {
    if let Ok(Asked::Ours(_claim)) = store.try_claim(&key.to_string(), "", &mut Watch::default()) {
        let _ = fs::remove_dir_all(store.work(key));
    }
}

/// Waits for the right to make what a key asks for, which another process may have.
fn claim(shared: &Shared<'_>, spec: &Spec) -> Result<Claim, StageError> {
    let (mut pause, mut watch) = (Duration::from_millis(5), Watch::default());
    let (name, since) = (spec.key.to_string(), Instant::now());
    let mut told = false;
    loop {
        let host = match shared.store.try_claim(&name, &spec.attempt, &mut watch)? {
            Asked::Ours(claim) => return Ok(claim),
            Asked::Held(host) => host,
        };
        if !told && since.elapsed() >= TELL_AFTER {
            told = true;
            let text = format!("another run, on {host}, is making this: waiting for it");
            (shared.on_event)(Event::Note { stage: spec.stage.clone(), text });
        }
        if shared.is_cancelled() {
            return Err(StageError::interrupted());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
