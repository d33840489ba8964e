//! Publication: after any crash there is either the whole result or none.
//!
//! Order, all on one file system: outputs, their manifests and the action record
//! are written aside and synced; each file moves into `cas/` create-only; the
//! record moves create-only into `ac/`, which is the commit point; the touched
//! folders are synced before anybody is told. A process that dies leaves no
//! record without its files; where a power cut does, because the disk took the
//! folders in another order, the record is a miss and the stage runs again.
//! Errors on this path fail the stage. Results that are published together take
//! each step together, so that they share the waits for the disk. The points at
//! which tests fail on purpose are in [`super::fault`].

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fuseline_contract::{Digest, StageError};

use crate::error::{At, Error, Result};
use crate::store::Store;
use crate::store::disk::settle;
use crate::store::manifest::{OutputRecord, Record};
use crate::store::staging::Staged;

/// A stage's result that lies complete in an attempt's folder.
#[derive(Debug)]
pub struct Pending {
    record: Record,
    /// Its outputs, in the record's order.
    staged: Vec<Staged>,
}

impl Pending {
    /// Outputs by name, in the order of the ports, and their record, which they are noted in.
    pub fn new(mut record: Record, outputs: Vec<(String, Staged)>) -> Self {
        let noted = |(name, staged): &(String, Staged)| {
            OutputRecord::new(name, Digest::of_bytes(&staged.manifest.bytes()), &staged.manifest)
        };
        record.outputs = outputs.iter().map(noted).collect();
        Self { record, staged: outputs.into_iter().map(|(_, staged)| staged).collect() }
    }

    /// What will be published.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its outputs as they are noted and as they lie.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (&OutputRecord, &Staged)> {
        self.record.outputs.iter().zip(&self.staged)
    }
}

/// What became of a result.
#[derive(Debug)]
pub struct Committed {
    /// The record that answers for the key from now on.
    pub record: Record,
    /// The key had a record of other outputs already, and nobody asked for a
    /// rerun: the operator's result is not determined by its key.
    pub differed: bool,
}

/// Publishes one result.
pub fn publish(store: &Store, result: Pending) -> Result<Committed> {
    together(store, vec![result]).pop().expect("a result each")
}

/// Publishes several results in one go. Of several records of a key the first
/// answers, unless a later one supersedes it or its blobs are gone.
pub fn together(store: &Store, results: Vec<Pending>) -> Vec<Result<Committed>> {
    let mut group = Group { store, members: results.into_iter().map(Member::new).collect() };
    group.manifests();
    while group.members.iter().any(|member| member.end.is_none()) {
        group.commit();
    }
    group.members.into_iter().map(|member| member.end.expect("every member ended")).collect()
}

/// Takes a file that is on disk and holds what the name of a blob promises.
pub(crate) fn receive(store: &Store, from: &Path, digest: &Digest) -> Result<()> {
    let mut touched = BTreeSet::new();
    move_blob(store, from, digest, true, &mut touched)?;
    settle(store, &Vec::from_iter(touched))
}

/// Puts bytes as a blob of their own: a log.
pub fn put_bytes(store: &Store, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of_bytes(bytes);
    if !(store.has(&digest) && store.touch_blob(&digest)) {
        let (temporary, mut touched) = (store.temporary("blob"), BTreeSet::new());
        fs::write(&temporary, bytes).at("write", &temporary)?;
        settle(store, std::slice::from_ref(&temporary))?;
        move_blob(store, &temporary, &digest, true, &mut touched)?;
        settle(store, &Vec::from_iter(touched))?;
    }
    Ok(digest)
}

/// Results that take each step together.
struct Group<'a> {
    store: &'a Store,
    members: Vec<Member>,
}

/// A result on its way.
struct Member {
    result: Pending,
    /// Blobs with where they lie for now, and whether their bytes were digested there.
    blobs: Vec<(PathBuf, Digest, bool)>,
    draft: Option<Draft>,
    /// Files and folders that must be on disk before the next step.
    touched: BTreeSet<PathBuf>,
    end: Option<Result<Committed>>,
}

/// What will commit a member.
enum Draft {
    /// A record of equal outputs, which is there.
    Equal(Box<Record>),
    /// A new one.
    New(Box<Written>),
}

/// A record that is written but not in place.
struct Written {
    record: Record,
    /// The record that answers so far.
    answering: Option<Record>,
    temporary: PathBuf,
    to: PathBuf,
}

impl Member {
    fn new(result: Pending) -> Self {
        Self { result, blobs: Vec::new(), draft: None, touched: BTreeSet::new(), end: None }
    }
}

impl Group<'_> {
    /// Takes a step with every member that has not ended; who fails, ends.
    fn each(&mut self, mut step: impl FnMut(&Store, &mut Member) -> Result<()>) {
        for member in self.members.iter_mut().filter(|member| member.end.is_none()) {
            if let Err(error) = step(self.store, member) {
                member.end = Some(Err(error));
            }
        }
    }

    /// Waits until all that was touched is on disk. After an error nobody knows
    /// what the disk holds, so all members end.
    fn settle(&mut self) {
        let touched = self.members.iter_mut().flat_map(|member| std::mem::take(&mut member.touched));
        let paths = Vec::from_iter(touched.collect::<BTreeSet<_>>());
        if let Err(error) = settle(self.store, &paths) {
            let error = StageError::from(error);
            self.each(|_, _| Err(Error::Stage(error.clone())));
        }
    }

    /// The manifests of all outputs, beside their places.
    fn manifests(&mut self) {
        self.each(|store, member| {
            store.faults().pass("outputs-written").at("write", store.root())?;
            for (output, staged) in member.result.outputs() {
                let files = staged.paths.iter().zip(&output.files);
                member.blobs.extend(files.map(|(path, file)| (path.clone(), *file, !staged.unread.contains(path))));
                let temporary = store.temporary("manifest");
                fs::write(&temporary, staged.manifest.bytes()).at("write", &temporary)?;
                member.blobs.push((temporary, output.artifact, true));
            }
            member.touched.extend(member.blobs.iter().map(|(path, ..)| path.clone()));
            Ok(())
        });
    }

    /// All blobs into `cas/`, and the records that commit them. A member whose
    /// record's number another process took meanwhile, or whose equal record
    /// the collector took, has not ended after this.
    fn commit(&mut self) {
        self.each(draft);
        self.settle();
        self.each(|store, member| {
            let mut blobs = std::mem::take(&mut member.blobs).into_iter();
            blobs.try_for_each(|(path, digest, read)| move_blob(store, &path, &digest, read, &mut member.touched))
        });
        self.each(|store, member| {
            let Some(Draft::New(written)) = &member.draft else { return Ok(()) };
            let Written { temporary, to, .. } = &**written;
            store.faults().pass_file("record-written", temporary).at("write", temporary)?;
            match create_only(temporary, to)? {
                true => drop(member.touched.insert(to.parent().expect("inside the store").to_owned())),
                false => member.draft = None,
            }
            Ok(())
        });
        self.settle();
        self.each(|store, member| {
            let committed = match member.draft.take() {
                None => return Ok(()),
                Some(Draft::Equal(answering)) if store.rely_on(&answering) => {
                    Committed { record: *answering, differed: false }
                }
                Some(Draft::Equal(_)) => return Ok(()),
                Some(Draft::New(written)) => {
                    let Written { record, answering, to, .. } = *written;
                    store.faults().pass("record-linked").at("write", &to)?;
                    match answering {
                        Some(answering) if !record.supersedes => Committed { record: answering, differed: true },
                        _ => Committed { record, differed: false },
                    }
                }
            };
            member.end = Some(Ok(committed));
            Ok(())
        });
    }
}

/// Writes a member's record beside its place, unless an equal one answers already.
fn draft(store: &Store, member: &mut Member) -> Result<()> {
    let mut record = member.result.record.clone();
    let answering = store.record(&record.key);
    if let Some(answering) = &answering {
        // Before the blobs are in place it does not matter whether it is whole; if it is gone by then, it is not met again.
        if answering.same_outputs(&record) {
            member.draft = Some(Draft::Equal(Box::new(answering.clone())));
            return Ok(());
        }
        record.supersedes |= store.lost(answering).is_some();
    }
    let folder = store.records(&record.key);
    let place = |number: u32| folder.join(format!("{number}.rec"));
    // An unreadable record keeps its number.
    let mut number = store.all_records(&record.key).last().map_or(1, |(number, _)| number + 1);
    while place(number).exists() {
        number += 1;
    }
    let (to, temporary) = (place(number), store.temporary("record"));
    make_folder(&to, &mut member.touched)?;
    fs::write(&temporary, record.bytes()).at("write", &temporary)?;
    member.touched.insert(temporary.clone());
    member.draft = Some(Draft::New(Box::new(Written { record, answering, temporary, to })));
    Ok(())
}

/// Moves a file to its place; if it was read where it lies, it need not be again.
fn move_blob(store: &Store, from: &Path, digest: &Digest, read: bool, touched: &mut BTreeSet<PathBuf>) -> Result<()> {
    store.faults().pass_file("blob-synced", from).at("write", from)?;
    fs::set_permissions(from, Permissions::from_mode(0o444)).at("write", from)?;
    let to = store.blob(digest);
    let folder = make_folder(&to, touched)?;
    if to.exists() && !store.has(digest) {
        store.quarantine(digest)?;
    }
    if create_only(from, &to)? {
        if read {
            store.mark_verified(digest);
            store.remember_verified(digest);
        }
    } else if !store.touch_blob(digest) {
        // The collector took it in this moment.
        return Err(Error::BlobMissing { digest: *digest });
    }
    touched.insert(folder);
    store.faults().pass("blob-linked").at("write", &to)
}

/// Makes the folder of a path and remembers its parent for syncing if it is new.
fn make_folder(path: &Path, touched: &mut BTreeSet<PathBuf>) -> Result<PathBuf> {
    let folder = path.parent().expect("a path inside the store").to_owned();
    if !folder.is_dir() {
        make_folder(&folder, touched)?;
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &folder, error));
            }
            _ => {}
        }
        touched.insert(folder.parent().expect("inside the store").to_owned());
    }
    Ok(folder)
}

/// Moves a file to a name that may be taken; tells whether it was free. One that
/// was not stays as it is, and the file is dropped.
pub(crate) fn create_only(from: &Path, to: &Path) -> Result<bool> {
    let moved = match rename_only(from, to) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput || error.kind() == io::ErrorKind::Unsupported => {
            link_only(from, to)
        }
        moved => moved,
    };
    match moved {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(from).at("remove", from)?;
            Ok(false)
        }
        moved => moved.at("create", to).map(|()| true),
    }
}

/// In one step, where system and file system can.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_only(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_only(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// In two steps, as network file systems can.
fn link_only(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        // A file system without hard links; a race there replaces a file by an equal one.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            if to.exists() { Err(io::ErrorKind::AlreadyExists.into()) } else { fs::rename(from, to) }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};
    use fuseline_contract::{Key, Table};

    use super::*;
    use crate::store::fault::POINTS;
    use crate::store::manifest::Made;
    use crate::store::staging::{Copies, stage_model, stage_table};
    use crate::store::{Faults, Miss};

    const KEY: Key = Key([7; 32]);

    fn numbers(n: i64) -> Table {
        let array = Arc::new(Int64Array::from_iter_values(0..n));
        Table::of_columns(vec![(Field::new("x", DataType::Int64, false), array)]).expect("a table")
    }

    fn pending(store: &Store, key: Key, table: &Table, supersedes: bool) -> Result<Pending> {
        let staged = vec![("rows".to_owned(), stage_table(table, &store.temporary("attempt"))?)];
        Ok(Pending::new(Record::new(key, "toy", Vec::new(), supersedes, Made::default()), staged))
    }

    fn publish(store: &Store, table: &Table, supersedes: bool) -> Result<Committed> {
        let committed = super::publish(store, pending(store, KEY, table, supersedes)?)?;
        store.faults().pass("work-removed").at("remove", store.root())?;
        Ok(committed)
    }

    fn store(home: &Path, fault: &str) -> Store {
        let store = Store::with_faults(home, Faults::parse(fault).unwrap_or_default()).expect("opens");
        store.prepare().expect("prepares");
        store
    }

    #[test]
    fn a_failure_at_any_point_leaves_all_or_nothing_and_a_rerun_succeeds() {
        for (index, point) in POINTS.iter().enumerate() {
            for nth in 1..=2 {
                let home = tempfile::tempdir().expect("a folder");
                let result = publish(&store(home.path(), &format!("{point}:full:{nth}")), &numbers(3), false);
                if nth == 2 && !point.starts_with("blob-") {
                    assert!(result.is_ok(), "{point} is passed once");
                    continue;
                }
                let error = result.expect_err(point);
                assert!(error.hint().is_some_and(|hint| hint.contains("disk space")), "{error}");
                let store = store(home.path(), "");
                let committed = index >= POINTS.iter().position(|p| *p == "record-linked").expect("listed");
                match store.lookup(&KEY) {
                    Ok(record) if committed => {
                        assert_eq!(store.table(&record.outputs[0].artifact).expect("whole").n_rows(), 3);
                    }
                    other => assert!(other == Err(Miss::NoRecord) && !committed, "{point}"),
                }
                let record = publish(&store, &numbers(3), false).expect("reruns").record;
                assert_eq!(store.lookup(&KEY), Ok(record));
            }
        }
    }

    #[test]
    fn equal_results_share_a_record_and_other_ones_are_kept_aside() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path(), "");
        let first = publish(&store, &numbers(3), false).expect("published").record;
        assert_eq!(publish(&store, &numbers(3), false).expect("again").record, first);
        assert_eq!(store.all_records(&KEY).len(), 1);
        let other = publish(&store, &numbers(4), false).expect("published");
        assert!(other.differed);
        assert_eq!(other.record, first);
        assert_eq!(store.all_records(&KEY).len(), 2);
        assert_eq!(store.record(&KEY).expect("a record"), first);
        let forced = publish(&store, &numbers(5), true).expect("published");
        assert!(!forced.differed);
        assert_eq!(store.record(&KEY).expect("a record").rows(), Some(5));
    }

    #[test]
    fn results_that_are_published_together_are_all_there_and_one_failure_is_ones_own() {
        let home = tempfile::tempdir().expect("a folder");
        // Two blobs a member: the third one's first is the fifth.
        let store = store(home.path(), "blob-linked:full:5");
        let keys: Vec<Key> = (0..9).map(|n| Key([n; 32])).collect();
        let results = keys.iter().map(|key| pending(&store, *key, &numbers(key.0[0].into()), false).expect("staged"));
        let ended = together(&store, results.collect());
        for (key, end) in keys.iter().zip(ended) {
            let found = store.lookup(key);
            match key.0[0] {
                2 => assert!(end.is_err() && found == Err(Miss::NoRecord)),
                n => assert_eq!((end.expect("published").record.rows(), found.is_ok()), (Some(n.into()), true)),
            }
        }
    }

    #[test]
    fn missing_truncated_and_flipped_blobs_are_misses() {
        let home = tempfile::tempdir().expect("a folder");
        let blob = |store: &Store| {
            let record = publish(store, &numbers(3), false).expect("published").record;
            (store.blob(&record.outputs[0].files[0]), record)
        };
        let first = store(home.path(), "");
        let (path, record) = blob(&first);
        fs::remove_file(&path).expect("removed");
        assert!(matches!(first.lookup(&KEY), Err(Miss::Blob { .. })));

        blob(&first);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("writable");
        fs::File::options().write(true).open(&path).expect("open").set_len(10).expect("truncated");
        assert!(matches!(first.lookup(&KEY), Err(Miss::Blob { .. })));

        blob(&first);
        let mut bytes = fs::read(&path).expect("read");
        bytes[20] ^= 1;
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("writable");
        fs::write(&path, bytes).expect("written");
        let fresh = store(home.path(), "");
        let error = fresh.table(&record.outputs[0].artifact).expect_err("corrupt");
        assert!(matches!(error, Error::BlobCorrupt { .. }), "{error}");
        assert!(matches!(fresh.lookup(&KEY), Err(Miss::Blob { .. })));
        assert_eq!(fs::read_dir(home.path().join("quarantine")).expect("quarantine").count(), 2);
    }

    #[test]
    fn another_result_replaces_a_record_whose_blobs_are_gone() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(home.path(), "");
        let first = publish(&store, &numbers(3), false).expect("published").record;
        fs::remove_file(store.blob(&first.outputs[0].files[0])).expect("removed");
        let second = publish(&store, &numbers(4), false).expect("published");
        assert!(!second.differed);
        assert_eq!(store.lookup(&KEY).expect("a hit").rows(), Some(4));
    }

    #[test]
    fn views_have_real_names_and_linked_files_are_copied() {
        let home = tempfile::tempdir().expect("a folder");
        let store = store(&home.path().join("store"), "");
        let own = home.path().join("own.json");
        fs::write(&own, "{}").expect("written");
        let folder = store.temporary("model");
        fs::create_dir_all(folder.join("sub")).expect("made");
        fs::hard_link(&own, folder.join("config.json")).expect("linked");
        std::os::unix::fs::symlink(&own, folder.join("sub/link.json")).expect("linked");
        let staged = stage_model(&folder, &Copies::default()).expect("staged");
        let staged = vec![("model".to_owned(), staged)];
        let pending = Pending::new(Record::new(KEY, "toy", Vec::new(), false, Made::default()), staged);
        let outputs = super::publish(&store, pending).expect("published").record.outputs;
        assert_ne!(fs::metadata(&own).expect("there").permissions().mode() & 0o200, 0);
        let view = store.view(&outputs[0].artifact).expect("a view");
        assert_eq!(fs::read_to_string(view.join("sub/link.json")).expect("read"), "{}");
        assert_eq!(store.view(&outputs[0].artifact).expect("the same"), view);
    }
}
