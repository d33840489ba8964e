//! Outputs that lie complete in an attempt's folder, digested and ready to be
//! published.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuseline_contract::Table;
use rayon::prelude::*;

use crate::error::{At, Error, Result};
use crate::store::files::{self, Stat};
use crate::store::manifest::{Manifest, ManifestFile};
use crate::store::model::{self, ModelFile};
use crate::store::{Store, content, fresh, table};

/// An output that lies complete in an attempt's folder.
#[derive(Debug)]
pub struct Staged {
    /// What it consists of.
    pub manifest: Manifest,
    /// Its files as they lie, in the manifest's order.
    pub paths: Vec<PathBuf>,
    /// Those whose bytes were not read where they lie.
    pub(super) unread: BTreeSet<PathBuf>,
    /// Its rows, if they are few enough to be handed on from memory.
    pub(super) table: Option<Table>,
}

/// Writes a table output to a file, which must not exist.
pub fn stage_table(table: &Table, path: &Path) -> Result<Staged> {
    let table = table::normalise(table)?;
    let (content, columns) = content::table(&table)?;
    let digest = table::write(&table, path)?;
    let file = ManifestFile { name: table::FILE_NAME.to_owned(), digest };
    let manifest = Manifest::table(content, table.n_rows() as u64, columns, vec![file]);
    Ok(Staged { manifest, paths: vec![path.to_owned()], unread: BTreeSet::new(), table: fresh::kept(&table) })
}

/// Copies of files whose digests are known, so that they are not read again
/// unless they changed after that.
#[derive(Debug, Default)]
pub struct Copies(Mutex<BTreeMap<PathBuf, Copy>>);

#[derive(Debug)]
struct Copy {
    stat: Stat,
    file: ModelFile,
    /// Its bytes were digested on the way, not before it.
    read: bool,
}

impl Copies {
    /// Copies files of a model to a folder where none of them is yet, several at once.
    pub fn add_all(&self, store: &Store, files: &[PathBuf], folder: &Path) -> Result<()> {
        files.par_iter().try_for_each(|from| self.add(store, from, &folder.join(files::name(from))))
    }

    /// Copies a file of a model to a place where none is yet. Its bytes are the
    /// copy's own, since whoever owns the original may write to it. One that is
    /// as it was when its folder was digested is copied by the system, and its
    /// copy is compared with its name when it is first used; another one is
    /// digested on the way.
    fn add(&self, store: &Store, from: &Path, to: &Path) -> Result<()> {
        let (file, read) = match copy_unchanged(store, from, to)? {
            Some(file) => (file, false),
            None => (ModelFile::copy(&files::name(to), from, to)?, true),
        };
        let stat = Stat::of(&fs::metadata(to).at("read", to)?);
        self.copies().insert(to.to_owned(), Copy { stat, file, read });
        Ok(())
    }

    fn take(&self, path: &Path, meta: &fs::Metadata) -> Option<Copy> {
        self.copies().remove(path).filter(|copy| copy.stat == Stat::of(meta))
    }

    fn copies(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Copy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a file whose digests are known; none, and no copy, if they are not or
/// it changed meanwhile.
fn copy_unchanged(store: &Store, from: &Path, to: &Path) -> Result<Option<ModelFile>> {
    let Some((stat, file)) = files::remembered(store, from) else { return Ok(None) };
    let external = |source| Error::External { path: from.to_owned(), source };
    let mut source = File::open(from).map_err(external)?;
    let mut copy = File::create_new(to).at("create", to)?;
    io::copy(&mut source, &mut copy).at("write", to)?;
    if Stat::of(&source.metadata().map_err(external)?) == stat {
        return Ok(Some(file));
    }
    fs::remove_file(to).at("remove", to)?;
    Ok(None)
}

/// Takes a model folder that an operator has filled. Links are replaced by
/// copies, so that nothing outside is shared with the store.
pub fn stage_model(folder: &Path, copies: &Copies) -> Result<Staged> {
    let (mut names, mut paths, mut read, mut unread) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
    for (name, path) in files::list(folder)? {
        let meta = fs::symlink_metadata(&path).at("read", &path)?;
        if meta.is_symlink() || meta.nlink() > 1 {
            let copy = path.with_extension("fuseline-copy");
            fs::copy(&path, &copy).at("copy", &path)?;
            fs::set_permissions(&copy, Permissions::from_mode(0o644)).at("copy", &path)?;
            fs::rename(&copy, &path).at("copy", &path)?;
        }
        read.push(match copies.take(&path, &meta) {
            Some(copy) => {
                if !copy.read {
                    unread.insert(path.clone());
                }
                copy.file
            }
            None => ModelFile::read(&name, &path)?,
        });
        names.push(name);
        paths.push(path);
    }
    let content = model::content(names.iter().map(String::as_str).zip(&read))?;
    let files = names.into_iter().zip(&read).map(|(name, file)| ManifestFile { name, digest: file.digest });
    Ok(Staged { manifest: Manifest::model(content, files.collect()), paths, unread, table: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_file_is_staged_as_one_that_was_read_and_a_changed_one_is_read_again() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path().join("store")).expect("opens");
        store.prepare().expect("prepares");
        let original = home.path().join("original");
        fs::create_dir(&original).expect("made");
        let from = original.join("config.json");
        fs::write(&from, "{}").expect("written");
        let folder = home.path().join("model");
        fs::create_dir(&folder).expect("made");
        let to = folder.join("config.json");
        let stage = |copies: &Copies| stage_model(&folder, copies).expect("staged").manifest;
        let read = stage_of(&store, &from, &to, &folder);
        // Of digests that are remembered a file's own change is another one.
        std::thread::sleep(std::time::Duration::from_millis(80));
        files::tree(&store, &original).expect("digested");
        let (manifest, unread) = stage_of(&store, &from, &to, &folder);
        assert_eq!((&manifest, unread), (&read.0, 1));
        assert_eq!(read.1, 0);
        fs::write(&from, "{\"later\": 1}").expect("written");
        let (later, unread) = stage_of(&store, &from, &to, &folder);
        assert!(later != manifest && unread == 0);

        let copies = Copies::default();
        copies.add(&store, &from, &to).expect("copied");
        copies.add(&store, &from, &to).expect_err("there is one");
        fs::write(&to, "{\"touched\": 1}").expect("written");
        let changed = stage(&copies);
        assert_ne!(changed, later);
        assert_eq!(changed, stage(&Copies::default()));
    }

    /// Copies a file, stages its folder and takes the copy away; the manifest,
    /// and how many files were not read there.
    fn stage_of(store: &Store, from: &Path, to: &Path, folder: &Path) -> (Manifest, usize) {
        let copies = Copies::default();
        copies.add(store, from, to).expect("copied");
        let staged = stage_model(folder, &copies).expect("staged");
        fs::remove_file(to).expect("removed");
        (staged.manifest, staged.unread.len())
    }
}
