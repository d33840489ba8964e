//! `fuseline run`: runs what changed, then prints the pipeline's tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuseline_contract::StageError;
use fuseline_engine::choice::Choice;
use fuseline_engine::schedule::{self, RunOptions};

use crate::args::{Location, Pipeline, TableFormat, Wanted};
use crate::progress::Display;
use crate::setting::Setting;
use crate::{caller, exit, lock, table};

/// What was asked for besides the pipeline.
pub struct Options<'a> {
    /// What is wanted.
    pub wanted: &'a Wanted,
    /// Stages at once.
    pub jobs: Option<usize>,
    /// Go on after a failure.
    pub keep_going: bool,
    /// The lock that must hold.
    pub locked: Option<&'a Path>,
    /// Events instead of tables.
    pub json: bool,
}

/// Runs a pipeline.
pub fn run(location: &Location, pipeline: &Pipeline, options: &Options) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let Choice { targets, wanted, overrides } = setting.choose(options.wanted)?;
    let locked = options.locked.map(lock::read).transpose()?;
    if let Some(lock) = &locked {
        lock::refuse(lock.check_definitions(&setting.plan, &setting.store, Some(&wanted)))?;
    }
    let run_options = RunOptions {
        targets,
        jobs: options.jobs,
        keep_going: options.keep_going,
        overrides,
        caller: caller::here(),
        ..RunOptions::new(worker()?)
    };
    let display = if options.json { Display::json() } else { Display::for_people() };
    if !options.json {
        for note in &setting.plan.notes {
            eprintln!("note: {note}");
        }
    }
    let cancel = cancel_on_signal();
    let summary =
        schedule::run(&setting.plan, &setting.store, &run_options, fuseline_operators::THREAD, &cancel, &|event| {
            display.show(&event)
        })?;
    if let Some(lock) = &locked {
        let nodes = setting.plan.nodes.iter().zip(&summary.records);
        let records = nodes.filter_map(|(node, record)| Some((node.id.to_string(), record.as_ref()?)));
        lock::refuse(lock.check_records(records))?;
    }
    if !options.json && summary.failed.is_empty() {
        table::note_accepted(&setting, &summary.records, None);
        let tables = table::render(&setting, &summary.records, TableFormat::Text, None)?;
        exit::print(&tables)?;
    }
    Ok(summary.exit_code())
}

/// The executable that runs models, beside this one.
pub fn worker() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()
        .map_err(|error| StageError::environment(format!("failed to find this executable: {error}")))?;
    let worker = here.with_file_name(format!("fuseline-worker{}", std::env::consts::EXE_SUFFIX));
    if !worker.is_file() {
        return Err(StageError::environment(format!("{} is missing", worker.display()))
            .hint("build both executables: cargo build --release")
            .into());
    }
    Ok(worker)
}

/// Ctrl-C and SIGTERM stop the run in good order; a second one at once.
pub fn cancel_on_signal() -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    let handler = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping; press Ctrl-C again to stop at once (finished stages are kept)");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        eprintln!("warning: Ctrl-C will stop at once: {error}");
    }
    cancel
}
