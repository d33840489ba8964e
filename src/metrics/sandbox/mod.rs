//! Running programs that nobody has read: Python that a model wrote, in a
//! process that sees no network, no files of this machine but the interpreter's,
//! no other process, and only so much time, memory, output and space.
//!
//! Three layers, each by the kernel alone (Linux):
//! * [`Layer::Namespaces`]: its own mounts (a small tmpfs with the interpreter's
//!   folders bound read-only), processes, network, System V objects and, for who
//!   is not root, users. Whatever it leaves behind goes with them.
//! * [`Layer::User`]: as root, a user that owns nothing, because limits of
//!   processes do not bind root.
//! * [`Layer::Filter`]: a seccomp filter; sockets, mounts, tracing and other doors
//!   into the kernel are refused.
//!
//! Limits of CPU time, memory, files and processes come on top. What the kernel
//! of a machine forbids is found at the start ([`Sandbox::missing`]), and who
//! runs programs decides whether to do without. Memory is limited by the process:
//! a program of many processes may use as many times as much.
//!
//! This module must not know what a program is for. It is the only one of this
//! crate that touches files, processes and a clock.

mod enter;
mod filter;
mod root;
mod watch;

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use enter::Plan;
use root::Root;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use watch::End;

/// How the names of folders begin that programs are laid out in; they go when the program has ended.
const FOLDER: &str = "fuseline-sandbox-";

/// What keeps a program in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Mounts, processes and a network of its own.
    Namespaces,
    /// A user that owns nothing.
    User,
    /// A filter of system calls.
    Filter,
}

impl Layer {
    /// Every layer.
    pub const ALL: [Self; 3] = [Self::Namespaces, Self::User, Self::Filter];

    /// Its name in parameters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::User => "user",
            Self::Filter => "filter",
        }
    }
}

/// What a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time on the clock.
    pub wall: Duration,
    /// CPU time of a process, in whole seconds.
    pub cpu_seconds: u64,
    /// Address space of a process.
    pub memory_bytes: u64,
    /// Size of a file, and four times that of all.
    pub file_bytes: u64,
    /// Processes and threads at a time.
    pub processes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Bytes written to standard output and standard error together.
    pub output_bytes: usize,
}

impl Default for Limits {
    /// Ten seconds, 2 GiB, 16 MiB of files, 16 processes, 64 open files and 1 MiB of output.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu_seconds: 10,
            memory_bytes: 2 << 30,
            file_bytes: 16 << 20,
            processes: 16,
            open_files: 64,
            output_bytes: 1 << 20,
        }
    }
}

/// How a program ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Standard error, up to the limit.
    pub stderr: Vec<u8>,
}

/// Why there is no sandbox, or why a program could not be begun in it; never what a program did.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The interpreter does not run.
    #[error("{program:?} does not run: {problem}")]
    Interpreter {
        /// What was started.
        program: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A layer that was there at the start failed.
    #[error("the sandbox's layer {} failed: {source}", layer.name())]
    Layer {
        /// The layer.
        layer: Layer,
        /// Why.
        source: io::Error,
    },
    /// Something else of the system.
    #[error("failed to {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn io(what: &'static str) -> impl Fn(io::Error) -> SandboxError {
    move |source| SandboxError::Io { what, source }
}

/// An interpreter and the layers that this machine has.
#[derive(Debug)]
pub struct Sandbox {
    interpreter: PathBuf,
    prefixes: Vec<PathBuf>,
    layers: Vec<Layer>,
}

impl Sandbox {
    /// Finds the interpreter behind a command such as `python3`, and the layers that hold here.
    pub fn open(command: &Path) -> Result<Self, SandboxError> {
        let fails = |problem: String| SandboxError::Interpreter { program: command.to_owned(), problem };
        let tell = "import os, sys; print(os.path.realpath(sys.executable), sys.base_prefix, sys.prefix, sep='\\n')";
        let output = Command::new(command).args(["-s", "-c", tell]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| fails(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = said.lines().map(PathBuf::from);
        let Some(interpreter) = lines.next().filter(|_| output.status.success()) else {
            return Err(fails(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        };
        let mut sandbox = Self { interpreter, prefixes: lines.collect(), layers: Layer::ALL.to_vec() };
        // Layers that the kernel refuses are left out one by one, until a program runs.
        loop {
            match sandbox.run(&[("program.py", b"print('here')")], &[], &Limits::default()) {
                Ok(outcome) if outcome.stdout == b"here\n" => return Ok(sandbox),
                Ok(outcome) => {
                    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
                    return Err(fails(format!("in the sandbox it ended with {:?}: {}", outcome.end, said.trim())));
                }
                Err(SandboxError::Layer { layer, .. }) => sandbox.layers.retain(|held| *held != layer),
                Err(error) => return Err(error),
            }
        }
    }

    /// The layers that the kernel of this machine refuses.
    pub fn missing(&self) -> Vec<Layer> {
        Layer::ALL.into_iter().filter(|layer| !self.layers.contains(layer)).collect()
    }

    /// Runs `program.py` of the files given, which lie read-only in its folder, with a text on standard input; its working
    /// folder is an empty one of its own.
    pub fn run(&self, files: &[(&str, &[u8])], stdin: &[u8], limits: &Limits) -> Result<Outcome, SandboxError> {
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(io("make a folder"))?;
        let open = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
        let (given, inside) = (folder.path().join("given"), folder.path().join("inside"));
        for made in [&given, &inside] {
            std::fs::create_dir(made).and_then(|()| open(made, 0o755)).map_err(io("make a folder"))?;
        }
        // Whoever the program runs as must be able to pass through.
        open(folder.path(), 0o711).map_err(io("open a folder"))?;
        for (name, content) in files {
            let path = given.join(name);
            std::fs::write(&path, content).and_then(|()| open(&path, 0o644)).map_err(io("write a program"))?;
        }
        let input = folder.path().join("stdin");
        std::fs::write(&input, stdin).map_err(io("write a program's input"))?;

        let own_root = self.layers.contains(&Layer::Namespaces);
        let root = own_root.then(|| Root::plan(&inside, &given, &self.prefixes, limits.file_bytes * 4)).transpose();
        let root = root.map_err(io("plan the program's files"))?;
        let outside = CString::new(inside.as_os_str().as_bytes()).expect("a path without NUL");
        let plan = Plan::new(&self.layers, root, outside, limits);
        let script = if own_root { PathBuf::from("/work") } else { given };
        let mut command = Command::new(&self.interpreter);
        command.args(["-s", "-B", "-X", "utf8"]).arg(script.join("program.py")).env_clear();
        // A fixed seed of hashes, so that a set's order is the same at every run.
        command.envs([("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("PYTHONHASHSEED", "0")]);
        command.stdin(File::open(&input).map_err(io("open a program's input"))?);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        plan.enter_before(&mut command);
        let child = command.spawn().map_err(|error| match enter::failed(&error) {
            Some((layer, source)) => SandboxError::Layer { layer, source },
            None => SandboxError::Io { what: "start a program", source: error },
        })?;
        watch::watch(child, limits).map_err(io("watch a program"))
    }
}

#[cfg(test)]
mod tests;
