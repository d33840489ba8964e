//! A child process on this machine.
//!
//! The child gets a cleared environment plus an allow-list, a process group of
//! its own, and a pipe as standard input that closes when this process dies.
//! Its end is noticed at once by a thread that waits for it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuseline_contract::{Class, StageError};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::attempt::{Outcome, Report, Spec};
use crate::error::At;
use crate::executor::memory;
use crate::secrets::{self, Vault};
use crate::store::{Store, seal};

/// How often events are read while a child runs.
const TAIL_EVERY: Duration = Duration::from_millis(50);
/// After a request to stop, when the child is told by SIGTERM: a training writes its state first.
const TERM_AFTER: Duration = Duration::from_secs(30);
/// And when it is killed.
const KILL_AFTER: Duration = Duration::from_secs(35);
/// How long a log may take to end after its worker.
const LOGS_END: Duration = Duration::from_secs(5);
/// How many last lines of standard error a failure shows.
const LAST_LINES: usize = 12;

/// Variables that a worker keeps: what finds libraries and devices and says how
/// texts are shown, nothing that can change a result unnoticed.
fn is_passed(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "RUST_BACKTRACE",
        "FUSELINE_FAULT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];
    NAMES.contains(&name) || ["LC_", "CUDA_", "NVIDIA_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Runs an attempt in a child process and waits for it.
pub(crate) fn run(
    worker: &Path,
    store: &Store,
    spec: &Spec,
    folder: &Path,
    gpus: Option<&[u32]>,
    cancelled: &(dyn Fn() -> bool + Sync),
    report: &(dyn Fn(Report) + Sync),
) -> Outcome {
    let clock = Instant::now();
    let fail = |error: StageError| Outcome {
        result: Err(error),
        seconds: clock.elapsed().as_secs_f64(),
        peak_bytes: None,
        host: crate::here::host(),
        exit: None,
    };
    let kills = memory::kills();
    let status = match attend(worker, spec, folder, gpus, cancelled, report) {
        Ok(status) => status,
        Err(error) => return fail(error),
    };
    let result = fs::read(folder.join("result.json")).ok();
    let mut outcome = match result.and_then(|bytes| seal::unseal::<Outcome>(&bytes)) {
        Some(outcome) => outcome,
        // Killed after the commit point: the record is the truth.
        None => match store.lookup(&spec.key) {
            Ok(record) if record.made.attempt == spec.attempt => {
                Outcome { result: Ok(record), ..fail(StageError::interrupted()) }
            }
            _ if cancelled() => fail(StageError::interrupted()),
            _ => fail(crash(spec, status, folder, memory::kills() > kills)),
        },
    };
    outcome.exit = Some(how_it_ended(status));
    outcome.result = outcome.result.map_err(|error| match error.class {
        Class::Cancelled => error,
        _ => error.log(last_lines(folder)),
    });
    outcome
}

/// As in the ledger.
fn how_it_ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => signal_name(signal),
        (None, Some(code)) => format!("exit {code}"),
        (None, None) => "no status".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

fn attend(
    worker: &Path,
    spec: &Spec,
    folder: &Path,
    gpus: Option<&[u32]>,
    cancelled: &(dyn Fn() -> bool + Sync),
    report: &(dyn Fn(Report) + Sync),
) -> Result<ExitStatus, StageError> {
    let path = folder.join("spec.json");
    fs::write(&path, seal::seal(spec)).at("write", &path)?;
    let log = |name: &str| {
        let path = folder.join(name);
        File::create(&path).at("create", &path)
    };
    let (stdout, stderr) = (log("stdout.log")?, log("stderr.log")?);
    let names = spec.secrets();
    let vault = Vault::of_process(&names);
    let mut command = Command::new(worker);
    let passed = |name: &str| is_passed(name) || spec.environment.iter().any(|asked| asked == name);
    command.arg(folder).env_clear().envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passed)));
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"] {
        command.env(name, spec.threads.to_string());
    }
    if let Some(gpus) = gpus {
        let list: Vec<_> = gpus.iter().map(u32::to_string).collect();
        command.env("CUDA_VISIBLE_DEVICES", list.join(","));
    }
    // The worker looks its secrets up itself, as one on another host would.
    let secrets = names.iter().map(String::as_str).chain((!names.is_empty()).then_some(secrets::FILE));
    command.envs(secrets.filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::piped()).process_group(0);
    if vault.is_empty() {
        command.stdout(stdout.try_clone().at("open", folder)?).stderr(stderr.try_clone().at("open", folder)?);
    } else {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|error| {
        let message = format!("failed to start the worker {}: {error}", worker.display());
        StageError::environment(message).hint("it stands beside fuseline; build both with cargo build --release")
    })?;
    let group = Pid::from_raw(child.id() as i32);
    let mut stdin = child.stdin.take();
    let filters = [
        child.stdout.take().map(|from| filter(vault.clone(), from, stdout)),
        child.stderr.take().map(|from| filter(vault.clone(), from, stderr)),
    ];
    let (send, ended) = channel();
    std::thread::spawn(move || send.send(child.wait()));

    let mut tail = Tail { path: folder.join("events.ndjson"), offset: 0 };
    let mut asked: Option<Instant> = None;
    let mut signals = [(TERM_AFTER, Signal::SIGTERM), (KILL_AFTER, Signal::SIGKILL)].into_iter().peekable();
    let status = loop {
        match ended.recv_timeout(TAIL_EVERY) {
            Ok(status) => break status,
            Err(RecvTimeoutError::Disconnected) => break Err(io::Error::other("its waiting thread ended")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        tail.read(report);
        match asked {
            None if cancelled() => {
                asked = Some(Instant::now());
                if let Some(stdin) = &mut stdin {
                    let _ = writeln!(stdin, "cancel");
                }
            }
            Some(when) => {
                if let Some((_, signal)) = signals.next_if(|(after, _)| when.elapsed() >= *after) {
                    let _ = killpg(group, signal);
                }
            }
            None => {}
        }
    };
    tail.read(report);
    let status = status.map_err(|error| StageError::environment(format!("failed to wait for the worker: {error}")))?;
    // Children of a worker are not left behind.
    let _ = killpg(group, Signal::SIGKILL);
    // What is left in the pipes is still copied; who holds them open is not waited for.
    let until = Instant::now() + LOGS_END;
    while filters.iter().flatten().any(|filter| !filter.is_finished()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(status)
}

/// Copies what a worker writes into its log, without values of secrets.
fn filter(vault: Vault, from: impl Read + Send + 'static, to: File) -> JoinHandle<()> {
    // A full disk must not end the stage here; publication will tell.
    std::thread::spawn(move || drop(vault.filter(from, to)))
}

/// Reads whole lines that were added to a file.
struct Tail {
    path: std::path::PathBuf,
    offset: u64,
}

impl Tail {
    fn read(&mut self, report: &(dyn Fn(Report) + Sync)) {
        let mut text = Vec::new();
        let read = File::open(&self.path)
            .and_then(|mut file| file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.read_to_end(&mut text)));
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if read.is_ok() {
            self.offset += whole as u64;
            for line in text[..whole].split(|byte| *byte == b'\n') {
                if let Ok(line) = serde_json::from_slice(line) {
                    report(line);
                }
            }
        }
    }
}

/// The last lines that a worker wrote to standard error.
fn last_lines(folder: &Path) -> Vec<String> {
    let log = fs::read(folder.join("stderr.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// What to say of a worker that left neither a record nor a result.
fn crash(spec: &Spec, status: ExitStatus, folder: &Path, out_of_memory: bool) -> StageError {
    if status.code().is_some()
        && let Err(error) = probe(folder)
    {
        // A worker on a full disk can leave no result; the disk says so to us too.
        return error.into();
    }
    let stage = &spec.stage;
    let smaller = "give the stage smaller batches, or run fewer at once with --jobs 1";
    match (status.signal().map(Signal::try_from), status.code()) {
        (Some(Ok(Signal::SIGKILL)), _) if out_of_memory => {
            StageError::environment(format!("the worker of {stage} was killed: the machine ran out of memory"))
                .hint(smaller)
        }
        (Some(Ok(Signal::SIGKILL)), _) => StageError::environment(format!("the worker of {stage} was killed"))
            .of_class(Class::Lost)
            .hint(format!("if nobody did it, the machine may have run out of memory: {smaller}")),
        (Some(Ok(signal)), _) if sent_from_outside(signal) => {
            StageError::environment(format!("the worker of {stage} was ended by {signal}")).of_class(Class::Lost)
        }
        (Some(_), _) => StageError::bug(format!("the worker of {stage} crashed by {}", how_it_ended(status))),
        // The worker could not even begin, and said why.
        (None, Some(2)) => StageError::input(format!("the worker of {stage} failed")),
        (None, Some(3 | 127)) => StageError::environment(format!("the worker of {stage} failed")),
        (None, code) => {
            let code = code.map_or_else(|| "no status".to_owned(), |code| format!("status {code}"));
            StageError::bug(format!("the worker of {stage} ended with {code} and no result"))
        }
    }
}

/// Whether something can be written beside an attempt.
fn probe(folder: &Path) -> Result<(), crate::error::Error> {
    let path = folder.join("probe");
    fs::write(&path, [0; 1 << 16]).at("write", &path)
}

/// Signals by which schedulers and people end a process; those that a process
/// brings upon itself are not among them.
fn sent_from_outside(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM | Signal::SIGUSR1 | Signal::SIGUSR2
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_variables_reach_a_worker() {
        for name in ["PATH", "LC_ALL", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "FUSELINE_FAULT"] {
            assert!(is_passed(name), "{name}");
        }
        for name in ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PYTHONPATH", "USER", "FUSELINE_STORE"] {
            assert!(!is_passed(name), "{name}");
        }
    }
}
