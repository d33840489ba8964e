//! `fuseline lock`: the digests behind a pipeline's results, for a file beside
//! the paper.

use std::path::{Path, PathBuf};

use fuseline_contract::{Cause, StageError};
use fuseline_engine::lock::{Deviation, Lock};

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::setting::Setting;

/// Writes the lock of a pipeline.
pub fn lock(location: &Location, pipeline: &Pipeline, output: Option<&Path>) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let lock = Lock::of(&setting.plan, &setting.store, &setting.decide()).map_err(|error| match error.cause {
        Cause::Input if error.hint.is_none() => error.hint(format!("fuseline run {}", pipeline.path.display())),
        _ => error,
    })?;
    exit::write(lock.to_yaml().as_bytes(), output)
}

/// Where the lock of a pipeline lies unless another place is named.
pub fn beside(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock.yaml")
}

/// Reads a lock.
pub fn read(path: &Path) -> anyhow::Result<Lock> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        StageError::io("read the lock", path, &error).hint("`fuseline lock PIPELINE -o FILE` writes one")
    })?;
    Ok(Lock::parse(&text).map_err(|message| StageError::input(format!("{}: {message}", path.display())))?)
}

/// Makes deviations from a lock an error.
pub fn refuse(deviations: Vec<Deviation>) -> anyhow::Result<()> {
    let Some(cause) = deviations.iter().map(|deviation| deviation.cause).max_by_key(|cause| cause.exit_code()) else {
        return Ok(());
    };
    let lines: Vec<String> = deviations.iter().map(|found| format!("\n  {}: {}", found.stage, found.what)).collect();
    let message = format!("this is not what the lock says:{}", lines.concat());
    Err(StageError::new(cause, message).hint("run without --locked, or write a new lock").into())
}
