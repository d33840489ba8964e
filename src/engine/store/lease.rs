//! Who works on what: a lock for processes of one machine and a lease for those
//! of several, so that two runs of one stage execute it once.
//!
//! Both only save work. Correctness rests on create-only publication: whatever
//! clocks and file systems do, the worst is a stage that runs twice and whose
//! first record answers. A holder whose lease was taken over therefore need not
//! stop; it learns of it ([`Claim::is_ours`]) only if it fails, since the taker
//! may have swept its folder.
//!
//! The lock is `flock` on `locks/NAME`, which the system frees when its holder
//! dies. The lease is `leases/NAME`, made create-only and renewed every
//! [`RENEW_EVERY`] with a fresh nonce. It is stale if its holder shared our
//! kernel and its lock is free; if its host was booted since; if its nonce did
//! not change while we watched for [`STALE_AFTER`] on our own clock, which no
//! step of a wall clock can shorten; or if its expiry is past by more than
//! clocks differ. A stale lease is claimed by renaming it away: of several
//! takers one gets the file, and puts it back if it is not the one that it
//! judged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::here::{host, now_ms};
use crate::store::{Store, publish, seal};

/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(30);
/// How long a lease that is not renewed stands.
pub const STALE_AFTER: Duration = Duration::from_secs(300);
/// By how much clocks of hosts may differ before a stage is made twice.
const SKEW: Duration = Duration::from_secs(600);

/// What the collector of garbage claims.
pub(crate) const GC: &str = "gc";
/// What a run claims, before its id.
pub(crate) const RUN: &str = "run-";

/// A lease, as in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The process that holds it.
    owner: String,
    /// Its host.
    pub host: String,
    /// The host's boot; empty where the system does not tell.
    boot: String,
    /// The job of a cluster's scheduler.
    job: Option<String>,
    /// What it works on: an attempt, a run.
    pub attempt: String,
    /// When it was taken, in milliseconds since 1970.
    pub started_ms: u64,
    /// Until when it stands unless it is renewed.
    expires_ms: u64,
    /// New with every renewal.
    nonce: String,
}

/// What a process calls itself in leases.
#[derive(Debug)]
struct Identity {
    owner: String,
    host: String,
    boot: String,
    job: Option<String>,
}

impl Identity {
    fn here() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let job = ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"].iter().find_map(|name| std::env::var(name).ok());
        Self { owner: ulid::Ulid::new().to_string(), host: host(), boot, job }
    }

    fn lease(&self, attempt: &str, started_ms: u64) -> Lease {
        Lease {
            owner: self.owner.clone(),
            host: self.host.clone(),
            boot: self.boot.clone(),
            job: self.job.clone(),
            attempt: attempt.to_owned(),
            started_ms,
            expires_ms: now_ms() + STALE_AFTER.as_millis() as u64,
            nonce: ulid::Ulid::new().to_string(),
        }
    }
}

/// What one who wants a lease knows when judging another's.
struct Evidence<'a> {
    here: &'a Identity,
    /// We hold the lock, and locks exclude on this file system.
    locked: bool,
    /// How long the nonce has stood, on our own clock.
    watched: Duration,
    now_ms: u64,
}

impl Evidence<'_> {
    fn is_stale(&self, lease: &Lease) -> bool {
        let same_kernel = lease.boot == self.here.boot && lease.host == self.here.host;
        let rebooted = lease.host == self.here.host && lease.boot != self.here.boot;
        (same_kernel && self.locked)
            || rebooted
            || self.watched >= STALE_AFTER
            || self.now_ms > lease.expires_ms.saturating_add(SKEW.as_millis() as u64)
    }
}

/// What a waiter has seen of somebody else's lease so far.
#[derive(Debug, Default)]
pub struct Watch(Option<(String, Instant)>);

impl Watch {
    /// How long a nonce has been seen.
    fn see(&mut self, nonce: &str) -> Duration {
        match &self.0 {
            Some((seen, since)) if seen == nonce => since.elapsed(),
            _ => {
                self.0 = Some((nonce.to_owned(), Instant::now()));
                Duration::ZERO
            }
        }
    }
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum Asked {
    /// It is ours.
    Ours(Claim),
    /// Somebody else holds it, on this host.
    Held(String),
}

/// The leases of one process, renewed by a thread that starts with the first.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    identity: OnceLock<Identity>,
    held: Arc<Held>,
    renewer: Mutex<Option<Sender<()>>>,
}

/// By path: what it works on, and since when.
type Held = Mutex<BTreeMap<PathBuf, Lease>>;

/// The right to work on something, given up when dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    owner: String,
    held: Arc<Held>,
    /// Freed last.
    _lock: Lock,
}

impl Claim {
    /// Whether nobody has taken it over.
    pub fn is_ours(&self) -> bool {
        read(&self.path).is_ok_and(|lease| lease.is_some_and(|lease| lease.owner == self.owner))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Under the renewer's mutex, so that it is not renewed into life again.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.path);
        if self.is_ours() {
            // One that stays is stale to this host at once, to others after a while.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A lock among processes of one machine.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
    /// Whether the file system has locks at all.
    excludes: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: who has it open finds another file, or none, in its place.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Takes a lock if nobody on this machine holds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.root().join("locks").join(name);
        loop {
            let file = File::options().create(true).append(true).open(&path).at("open", &path)?;
            let excludes = match file.try_lock() {
                Ok(()) => true,
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => false,
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            };
            // A file that was removed meanwhile excludes nobody.
            let (ours, there) = (file.metadata().at("read", &path)?, fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Some(Lock { path, _file: file, excludes }));
            }
        }
    }

    /// Asks once for the right to work on something: a stage key, say.
    pub fn try_claim(&self, name: &str, attempt: &str, watch: &mut Watch) -> Result<Asked> {
        let leases = self.leases();
        let here = leases.identity.get_or_init(Identity::here);
        let Some(lock) = self.try_lock(name)? else { return Ok(Asked::Held(here.host.clone())) };
        let path = self.root().join("leases").join(name);
        let ours = here.lease(attempt, now_ms());
        loop {
            let temporary = self.temporary("lease");
            fs::write(&temporary, seal::seal(&ours)).at("write", &temporary)?;
            if publish::create_only(&temporary, &path)? {
                leases.hold(self, &path, &ours);
                let (owner, held) = (here.owner.clone(), leases.held.clone());
                return Ok(Asked::Ours(Claim { path, owner, held, _lock: lock }));
            }
            let found = read(&path)?;
            let nonce = found.as_ref().map_or("", |lease| lease.nonce.as_str());
            let evidence = Evidence { here, locked: lock.excludes, watched: watch.see(nonce), now_ms: now_ms() };
            match &found {
                Some(lease) if !evidence.is_stale(lease) => return Ok(Asked::Held(lease.host.clone())),
                // Leases are written whole; one that cannot be read has no holder.
                _ => self.take_away(&path, found.as_ref())?,
            }
        }
    }

    /// Keeps collectors off what is read or brought while the claim lives, as a
    /// run does. None in a store that cannot be written to: nobody collects there.
    pub fn spare(&self, what: &str) -> Option<Claim> {
        let id = ulid::Ulid::new();
        match self.try_claim(&format!("{RUN}{what}-{id}"), what, &mut Watch::default()) {
            Ok(Asked::Ours(claim)) => Some(claim),
            _ => None,
        }
    }

    /// Removes a lease that was judged stale, unless it is another one by now.
    fn take_away(&self, path: &Path, judged: Option<&Lease>) -> Result<()> {
        let taken = self.temporary("stale-lease");
        match fs::rename(path, &taken) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            moved => moved.at("take over", path)?,
        }
        if read(&taken)?.as_ref() == judged {
            return fs::remove_file(&taken).at("remove", &taken);
        }
        publish::create_only(&taken, path).map(drop)
    }

    /// The holders of all leases that may be alive, with what they hold.
    pub fn live_leases(&self) -> Result<Vec<(String, Lease)>> {
        let folder = self.root().join("leases");
        let here = self.leases().identity.get_or_init(Identity::here);
        let mut live = Vec::new();
        for entry in fs::read_dir(&folder).at("read", &folder)? {
            let path = entry.at("read", &folder)?.path();
            let Some(lease) = read(&path)? else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let lock = match lease.owner == here.owner {
                true => None,
                // A store that cannot be written to tells nothing of locks.
                false => self.try_lock(&name).unwrap_or(None),
            };
            let locked = lock.is_some_and(|lock| lock.excludes);
            if !(Evidence { here, locked, watched: Duration::ZERO, now_ms: now_ms() }).is_stale(&lease) {
                live.push((name, lease));
            }
        }
        Ok(live)
    }
}

impl Leases {
    fn hold(&self, store: &Store, path: &Path, lease: &Lease) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), lease.clone());
        let mut renewer = self.renewer.lock().unwrap_or_else(PoisonError::into_inner);
        if renewer.is_some() {
            return;
        }
        let (send, ended) = channel::<()>();
        let (held, temporaries) = (self.held.clone(), store.root().join("tmp"));
        let renew = move || {
            while ended.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
                renew_all(&held, &temporaries);
            }
        };
        // Without the thread leases run out, which costs others nothing but work.
        let started = std::thread::Builder::new().name("leases".to_owned()).spawn(renew);
        *renewer = started.ok().map(|_| send);
    }
}

/// Renews what is held and still ours. A renewal that fails is tried again with the next.
fn renew_all(held: &Held, temporaries: &Path) {
    for (path, lease) in held.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
        let ours = read(path).is_ok_and(|found| found.is_some_and(|found| found.owner == lease.owner));
        let renewed = Lease {
            expires_ms: now_ms() + STALE_AFTER.as_millis() as u64,
            nonce: ulid::Ulid::new().to_string(),
            ..lease.clone()
        };
        let temporary = temporaries.join(format!("lease-{}", renewed.nonce));
        if ours && fs::write(&temporary, seal::seal(&renewed)).is_ok() && fs::rename(&temporary, path).is_ok() {
            *lease = renewed;
        }
    }
}

/// The lease in a file; none if there is none that can be read.
fn read(path: &Path) -> Result<Option<Lease>> {
    match fs::read(path) {
        Ok(bytes) => Ok(seal::unseal(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn identity(host: &str, boot: &str) -> Identity {
        Identity { owner: format!("{host}/{boot}"), host: host.to_owned(), boot: boot.to_owned(), job: None }
    }

    fn store(home: &tempfile::TempDir) -> Store {
        let store = Store::open(home.path()).expect("opens");
        store.prepare().expect("prepares");
        store
    }

    /// What a process on another host would have written.
    fn plant(store: &Store, holder: &Identity, renewed_ms: u64) -> Lease {
        let lease = Lease { expires_ms: renewed_ms + 5 * MINUTE, ..holder.lease("theirs", renewed_ms) };
        fs::write(store.root().join("leases/k"), seal::seal(&lease)).expect("planted");
        lease
    }

    fn ask(store: &Store, watch: &mut Watch) -> Asked {
        store.try_claim("k", "ours", watch).expect("asks")
    }

    #[test]
    fn ask_28_a_holder_that_is_gone_is_known_at_once_and_one_elsewhere_after_a_while() {
        let here = identity("a", "1");
        let second = Duration::from_secs(1);
        let now = 1_000 * MINUTE;
        // The holder; whether we have the lock; how long it was watched; how long ago it renewed; stale?
        for (holder, locked, watched, age, stale) in [
            (identity("a", "1"), true, 0, 0, true),
            (identity("a", "1"), false, 0, 0, false),
            (identity("a", "0"), true, 0, 0, true),
            (identity("b", "9"), true, 0, 0, false),
            (identity("b", "9"), true, 299, 0, false),
            (identity("b", "9"), true, 300, 0, true),
            // Clocks of hosts differ, or ours went back.
            (identity("b", "9"), true, 0, 6, false),
            (identity("b", "9"), true, 0, -500, false),
            (identity("b", "9"), true, 300, -500, true),
            (identity("b", "9"), true, 0, 16, true),
        ] {
            let renewed = now.saturating_add_signed(-age * MINUTE as i64);
            let lease = Lease { expires_ms: renewed + 5 * MINUTE, ..holder.lease("x", renewed) };
            let evidence = Evidence { here: &here, locked, watched: second * watched, now_ms: now };
            assert_eq!(evidence.is_stale(&lease), stale, "{lease:?} locked {locked} watched {watched}");
        }
    }

    #[test]
    fn a_nonce_is_watched_from_when_it_was_first_seen() {
        let mut watch = Watch::default();
        assert_eq!(watch.see("a"), Duration::ZERO);
        let earlier = Instant::now().checked_sub(STALE_AFTER).expect("the machine runs for minutes");
        watch.0 = Some(("a".to_owned(), earlier));
        assert!(watch.see("a") >= STALE_AFTER);
        assert_eq!(watch.see("b"), Duration::ZERO, "it was renewed");
    }

    #[test]
    fn ask_28_one_of_many_claims_and_the_next_after_it() {
        let home = tempfile::tempdir().expect("a folder");
        let first = store(&home);
        let Asked::Ours(claim) = ask(&first, &mut Watch::default()) else { panic!("nobody held it") };
        assert!(claim.is_ours());
        assert!(matches!(ask(&first, &mut Watch::default()), Asked::Held(_)), "not even within a process");
        let second = Store::open(home.path()).expect("opens");
        assert!(matches!(ask(&second, &mut Watch::default()), Asked::Held(_)));
        drop(claim);
        assert!(!home.path().join("leases/k").exists());
        assert!(matches!(ask(&second, &mut Watch::default()), Asked::Ours(_)));
    }

    #[test]
    fn ask_28_a_lease_of_another_host_holds_without_a_lock_and_is_taken_when_stale() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(&home);
        let other = identity("elsewhere", "9");
        let lease = plant(&store, &other, now_ms());
        let mut watch = Watch::default();
        assert!(matches!(ask(&store, &mut watch), Asked::Held(host) if host == "elsewhere"));
        assert_eq!(store.live_leases().expect("listed"), [("k".to_owned(), lease)]);
        // It is not renewed any more.
        watch.0.as_mut().expect("seen").1 = Instant::now().checked_sub(STALE_AFTER).expect("minutes");
        let Asked::Ours(claim) = ask(&store, &mut watch) else { panic!("it is stale") };
        assert!(claim.is_ours());
        // The other was only asleep: it does not disturb the taker, nor the taker it.
        plant(&store, &other, now_ms());
        assert!(!claim.is_ours());
        drop(claim);
        assert!(home.path().join("leases/k").exists(), "it is not ours to remove");
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
    }

    #[test]
    fn ask_28_a_lease_that_changed_since_it_was_judged_is_put_back() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(&home);
        let other = identity("elsewhere", "9");
        let (judged, renewed) = (plant(&store, &other, 5), plant(&store, &other, now_ms()));
        store.take_away(&home.path().join("leases/k"), Some(&judged)).expect("looked at");
        assert_eq!(read(&home.path().join("leases/k")).expect("read"), Some(renewed));
    }

    #[test]
    fn a_killed_holder_of_this_host_and_a_torn_lease_hold_nobody_up() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(&home);
        plant(&store, &Identity::here(), now_ms());
        assert_eq!(store.live_leases().expect("listed"), []);
        assert!(matches!(ask(&store, &mut Watch::default()), Asked::Ours(_)));
        fs::write(home.path().join("leases/k"), "{\"owner\": ").expect("torn");
        assert!(matches!(ask(&store, &mut Watch::default()), Asked::Ours(_)));
    }

    #[test]
    fn what_is_held_is_renewed_with_a_new_nonce_unless_it_was_taken() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(&home);
        let Asked::Ours(claim) = ask(&store, &mut Watch::default()) else { panic!("nobody held it") };
        let before = read(&claim.path).expect("read").expect("held");
        renew_all(&claim.held, &home.path().join("tmp"));
        let after = read(&claim.path).expect("read").expect("held");
        assert_ne!(before.nonce, after.nonce);
        assert_eq!((before.owner, before.started_ms), (after.owner, after.started_ms));
        let theirs = plant(&store, &identity("elsewhere", "9"), now_ms());
        renew_all(&claim.held, &home.path().join("tmp"));
        assert_eq!(read(&claim.path).expect("read"), Some(theirs));
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
    }

    #[test]
    fn a_lock_file_goes_with_its_lock_and_a_swept_one_does_not_let_two_in() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(&home);
        let held = store.try_lock("k").expect("asks").expect("free");
        fs::remove_file(home.path().join("locks/k")).expect("swept");
        let again = store.try_lock("k").expect("asks").expect("another file");
        assert!(store.try_lock("k").expect("asks").is_none());
        drop(again);
        assert!(!home.path().join("locks/k").exists());
        drop((held, store.try_lock("k").expect("asks").expect("free again")));
        assert_eq!(fs::read_dir(home.path().join("locks")).expect("locks").count(), 0);
    }
}
