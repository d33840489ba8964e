//! `fuseline`: the command line. Knows every crate but no tensor: what needs a
//! model is done by `fuseline-worker`, so this executable links no libtorch.

mod args;
mod care;
mod diff;
mod exit;
mod init;
mod listing;
mod lock;
mod ops;
mod plan;
mod progress;
mod replaced;
mod run;
mod session;
mod setting;
mod sql;
mod table;
mod verify;
mod why;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, GraphFormat, Verb};
use setting::Setting;

fn main() -> ExitCode {
    exit::of(dispatch(&Cli::parse()))
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let store = cli.store.as_path();
    match &cli.verb {
        Verb::Run { pipeline, wanted, jobs, keep_going, locked, json } => {
            let locked = locked.as_deref();
            let options = run::Options { wanted, jobs: *jobs, keep_going: *keep_going, locked, json: *json };
            run::run(store, pipeline, &options)
        }
        Verb::Plan { pipeline, wanted, values, json } => plan::plan(store, pipeline, wanted, *values, *json),
        Verb::Check { pipeline, json } => plan::check(pipeline, *json),
        Verb::Why { pipeline, stage, json } => why::why(store, pipeline, stage, *json),
        Verb::WhyNot { pipeline, stage, json } => why::why_not(store, pipeline, stage, *json),
        Verb::Diff { before, now, stage, key, tol, limit, json } => {
            let options = diff::Options { keys: key, tolerance: *tol, limit: *limit, json: *json };
            diff::diff(store, before, now, stage.as_deref(), &options)
        }
        Verb::Lock { pipeline, output } => lock::lock(store, pipeline, output.as_deref()),
        Verb::Verify { pipeline, stages, rerun: true, json, .. } => verify::rerun(store, pipeline, stages, *json),
        Verb::Verify { pipeline, stages, lock, json, .. } => {
            verify::compare(store, pipeline, stages, lock.as_deref(), *json)
        }
        Verb::Ls { pipeline, json } => listing::ls(store, pipeline, *json),
        Verb::Table { pipeline, name, format, output } => {
            table::table(store, pipeline, name.as_deref(), *format, output.as_deref())
        }
        Verb::Sql { pipeline, query, file, format, output } => {
            sql::sql(store, pipeline, query.as_deref(), file.as_deref(), *format, output.as_deref())
        }
        Verb::Graph { pipeline, format } => {
            let plan = Setting::check_only(pipeline)?;
            let graph = fuseline_engine::graph::Graph::of(&plan);
            exit::print(&match format {
                GraphFormat::Mermaid => graph.mermaid(),
                GraphFormat::Dot => graph.dot(),
            })
        }
        Verb::Path { pipeline, stage } => listing::path(store, pipeline, stage),
        Verb::Runs { json } => listing::runs(store, *json),
        Verb::Fsck { fast, repair, json } => {
            care::fsck(store, fuseline_engine::care::fsck::Options { fast: *fast, repair: *repair }, *json)
        }
        Verb::Gc { yes, keep_runs, min_age, forget_inputs, max_bytes, json } => {
            let options = fuseline_engine::care::gc::Options {
                keep_runs: *keep_runs,
                min_age: *min_age,
                forget_inputs: *forget_inputs,
                max_bytes: *max_bytes,
                ..fuseline_engine::care::gc::Options::default()
            };
            care::gc(store, &options, *yes, *json)
        }
        Verb::Du { pipeline, json } => care::du(store, pipeline, *json),
        Verb::Pin { name, pipeline, stage } => care::pin(store, name, pipeline, stage),
        Verb::Pins { json } => care::pins(store, *json),
        Verb::Unpin { name } => care::unpin(store, name),
        Verb::Ops { name } => ops::ops(name.as_deref()),
        Verb::Schema => ops::schema(),
        Verb::Init { path } => init::init(path),
    }
}
