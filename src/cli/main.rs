//! `fuseline`: the command line. Knows every crate but no tensor: what needs a
//! model is done by `fuseline-worker`, so this executable links no libtorch.

mod args;
mod exit;
mod listing;
mod ops;
mod plan;
mod progress;
mod run;
mod session;
mod setting;
mod sql;
mod table;
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
        Verb::Run { pipeline, targets, jobs, keep_going, force, json } => {
            let options = run::Options { targets, jobs: *jobs, keep_going: *keep_going, force, json: *json };
            run::run(store, pipeline, &options)
        }
        Verb::Plan { pipeline, targets, values, json } => plan::plan(store, pipeline, targets, *values, *json),
        Verb::Check { pipeline, json } => plan::check(pipeline, *json),
        Verb::Why { pipeline, stage } => why::why(store, pipeline, stage),
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
        Verb::Ops { name } => ops::ops(name.as_deref()),
        Verb::Schema => ops::schema(),
    }
}
