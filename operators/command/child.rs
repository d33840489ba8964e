//! The program's process: its environment, its output line by line, its end.
//!
//! The program runs in a process group of its own, together with a guard that
//! waits on a pipe. When this process ends, however that may be, the pipe
//! closes and the guard kills the group; so neither the program nor anything
//! it started outlives the stage.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fuseline_contract::{Class, Progress, Run, StageError, Usage};
use serde::Deserialize;

use super::Config;
use super::io::Exchange;

/// The variable that names the file that says where everything is.
pub const IO: &str = "FUSELINE_IO";
/// How a line begins that is meant to say what was consumed: costs are not lost unseen.
const USAGE: &[u8] = b"{\"usage\"";
/// The exit status by which programs ask to be tried again (`EX_TEMPFAIL` of `sysexits.h`).
const TRY_AGAIN: i32 = 75;
/// How often the time limit and an interruption are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a program that was asked to end may take.
const GRACE: Duration = Duration::from_secs(2);

/// The guard: asks its group to end when told `stop`, and kills it when nobody is there any more.
const GUARD: &str = "trap '' TERM; read word; \
    if [ \"$word\" = stop ]; then kill -TERM 0; read word; fi; kill -KILL 0";

/// Runs the program to its end.
pub fn run(config: &Config, run: &dyn Run, exchange: &Exchange) -> Result<(), StageError> {
    let mut command = Command::new(&exchange.program);
    command
        .args(&exchange.args)
        .current_dir(&exchange.scratch)
        .envs(surroundings(exchange))
        .envs(&config.set_env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in ["LANG", "RUST_BACKTRACE", "FUSELINE_FAULT"] {
        command.env_remove(name);
    }
    for (name, secret) in &config.secrets {
        command.env(name, run.secret(secret)?);
    }
    let mut guard = Guard::start()?;
    let mut program = command.process_group(guard.group()).spawn().map_err(|error| cannot_start(config, &error))?;
    let (stdout, stderr) = (program.stdout.take(), program.stderr.take());
    let (ended, limit) = std::thread::scope(|scope| {
        scope.spawn(|| stdout.map(|output| listen(output, run)));
        scope.spawn(|| stderr.map(|output| each_line(output, |line| write_line(&mut std::io::stderr(), line))));
        let waited = wait(program, config.timeout_seconds, run, &mut guard);
        // Whatever it has left behind holds the pipes open.
        guard.end();
        waited
    });
    let status = ended.map_err(|error| StageError::environment(format!("failed to wait for the program: {error}")))?;
    run.check_cancelled()?;
    if let Some(seconds) = limit {
        let message = format!("{} did not end within its limit of {seconds} s", config.program);
        return Err(StageError::work(message).hint("raise `timeout_seconds`; that reruns nothing that is done"));
    }
    judge(config, status)
}

/// Waits for the program's end; asks it to end when it is time. Gives the limit if that was why.
fn wait(
    mut program: Child,
    limit: Option<f64>,
    run: &dyn Run,
    guard: &mut Guard,
) -> (std::io::Result<ExitStatus>, Option<f64>) {
    let began = Instant::now();
    let (send, ended) = channel();
    std::thread::spawn(move || send.send(program.wait()));
    let mut asked: Option<Instant> = None;
    let mut exceeded = None;
    loop {
        match ended.recv_timeout(LOOK_EVERY) {
            Ok(status) => return (status, exceeded),
            Err(RecvTimeoutError::Disconnected) => {
                return (Err(std::io::Error::other("its waiting thread ended")), exceeded);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let late = limit.filter(|limit| began.elapsed().as_secs_f64() >= *limit);
        match asked {
            None if late.is_some() || run.cancelled() => {
                exceeded = late;
                asked = Some(Instant::now());
                guard.ask();
            }
            Some(when) if when.elapsed() >= GRACE => guard.end(),
            _ => {}
        }
    }
}

/// The process that ends the program's group.
struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    fn start() -> Result<Self, StageError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD]).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command
            .process_group(0)
            .spawn()
            .map_err(|error| StageError::environment(format!("failed to start /bin/sh: {error}")))?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    fn group(&self) -> i32 {
        self.process.id() as i32
    }

    /// Asks the group to end.
    fn ask(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            let _ = writeln!(pipe, "stop");
        }
    }

    /// Kills the group.
    fn end(&mut self) {
        if self.pipe.take().is_some() {
            let _ = self.process.wait();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

/// What every program is given: texts are UTF-8 wherever it runs, temporary files are its own, and Python
/// leaves nothing beside the scripts, which would then have changed.
fn surroundings(exchange: &Exchange) -> [(&'static str, std::ffi::OsString); 4] {
    [
        (IO, exchange.io.clone().into()),
        ("TMPDIR", exchange.temporary.clone().into()),
        ("LC_ALL", "C.UTF-8".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ]
}

fn cannot_start(config: &Config, error: &std::io::Error) -> StageError {
    let failed = StageError::input(format!("failed to start {}: {error}", config.program));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => failed.hint(format!("make it executable: chmod +x {}", config.program)),
        std::io::ErrorKind::NotFound => failed.hint("the interpreter that its first line names is missing"),
        _ => failed.hint("give the program that runs it as `program`, and the script under `files`"),
    }
}

fn judge(config: &Config, status: ExitStatus) -> Result<(), StageError> {
    let program = &config.program;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(TRY_AGAIN), _) => {
            let message = format!("{program} ended with status {TRY_AGAIN}, a failure of the moment");
            Err(StageError::work(message).of_class(Class::Transient))
        }
        (Some(code), _) => Err(StageError::work(format!("{program} ended with status {code}"))),
        (None, Some(9)) => Err(StageError::work(format!("{program} was killed"))
            .hint("if nobody did it, the machine may have run out of memory")),
        (None, signal) => {
            let signal = signal.map_or_else(|| "no status".to_owned(), |signal| format!("signal {signal}"));
            Err(StageError::work(format!("{program} was ended by {signal}")))
        }
    }
}

/// What a line of standard output may say instead of being log.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Progress(Told),
    Note(String),
    Usage(Used),
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Told {
    done: u64,
    total: u64,
    unit: String,
    figure: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Used {
    tokens_in: u64,
    tokens_out: u64,
    price_usd: Option<f64>,
}

impl Default for Told {
    fn default() -> Self {
        Self { done: 0, total: 0, unit: "steps".to_owned(), figure: String::new() }
    }
}

/// Hands on what standard output says; the rest is log.
fn listen(output: impl Read, run: &dyn Run) {
    each_line(output, |line| match serde_json::from_slice(line) {
        Ok(Said::Progress(Told { done, total, unit, figure })) => run.progress(Progress { done, total, unit, figure }),
        Ok(Said::Note(text)) => run.note(text),
        Ok(Said::Usage(Used { tokens_in, tokens_out, price_usd })) if price_usd.is_none_or(|price| price >= 0.0) => {
            run.used(Usage { tokens_in, tokens_out, price_usd });
        }
        Ok(Said::Usage(_)) | Err(_) => {
            if line.starts_with(USAGE) {
                run.note(format!("not counted: {}", String::from_utf8_lossy(line).trim_end()));
            }
            write_line(&mut std::io::stdout(), line);
        }
    });
}

fn write_line(to: &mut impl Write, line: &[u8]) {
    // A log that cannot be written must not end the program.
    let _ = to.write_all(line).and_then(|()| to.flush());
}

/// Calls for each line with its end, until the output closes.
fn each_line(output: impl Read, mut with: impl FnMut(&[u8])) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        with(&line);
        line.clear();
    }
}
