//! `fuseline export`: a stage's outputs as ordinary files, with what they were made of beside them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fuseline_contract::StageError;
use fuseline_engine::graph::{self, Graph};
use fuseline_engine::lineage;
use fuseline_engine::reference::Reference;

use crate::args::{Location, Pipeline};
use crate::exit;
use crate::setting::Setting;

/// The file that says where the others come from.
const LINEAGE: &str = "lineage.json";

/// Copies outputs to `FOLDER/[AXIS=VALUE/]…OUTPUT/`.
pub fn export(location: &Location, pipeline: &Pipeline, stage: &str, folder: &Path) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let mut outputs = graph::outputs(&setting.plan, stage)?;
    if stage.parse::<Reference>().is_ok_and(|reference| reference.output.is_none()) {
        let all = |(node, _): (usize, usize)| {
            (0..setting.plan.nodes[node].resolved.ports.outputs.len()).map(move |output| (node, output))
        };
        outputs = outputs.into_iter().flat_map(all).collect();
    }
    let decisions = setting.decide();
    let nodes: BTreeSet<usize> = outputs.iter().map(|(node, _)| *node).collect();
    let upstream = Graph::of(&setting.plan).upstream(&nodes);
    // Everything is checked before anything is written.
    let events = lineage::events(&setting.plan, &setting.store, &decisions, &upstream).map_err(|error| {
        if error.hint.is_some() { error } else { error.hint(format!("fuseline run {}", pipeline.path.display())) }
    })?;
    make_empty(folder)?;
    let mut n_files = 0;
    for (node, output) in outputs {
        let node_plan = &setting.plan.nodes[node];
        let record = decisions[node].record().expect("its lineage is known");
        let artifact = &record.outputs[output].artifact;
        setting.store.verify_artifact(artifact)?;
        let mut to = folder.to_owned();
        to.extend(node_plan.id.axes.iter().map(|(axis, value)| format!("{axis}={}", plain(value))));
        to.push(&node_plan.resolved.ports.outputs[output].name);
        for (name, blob) in setting.store.files(artifact)? {
            copy(&blob, &to.join(name))?;
            n_files += 1;
        }
    }
    let path = folder.join(LINEAGE);
    let text = serde_json::to_string_pretty(&events)? + "\n";
    fs::write(&path, text).map_err(|error| StageError::io("write", &path, &error))?;
    exit::print(&format!("{n_files} files and {LINEAGE} in {}\n", folder.display()))
}

fn make_empty(folder: &Path) -> Result<(), StageError> {
    fs::create_dir_all(folder).map_err(|error| StageError::io("create", folder, &error))?;
    let mut entries = fs::read_dir(folder).map_err(|error| StageError::io("read", folder, &error))?;
    if entries.next().is_some() {
        let error = StageError::input(format!("{} is not empty", folder.display()));
        return Err(error.hint("name a new folder: nothing is overwritten"));
    }
    Ok(())
}

/// A copy, which its owner may change without harm to the store.
fn copy(from: &Path, to: &PathBuf) -> Result<(), StageError> {
    let folder = to.parent().expect("a file in a folder");
    fs::create_dir_all(folder).map_err(|error| StageError::io("create", folder, &error))?;
    fs::copy(from, to).map_err(|error| StageError::io("write", to, &error))?;
    fs::set_permissions(to, Permissions::from_mode(0o644)).map_err(|error| StageError::io("write", to, &error))
}

/// A value as a part of a path: what is special there is written as `%` and two digits.
fn plain(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    value.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_inside_their_folder() {
        assert_eq!(plain("qwen2.5-7b"), "qwen2.5-7b");
        assert_eq!(plain("org/../name é"), "org%2F..%2Fname%20%C3%A9");
    }
}
