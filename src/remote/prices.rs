//! Money: what a question may cost at worst, what it did cost, and a purse that
//! is never overdrawn, also over the end of the process.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The purse is noted ahead in steps of this share of its limit.
const STEP: f64 = 0.01;

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Of a million tokens that the model reads.
    pub input: f64,
    /// Of a million tokens that it writes.
    pub output: f64,
}

impl Prices {
    /// US dollars for so many tokens read and written.
    pub fn cost(&self, tokens_in: u64, tokens_out: u64) -> f64 {
        (self.input * tokens_in as f64 + self.output * tokens_out as f64) / 1e6
    }
}

/// US dollars that may be spent. What a question may cost at worst is set aside
/// before it is sent, so the limit holds however many are under way.
#[derive(Debug)]
pub struct Purse {
    limit: f64,
    spent: f64,
    /// Set aside for what is under way.
    held: f64,
    note: PathBuf,
    /// What the note says: never less than was spent and is set aside.
    noted: f64,
}

impl Purse {
    /// A purse with so much in it, less what a note of an earlier process says
    /// was spent.
    pub fn open(limit: f64, note: &Path) -> Result<Self, Error> {
        let spent = match std::fs::read_to_string(note) {
            Ok(text) => text.trim().parse().map_err(|_| std::io::Error::other("it holds no number")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0.0),
            Err(error) => Err(error),
        };
        let spent = spent.map_err(|source| Error::Note { path: note.to_owned(), source })?;
        Ok(Self { limit, spent, held: 0.0, note: note.to_owned(), noted: spent })
    }

    /// Sets so much aside; false if there is not enough.
    pub(crate) fn hold(&mut self, usd: f64) -> Result<bool, Error> {
        let total = self.spent + self.held + usd;
        if total > self.limit {
            return Ok(false);
        }
        if total > self.noted {
            self.write((total + self.limit * STEP).min(self.limit))?;
        }
        self.held += usd;
        Ok(true)
    }

    /// Gives back what was set aside, less what it cost.
    pub(crate) fn settle(&mut self, held: f64, cost: f64) {
        self.held = (self.held - held).max(0.0);
        self.spent += cost;
    }

    /// Whether anything is set aside.
    pub(crate) fn is_waiting(&self) -> bool {
        self.held > 0.0
    }

    /// Why so much cannot be set aside.
    pub(crate) fn refuse(&self, next: f64) -> Error {
        Error::Spent { limit: self.limit, spent: self.spent, next }
    }

    /// Notes exactly what was spent, with what is still set aside.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.write(self.spent + self.held)
    }

    fn write(&mut self, usd: f64) -> Result<(), Error> {
        let write = || {
            if let Some(folder) = self.note.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let new = self.note.with_extension("new");
            std::fs::write(&new, usd.to_string())?;
            std::fs::rename(&new, &self.note)
        };
        write().map_err(|source| Error::Note { path: self.note.clone(), source })?;
        self.noted = usd;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_tokens_cost_their_price() {
        let prices = Prices { input: 2.5, output: 10.0 };
        // 400 tokens read: 0.001 $; 100 written: 0.001 $.
        assert!((prices.cost(400, 100) - 0.002).abs() < 1e-12);
        assert_eq!(prices.cost(0, 0), 0.0);
    }

    #[test]
    fn what_is_set_aside_cannot_be_spent_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut purse = Purse::open(1.0, &folder.path().join("spent")).expect("no note is no spending");
        assert!(purse.hold(0.6).expect("noted"));
        assert!(!purse.hold(0.5).expect("noted"));
        purse.settle(0.6, 0.1);
        assert!(purse.hold(0.9).expect("noted"), "what it did not cost is there again");
        purse.settle(0.9, 0.9);
        assert!(!purse.hold(1e-9).expect("noted"));
        assert!(matches!(purse.refuse(0.1), Error::Spent { spent, .. } if spent == 1.0));
    }

    #[test]
    fn a_process_that_is_killed_has_noted_at_least_what_it_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let note = folder.path().join("deeper/spent");
        let mut purse = Purse::open(1.0, &note).expect("opened");
        assert!(purse.hold(0.3).expect("noted"));
        // Killed here.
        drop(purse);
        let mut purse = Purse::open(1.0, &note).expect("opened");
        assert!(!purse.hold(0.71).expect("noted"));
        assert!(purse.hold(0.5).expect("noted"));
        purse.settle(0.5, 0.05);
        purse.close().expect("noted");
        let left = Purse::open(1.0, &note).expect("opened");
        assert!((left.spent - 0.36).abs() < 1e-9, "0.30 and a step of 0.01 ahead, then 0.05: {}", left.spent);
        std::fs::write(&note, "much").expect("written");
        assert!(matches!(Purse::open(1.0, &note), Err(Error::Note { .. })));
    }
}
