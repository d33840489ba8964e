//! Failing on purpose at named points, so that tests can show what a crash or
//! a full disk leaves behind.
//!
//! `FUSELINE_FAULT=POINT:ACTION[:N]` acts when POINT is passed for the N-th
//! time (the first by default): `kill` ends the process at once by SIGKILL,
//! `full` reports a full disk. Without the variable a point costs one
//! comparison. Points, in the order of publication: `outputs-written`,
//! `blob-synced`, `blob-linked`, `folders-synced`, `record-written`,
//! `record-linked`, `work-removed`.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// Every point, in the order in which publication passes them.
pub const POINTS: [&str; 7] = [
    "outputs-written",
    "blob-synced",
    "blob-linked",
    "folders-synced",
    "record-written",
    "record-linked",
    "work-removed",
];

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
}

impl Faults {
    /// As `FUSELINE_FAULT` says.
    pub fn from_env() -> Self {
        std::env::var("FUSELINE_FAULT").ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads `POINT:ACTION[:N]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let point = parts.next().filter(|point| POINTS.contains(point))?;
        let action = match parts.next()? {
            "kill" => Action::Kill,
            "full" => Action::Full,
            _ => return None,
        };
        let left = parts.next().map_or(Some(1), |n| n.parse().ok())?;
        Some(Self { planned: Some((point.to_owned(), action)), left: AtomicU32::new(left) })
    }

    /// Passes a point.
    pub(crate) fn pass(&self, point: &'static str) -> io::Result<()> {
        let Some((planned, action)) = &self.planned else { return Ok(()) };
        if planned != point || self.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return Ok(());
        }
        match action {
            Action::Full => Err(io::ErrorKind::StorageFull.into()),
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
}
