//! The collector: what nobody needs any more, and its removal.
//!
//! Kept are the results of pins, of the last runs of each pipeline and of
//! attempts at work, with all they were made from; and whatever was made or
//! used lately. A hit touches its record and blobs before it relies on them
//! (see [`Store::rely_on`]).
//!
//! Nothing is deleted at once: candidates move to `trash/<generation>/`, records
//! before blobs, so that a crash leaves blobs without a record, never the
//! reverse. One that was touched before it moved goes back. The next collection
//! deletes the generations before it. The row memo is left alone, since it is the
//! most expensive data of all, but for functions that are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuseline_contract::{Digest, Key, StageError};
use serde::Serialize;

use crate::attempt::Spec;
use crate::care::inventory::{self, entries, extent, name, stat};
use crate::care::pins;
use crate::error::{At, Error, Result};
use crate::ledger;
use crate::store::lease::{Asked, GC, RUN, Watch};
use crate::store::memo::care::{self as rows, Remembered};
use crate::store::touch::TOUCH_EVERY;
use crate::store::{Record, Store, publish, seal};

/// Runs of each pipeline whose results are kept.
pub const KEEP_RUNS: usize = 5;
/// How long after its last use a result is kept: longer than any stage runs.
pub const MIN_AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// By how much the times of files may be behind the clock.
const TICK: Duration = Duration::from_millis(10);

/// What to keep.
#[derive(Debug, Clone)]
pub struct Options {
    /// The latest runs of each pipeline whose results are kept.
    pub keep_runs: usize,
    /// What was made or used within this time is kept.
    pub min_age: Duration,
    /// Whether what kept results were made from may go.
    pub forget_inputs: bool,
    /// Room for blobs; where they take more, unpinned results go, those used longest ago first.
    pub max_bytes: Option<u64>,
    /// Row functions whose rows go too if they were written before that time.
    pub memo: Vec<String>,
    /// Against which ages are taken.
    pub now: SystemTime,
}

impl Default for Options {
    fn default() -> Self {
        let now = SystemTime::now();
        let (forget_inputs, max_bytes, memo) = (false, None, Vec::new());
        Self { keep_runs: KEEP_RUNS, min_age: MIN_AGE, forget_inputs, max_bytes, memo, now }
    }
}

/// A result that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dropped {
    /// The pipeline that used it last, if the ledger knows.
    pub pipeline: Option<String>,
    /// The stage that it was in it.
    pub stage: Option<String>,
    /// The operator.
    pub operator: String,
    /// Its key.
    pub key: Key,
    /// Bytes of its outputs, shared ones too.
    pub bytes: u64,
    /// How long ago it was made or used.
    pub idle_seconds: u64,
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What goes, or would go.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether it went.
    pub done: bool,
    /// Results.
    pub records: Vec<Dropped>,
    /// Blobs that nothing refers to any more.
    pub blobs: Amount,
    /// Blobs that stay.
    pub kept: Amount,
    /// Remembered rows, of the functions that were named.
    pub rows: Vec<Remembered>,
    /// What processes left that were killed.
    pub scratch: Amount,
    /// What earlier collections had put in the trash, deleted now.
    pub emptied: Amount,
}

/// Collects, or only says what it would.
pub fn gc(store: &Store, options: &Options, really: bool) -> Result<Report> {
    let functions = rows::functions(store)?;
    if let Some(unknown) = options.memo.iter().find(|name| !functions.contains(name)) {
        let known = match functions.is_empty() {
            true => "no rows are remembered".to_owned(),
            false => format!("rows are remembered of: {}", functions.join(", ")),
        };
        return Err(Error::Stage(StageError::input(format!("no row of {unknown:?} is remembered")).hint(known)));
    }
    if !really {
        return Collector::look(store, options)?.run(&mut |_, _| Ok(Moved::Would));
    }
    store.prepare()?;
    let _claim = match store.try_claim(GC, "gc", &mut Watch::default())? {
        Asked::Ours(claim) => claim,
        Asked::Held(host) => {
            let error = StageError::environment(format!("another collection is at work on {host}"));
            return Err(Error::Stage(error.hint("wait for its end, then type it again")));
        }
    };
    let emptied = empty(store)?;
    let trash = store.root().join("trash").join(ulid::Ulid::new().to_string());
    let mut report = Collector::look(store, options)?.run(&mut |path, seen| discard(store, &trash, path, seen))?;
    (report.done, report.emptied) = (true, emptied);
    for entry in entries(&store.root().join("locks"))? {
        // One that nobody holds is a killed process's, and goes with ours.
        drop(store.try_lock(&name(&entry.path()))?);
    }
    Ok(report)
}

/// Deletes the generations of earlier collections.
fn empty(store: &Store) -> Result<Amount> {
    let mut emptied = Amount::default();
    for entry in entries(&store.root().join("trash"))? {
        let path = entry.path();
        let extent = extent(&path)?;
        emptied.files += extent.files;
        emptied.bytes += extent.bytes;
        fs::remove_dir_all(&path).at("delete", &path)?;
    }
    Ok(emptied)
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// It is in the trash.
    Gone,
    /// It is where it was, since this is only a look.
    Would,
    /// It was used meanwhile, and stays.
    Stays,
}

/// Moves a path to the trash, and back if it was touched after it had been seen.
fn discard(store: &Store, trash: &Path, path: &Path, seen: Option<SystemTime>) -> Result<Moved> {
    let to = trash.join(path.strip_prefix(store.root()).expect("a path in the store"));
    let folder = to.parent().expect("inside the trash");
    fs::create_dir_all(folder).at("create", folder)?;
    match fs::rename(path, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Moved::Stays),
        moved => moved.at("move to the trash", path)?,
    }
    store.faults().pass("trashed").at("move to the trash", path)?;
    let touched = stat(&to)?.and_then(|meta| meta.modified().ok());
    if seen.is_none() || seen == touched {
        return Ok(Moved::Gone);
    }
    match to.is_dir() {
        // A folder that was made anew meanwhile is not replaced.
        true => match fs::rename(&to, path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            moved => moved.at("restore", path)?,
        },
        false => drop(publish::create_only(&to, path)?),
    }
    Ok(Moved::Stays)
}

/// How a candidate goes: its path, and when it was last touched if a touch keeps it.
type Discard<'a> = dyn FnMut(&Path, Option<SystemTime>) -> Result<Moved> + 'a;

/// What stays, whatever its age.
#[derive(Default)]
struct Marked {
    keys: BTreeSet<Key>,
    /// Names of blobs of artifacts and logs, whether or not a record has them.
    blobs: BTreeSet<String>,
}

/// The records of a key.
struct Found {
    folder: PathBuf,
    all: Vec<Record>,
    /// Whether the blobs of the one that answers are all there.
    whole: bool,
    /// When it was touched last, by its folder and by its files.
    folder_touched: SystemTime,
    touched: SystemTime,
}

impl Found {
    fn blobs(&self) -> BTreeSet<Digest> {
        self.all.iter().flat_map(|record| record.outputs.iter().flat_map(|output| output.blobs())).collect()
    }

    fn bytes(&self) -> u64 {
        self.blobs().iter().map(|blob| blob.size).sum()
    }

    /// How much room is won for a second of making it anew.
    fn bytes_per_second(&self) -> f64 {
        let seconds: f64 = self.all.iter().map(|record| record.made.seconds).sum();
        self.bytes() as f64 / seconds.max(1e-3)
    }
}

/// The records of all keys; keys without a record that can be read have none.
fn find(store: &Store) -> Result<BTreeMap<Key, Found>> {
    let mut results: BTreeMap<Key, Found> = BTreeMap::new();
    for file in inventory::records(store)? {
        let folder = file.path.parent().expect("a record is in a folder").to_owned();
        let Ok(key) = name(&folder).parse::<Key>() else { continue };
        let Some(meta) = stat(&folder)? else { continue };
        let of = |meta: &fs::Metadata| meta.modified().at("read", &folder);
        let (folder_touched, file_touched) = (of(&meta)?, of(&file.meta)?);
        let found = results.entry(key).or_insert_with(|| {
            let whole = store.lookup(&key).is_ok();
            Found { folder: folder.clone(), all: Vec::new(), whole, folder_touched, touched: folder_touched }
        });
        found.touched = found.touched.max(file_touched);
        found.all.extend(file.record);
    }
    Ok(results)
}

/// One collection.
struct Collector<'a> {
    store: &'a Store,
    options: &'a Options,
    /// What was touched since stays, unless room is short.
    floor: SystemTime,
    /// What was touched since stays: somebody may rely on it.
    guard: SystemTime,
    /// Keys that somebody works on.
    live: BTreeSet<Key>,
    results: BTreeMap<Key, Found>,
    /// By artifact, who makes it.
    makers: BTreeMap<Digest, BTreeSet<Key>>,
    /// By key, which pipeline and stage used it last.
    users: BTreeMap<Key, (String, String)>,
}

impl<'a> Collector<'a> {
    fn look(store: &'a Store, options: &'a Options) -> Result<Self> {
        let leases = store.live_leases()?;
        let live: BTreeSet<Key> = leases.iter().filter_map(|(name, _)| name.parse().ok()).collect();
        // A run that goes on leaves untouched what was touched lately.
        let runs = leases.iter().any(|(name, _)| name.starts_with(RUN));
        let before = |age| options.now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut guard = before(if runs { TOUCH_EVERY + TOUCH_EVERY / 24 } else { TICK });
        for key in &live {
            // Blobs that it has stored and no record names yet.
            if let Some(meta) = stat(&store.work(key))? {
                guard = guard.min(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
        let floor = guard.min(before(options.min_age));
        let results = find(store)?;
        let mut makers: BTreeMap<Digest, BTreeSet<Key>> = BTreeMap::new();
        for (key, found) in &results {
            for output in found.all.iter().flat_map(|record| &record.outputs) {
                makers.entry(output.artifact).or_default().insert(*key);
            }
        }
        Ok(Self { store, options, floor, guard, live, results, makers, users: BTreeMap::new() })
    }

    /// Decides, discards, and tells. Records go first; blobs are judged by the records that are left.
    fn run(mut self, discard: &mut Discard<'_>) -> Result<Report> {
        let mut report = Report::default();
        let (spared, mut marked) = self.mark()?;
        let mut going = self.aged(&marked);
        let more = self.excess(&spared, &going);
        if !more.is_empty() {
            // Where room is short, history does not hold its blobs.
            marked.blobs = spared.blobs;
            going.extend(more);
        }
        // Names of blobs of what goes: they go with it, however young.
        let mut freed = BTreeSet::new();
        for key in &going {
            let found = &self.results[key];
            if discard(&found.folder, Some(found.folder_touched))? != Moved::Stays {
                report.records.push(self.dropped(*key, found));
                freed.extend(found.blobs().iter().map(Digest::hex));
            }
        }
        report.records.sort_by_key(|dropped| std::cmp::Reverse(dropped.bytes));
        // A look takes them for gone; a collection sees what is there by now.
        let gone: BTreeSet<Key> = report.records.iter().map(|dropped| dropped.key).collect();
        let mut left = find(self.store)?;
        left.retain(|key, _| !gone.contains(key));
        let mut needed = std::mem::take(&mut marked.blobs);
        needed.extend(left.values().flat_map(Found::blobs).map(|blob| blob.hex()));
        let goes = |name: &String, touched: SystemTime| {
            !needed.contains(name) && touched < if freed.contains(name) { self.guard } else { self.floor }
        };
        for entry in entries(&self.store.root().join("views"))? {
            let view = entry.path();
            let touched = stat(&view)?.and_then(|meta| meta.modified().ok());
            if touched.is_some_and(|touched| goes(&name(&view), touched)) {
                discard(&view, touched)?;
            }
        }
        for blob in inventory::blobs(self.store)? {
            let touched = blob.meta.modified().at("read", &blob.path)?;
            match goes(&blob.name, touched) && discard(&blob.path, Some(touched))? != Moved::Stays {
                true => report.blobs.add(blob.meta.len()),
                false => report.kept.add(blob.meta.len()),
            }
        }
        for function in &self.options.memo {
            let mut gone = |path: &Path| Ok(discard(path, None)? != Moved::Stays);
            report.rows.push(rows::forget(self.store, function, self.floor, &mut gone)?);
        }
        self.scratch(&left, &marked.keys, &mut report, discard)?;
        Ok(report)
    }

    /// Marks from the roots: what is spared even by a budget, and all that stays whatever its age.
    fn mark(&mut self) -> Result<(Marked, Marked)> {
        let (mut keys, mut artifacts) = (Vec::new(), Vec::new());
        for pin in pins::pins(self.store)? {
            keys.extend(pin.keys);
            artifacts.extend(pin.artifacts);
        }
        for key in &self.live {
            artifacts.extend(inputs_at_work(self.store, key)?);
        }
        let spared = self.closure(keys.clone(), artifacts.clone())?;
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        let mut logs = BTreeSet::new();
        for run in ledger::run_entries(self.store)? {
            let nth = runs.entry(run.pipeline.clone()).or_default();
            *nth += 1;
            for stage in ledger::stage_entries(self.store, &run.run).unwrap_or_default() {
                if let Some(key) = stage.key {
                    self.users.entry(key).or_insert_with(|| (run.pipeline.clone(), stage.id.to_string()));
                    if *nth <= self.options.keep_runs {
                        keys.push(key);
                        artifacts.extend(stage.outputs.iter().map(|output| output.artifact));
                        logs.extend([stage.stdout, stage.stderr].iter().flatten().map(Digest::hex));
                    }
                }
            }
        }
        keys.extend(self.results.iter().filter(|(_, found)| found.touched >= self.floor).map(|(key, _)| *key));
        let mut marked = self.closure(keys, artifacts)?;
        marked.blobs.extend(logs);
        Ok((spared, marked))
    }

    /// Roots and, unless they may be forgotten, all that they were made from.
    fn closure(&self, mut keys: Vec<Key>, mut artifacts: Vec<Digest>) -> Result<Marked> {
        let mut marked = Marked::default();
        loop {
            if let Some(key) = keys.pop() {
                let Some(found) = self.results.get(&key).filter(|_| marked.keys.insert(key)) else { continue };
                if !self.options.forget_inputs {
                    artifacts.extend(found.all.iter().flat_map(|record| &record.inputs).map(|input| input.artifact));
                }
            } else if let Some(artifact) = artifacts.pop() {
                if !marked.blobs.insert(artifact.hex()) {
                    continue;
                }
                if let Ok(manifest) = self.store.manifest(&artifact) {
                    marked.blobs.extend(manifest.files.iter().map(|file| file.digest.hex()));
                }
                if !self.options.forget_inputs {
                    keys.extend(self.makers.get(&artifact).into_iter().flatten());
                }
            } else {
                return Ok(marked);
            }
        }
    }

    /// Results that go for their age, or because they cannot be used any more.
    fn aged(&self, marked: &Marked) -> BTreeSet<Key> {
        let goes = |key: &Key, found: &Found| {
            let unused = !marked.keys.contains(key) && found.touched < self.floor;
            !self.live.contains(key) && (unused || !found.whole)
        };
        self.results.iter().filter(|(key, found)| goes(key, found)).map(|(key, _)| *key).collect()
    }

    /// What goes besides until the rest fits: what was used longest ago first, to the day, and of
    /// a day what is made anew most cheaply for its size.
    fn excess(&self, spared: &Marked, going: &BTreeSet<Key>) -> BTreeSet<Key> {
        let Some(room) = self.options.max_bytes else { return BTreeSet::new() };
        let staying = || self.results.iter().filter(|(key, _)| !going.contains(*key));
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        for (_, found) in staying() {
            found.blobs().into_iter().for_each(|blob| *users.entry(blob).or_default() += 1);
        }
        let mut total: u64 = users.keys().map(|blob| blob.size).sum();
        let day =
            |found: &Found| self.options.now.duration_since(found.touched).unwrap_or_default().as_secs() / (24 * 3600);
        let busy = |key: &Key, found: &Found| {
            spared.keys.contains(key) || self.live.contains(key) || found.touched >= self.guard
        };
        let mut candidates: Vec<_> = staying().filter(|(key, found)| !busy(key, found)).collect();
        candidates
            .sort_by(|(_, a), (_, b)| day(b).cmp(&day(a)).then(b.bytes_per_second().total_cmp(&a.bytes_per_second())));
        let mut more = BTreeSet::new();
        for (key, found) in candidates {
            if total <= room {
                break;
            }
            more.insert(*key);
            for blob in found.blobs() {
                let users = users.get_mut(&blob).expect("counted above");
                *users -= 1;
                if *users == 0 {
                    total -= blob.size;
                }
            }
        }
        more
    }

    fn dropped(&self, key: Key, found: &Found) -> Dropped {
        let (pipeline, stage) = self.users.get(&key).cloned().unzip();
        Dropped {
            pipeline,
            stage,
            operator: found.all.first().map(|record| record.operator.clone()).unwrap_or_default(),
            key,
            bytes: found.bytes(),
            idle_seconds: self.options.now.duration_since(found.touched).unwrap_or_default().as_secs(),
        }
    }

    /// What killed processes left, what was set aside, and notes of keys that are forgotten.
    fn scratch(
        &self,
        left: &BTreeMap<Key, Found>,
        marked: &BTreeSet<Key>,
        report: &mut Report,
        discard: &mut Discard<'_>,
    ) -> Result<()> {
        let root = self.store.root();
        let live: BTreeSet<String> = self.store.live_leases()?.into_iter().map(|(name, _)| name).collect();
        let known = |key: &Key| left.contains_key(key) || marked.contains(key);
        let mut candidates: Vec<(PathBuf, SystemTime)> = Vec::new();
        // Not every process that writes there has a lease, but none takes so long.
        let recent = self.options.now.checked_sub(RECENT).unwrap_or(SystemTime::UNIX_EPOCH).min(self.floor);
        for entry in entries(&root.join("tmp"))? {
            candidates.push((entry.path(), recent));
        }
        // A lease whose holder is gone is good for nothing, however young.
        let far = SystemTime::now() + MIN_AGE;
        for (folder, floor) in [("work", self.floor), ("leases", far), ("quarantine", self.floor)] {
            let unused = |path: &PathBuf| !live.contains(&name(path));
            candidates.extend(paths(&root.join(folder))?.filter(unused).map(|path| (path, floor)));
        }
        let begun = |path: &PathBuf| live.contains(&format!("{RUN}{}", name(path))) || path.join("run.json").exists();
        candidates.extend(paths(&root.join("runs"))?.filter(|path| !begun(path)).map(|path| (path, self.floor)));
        for shelf in paths(&root.join("keys"))? {
            let key = |path: &Path| name(path).strip_suffix(".json").and_then(|key| key.parse().ok());
            let forgotten = |path: &PathBuf| !key(path).is_some_and(|key| known(&key));
            candidates.extend(paths(&shelf)?.filter(forgotten).map(|path| (path, self.floor)));
        }
        // Notes of blobs that are gone.
        let blobs = root.join("cas");
        let of_none = |path: &PathBuf| {
            let blob = name(path).trim_end_matches(".json").to_owned();
            !blobs.join(blob.get(..2).unwrap_or_default()).join(blob).exists()
        };
        candidates.extend(paths(&self.store.verified_blobs())?.filter(of_none).map(|path| (path, far)));
        for (path, floor) in candidates {
            let extent = extent(&path)?;
            if extent.changed < floor && discard(&path, None)? != Moved::Stays {
                report.scratch.files += extent.files;
                report.scratch.bytes += extent.bytes;
            }
        }
        Ok(())
    }
}

/// How long ago what has no lease must have been written last.
const RECENT: Duration = Duration::from_secs(3600);

fn paths(folder: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    Ok(entries(folder)?.into_iter().map(|entry| entry.path()))
}

/// The artifacts that attempts at a key read.
fn inputs_at_work(store: &Store, key: &Key) -> Result<Vec<Digest>> {
    let mut artifacts = Vec::new();
    for attempt in paths(&store.work(key))? {
        let spec = fs::read(attempt.join("spec.json")).ok().and_then(|bytes| seal::unseal::<Spec>(&bytes));
        artifacts.extend(spec.into_iter().flat_map(|spec| spec.made_from()).map(|input| input.artifact));
    }
    Ok(artifacts)
}

#[cfg(test)]
mod tests;
