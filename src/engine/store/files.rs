//! Digests of files and folders outside the store.
//!
//! Content counts, never path or time. What was hashed is remembered in
//! `index/files/` under inode, size and times, so that an unchanged file is not
//! read again; a file that changed just before it was hashed is not trusted,
//! since a clock tick may hide a second change.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fuseline_contract::Digest;
use fuseline_contract::hash::{self, Domain};
use fuseline_contract::value::Value;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::model::ModelFile;
use crate::store::{Store, digest, seal};

/// How much older than its hashing a change must be, in nanoseconds.
const SETTLED: i128 = 50_000_000;

/// What tells that a file is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stat {
    pub(crate) fn of(meta: &fs::Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    files: BTreeMap<String, (Stat, ModelFile)>,
}

/// The tree digest of a file or folder; its size is the bytes in all. Where the
/// store has been prepared, what was hashed is remembered.
pub fn tree(store: &Store, path: &Path) -> Result<Digest> {
    let external = |source| Error::External { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(external)?;
    let index = index_path(store, &absolute);
    let known = known(&index, &absolute);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);

    let meta = fs::metadata(&absolute).map_err(external)?;
    let mut found = Vec::new();
    if meta.is_dir() {
        walk(&absolute, "", &mut found)?;
    } else {
        found.push((String::new(), absolute.clone(), Stat::of(&meta)));
    }

    let mut files = BTreeMap::new();
    let mut settled = BTreeMap::new();
    for (name, file, stat) in found {
        let remembered = known.as_ref().and_then(|known| known.files.get(&name)).filter(|(then, _)| *then == stat);
        let read = match remembered {
            Some((_, read)) => read.clone(),
            None => match ModelFile::read(&name, &file) {
                // Whether it must be one is not ours to say.
                Err(Error::Safetensors { .. }) => ModelFile::plain(digest::file(&file)?),
                read => read?,
            },
        };
        let digest = read.digest;
        if now - stat.changed_ns.max(stat.modified_ns) > SETTLED && digest.size == stat.size {
            settled.insert(name.clone(), (stat, read));
        }
        files.insert(name, digest);
    }
    if known.is_none_or(|known| known.files != settled)
        && index.parent().is_some_and(|folder| folder.parent().is_some_and(Path::exists))
    {
        let bytes = seal::seal(&Known { path: absolute, files: settled });
        // Without it the file is hashed again next time, nothing worse.
        let _ = store.write_replacing(&index, &bytes, "index-written");
    }

    let size = files.values().map(|digest| digest.size).sum();
    let value = if meta.is_dir() {
        Value::map([("folder", Value::map(files.into_iter().map(|(name, digest)| (name, digest.into()))))])
    } else {
        Value::map([("file", Value::from(files[""]))])
    };
    Ok(hash::digest(Domain::Tree, &value, size))
}

/// What is remembered of a path.
fn known(index: &Path, absolute: &Path) -> Option<Known> {
    let known: Known = seal::unseal(&fs::read(index).ok()?)?;
    (known.path == *absolute).then_some(known)
}

/// What was read of a file when the folder that it lies in was digested, if it
/// has not changed since.
pub(crate) fn remembered(store: &Store, file: &Path) -> Option<(Stat, ModelFile)> {
    let absolute = std::path::absolute(file).ok()?;
    let (folder, stat) = (absolute.parent()?, Stat::of(&fs::metadata(&absolute).ok()?));
    let found = known(&index_path(store, folder), folder)?.files.remove(&name(&absolute))?;
    (found.0 == stat).then_some(found)
}

fn index_path(store: &Store, absolute: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let name = Digest::of_bytes(absolute.as_os_str().as_bytes()).hex();
    store.root().join("index").join("files").join(format!("{}.json", &name[..32]))
}

/// Every file below a folder with its path from there, following links.
fn walk(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf, Stat)>) -> Result<()> {
    let external = |source| Error::External { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(external)? {
        let entry = entry.map_err(external)?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|name| Error::External {
            path: path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, format!("the name {name:?} is not UTF-8")),
        })?;
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let meta = fs::metadata(&path).map_err(|source| Error::External { path: path.clone(), source })?;
        if meta.is_dir() {
            walk(&path, &name, found)?;
        } else {
            found.push((name, path, Stat::of(&meta)));
        }
    }
    Ok(())
}

/// The last part of a path as text.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of a folder, sorted by name: names with paths.
pub(crate) fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(name, path, _)| (name, path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_neither_path_nor_time() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path().join("store")).expect("opens");
        store.prepare().expect("prepares");
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, text).expect("written");
            path
        };
        let a = tree(&store, &write("a", "same")).expect("digested");
        assert_eq!(a, tree(&store, &write("b", "same")).expect("digested"));
        assert_eq!(a.size, 4);
        assert_ne!(a, tree(&store, &write("b", "diff")).expect("digested"));
        write("d1/x/y", "1");
        write("d2/x/y", "1");
        let folder = tree(&store, &home.path().join("d1")).expect("digested");
        assert_eq!(folder, tree(&store, &home.path().join("d2")).expect("digested"));
        write("d2/z", "");
        assert_ne!(folder, tree(&store, &home.path().join("d2")).expect("digested"));
    }

    #[test]
    fn a_change_is_seen_however_quick_and_a_settled_file_is_remembered() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path().join("store")).expect("opens");
        store.prepare().expect("prepares");
        let path = home.path().join("file");
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..20 {
            fs::write(&path, format!("{i:04}")).expect("written");
            seen.insert(tree(&store, &path).expect("digested"));
        }
        assert_eq!(seen.len(), 20);
        std::thread::sleep(std::time::Duration::from_millis(80));
        tree(&store, &path).expect("digested");
        let index: Known = seal::unseal(&fs::read(index_path(&store, &path)).expect("index")).expect("whole");
        assert_eq!(index.files.len(), 1);
    }

    #[test]
    fn a_missing_file_is_the_users() {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path().join("store")).expect("opens");
        let error = tree(&store, &home.path().join("absent")).expect_err("absent");
        assert_eq!(error.cause(), fuseline_contract::Cause::Input);
    }
}
