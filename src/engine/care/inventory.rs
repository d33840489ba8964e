//! What lies in a store, by kind, read from its folders. What vanishes
//! meanwhile, since others use the store, is left out.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fuseline_contract::Key;

use crate::error::{At, Error, Result};
use crate::store::{Record, Store};

/// A file in `cas/`.
#[derive(Debug)]
pub struct Blob {
    /// Its name: the digest's hex digits, if it is a blob of ours.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What the file system says of it.
    pub meta: Metadata,
}

/// A file in `ac/`.
#[derive(Debug)]
pub struct RecordFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The record, if the file holds one of the key and number that its path says.
    pub record: Option<Record>,
    /// What the file system says of it.
    pub meta: Metadata,
}

/// The entries of a folder, sorted by name; none if it is not there.
pub fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>().at("read", folder)?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
        Err(error) => return Err(Error::io("read", folder, error)),
    };
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// What the file system says of a path; nothing if it is gone.
pub fn stat(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// The last part of a path as text.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every file in `cas/`.
pub fn blobs(store: &Store) -> Result<Vec<Blob>> {
    let mut blobs = Vec::new();
    for shelf in entries(&store.root().join("cas"))? {
        let shelf = shelf.path();
        let paths = match shelf.is_dir() {
            true => entries(&shelf)?.into_iter().map(|entry| entry.path()).collect(),
            false => vec![shelf],
        };
        for path in paths {
            if let Some(meta) = stat(&path)? {
                blobs.push(Blob { name: name(&path), path, meta });
            }
        }
    }
    Ok(blobs)
}

/// Every file in `ac/`, the records of a key in order.
pub fn records(store: &Store) -> Result<Vec<RecordFile>> {
    let mut records = Vec::new();
    for shelf in entries(&store.root().join("ac"))? {
        for folder in entries(&shelf.path())? {
            let key: Option<Key> = name(&folder.path()).parse().ok();
            let mut of_key = Vec::new();
            for entry in entries(&folder.path())? {
                let path = entry.path();
                let Some(meta) = stat(&path)? else { continue };
                let Ok(bytes) = fs::read(&path) else { continue };
                let number = name(&path).strip_suffix(".rec").and_then(|number| number.parse::<u32>().ok());
                let record = Record::parse(&bytes).filter(|record| {
                    number.is_some() && Some(record.key) == key && store.records(&record.key) == folder.path()
                });
                of_key.push((number, RecordFile { path, record, meta }));
            }
            of_key.sort_by_key(|(number, _)| *number);
            records.extend(of_key.into_iter().map(|(_, file)| file));
        }
    }
    Ok(records)
}

/// Visits everything below a path, and the path itself; links are not followed.
pub fn walk(path: &Path, visit: &mut dyn FnMut(&Path, &Metadata)) -> Result<()> {
    let Some(meta) = stat(path)? else { return Ok(()) };
    visit(path, &meta);
    if meta.is_dir() {
        for entry in entries(path)? {
            walk(&entry.path(), visit)?;
        }
    }
    Ok(())
}

/// What lies below a path: bytes and number of files, and when one was last changed.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Bytes of files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// The latest change of a file or folder.
    pub changed: SystemTime,
}

/// Measures what lies below a path.
pub fn extent(path: &Path) -> Result<Extent> {
    let mut extent = Extent { bytes: 0, files: 0, changed: SystemTime::UNIX_EPOCH };
    walk(path, &mut |_, meta| {
        if !meta.is_dir() {
            extent.bytes += meta.len();
            extent.files += 1;
        }
        extent.changed = extent.changed.max(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    })?;
    Ok(extent)
}
