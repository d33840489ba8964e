//! A pipeline file opened for a verb: its plan and its store.

use std::path::Path;

use fuseline_engine::decide::{Decision, decide};
use fuseline_engine::plan::Plan;
use fuseline_engine::store::Store;
use fuseline_engine::{Settings, load};
use fuseline_operators::ALL;

use crate::args::Pipeline;

/// A plan and the store that it is held against.
pub struct Setting {
    /// The plan.
    pub plan: Plan,
    /// The store.
    pub store: Store,
}

impl Setting {
    /// Plans a pipeline and opens the store.
    pub fn open(store: &Path, pipeline: &Pipeline) -> anyhow::Result<Self> {
        let plan = load(&pipeline.path, ALL, &Settings { sets: pipeline.sets.clone(), check_files: true })?;
        Ok(Self { plan, store: Store::open(store)? })
    }

    /// Plans a pipeline without looking at data.
    pub fn check_only(pipeline: &Pipeline) -> anyhow::Result<Plan> {
        Ok(load(&pipeline.path, ALL, &Settings { sets: pipeline.sets.clone(), check_files: false })?)
    }

    /// What would become of every instance.
    pub fn decide(&self) -> Vec<Decision> {
        decide(&self.plan, &self.store)
    }
}
