//! `fuseline logs`: what the last attempt at a stage wrote.

use std::io::Write;
use std::time::Duration;

use fuseline_contract::{Class, StageError};
use fuseline_engine::decide::Decision;
use fuseline_engine::logs::{self, Log, Place};
use fuseline_engine::store::Store;
use fuseline_engine::{graph, ledger};

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::setting::Setting;

/// How often a running attempt is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Prints the logs of a stage's instances; `follow` goes on until they end.
pub fn logs(
    location: &Location,
    pipeline: &Pipeline,
    stage: &str,
    run: Option<&str>,
    follow: bool,
) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let runs = runs(&setting, run)?;
    let decisions = setting.decide();
    let mut nodes: Vec<usize> = graph::outputs(&setting.plan, stage)?.into_iter().map(|(node, _)| node).collect();
    nodes.dedup();
    for &node in &nodes {
        let id = &setting.plan.nodes[node].id;
        let record = match &decisions[node] {
            Decision::Hit { record, .. } if run.is_none() => Some(&**record),
            _ => None,
        };
        match logs::last(&setting.store, &runs, id, record)? {
            Some(log) => show(&setting.store, &id.to_string(), &log, follow)?,
            None if nodes.len() > 1 => eprintln!("{id}: no attempt"),
            None => {
                let hint = format!("`fuseline run {} --target '{id}'` makes one", pipeline.path.display());
                return Err(StageError::input(format!("there was no attempt at {id}")).hint(hint).into());
            }
        }
    }
    Ok(exit::DONE)
}

/// The pipeline's runs, or the one whose id begins so.
fn runs(setting: &Setting, run: Option<&str>) -> anyhow::Result<Vec<String>> {
    let pipeline = &setting.plan.name;
    let Some(beginning) = run else {
        let all = ledger::run_entries(&setting.store)?.into_iter();
        return Ok(all.filter(|entry| entry.pipeline == *pipeline).map(|entry| entry.run).collect());
    };
    let found = ledger::find_run(&setting.store, beginning)?;
    if found.pipeline != *pipeline {
        let message = format!("run {} is one of the pipeline {:?}, not of {pipeline:?}", found.run, found.pipeline);
        return Err(StageError::input(message).hint("`fuseline runs` lists them").into());
    }
    Ok(vec![found.run])
}

fn show(store: &Store, stage: &str, log: &Log, follow: bool) -> anyhow::Result<()> {
    let state = match &log.at {
        Place::Ledger(entry) => {
            let class = entry.class.map_or("done", Class::name);
            let exit = entry.exit.as_ref().map(|exit| format!(", {exit}")).unwrap_or_default();
            format!("{class}{exit}")
        }
        Place::Folder { .. } if log.goes_on(store)? => "goes on".to_owned(),
        Place::Folder { .. } => "its run was killed".to_owned(),
    };
    eprintln!("{stage}: attempt {} of run {}: {state}", log.attempt, log.run);
    let mut shown = [0, 0];
    loop {
        // Asked first, so that what it wrote last is read after its end.
        let goes_on = follow && log.goes_on(store)?;
        let written = log.read(store)?;
        if !follow && written.iter().all(Vec::is_empty) {
            eprintln!("{stage}: it wrote nothing");
        }
        let mut out = std::io::stdout().lock();
        for (bytes, shown) in written.iter().zip(&mut shown) {
            let new = &bytes[(*shown).min(bytes.len())..];
            match out.write_all(new).and_then(|()| out.flush()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                result => result?,
            }
            *shown = bytes.len().max(*shown);
        }
        drop(out);
        if !goes_on {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
