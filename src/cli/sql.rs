//! `fuseline sql`: questions to a pipeline's tables: one, a file's, or as many as
//! a terminal or a pipe brings.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuseline_contract::StageError;
use fuseline_engine::resources::Machine;
use fuseline_query::Limits;

use crate::answers::Answers;
use crate::args::{Location, Pipeline};
use crate::setting::Setting;
use crate::{exit, session, shell};

/// Where the query is.
pub struct Asked<'a> {
    /// On the command line.
    pub query: Option<&'a str>,
    /// In a file.
    pub file: Option<&'a Path>,
}

/// Answers a query, or those that come.
pub fn sql(
    location: &Location,
    pipeline: &Pipeline,
    asked: &Asked<'_>,
    mut answers: Answers,
    memory: Option<u64>,
) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let is_shell = asked.query.is_none() && asked.file.is_none();
    let is_attended = is_shell && std::io::stdin().is_terminal();
    let machine = Machine::detect();
    // Half is left to the file cache, to results, and to the rest of the machine.
    let memory = memory.or(machine.mem_bytes.map(|bytes| bytes / 2));
    let limits = Limits {
        threads: machine.cpus as usize,
        memory_bytes: memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        // Beside the store there is room; the system's folder is often in memory.
        spill: Some(setting.store.root().join("tmp")).filter(|folder| folder.is_dir()),
        cancel: is_attended.then(cancel_on_signal).transpose()?,
    };
    let session = session::open(&setting, limits, format!("fuseline run {}", pipeline.path.display()))?;
    if is_attended {
        return shell::attended(&session, answers);
    }
    if is_shell {
        return shell::piped(&session, answers);
    }
    let query = match (asked.query, asked.file) {
        (Some(query), _) => query.to_owned(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| StageError::io("read", file, &error))?,
        (None, None) => unreachable!("that is a shell"),
    };
    answers.write(session.stream(&query)?)?;
    answers.finish()?;
    Ok(exit::DONE)
}

/// While a query runs, Ctrl-C ends the query and not the shell.
fn cancel_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| StageError::environment(format!("failed to take over Ctrl-C: {error}")))?;
    Ok(cancel)
}
