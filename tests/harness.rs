//! Runs the built program in working directories of their own, and reads what
//! it says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// The quickstart's shape in five seconds.
pub const FUSION: &str = include_str!("tiny/fusion.yaml");
/// Training and sampling that last long enough to be interrupted.
pub const LONG: &str = include_str!("tiny/long.yaml");

/// A working directory with a store in it; both go away with it.
pub struct Home(TempDir);

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for temporary files"))
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a folder of our own is writable");
    }

    /// The program, ready to start here with the store `store`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_fuseline")), arguments)
    }

    /// The same for another copy of the program.
    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path()).env("FUSELINE_STORE", "store").env_remove("FUSELINE_FAULT");
        command
    }

    /// Runs the program here to its end.
    pub fn fuseline(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments).output().expect("the program starts"))
    }

    /// Runs it to its end from the repository's root, as users of its pipelines do, with the store of this folder.
    pub fn at_root(&self, arguments: &[&str]) -> Done {
        let mut command = self.command(arguments);
        command.env("FUSELINE_STORE", self.path("store")).current_dir(crate::root());
        Done::of(command.output().expect("the program starts"))
    }

    /// Runs it and expects that all goes well; gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.fuseline(arguments);
        assert_eq!(done.code, Some(0), "fuseline {}\n{}", arguments.join(" "), done.stderr);
        done.stdout
    }

    /// Runs a pipeline, which must succeed, and gives the instances that ran, sorted.
    pub fn ran(&self, pipeline: &str, more: &[&str]) -> Vec<String> {
        let arguments: Vec<&str> = ["run", pipeline, "--json"].iter().chain(more).copied().collect();
        ran(&self.ok(&arguments))
    }

    /// Processes that work for the store here.
    pub fn workers(&self) -> Vec<String> {
        let here = self.0.path().to_string_lossy().into_owned();
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let lines = processes.filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok());
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(&here)).collect()
    }

    /// Kills one of the processes that work for the store here, if there is any; which, in 0..1.
    pub fn kill_a_worker(&self, which: f64) {
        let here = self.0.path().to_string_lossy().into_owned();
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        let works = |process: &std::path::PathBuf| {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&here)
        };
        let workers: Vec<PathBuf> = processes.flatten().map(|process| process.path()).filter(works).collect();
        if let Some(worker) = workers.get((which * workers.len() as f64) as usize) {
            let id = worker.file_name().expect("a process has an id");
            // It may have ended by itself.
            let _ = Command::new("kill").arg("-KILL").arg(id).stderr(Stdio::null()).status();
        }
    }

    /// Waits until no process works for the store here.
    pub fn wait_for_workers(&self) {
        while !self.workers().is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a run and returns in the middle of a stage's work.
    pub fn start_until(&self, pipeline: &str, stage: &str) -> Child {
        self.start_until_with(pipeline, stage, &[])
    }

    /// The same with more arguments.
    pub fn start_until_with(&self, pipeline: &str, stage: &str, more: &[&str]) -> Child {
        let mut command = self.command(&[&["run", pipeline, "--json"], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let events = BufReader::new(child.stdout.take().expect("it is piped"));
        for line in events.lines() {
            let event: Value = serde_json::from_str(&line.expect("a line")).expect("events are JSON");
            if event["event"] != "progress" || event["stage"]["stage"] != stage {
                continue;
            }
            let progress = &event["progress"];
            assert!(progress["done"].as_u64() < progress["total"].as_u64(), "{stage} is too short to be interrupted");
            assert!(cfg!(not(target_os = "linux")) || !self.workers().is_empty(), "the worker of {stage} is not seen");
            return child;
        }
        panic!("{stage} never reported: {:?}", child.wait_with_output());
    }
}

/// What a finished program left.
pub struct Done {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Done {
    /// Reads what a process left.
    pub fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The instances that ran, sorted, out of a run's events.
pub fn ran(events: &str) -> Vec<String> {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("events are JSON"));
    let ended = events.filter(|event| event["event"] == "stage_ended" && event["outcome"]["outcome"] == "ran");
    let mut names: Vec<String> = ended.map(|event| name(&event["stage"])).collect();
    names.sort();
    names
}

/// An instance's name as a person writes it.
fn name(stage: &Value) -> String {
    let axes = stage["axes"].as_object().expect("axes");
    let points: Vec<String> = axes.iter().map(|(axis, value)| format!("{axis}={}", text(value))).collect();
    let axes = if points.is_empty() { String::new() } else { format!("[{}]", points.join(",")) };
    format!("{}{axes}", text(&stage["stage"]))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// A working directory in which `fusion.yaml` has run once, shared by all tests
/// that run at the same time. A test changes the pipeline, never the store.
pub fn fused() -> Arc<Home> {
    static SHARED: Mutex<Weak<Home>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(home) = shared.upgrade() {
        return home;
    }
    let home = Arc::new(Home::new());
    home.write("fusion.yaml", FUSION);
    home.ok(&["run", "fusion.yaml"]);
    *shared = Arc::downgrade(&home);
    home
}
