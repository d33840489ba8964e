//! Definition keys of a plan's instances: what tells before anything runs that
//! an instance is defined as one of an earlier run was. Plans look up costs by
//! them; they are made only when asked for.

use std::cell::RefCell;
use std::collections::HashMap;

use fuseline_contract::{Digest, Key};

use crate::decide::Decider;
use crate::key;
use crate::plan::Plan;

/// Definition keys, each made once. An instance whose files cannot be read, or
/// that needs such a one, has none.
pub(crate) struct Definitions<'p> {
    plan: &'p Plan,
    known: RefCell<HashMap<usize, Option<Key>>>,
}

impl<'p> Definitions<'p> {
    /// Of the instances of a plan.
    pub fn new(plan: &'p Plan) -> Self {
        Self { plan, known: RefCell::default() }
    }

    /// The definition key of an instance.
    pub fn of(&self, index: usize, decider: &Decider<'_>) -> Option<Key> {
        let mut known = self.known.borrow_mut();
        // A stack of our own, since pipelines may be deeper than the thread's.
        let mut open = vec![index];
        while let Some(&index) = open.last() {
            if known.contains_key(&index) {
                open.pop();
                continue;
            }
            let node = &self.plan.nodes[index];
            let before = open.len();
            let sources = node.inputs.iter().flat_map(|bound| &bound.from);
            open.extend(sources.map(|source| source.node).filter(|node| !known.contains_key(node)));
            if open.len() > before {
                continue;
            }
            let key = decider.trees(index).ok().and_then(|trees| self.key(index, &trees, &known));
            known.insert(index, key);
        }
        known[&index]
    }

    fn key(&self, index: usize, trees: &[Digest], known: &HashMap<usize, Option<Key>>) -> Option<Key> {
        let node = &self.plan.nodes[index];
        let mut producers = Vec::with_capacity(node.inputs.len());
        let mut contents = Vec::with_capacity(node.inputs.len());
        for bound in &node.inputs {
            let made = |source: &crate::plan::Source| {
                let output = &self.plan.nodes[source.node].resolved.ports.outputs[source.output];
                Some((known[&source.node]?, output.name.as_str()))
            };
            producers.push((bound.port.as_str(), bound.from.iter().map(made).collect::<Option<Vec<_>>>()?));
            contents.push(vec![Digest { hash: [0; 32], size: 0 }; bound.from.len()]);
        }
        let stage = key::stage(node, self.plan.salt.as_deref(), &contents, trees);
        Some(key::definition(&stage.parts, &producers))
    }
}
