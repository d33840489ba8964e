//! What becomes of instances: ends are noted, what waited for them is fed, and
//! what lost an input waits again.

use std::collections::BTreeSet;

use fuseline_contract::{Event, Outcome as Fate, Place, StageError};

use super::{Driver, End, Ended, MOST_REMADE, State, sources};
use crate::here;
use crate::ledger::StageEntry;
use crate::store::Record;

/// What is said of a result on which others went on in vain.
fn another() -> StageError {
    StageError::environment("another run has published another result of the same key meanwhile")
        .hint("run again: what follows is made from that")
}

impl Driver<'_> {
    /// Notes what ended, everything after what it went on from.
    pub(super) fn note_ends(&mut self) {
        let on_its_way = |state: &[State], index: usize| {
            sources(&self.shared.plan.nodes[index]).any(|source| matches!(state[source], State::Staged(..)))
        };
        while let Some(place) = self.late.iter().position(|ended| !on_its_way(&self.state, ended.index)) {
            let ended = self.late.remove(place);
            self.ended(ended);
        }
    }

    /// Notes the end of a stage's thread.
    fn ended(&mut self, ended: Ended) {
        let Ended { index, end, granted, started_ms, seconds } = ended;
        self.running -= 1;
        granted.into_iter().for_each(|granted| self.pool.give(granted));
        let key = self.keys[&index];
        self.unclaim(&key);
        match end {
            End::Hit(record) if self.was_another(index, &record) => self.fail(index, another(), None),
            End::Hit(record) => self.hit(index, record),
            End::InputLost(source) => self.make_again(index, source),
            End::Ran { outcome, stdout, stderr, spent, device } => {
                let mut entry = self.entry(index);
                entry.definition = self.definitions.of(index, &self.decider);
                entry.started_ms = started_ms;
                entry.seconds = seconds;
                entry.peak_bytes = outcome.peak_bytes;
                entry.host = Some(outcome.host.clone());
                (entry.stdout, entry.stderr) = (stdout, stderr);
                (entry.memo, entry.usage) = (spent.rows, spent.usage);
                (entry.device, entry.energy_joules) = (device, spent.energy_joules);
                entry.reason = self.origins.get(&index).cloned();
                match outcome.result {
                    Ok(record) if self.was_another(index, &record) => self.fail(index, another(), Some(entry)),
                    Ok(record) => self.ran(index, record, entry),
                    Err(error) => self.fail(index, error, Some(entry)),
                }
            }
        }
    }

    /// Whether others went on from another result than the one that counts.
    fn was_another(&self, index: usize, record: &Record) -> bool {
        matches!(&self.state[index], State::Staged(staged, _) if !staged.same_outputs(record))
    }

    /// An entry of the ledger with what is known before an instance ends.
    pub(super) fn entry(&self, index: usize) -> StageEntry {
        let node = &self.shared.plan.nodes[index];
        StageEntry {
            id: node.id.clone(),
            operator: node.entry.name.to_owned(),
            operator_version: node.entry.version,
            key: self.keys.get(&index).copied(),
            definition: None,
            outcome: String::new(),
            reason: None,
            started_ms: here::now_ms(),
            seconds: 0.0,
            peak_bytes: None,
            host: None,
            params: node.resolved.params.clone(),
            seed: node.seed,
            resources: node.resources.clone(),
            outputs: Vec::new(),
            error: None,
            stdout: None,
            stderr: None,
            memo: None,
            usage: None,
            device: None,
            energy_joules: None,
        }
    }

    pub(super) fn note(&mut self, mut entry: StageEntry, outcome: Fate, rows: Option<u64>) {
        entry.outcome = match outcome {
            Fate::Hit => "hit",
            Fate::Ran => "ran",
            Fate::Failed(_) => "failed",
            Fate::Skipped => "skipped",
        }
        .to_owned();
        if let Err(error) = self.shared.ledger.stage(&entry) {
            self.broken.get_or_insert(error);
        }
        let StageEntry { id: stage, seconds, memo, usage, .. } = entry;
        (self.shared.on_event)(Event::StageEnded { stage, outcome, seconds, rows, memo, usage });
    }

    pub(super) fn hit(&mut self, index: usize, record: Box<Record>) {
        let mut entry = self.entry(index);
        entry.key = Some(record.key);
        entry.reason = record.accepted.as_ref().map(|word| format!("accepted by {}: {}", word.who, word.why));
        entry.outputs = record.outputs.clone();
        self.summary.hits.push(entry.id.clone());
        self.note(entry, Fate::Hit, record.rows());
        self.done(index, record);
    }

    fn ran(&mut self, index: usize, record: Record, mut entry: StageEntry) {
        entry.outputs = record.outputs.clone();
        self.summary.ran.push(entry.id.clone());
        self.note(entry, Fate::Ran, record.rows());
        self.done(index, Box::new(record));
    }

    /// A result can be read by stages of this process, which need not wait until
    /// it is on the disk: theirs gets there after it.
    pub(super) fn staged(&mut self, index: usize, record: Box<Record>) {
        let here =
            |consumer: &usize| self.shared.plan.traits(&self.shared.plan.nodes[*consumer]).place == Place::Thread;
        let fed: BTreeSet<usize> = self.consumers[index].iter().copied().filter(here).collect();
        self.state[index] = State::Staged(record, fed.clone());
        fed.into_iter().for_each(|consumer| self.feed(consumer));
    }

    fn done(&mut self, index: usize, record: Box<Record>) {
        let fed = match std::mem::replace(&mut self.state[index], State::Done(record)) {
            State::Staged(_, fed) => fed,
            _ => BTreeSet::new(),
        };
        let hungry = self.consumers[index].iter().copied().filter(|consumer| !fed.contains(consumer));
        hungry.collect::<Vec<_>>().into_iter().for_each(|consumer| self.feed(consumer));
    }

    /// One input more of an instance is there.
    fn feed(&mut self, consumer: usize) {
        self.missing[consumer] -= 1;
        if matches!(self.state[consumer], State::Waiting) && self.is_fed(consumer) {
            self.queue.ready(consumer);
        }
    }

    /// An input of instances is not there any more.
    fn starve(&mut self, consumers: &[usize]) {
        for &consumer in consumers {
            self.missing[consumer] += 1;
        }
        for &consumer in consumers {
            if let Some(due) = self.queue.withdraw(consumer) {
                self.unclaim(&due.stage.key);
            }
        }
    }

    pub(super) fn fail(&mut self, index: usize, error: StageError, entry: Option<StageEntry>) {
        let mut entry = entry.unwrap_or_else(|| self.entry(index));
        entry.error = Some(error.clone());
        if let State::Staged(_, fed) = std::mem::replace(&mut self.state[index], State::Failed) {
            self.starve(&Vec::from_iter(fed));
        }
        self.stop |= !self.options.keep_going;
        self.summary.failed.push((entry.id.clone(), error.clone()));
        self.note(entry, Fate::Failed(error), None);
    }

    /// An input was lost after its producer had been taken for done: the
    /// producer is decided about anew, and all that need it wait for it.
    fn make_again(&mut self, index: usize, source: usize) {
        if self.options.overrides.given.contains_key(&source) {
            let id = &self.shared.plan.nodes[source].id;
            let error = StageError::environment(format!("the result of {id} that was to be used is damaged"));
            self.fail(index, error.hint("run without --only and --defer: it is made anew"), None);
            return;
        }
        self.state[index] = State::Waiting;
        // Another consumer may have noticed before.
        let State::Done(record) = &self.state[source] else { return };
        if record.outputs.iter().all(|output| self.shared.store.verify_artifact(&output.artifact).is_ok()) {
            if self.is_fed(index) {
                self.queue.ready(index);
            }
            return;
        }
        let id = &self.shared.plan.nodes[source].id;
        let times = self.remade.entry(source).or_default();
        *times += 1;
        if *times > MOST_REMADE {
            let error = StageError::environment(format!("the result of {id} was made anew and is damaged again"));
            self.fail(index, error.hint("check the disk that the store lies on"), None);
            return;
        }
        self.state[source] = State::Waiting;
        self.summary.hits.retain(|hit| hit != id);
        let consumers = self.consumers[source].clone();
        self.starve(&consumers);
        debug_assert!(self.is_fed(source), "it was done before");
        self.queue.ready(source);
    }

    /// Whether all inputs of an instance are there.
    pub(super) fn is_fed(&self, index: usize) -> bool {
        self.missing[index] == 0
    }
}
