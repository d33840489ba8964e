//! What a selection names: `STAGE`, `STAGE[axis=value]`, `tag:NAME`, `changed`
//! and `failed`, each with `+` before it for all that it needs and after it for
//! all that need it. The words are dbt's.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use crate::decide;
use crate::graph::{self, Graph};
use crate::ledger::Latest;
use crate::plan::{Node, Plan};
use crate::problem::{Place, Problem, Problems, suggest};
use crate::reference::Reference;
use crate::store::Store;

/// Reads selections against a plan and what the store knows of its stages.
pub struct Selector<'p> {
    plan: &'p Plan,
    store: &'p Store,
    graph: OnceCell<Graph<'p>>,
    changed: OnceCell<BTreeSet<usize>>,
}

impl<'p> Selector<'p> {
    /// A selector; nothing is read before a selection asks for it.
    pub fn new(plan: &'p Plan, store: &'p Store) -> Self {
        Self { plan, store, graph: OnceCell::new(), changed: OnceCell::new() }
    }

    /// The instances that selections name together. Every wrong selection is a problem.
    pub fn select(&self, selections: &[String]) -> Result<BTreeSet<usize>, Problems> {
        let mut selected = BTreeSet::new();
        let mut problems = Vec::new();
        for selection in selections {
            match self.one(selection) {
                Ok(nodes) => selected.extend(nodes),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(selected) } else { Err(Problems(problems)) }
    }

    fn graph(&self) -> &Graph<'p> {
        self.graph.get_or_init(|| Graph::of(self.plan))
    }

    fn one(&self, selection: &str) -> Result<BTreeSet<usize>, Problem> {
        let inner = selection.strip_prefix('+');
        let (above, inner) = (inner.is_some(), inner.unwrap_or(selection));
        let stripped = inner.strip_suffix('+');
        let (below, inner) = (stripped.is_some(), stripped.unwrap_or(inner));
        let nodes = self.named(inner).map_err(|(message, help)| Problem {
            place: Place::Argument(selection.to_owned()),
            message,
            help,
        })?;
        let mut selected = nodes.clone();
        if above {
            selected.extend(self.graph().upstream(&nodes));
        }
        if below {
            selected.extend(self.graph().downstream(&nodes));
        }
        Ok(selected)
    }

    /// What a selection without `+` names; or a message and help.
    fn named(&self, text: &str) -> Result<BTreeSet<usize>, (String, Option<String>)> {
        if let Some(tag) = text.strip_prefix("tag:") {
            let tagged = self.all(|node| node.tags.iter().any(|t| t == tag));
            if tagged.is_empty() {
                let tags: BTreeSet<&str> = self.plan.nodes.iter().flat_map(|n| &n.tags).map(String::as_str).collect();
                return Err((format!("no stage has the tag {tag:?}"), suggest(tag, tags)));
            }
            return Ok(tagged);
        }
        // A stage of that name is what its author means.
        let is_stage = self.plan.nodes.iter().any(|node| node.id.stage == text);
        match text {
            "changed" if !is_stage => {
                return Ok(self.changed.get_or_init(|| decide::changed(self.plan, self.store)).clone());
            }
            "failed" if !is_stage => {
                let latest = Latest::read(self.store, &self.plan.name);
                return Ok(self.all(|node| latest.get(&node.id).is_some_and(|last| last.failed)));
            }
            _ => {}
        }
        let reference: Reference = text.parse().map_err(|_| {
            let help = "STAGE, STAGE[axis=value], tag:NAME, changed or failed, with + before or after";
            (format!("{text:?} selects nothing"), Some(help.to_owned()))
        })?;
        if let Some(output) = &reference.output {
            let help = Some(format!("leave out .{output}"));
            return Err(("a selection names stages, not outputs".into(), help));
        }
        Ok(graph::instances(self.plan, &reference)?.into_iter().collect())
    }

    fn all(&self, holds: impl Fn(&Node) -> bool) -> BTreeSet<usize> {
        self.plan.nodes.iter().enumerate().filter(|(_, node)| holds(node)).map(|(index, _)| index).collect()
    }
}
