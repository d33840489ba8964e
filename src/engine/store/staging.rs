//! Outputs that lie complete in an attempt's folder, digested and ready to be
//! published.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fuseline_contract::Table;

use crate::error::{At, Result};
use crate::store::files::{self, Stat};
use crate::store::manifest::{Manifest, ManifestFile};
use crate::store::model::{self, ModelFile};
use crate::store::{content, table};

/// An output that lies complete in an attempt's folder.
#[derive(Debug)]
pub struct Staged {
    /// What it consists of.
    pub manifest: Manifest,
    /// Its files as they lie, in the manifest's order.
    pub paths: Vec<PathBuf>,
}

/// Writes a table output to a file, which must not exist.
pub fn stage_table(table: &Table, path: &Path) -> Result<Staged> {
    let table = table::normalise(table)?;
    let (content, columns) = content::table(&table)?;
    let digest = table::write(&table, path)?;
    let file = ManifestFile { name: table::FILE_NAME.to_owned(), digest };
    let manifest = Manifest::table(content, table.n_rows() as u64, columns, vec![file]);
    Ok(Staged { manifest, paths: vec![path.to_owned()] })
}

/// Files that were digested while they were copied, so that they are not read
/// again unless they changed after that.
#[derive(Debug, Default)]
pub struct Copies(BTreeMap<PathBuf, (Stat, ModelFile)>);

impl Copies {
    /// Copies a file of a model to a place where none is yet. Its bytes are the
    /// copy's own, since whoever owns the original may write to it.
    pub fn add(&mut self, from: &Path, to: &Path) -> Result<()> {
        let file = ModelFile::copy(&files::name(to), from, to)?;
        let stat = Stat::of(&fs::metadata(to).at("read", to)?);
        self.0.insert(to.to_owned(), (stat, file));
        Ok(())
    }

    fn take(&mut self, path: &Path, meta: &fs::Metadata) -> Option<ModelFile> {
        self.0.remove(path).filter(|(stat, _)| *stat == Stat::of(meta)).map(|(_, file)| file)
    }
}

/// Takes a model folder that an operator has filled. Links are replaced by
/// copies, so that nothing outside is shared with the store.
pub fn stage_model(folder: &Path, copies: &mut Copies) -> Result<Staged> {
    let (mut names, mut paths, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for (name, path) in files::list(folder)? {
        let meta = fs::symlink_metadata(&path).at("read", &path)?;
        if meta.is_symlink() || meta.nlink() > 1 {
            let copy = path.with_extension("fuseline-copy");
            fs::copy(&path, &copy).at("copy", &path)?;
            fs::set_permissions(&copy, Permissions::from_mode(0o644)).at("copy", &path)?;
            fs::rename(&copy, &path).at("copy", &path)?;
        }
        read.push(match copies.take(&path, &meta) {
            Some(file) => file,
            None => ModelFile::read(&name, &path)?,
        });
        names.push(name);
        paths.push(path);
    }
    let content = model::content(names.iter().map(String::as_str).zip(&read))?;
    let files = names.into_iter().zip(&read).map(|(name, file)| ManifestFile { name, digest: file.digest });
    Ok(Staged { manifest: Manifest::model(content, files.collect()), paths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_file_is_staged_as_one_that_was_read_and_a_changed_one_is_read_again() {
        let home = tempfile::tempdir().expect("a folder");
        let from = home.path().join("original.json");
        fs::write(&from, "{}").expect("written");
        let folder = home.path().join("model");
        fs::create_dir(&folder).expect("made");
        let to = folder.join("config.json");
        let stage = |copies: &mut Copies| stage_model(&folder, copies).expect("staged").manifest;
        let mut copies = Copies::default();
        copies.add(&from, &to).expect("copied");
        copies.add(&from, &to).expect_err("there is one");
        let copied = stage(&mut copies);
        assert_eq!(copied, stage(&mut Copies::default()));
        fs::remove_file(&to).expect("removed");
        copies.add(&from, &to).expect("copied");
        fs::write(&to, "{\"later\": 1}").expect("written");
        let changed = stage(&mut copies);
        assert_ne!(changed, copied);
        assert_eq!(changed, stage(&mut Copies::default()));
    }
}
