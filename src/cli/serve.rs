//! `fuseline serve` and `chat`: finds the model's folder and hands over to
//! `fuseline-worker`, which holds the model.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use fuseline_contract::StageError;
use fuseline_engine::decide::Decision;
use fuseline_engine::graph;
use fuseline_engine::store::ArtifactKind;

use crate::args::{Location, Model, Pipeline};
use crate::handover::Task;
use crate::run;
use crate::setting::Setting;

/// The folder of a model: MODEL is one, or a pipeline whose STAGE made one.
pub fn folder(location: &Location, model: &Model, stage: Option<&str>) -> anyhow::Result<PathBuf> {
    let path = &model.path;
    let Some(stage) = stage else {
        if path.join("config.json").is_file() {
            return Ok(path.clone());
        }
        let hint = match path.is_file() {
            true => format!("name the stage that made the model: fuseline serve {} STAGE", path.display()),
            false => "give a folder with config.json, or a pipeline and a stage".to_owned(),
        };
        return Err(StageError::input(format!("{} is no model folder", path.display())).hint(hint).into());
    };
    let pipeline = Pipeline { path: path.clone(), sets: model.sets.clone() };
    let setting = Setting::open(location, &pipeline)?;
    let decisions = setting.decide();
    let outputs = graph::outputs(&setting.plan, stage)?;
    let [(node, output)] = outputs.as_slice() else {
        let message = format!("{stage} stands for {} results, and one model is served", outputs.len());
        return Err(StageError::input(message).hint("say which: 'STAGE[axis=value]'").into());
    };
    let id = &setting.plan.nodes[*node].id;
    let Decision::Hit { record, .. } = &decisions[*node] else {
        let run = format!("fuseline run {} --target '{id}'", path.display());
        return Err(StageError::input(format!("stage {id} has no result yet")).hint(run).into());
    };
    let made = &record.outputs[*output];
    let view = setting.store.view(&made.artifact)?;
    if made.kind != ArtifactKind::Model || !view.join("config.json").is_file() {
        return Err(StageError::input(format!("{id} makes no model folder")).into());
    }
    Ok(view)
}

/// The name of a model that has none: its folder's, or the stage's.
pub fn name(model: &Model, stage: Option<&str>) -> String {
    let folder = || model.path.file_name().map(|name| name.to_string_lossy().into_owned());
    stage.map(str::to_owned).or_else(folder).unwrap_or_else(|| "model".to_owned())
}

/// Becomes the worker. Signals and the terminal are then its own.
pub fn hand_over(task: &Task) -> anyhow::Result<u8> {
    let task = serde_json::to_string(task)?;
    let error = Command::new(run::worker()?).arg(crate::handover::WORD).arg(task).exec();
    Err(StageError::environment(format!("failed to start fuseline-worker: {error}")).into())
}
