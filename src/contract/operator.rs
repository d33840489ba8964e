//! The operator trait, and its erasure into a table entry.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::port::Ports;
use crate::value::Value;

/// Shared code whose version enters the keys of the operators that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which code, such as `lm.decoder`.
    pub name: &'static str,
    /// Raised when its results change.
    pub version: u32,
}

/// Where a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a thread of the driving process: cheap, safe work.
    Thread,
    /// In a child process of its own, with the libraries of `fuseline-worker`.
    Worker,
}

/// What an operator promises of a second run of one key on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The same bytes. Other bytes are a bug, and are warned of.
    Deterministic,
    /// A result as good; its bytes may differ.
    Sampled,
}

/// What the engine must know of an operator besides its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Where it runs.
    pub place: Place,
    /// Whether its result depends on the seed, which then is in its key.
    pub uses_seed: bool,
    /// The numerics class, where results depend on device and dtype: `f32/cpu`.
    pub numerics: Option<&'static str>,
    /// What it promises of a second run.
    pub promise: Promise,
}

impl Traits {
    /// Pure data work on a thread: no seed, no numerics class, always the same bytes.
    pub const PURE: Self =
        Self { place: Place::Thread, uses_seed: false, numerics: None, promise: Promise::Deterministic };
}

/// A file or folder outside the store that a parameter names. Its content, not
/// its path, is in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// The parameter that names it; dots lead into nested ones.
    pub parameter: Cow<'static, str>,
    /// The path as written.
    pub path: PathBuf,
    /// What to do where it is missing, if that is not its path's fault.
    pub hint: Option<&'static str>,
}

impl ExternalFile {
    /// A file or folder that a parameter names.
    pub fn new(parameter: impl Into<Cow<'static, str>>, path: impl Into<PathBuf>) -> Self {
        Self { parameter: parameter.into(), path: path.into(), hint: None }
    }

    /// Says what to do where it is missing.
    #[must_use]
    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// What is wrong with a configuration; all of it, not the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<ParameterProblem>);

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterProblem {
    /// Path inside `with`: field names, and indices as digits.
    pub path: Vec<String>,
    /// What is wrong and what is expected.
    pub message: String,
}

impl Problems {
    /// Notes that a parameter is wrong.
    pub fn add(&mut self, parameter: &str, message: impl Into<String>) {
        let path = parameter.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        self.0.push(ParameterProblem { path, message: message.into() });
    }

    /// Notes a parameter unless the condition holds.
    pub fn require(&mut self, holds: bool, parameter: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(parameter, message());
        }
    }
}

/// A kind of stage.
pub trait Operator: 'static {
    /// The word in YAML.
    const NAME: &'static str;
    /// Raised when results change.
    const VERSION: u32;
    /// Shared code whose version is part of the key.
    const PARTS: &'static [Part] = &[];
    /// What the engine must know.
    const TRAITS: Traits = Traits::PURE;
    /// The manual page in Markdown; its first line is the summary.
    const MANUAL: &'static str;
    /// A stage that uses it, as YAML: `op`, `inputs`, `with`.
    const EXAMPLE: &'static str;
    /// Parameters that cannot change the result and so stay out of the key;
    /// dots lead into nested ones, as in `train.checkpoint_every`.
    const EXECUTION: &'static [&'static str] = &[];
    /// Parameters that may hold secrets ([`crate::Secret`]), alone or in a list or
    /// map. They stay out of the key.
    const SECRET: &'static [&'static str] = &[];
    /// Parameters that came after the first release, with the JSON of the
    /// neutral value: the one that behaves as before. A parameter at its
    /// neutral value is not encoded, so old keys stay.
    const ADDED: &'static [(&'static str, &'static str)] = &[];

    /// The parameters; every field documented, unknown fields refused.
    type Config: DeserializeOwned + Serialize + JsonSchema;

    /// Fills in defaults that depend on other parameters, so that what is left
    /// out and what is written out are one configuration and one key.
    fn fill(_config: &mut Self::Config) {}

    /// What it takes and makes under a configuration.
    fn ports(config: &Self::Config) -> Ports;

    /// Notes everything that is wrong with ranges and combinations.
    fn check(_config: &Self::Config, _problems: &mut Problems) {}

    /// The files and folders outside the store that parameters name.
    fn files(_config: &Self::Config) -> Vec<ExternalFile> {
        Vec::new()
    }

    /// The names of the environment variables that its process must have; they
    /// are not in the key, so they may not change the result.
    fn environment(_config: &Self::Config) -> Vec<String> {
        Vec::new()
    }
}

/// A configuration after defaults, with all that follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Parameters with defaults filled in.
    pub params: serde_json::Value,
    /// What enters the key: without execution parameters, secrets, neutral values
    /// and paths of external files.
    pub key: Value,
    /// Ports under this configuration.
    pub ports: Ports,
    /// External files.
    pub files: Vec<ExternalFile>,
    /// Names of environment variables that its process must have.
    pub environment: Vec<String>,
}

/// An operator as the engine sees it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// See [`Operator::NAME`].
    pub name: &'static str,
    /// See [`Operator::VERSION`].
    pub version: u32,
    /// See [`Operator::PARTS`].
    pub parts: &'static [Part],
    /// See [`Operator::TRAITS`].
    pub traits: Traits,
    /// See [`Operator::MANUAL`].
    pub manual: &'static str,
    /// See [`Operator::EXAMPLE`].
    pub example: &'static str,
    /// See [`Operator::EXECUTION`].
    pub execution: &'static [&'static str],
    /// See [`Operator::SECRET`].
    pub secret: &'static [&'static str],
    /// The JSON Schema of the parameters.
    pub schema: fn() -> serde_json::Value,
    resolve: fn(&serde_json::Value) -> Result<Resolved, Problems>,
}

impl Entry {
    /// Erases an operator's type.
    pub const fn of<T: Operator>() -> Self {
        Self {
            name: T::NAME,
            version: T::VERSION,
            parts: T::PARTS,
            traits: T::TRAITS,
            manual: T::MANUAL,
            example: T::EXAMPLE,
            execution: T::EXECUTION,
            secret: T::SECRET,
            schema: || schemars::schema_for!(T::Config).to_value(),
            resolve: resolve::<T>,
        }
    }

    /// Types the parameters, fills in defaults and checks them.
    pub fn resolve(&self, params: &serde_json::Value) -> Result<Resolved, Problems> {
        (self.resolve)(params)
    }

    /// The manual's first line.
    pub fn summary(&self) -> &'static str {
        self.manual.trim().lines().next().unwrap_or_default()
    }
}

pub(crate) fn decode<T: Operator>(params: &serde_json::Value) -> Result<T::Config, Problems> {
    serde_path_to_error::deserialize(params).map_err(|error| {
        use serde_path_to_error::Segment;
        let path = error.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        });
        Problems(vec![ParameterProblem { path: path.collect(), message: error.inner().to_string() }])
    })
}

/// Removes what a path of names with dots between them leads to.
fn take_out(value: &mut Value, path: &str) {
    if let Value::Map(map) = value {
        match path.split_once('.') {
            None => drop(map.remove(path)),
            Some((first, rest)) => map.get_mut(first).into_iter().for_each(|inner| take_out(inner, rest)),
        }
    }
}

fn resolve<T: Operator>(params: &serde_json::Value) -> Result<Resolved, Problems> {
    let mut config = decode::<T>(params)?;
    T::fill(&mut config);
    let mut problems = Problems::default();
    T::check(&config, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems);
    }
    let params = serde_json::to_value(&config).map_err(|error| {
        let mut problems = Problems::default();
        problems.add("", error.to_string());
        problems
    })?;
    let files = T::files(&config);
    let mut key = Value::from_json(&params);
    for name in T::EXECUTION.iter().chain(T::SECRET) {
        take_out(&mut key, name);
    }
    for file in &files {
        take_out(&mut key, &file.parameter);
    }
    if let Value::Map(map) = &mut key {
        for (name, neutral) in T::ADDED {
            let neutral = serde_json::from_str(neutral).expect("ADDED holds JSON, as a test of the list checks");
            if map.get(*name) == Some(&Value::from_json(&neutral)) {
                map.remove(*name);
            }
        }
    }
    Ok(Resolved { params, key, ports: T::ports(&config), files, environment: T::environment(&config) })
}
