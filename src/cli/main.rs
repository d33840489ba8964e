//! `fuseline`: the command line. Knows every crate but no tensor: what needs a
//! model is done by `fuseline-worker`, so this executable links no libtorch.

mod answers;
mod args;
mod caller;
mod care;
mod cell;
mod diff;
mod exit;
mod export;
mod handover;
mod init;
mod listing;
mod lock;
mod logs;
mod ops;
mod plan;
mod progress;
mod replaced;
mod run;
mod serve;
mod session;
mod setting;
mod share;
mod shell;
mod sql;
mod table;
mod verify;
mod why;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, GraphFormat, Verb};
use handover::Task;
use setting::Setting;

/// A third of the instructions of a run that finds everything done were the
/// system allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit::of(dispatch(&Cli::parse()))
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let location = &cli.location;
    match &cli.verb {
        Verb::Run { pipeline, wanted, jobs, keep_going, locked, json } => {
            let locked = locked.as_deref();
            let options = run::Options { wanted, jobs: *jobs, keep_going: *keep_going, locked, json: *json };
            run::run(location, pipeline, &options)
        }
        Verb::Plan { pipeline, wanted, values, json } => plan::plan(location, pipeline, wanted, *values, *json),
        Verb::Check { pipeline, json } => plan::check(pipeline, *json),
        Verb::Why { pipeline, stage: Some(stage), json, .. } => why::why(location, pipeline, stage, *json),
        Verb::Why { pipeline, stage: None, cell, json } => cell::why(location, pipeline, cell, *json),
        Verb::WhyNot { pipeline, stage, json } => why::why_not(location, pipeline, stage, *json),
        Verb::Diff { before, now, stage, key, tol, limit, json } => {
            let options = diff::Options { keys: key, tolerance: *tol, limit: *limit, json: *json };
            diff::diff(&location.store, before, now, stage.as_deref(), &options)
        }
        Verb::Lock { pipeline, output } => lock::lock(location, pipeline, output.as_deref()),
        Verb::Verify { pipeline, stages, rerun: true, json, .. } => verify::rerun(location, pipeline, stages, *json),
        Verb::Verify { pipeline, stages, lock, json, .. } => {
            verify::compare(location, pipeline, stages, lock.as_deref(), *json)
        }
        Verb::Ls { pipeline, json } => listing::ls(location, pipeline, *json),
        Verb::Table { pipeline, name, format, output } => {
            table::table(location, pipeline, name.as_deref(), *format, output.as_deref())
        }
        Verb::Sql { pipeline, query, file, format, output, memory } => {
            let asked = sql::Asked { query: query.as_deref(), file: file.as_deref() };
            sql::sql(location, pipeline, &asked, answers::Answers::new(*format, output.as_deref())?, *memory)
        }
        Verb::Graph { pipeline, format } => {
            let plan = Setting::check_only(pipeline)?;
            let graph = fuseline_engine::graph::Graph::of(&plan);
            exit::print(&match format {
                GraphFormat::Mermaid => graph.mermaid(),
                GraphFormat::Dot => graph.dot(),
            })
        }
        Verb::Path { pipeline, stage } => listing::path(location, pipeline, stage),
        Verb::Runs { json } => listing::runs(&location.store, *json),
        Verb::Logs { pipeline, stage, run, follow } => logs::logs(location, pipeline, stage, run.as_deref(), *follow),
        Verb::Fsck { fast, repair, json } => {
            care::fsck(&location.store, fuseline_engine::care::fsck::Options { fast: *fast, repair: *repair }, *json)
        }
        Verb::Gc { yes, keep_runs, min_age, forget_inputs, max_bytes, memo, json } => {
            let options = fuseline_engine::care::gc::Options {
                keep_runs: *keep_runs,
                min_age: *min_age,
                forget_inputs: *forget_inputs,
                max_bytes: *max_bytes,
                memo: memo.clone(),
                ..fuseline_engine::care::gc::Options::default()
            };
            care::gc(&location.store, &options, *yes, *json)
        }
        Verb::Du { pipeline, json } => care::du(location, pipeline, *json),
        Verb::Pin { name, pipeline, stage } => care::pin(location, name, pipeline, stage),
        Verb::Pins { json } => care::pins(&location.store, *json),
        Verb::Unpin { name } => care::unpin(&location.store, name),
        Verb::Push { pipeline, url, targets } => share::push(location, pipeline, url, targets),
        Verb::Pull { pipeline, url, targets } => share::pull(location, pipeline, url, targets),
        Verb::Export { pipeline, stage, folder } => export::export(location, pipeline, stage, folder),
        Verb::Ops { name } => ops::ops(name.as_deref()),
        Verb::Schema { events } => ops::schema(*events),
        Verb::Init { path } => init::init(path),
        Verb::Serve { model, stage, name, host, port, token_file, max_tokens, room } => {
            let stage = stage.as_deref();
            serve::hand_over(&Task::Serve {
                folder: serve::folder(location, model, stage)?,
                name: name.clone().unwrap_or_else(|| serve::name(model, stage)),
                host: host.clone(),
                port: *port,
                token_file: token_file.clone(),
                max_tokens: *max_tokens,
                room: room.task(),
            })
        }
        Verb::Chat { model, stage, system, temperature, top_p, max_tokens, seed, room } => {
            serve::hand_over(&Task::Chat {
                folder: serve::folder(location, model, stage.as_deref())?,
                system: system.clone(),
                temperature: *temperature,
                top_p: *top_p,
                max_tokens: *max_tokens,
                seed: *seed,
                room: room.task(),
            })
        }
    }
}
