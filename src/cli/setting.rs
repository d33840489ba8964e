//! A pipeline file opened for a verb: its plan and its store.

use std::time::{SystemTime, UNIX_EPOCH};

use fuseline_engine::choice::{Asked, Choice, Word};
use fuseline_engine::decide::{Decision, decide};
use fuseline_engine::plan::Plan;
use fuseline_engine::store::{Remote, Store};
use fuseline_engine::{Settings, load};
use fuseline_operators::ALL;

use crate::args::{Location, Pipeline, Wanted};
use crate::caller;

/// A plan and the store that it is held against.
pub struct Setting {
    /// The plan.
    pub plan: Plan,
    /// The store.
    pub store: Store,
}

impl Setting {
    /// Plans a pipeline and opens the store, with the remote one behind it if there is one.
    pub fn open(location: &Location, pipeline: &Pipeline) -> anyhow::Result<Self> {
        let plan = load(&pipeline.path, ALL, &Settings { sets: pipeline.sets.clone(), check_files: true })?;
        let store = Store::open(&location.store)?;
        if let Some(url) = &location.remote {
            store.attach(Remote::open(url)?);
        }
        Ok(Self { plan, store })
    }

    /// Plans a pipeline without looking at data.
    pub fn check_only(pipeline: &Pipeline) -> anyhow::Result<Plan> {
        Ok(load(&pipeline.path, ALL, &Settings { sets: pipeline.sets.clone(), check_files: false })?)
    }

    /// What the command line asks of the plan.
    pub fn choose(&self, wanted: &Wanted) -> anyhow::Result<Choice> {
        let accepts =
            wanted.reason.as_ref().map(|why| Word { who: caller::user(), when_ms: now_ms(), why: why.clone() });
        let asked = Asked {
            targets: wanted.targets.clone(),
            only: wanted.only.clone(),
            force: wanted.force.clone(),
            accept: wanted.accept.clone(),
            accepts,
            defer: wanted.defer.clone(),
        };
        Ok(Choice::of(&self.plan, &self.store, &asked)?)
    }

    /// What would become of every instance.
    pub fn decide(&self) -> Vec<Decision> {
        let decisions = decide(&self.plan, &self.store);
        self.warn();
        decisions
    }

    /// Says what the remote store had to say.
    pub fn warn(&self) {
        for text in self.store.remote().into_iter().flat_map(Remote::troubles) {
            eprintln!("warning: {text}");
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
