//! Files of the Hub for a stage: the commit that a name stands for is told, and
//! what the stage wants of it is brought into the Hub's own cache.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fuseline_contract::{Problems, Progress, Run, StageError};
use fuseline_remote::hub::{Hub, Kind, Name, Place, SCHEME, VARIABLES};

use super::endpoint::stage_error;

/// A path that is a name on the Hub, if it is one.
pub fn name(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| text.starts_with(SCHEME))
}

/// Notes what is wrong with a name.
pub fn check(text: &str, kind: Kind, parameter: &str, problems: &mut Problems) -> Option<Name> {
    match Name::parse(text) {
        Err(error) => problems.add(parameter, error.to_string().replace("\nhint: ", "; ")),
        Ok(name) if name.kind != kind => {
            let expected = if kind == Kind::Dataset { "a dataset: hf://datasets/ORG/NAME" } else { "a model" };
            problems.add(parameter, format!("{text:?} is not {expected}"));
        }
        Ok(name) => return Some(name),
    }
    None
}

/// The environment variables that say where the Hub is, where its cache, and as whom it is asked.
pub fn environment() -> Vec<String> {
    VARIABLES.iter().map(|name| (*name).to_owned()).collect()
}

/// Brings those files of a repository into the cache that `choose` picks out of
/// its paths. Gives their folder and paths.
pub fn fetch(
    text: &str,
    run: &dyn Run,
    choose: &dyn Fn(&[&str]) -> Result<Vec<String>, StageError>,
) -> Result<(PathBuf, Vec<String>), StageError> {
    let name = Name::parse(text).map_err(stage_error)?;
    let hub = Hub::open(Place::find(&|variable| std::env::var(variable).ok())).map_err(stage_error)?;
    let commit = hub.resolve(&name).map_err(stage_error)?;
    let pinned = name.at(&commit.id);
    run.origin(pinned.clone());
    if !name.is_pinned() {
        run.note(format!("{text} is now {pinned}: write that to hold on to it, or --force this stage to follow it"));
    }
    let paths: Vec<&str> = commit.files.iter().map(|(path, _)| path.as_str()).collect();
    let chosen = choose(&paths)?;
    let wanted: Vec<_> = commit.files.iter().filter(|(path, _)| chosen.contains(path)).cloned().collect();
    let mut tell = |done: u64, total: u64| {
        run.progress(Progress { done: done >> 20, total: total >> 20, unit: "MiB".into(), figure: String::new() });
        if run.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let fetched = hub.fetch(&name, &commit.id, &wanted, &mut tell);
    run.check_cancelled()?;
    Ok((fetched.map_err(stage_error)?, chosen))
}
