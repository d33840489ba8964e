//! Instances on their way to a start: those whose inputs are there, which are
//! still to be decided about, and those that must run and wait for resources.
//! The latter wait by what they ask for, so that finding out that nothing fits
//! takes a look at a few kinds of stages, not at ten thousand instances.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::plan::Resources;

pub(super) struct Queue<T> {
    ready: BTreeSet<usize>,
    due: HashMap<usize, (Resources, T)>,
    by_resources: BTreeMap<Resources, BTreeSet<usize>>,
}

impl<T> Queue<T> {
    /// Nothing is due yet.
    pub fn new(ready: BTreeSet<usize>) -> Self {
        Self { ready, due: HashMap::new(), by_resources: BTreeMap::new() }
    }

    /// An instance is to be decided about.
    pub fn ready(&mut self, index: usize) {
        self.ready.insert(index);
    }

    /// The first instance that is to be decided about, which is taken out.
    pub fn take_ready(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    /// An instance must run as soon as it gets its resources.
    pub fn await_start(&mut self, index: usize, resources: &Resources, due: T) {
        self.by_resources.entry(resources.clone()).or_default().insert(index);
        self.due.insert(index, (resources.clone(), due));
    }

    /// The first instance whose resources are given, with them; it is taken out.
    pub fn take_due<G>(&mut self, mut give: impl FnMut(&Resources) -> Option<G>) -> Option<(usize, T, G)> {
        let mut firsts: Vec<_> =
            self.by_resources.iter().filter_map(|(kind, all)| Some((*all.first()?, kind))).collect();
        firsts.sort_unstable_by_key(|(index, _)| *index);
        let (index, given) = firsts.into_iter().find_map(|(index, kind)| Some((index, give(kind)?)))?;
        let due = self.withdraw(index).expect("both maps hold the same");
        Some((index, due, given))
    }

    /// Takes an instance out, wherever it is; what was known of it if it was due.
    pub fn withdraw(&mut self, index: usize) -> Option<T> {
        self.ready.remove(&index);
        let (resources, due) = self.due.remove(&index)?;
        if let Some(all) = self.by_resources.get_mut(&resources) {
            all.remove(&index);
            if all.is_empty() {
                self.by_resources.remove(&resources);
            }
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_starts_and_what_is_withdrawn_does_not() {
        let wants = |cpus| Resources { cpus, ..Resources::default() };
        let mut queue = Queue::new(BTreeSet::from([2, 1]));
        assert_eq!(queue.take_ready(), Some(1));
        queue.ready(0);
        assert_eq!([queue.take_ready(), queue.take_ready(), queue.take_ready()], [Some(0), Some(2), None]);
        queue.await_start(0, &wants(8), "large");
        queue.await_start(2, &wants(1), "small");
        queue.await_start(1, &wants(1), "small too");
        let fits = |free: u32| move |wanted: &Resources| (wanted.cpus <= free).then_some(wanted.cpus);
        assert_eq!(queue.take_due(fits(0)), None);
        assert_eq!(queue.take_due(fits(4)), Some((1, "small too", 1)));
        assert_eq!(queue.take_due(fits(8)), Some((0, "large", 8)));
        assert_eq!(queue.withdraw(2), Some("small"));
        assert_eq!(queue.withdraw(2), None);
        assert_eq!(queue.take_due(fits(8)), None);
    }
}
