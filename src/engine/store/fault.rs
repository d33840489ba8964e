//! Failing on purpose at named points, so that tests can show what a crash or
//! a full disk leaves behind.
//!
//! `FUSELINE_FAULT=POINT:ACTION[:N]` acts when POINT is passed for the N-th
//! time (the first by default): `kill` ends the process at once by SIGKILL,
//! `full` reports a full disk, `eio` a failing one, as `fsync` does, and
//! `short` a write that ended early, which it did: half of the file is gone.
//! Without the variable a point costs one comparison. The points are [`POINTS`],
//! [`NOTES`] and [`ROWS`].

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

/// Every point, in the order in which publication passes them.
pub const POINTS: [&str; 6] =
    ["outputs-written", "blob-synced", "blob-linked", "record-written", "record-linked", "work-removed"];

/// Points at which a run writes what is no result: the preimage of a key, the
/// ledger, the index.
pub const NOTES: [&str; 5] = ["key-written", "ledger-begun", "ledger-noted", "ledger-ended", "index-written"];

/// Within a collection of garbage: something was moved to the trash.
const TRASHED: &str = "trashed";

/// Points of the row memo: before a row is written, before rows are synced,
/// before a segment is completed.
pub const ROWS: [&str; 3] = ["row-appended", "row-synced", "segment-sealed"];

/// Where to fail, and how.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Option<(String, Action)>,
    left: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Full,
    Eio,
    Short,
}

impl Faults {
    /// As `FUSELINE_FAULT` says.
    pub fn from_env() -> Self {
        std::env::var("FUSELINE_FAULT").ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads `POINT:ACTION[:N]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let known = |point: &&str| [&POINTS[..], &NOTES, &ROWS, &[TRASHED]].concat().contains(point);
        let point = parts.next().filter(known)?;
        let action = match parts.next()? {
            "kill" => Action::Kill,
            "full" => Action::Full,
            "eio" => Action::Eio,
            "short" => Action::Short,
            _ => return None,
        };
        let left = parts.next().map_or(Some(1), |n| n.parse().ok())?;
        Some(Self { planned: Some((point.to_owned(), action)), left: AtomicU32::new(left) })
    }

    /// Passes a point at which nothing has just been written.
    pub(crate) fn pass(&self, point: &'static str) -> io::Result<()> {
        self.pass_written(point, None)
    }

    /// Passes a point at which a file has just been written.
    pub(crate) fn pass_file(&self, point: &'static str, written: &Path) -> io::Result<()> {
        self.pass_written(point, Some(written))
    }

    fn pass_written(&self, point: &'static str, written: Option<&Path>) -> io::Result<()> {
        let Some((planned, action)) = &self.planned else { return Ok(()) };
        if planned != point || self.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return Ok(());
        }
        match action {
            Action::Full => Err(Errno::ENOSPC.into()),
            Action::Eio => Err(Errno::EIO.into()),
            Action::Short => {
                if let Some(path) = written {
                    let file = File::options().write(true).open(path)?;
                    file.set_len(file.metadata()?.len() / 2)?;
                }
                Err(io::ErrorKind::WriteZero.into())
            }
            Action::Kill => {
                let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_planned_passing_fails() {
        let faults = Faults::parse("blob-linked:full:2").expect("parses");
        assert!(faults.pass("blob-synced").is_ok());
        assert!(faults.pass("blob-linked").is_ok());
        assert!(faults.pass("blob-linked").is_err());
        assert!(faults.pass("blob-linked").is_ok());
        assert!(Faults::parse("nowhere:kill").is_none());
    }

    #[test]
    fn a_short_write_leaves_half() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "12345678").expect("written");
        let faults = Faults::parse("record-written:short").expect("parses");
        let error = faults.pass_file("record-written", file.path()).expect_err("it was short");
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        assert_eq!(std::fs::read_to_string(file.path()).expect("read"), "1234");
    }
}
