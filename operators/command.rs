//! `command`: a program of the user's as a stage.

mod child;
mod io;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fuseline_contract::rows::{self, RowType};
use fuseline_contract::{
    Execute, ExternalFile, Input, Kind, Operator, Output, Place, Ports, Problems, Promise, Run, Secret, StageError,
    Traits,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use io::{Exchange, Placeholder};

/// Parameters of `command`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The program: a name that is looked for on `PATH`, or a path.
    pub program: String,
    /// Its arguments. `{input.NAME}`, `{output.NAME}`, `{file.NAME}`, `{scratch}`, `{threads}` and `{io}` stand for what is told under "Placeholders".
    #[serde(default)]
    pub args: Vec<String>,
    /// Files and folders that it reads, such as its scripts, by name. Their content decides whether the stage reruns.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// What it takes, by name. What is not bound under the stage's `inputs` is the stage of that name.
    #[serde(default)]
    pub inputs: BTreeMap<String, Shape>,
    /// What it makes, by name.
    pub outputs: BTreeMap<String, Shape>,
    /// Names of environment variables that it is given as they are. They must not change the result: what does belongs in `set_env`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Environment variables that it is given, with their values.
    #[serde(default)]
    pub set_env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets: `{API_KEY: !secret API_KEY}`. Like `env`, they must not change the result.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// After so many seconds it is ended; without it there is no limit.
    #[serde(default)]
    pub timeout_seconds: Option<f64>,
}

/// What a program takes or makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Questions put to models.
    Prompt,
    /// Answers of models.
    Response,
    /// Answers with scores.
    Scored,
    /// Conversations with an answer to learn.
    Example,
    /// Preferred and dispreferred answers.
    Preference,
    /// Log-probabilities of answers.
    #[serde(rename = "logprob")]
    LogProb,
    /// Figures about models.
    Metric,
    /// Curves of training runs.
    Trace,
    /// A table of any columns.
    Table,
    /// A model folder.
    Model,
    /// Several model folders; only as an input.
    Models,
}

impl Shape {
    fn rows(self) -> Option<&'static RowType> {
        Some(match self {
            Self::Prompt => &rows::PROMPT,
            Self::Response => &rows::RESPONSE,
            Self::Scored => &rows::SCORED,
            Self::Example => &rows::EXAMPLE,
            Self::Preference => &rows::PREFERENCE,
            Self::LogProb => &rows::LOGPROB,
            Self::Metric => &rows::METRIC,
            Self::Trace => &rows::TRACE,
            Self::Table | Self::Model | Self::Models => return None,
        })
    }

    fn kind(self) -> Kind {
        match self {
            Self::Model | Self::Models => Kind::Model,
            other => other.rows().map_or(Kind::AnyTable, Kind::Rows),
        }
    }
}

/// See [`Operator::MANUAL`].
pub struct Command;

impl Operator for Command {
    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    // Nobody knows what a program does.
    const TRAITS: Traits = Traits { place: Place::Worker, promise: Promise::Sampled, ..Traits::PURE };
    const EXECUTION: &'static [&'static str] = &["env", "timeout_seconds"];
    const SECRET: &'static [&'static str] = &["secrets"];
    const MANUAL: &'static str = "\
Runs a program of yours, in any language, as a stage.

What decides the result is in the key: the bytes of the program (of its
interpreter too, if it is a script), its arguments, the content of `files` and
of all inputs, and `set_env`. Libraries that the program loads are not: list
the file that pins them (`requirements.txt`, `uv.lock`) under `files`.

Placeholders in `args`:
* `{input.NAME}`: a table as the path of a Parquet file, a model as its folder,
  read only; `models` as one argument each, where it stands alone.
* `{output.NAME}`: the path of the Parquet file to write, or the empty folder of
  a model; `{output.NAME.jsonl}` and `{output.NAME.csv}` where a table is
  written as JSON lines or CSV instead.
* `{file.NAME}`: a path of `files`.
* `{scratch}`: an empty folder for anything else, also the working directory.
* `{threads}`: how many threads it may use.
* `{io}`: a JSON file that says all this, also named by FUSELINE_IO.

Outputs are checked against their row type. With several, the stage's name
alone means the first in the order of the alphabet.

The environment is cleared, but for PATH, HOME, proxies, what finds CUDA, and
what `env`, `set_env` and `secrets` say. A line `{\"progress\": {\"done\": 3, \"total\": 10,
\"unit\": \"rows\", \"figure\": \"loss 0.4\"}}` on standard output shows how far it
is, `{\"note\": \"…\"}` tells the user something, and `{\"usage\": {\"tokens_in\": 900,
\"tokens_out\": 120, \"price_usd\": 0.004}}` says what was consumed since the last such
line: they add up in `system.stages`, and `fuseline plan` forecasts from them.
All other lines, and standard error, are the stage's log (`fuseline logs`). Exit status 0 is success, 75 a
failure of the moment that is tried again (see `retry`), any other a failure.";
    const EXAMPLE: &'static str = "op: command\ninputs: {prompts: prompts}\nwith:\n  program: python3\n  \
        args: [\"{file.script}\", \"{input.prompts}\", \"{output.rows.jsonl}\"]\n  \
        files: {script: pipelines/examples/command_python.py}\n  inputs: {prompts: prompt}\n  outputs: {rows: prompt}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let input = |(name, shape): (&String, &Shape)| match shape {
            Shape::Models => Input::many(name, Kind::Model, "models, told with their labels").labelled().implicit(),
            shape => Input::one(name, shape.kind(), "what the program takes").implicit(),
        };
        let output = |(name, shape): (&String, &Shape)| Output::new(name, shape.kind(), "what the program makes");
        Ports {
            inputs: config.inputs.iter().map(input).collect(),
            outputs: config.outputs.iter().map(output).collect(),
        }
    }

    fn check(config: &Config, problems: &mut Problems) {
        problems.require(!config.program.trim().is_empty(), "program", || "is empty; expected a program".into());
        problems.require(!config.outputs.is_empty(), "outputs", || {
            "is empty; expected at least one, such as `outputs: {rows: table}`".into()
        });
        for (group, names) in [
            ("inputs", config.inputs.keys().collect::<Vec<_>>()),
            ("outputs", config.outputs.keys().collect()),
            ("files", config.files.keys().collect()),
        ] {
            for name in names.into_iter().filter(|name| !is_name(name)) {
                let message = format!("{name:?} is no name: expected a lower-case letter, then letters, digits and _");
                problems.add(group, message);
            }
        }
        for (name, _) in config.outputs.iter().filter(|(_, shape)| **shape == Shape::Models) {
            problems.add(&format!("outputs.{name}"), "`models` is an input only; expected a row type, table or model");
        }
        for (index, argument) in config.args.iter().enumerate() {
            for text in io::placeholders(argument) {
                if let Err(message) = Placeholder::of(text, config).and_then(|found| found.fits(argument, config)) {
                    problems.add(&format!("args.{index}"), message);
                }
            }
        }
        let mut seen = BTreeSet::new();
        let handed_on = config.env.iter().map(|name| ("env", name));
        let set = config.set_env.keys().map(|name| ("set_env", name));
        let secret = config.secrets.keys().map(|name| ("secrets", name));
        for (group, name) in handed_on.chain(set).chain(secret) {
            let sound = !name.is_empty() && !name.contains(['=', '\0']);
            problems.require(sound, group, || format!("{name:?} is not a variable's name"));
            problems.require(name != child::IO, group, || format!("{name} is set for the program already"));
            problems.require(seen.insert(name), group, || format!("{name} is given twice; expected it once"));
        }
        if let Some(seconds) = config.timeout_seconds {
            let sound = seconds.is_finite() && seconds > 0.0;
            problems.require(sound, "timeout_seconds", || format!("is {seconds}; expected a number above 0"));
        }
    }

    fn files(config: &Config) -> Vec<ExternalFile> {
        let program = find(&config.program);
        let interpreter = interpreter(&program);
        let programs = std::iter::once(program).chain(interpreter);
        let found = programs.map(|path| {
            ExternalFile::new("program", path).hint("give a path, or install it where PATH leads; see `which`")
        });
        let named = config.files.iter().map(|(name, path)| ExternalFile::new(format!("files.{name}"), path));
        found.chain(named).collect()
    }

    fn environment(config: &Config) -> Vec<String> {
        config.env.clone()
    }
}

impl Execute for Command {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let exchange = Exchange::prepare(config, run)?;
        child::run(config, run, &exchange)?;
        exchange.collect(config, run)
    }
}

fn is_name(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(rest)
}

/// Where a program lies. It is known by its bytes, so how it was found does not
/// matter; one that is nowhere stays as it was written.
fn find(program: &str) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from(program))
}

/// The program that a script asks for in its first line.
fn interpreter(program: &Path) -> Option<PathBuf> {
    use std::io::Read;
    let mut start = Vec::new();
    std::fs::File::open(program).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = String::from_utf8(start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.to_vec()).ok()?;
    let mut words = line.split_whitespace();
    let first = words.next()?;
    match first.ends_with("/env") {
        true => words.find(|word| !word.starts_with('-') && !word.contains('=')).map(find),
        false => Some(PathBuf::from(first)),
    }
}

#[cfg(test)]
mod tests;
