//! `fuseline push` and `pull`: results to and from a store that several people share.

use std::collections::BTreeSet;

use fuseline_contract::StageError;
use fuseline_engine::Decision;
use fuseline_engine::error::Error;
use fuseline_engine::graph::Graph;
use fuseline_engine::select::Selector;
use fuseline_engine::store::Remote;

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::listing::size;
use crate::setting::Setting;

/// Sends the results of a pipeline that are here.
pub fn push(location: &Location, pipeline: &Pipeline, url: &str, targets: &[String]) -> anyhow::Result<u8> {
    let remote = Remote::open(url)?;
    let setting = Setting::open(location, pipeline)?;
    let _spared = setting.store.spare("push");
    let (mut stages, mut new, mut blobs, mut bytes) = (0, 0, 0, 0);
    let (mut unmade, mut lost) = (Vec::new(), Vec::new());
    let decisions = setting.decide();
    for index in wanted(&setting, targets)? {
        let Decision::Hit { record, .. } = &decisions[index] else {
            unmade.push(setting.plan.nodes[index].id.to_string());
            continue;
        };
        let pushed = match remote.push(&setting.store, record) {
            // A collection that began before took it.
            Err(Error::BlobMissing { .. } | Error::BlobCorrupt { .. }) => {
                lost.push(setting.plan.nodes[index].id.to_string());
                continue;
            }
            pushed => pushed?,
        };
        stages += 1;
        new += usize::from(pushed.is_new);
        blobs += pushed.blobs;
        bytes += pushed.bytes;
    }
    setting.warn();
    say_unmade("have no result yet and were left out", &unmade);
    say_unmade("lost their results, to damage or a collection, and were left out (run the pipeline again)", &lost);
    exit::print(&format!("{stages} stages, {new} of them new; sent {blobs} files, {}\n", size(bytes)))
}

/// Brings the results of a pipeline that are only in the shared store.
pub fn pull(location: &Location, pipeline: &Pipeline, url: &str, targets: &[String]) -> anyhow::Result<u8> {
    let location = Location { store: location.store.clone(), remote: Some(url.to_owned()) };
    let setting = Setting::open(&location, pipeline)?;
    setting.store.prepare()?;
    let _spared = setting.store.spare("pull");
    let remote = setting.store.remote().expect("it was given");
    let decisions = fuseline_engine::decide(&setting.plan, &setting.store);
    let (mut here, mut fetched, mut bytes) = (0, 0, 0);
    let mut unmade = Vec::new();
    for index in wanted(&setting, targets)? {
        match &decisions[index] {
            Decision::Hit { record, here: true, .. } if setting.store.rely_on(record) => here += 1,
            Decision::Hit { record, .. } => {
                if setting.store.pull(record)? {
                    fetched += 1;
                    bytes += record.outputs.iter().map(|output| output.size_bytes()).sum::<u64>();
                }
            }
            _ => unmade.push(setting.plan.nodes[index].id.to_string()),
        }
    }
    say_unmade("are not there", &unmade);
    // Here the remote store is what was asked for, so its failure is ours.
    let troubles = remote.troubles();
    if !troubles.is_empty() {
        return Err(StageError::environment(troubles.join("\n"))
            .hint("look at the address, the network and the credentials in the environment")
            .into());
    }
    exit::print(&format!("{fetched} stages fetched, {}; {here} were here\n", size(bytes)))
}

/// The selected instances and what they need; all if nothing is selected.
fn wanted(setting: &Setting, targets: &[String]) -> anyhow::Result<BTreeSet<usize>> {
    let plan = &setting.plan;
    Ok(match targets {
        [] => (0..plan.nodes.len()).collect(),
        targets => Graph::of(plan).upstream(&Selector::new(plan, &setting.store).select(targets)?),
    })
}

fn say_unmade(what: &str, stages: &[String]) {
    if !stages.is_empty() {
        eprintln!("note: {} stages {what}: {}", stages.len(), stages.join(", "));
    }
}
