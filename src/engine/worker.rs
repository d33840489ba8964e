//! Runs one attempt: the operator's work under a guard, then publication.
//!
//! The same function serves a thread of the driver and `fuseline-worker
//! ATTEMPT`, a process of its own (see [`crate::attempt`] for its folder). The
//! truth about an attempt is the record in the store, then `result.json`, and
//! only then how the process ended.

use std::any::Any;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fuseline_contract::{Cause, Progress, Runner, StageError};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{getpgrp, getpid};

use crate::attempt::{Outcome, PROTOCOL, Report, Spec};
use crate::error::{At, Result};
use crate::here::{host, now_ms};
use crate::run::StageRun;
use crate::secrets::Vault;
use crate::store::manifest::Made;
use crate::store::publish::{self, Committed, Pending};
use crate::store::{Record, Store, files, seal};

/// A worker's exit status for an attempt that was cancelled.
pub const CANCELLED_STATUS: u8 = 75;

/// Runs an attempt in this process and has its outputs published.
pub(crate) fn execute(
    store: &Store,
    spec: &Spec,
    folder: &Path,
    runners: &[Runner],
    cancelled: &(dyn Fn() -> bool + Sync),
    report: &(dyn Fn(Report) + Sync),
    publish: impl FnOnce(Pending) -> Result<Committed>,
) -> Result<Record, StageError> {
    let runner = runners
        .iter()
        .find(|runner| runner.name == spec.operator)
        .ok_or_else(|| StageError::bug(format!("this program cannot run the operator {:?}", spec.operator)))?;
    let (started, clock) = (now_ms(), Instant::now());
    let vault = Vault::of_process(&spec.secrets());
    let report = &|said: Report| report(redact(&vault, said));
    let run = StageRun::new(store, spec, folder, cancelled, report, &vault);
    let done = catch_unwind(AssertUnwindSafe(|| runner.run(&spec.params, &run)));
    let spent = run.tell_spent();
    done.unwrap_or_else(|panic| {
        Err(StageError::bug(format!("{} panicked: {}", spec.stage, panic_text(panic.as_ref()))))
    })
    .map_err(|error| if cancelled() && error.cause != Cause::Bug { StageError::interrupted() } else { error })
    .map_err(|error| vault.redact_error(error))?;
    let (resumed_at_step, origins) = (run.resumed_at(), run.origins());
    let staged = run.finish()?;
    for file in &spec.files {
        if files::tree(store, &file.path)? != file.tree {
            let message = format!("{} changed while {} was reading it", file.path.display(), spec.stage);
            return Err(StageError::input(message).hint("run again when nothing writes to it"));
        }
    }
    let made = Made {
        started_ms: started,
        seconds: clock.elapsed().as_secs_f64(),
        attempt: spec.attempt.clone(),
        run: spec.run.clone(),
        host: host(),
        peak_bytes: spec.attended.then(peak_bytes).flatten(),
        version: spec.version.clone(),
        resumed_at_step,
        origins,
        memo: spent.rows,
        usage: spent.usage,
    };
    let record = Record::new(spec.key, &spec.operator, Vec::new(), spec.supersedes, made).made_from(spec.made_from());
    let committed = publish(Pending::new(record, staged))?;
    if committed.differed {
        report(Report::Differed);
    }
    Ok(committed.record)
}

/// What a stage says, without values of its secrets.
fn redact(vault: &Vault, said: Report) -> Report {
    match said {
        Report::Progress(progress) => Report::Progress(Progress { figure: vault.redact(&progress.figure), ..progress }),
        Report::Note(note) => Report::Note(vault.redact(&note)),
        plain @ (Report::Rows(_) | Report::Usage(_) | Report::Differed) => plain,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The peak resident memory of this process, or of the largest of those that
/// it started and that have ended.
fn peak_bytes() -> Option<u64> {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let peak = |who| getrusage(who).ok().map(|usage| usage.max_rss() as u64 * unit);
    peak(UsageWho::RUSAGE_SELF).max(peak(UsageWho::RUSAGE_CHILDREN))
}

/// What `fuseline-worker ATTEMPT` does; returns the exit status.
///
/// The attempt's error is in `result.json`; what cannot be written there goes
/// to standard error.
pub fn main(attempt: &Path, runners: &[Runner]) -> u8 {
    match attend(attempt, runners) {
        Ok(Outcome { result: Ok(_), .. }) => 0,
        Ok(Outcome { result: Err(error), .. }) => match error.cause {
            Cause::Interrupted => CANCELLED_STATUS,
            cause => cause.exit_code(),
        },
        Err(error) => {
            // On a full disk it cannot be said; the driver finds out.
            let _ = writeln!(io::stderr(), "{error}");
            error.cause.exit_code()
        }
    }
}

fn attend(attempt: &Path, runners: &[Runner]) -> Result<Outcome, StageError> {
    let path = attempt.join("spec.json");
    let bytes = fs::read(&path).map_err(|error| StageError::io("read", &path, &error))?;
    let spec: Spec = seal::unseal(&bytes).ok_or_else(|| {
        StageError::environment(format!("{} is damaged or not of this version", path.display()))
            .hint("build both executables anew with cargo build --release, and run again")
    })?;
    let ours = env!("CARGO_PKG_VERSION");
    if spec.protocol != PROTOCOL || spec.version != ours {
        let message = format!("fuseline is version {}, its worker is version {ours}", spec.version);
        return Err(StageError::environment(message).hint("build both anew: cargo build --release"));
    }
    let clock = Instant::now();
    let cancelled = Arc::new(AtomicBool::new(false));
    if spec.attended {
        watch_driver(cancelled.clone());
    }
    let events = attempt.join("events.ndjson");
    let events = File::options().create(true).append(true).open(&events).at("create", &events)?;
    let events = Mutex::new(events);
    let report = |report: Report| {
        let mut line = serde_json::to_vec(&report).expect("a report is plain data");
        line.push(b'\n');
        // A full disk must not end the stage here; publication will tell.
        let _ = events.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    };
    let cancelled = || cancelled.load(Ordering::Relaxed);
    let result = Store::open(&spec.store).map_err(StageError::from).and_then(|store| {
        execute(&store, &spec, attempt, runners, &cancelled, &report, |result| publish::publish(&store, result))
    });
    let outcome =
        Outcome { result, seconds: clock.elapsed().as_secs_f64(), peak_bytes: peak_bytes(), host: host(), exit: None };
    let (path, temporary) = (attempt.join("result.json"), attempt.join("result.json.new"));
    fs::write(&temporary, seal::seal(&outcome)).at("write", &temporary)?;
    fs::rename(&temporary, &path).at("write", &path)?;
    Ok(outcome)
}

/// Follows the driver over standard input: a line `cancel` asks to stop; its
/// end means that the driver is dead, and nobody waits for this process and
/// its children any more.
fn watch_driver(cancelled: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("cancel") => cancelled.store(true, Ordering::Relaxed),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if getpgrp() == getpid() {
            let _ = killpg(getpgrp(), Signal::SIGKILL);
        }
        std::process::exit(CANCELLED_STATUS.into());
    });
}
