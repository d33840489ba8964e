//! An artifact as a folder with its real file names, for programs that read
//! folders: made on demand, of hard links into `cas/`, or symbolic ones where
//! those fail.
//!
//! Any number of processes ask for one view at a time, and what one was given
//! another must not take away: a finished folder is moved to where none is yet
//! and from then on stays there. If its files no longer lead to the present
//! blobs, they are replaced one by one, each by an atomic rename.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use fuseline_contract::Digest;

use crate::error::{At, Error, Result};
use crate::store::{Manifest, Store};

impl Store {
    /// The folder of an artifact's view; nothing is made there.
    pub(crate) fn view_folder(&self, artifact: &Digest) -> PathBuf {
        self.root().join("views").join(artifact.hex())
    }

    /// The artifact as a folder with its real file names, made on demand.
    pub fn view(&self, artifact: &Digest) -> Result<PathBuf> {
        let manifest = self.manifest(artifact)?;
        let view = self.view_folder(artifact);
        if self.view_is_right(&view, &manifest) {
            return Ok(view);
        }
        self.bring(&manifest.files.iter().map(|file| file.digest).collect::<Vec<_>>())?;
        let fresh = self.temporary("view");
        let placed = self.link_all(&manifest, &fresh).and_then(|()| match fs::rename(&fresh, &view) {
            Ok(()) => Ok(true),
            // A folder that is not empty is never replaced.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(false)
            }
            Err(error) => Err(Error::io("create", &view, error)),
        });
        let mended = placed.and_then(|placed| match placed || self.view_is_right(&view, &manifest) {
            true => Ok(()),
            false => self.mend(&manifest, &fresh, &view),
        });
        // Ours is still there only if another was first, or on a failure.
        let _ = fs::remove_dir_all(&fresh);
        mended.map(|()| view)
    }

    /// Links every file of an artifact into a folder of our own.
    fn link_all(&self, manifest: &Manifest, folder: &Path) -> Result<()> {
        for file in &manifest.files {
            let (path, blob) = (folder.join(&file.name), self.blob(&file.digest));
            let parent = path.parent().expect("inside the view");
            fs::create_dir_all(parent).at("create", parent)?;
            if !self.has(&file.digest) {
                return Err(Error::BlobMissing { digest: file.digest });
            }
            if self.in_passing(&file.digest, || fs::hard_link(&blob, &path)).is_err() {
                symlink(&blob, &path).at("link", &path)?;
            }
        }
        Ok(())
    }

    /// Replaces the files of a view that stands by freshly linked ones and moves
    /// aside what does not belong there: a program would read it.
    fn mend(&self, manifest: &Manifest, fresh: &Path, view: &Path) -> Result<()> {
        for file in &manifest.files {
            let path = view.join(&file.name);
            let parent = path.parent().expect("inside the view");
            fs::create_dir_all(parent).at("create", parent)?;
            fs::rename(fresh.join(&file.name), &path).at("replace", &path)?;
        }
        let own: BTreeSet<PathBuf> = manifest.files.iter().map(|file| view.join(&file.name)).collect();
        entries(view).at("read", view)?.difference(&own).try_for_each(|path| self.set_aside(path).map(drop))
    }

    /// Whether a view has an artifact's files, each of them leading to its blob, and no other.
    pub(crate) fn view_is_right(&self, view: &Path, manifest: &Manifest) -> bool {
        let leads = manifest.files.iter().all(|file| {
            let (linked, blob) = (fs::metadata(view.join(&file.name)), fs::metadata(self.blob(&file.digest)));
            matches!((linked, blob), (Ok(linked), Ok(blob))
                if (linked.dev(), linked.ino()) == (blob.dev(), blob.ino()) && blob.len() == file.digest.size)
        });
        leads && entries(view).is_ok_and(|found| found.len() == manifest.files.len())
    }
}

/// The paths of everything in a folder and below that is not a folder; what
/// vanishes meanwhile is not there.
fn entries(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(entries(&entry.path())?),
            Ok(_) => drop(found.insert(entry.path())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use fuseline_contract::Key;

    use crate::store::manifest::{Made, Record};
    use crate::store::publish;
    use crate::store::staging::{Copies, stage_model};

    const FILES: [&str; 4] = ["config.json", "model.safetensors.index.json", "sub/a.json", "tokenizer.json"];

    /// A store with one model in it.
    fn model(home: &Path) -> (Store, Digest) {
        let store = Store::open(home).expect("opens");
        store.prepare().expect("prepares");
        let folder = store.temporary("model");
        for name in FILES {
            fs::create_dir_all(folder.join(name).parent().expect("a folder")).expect("made");
            fs::write(folder.join(name), name).expect("written");
        }
        let staged = stage_model(&folder, &Copies::default()).expect("staged");
        let record = Record::new(Key([1; 32]), "toy", Vec::new(), false, Made::default());
        let pending = publish::Pending::new(record, vec![("model".to_owned(), staged)]);
        let outputs = publish::publish(&store, pending).expect("published").record.outputs;
        (store, outputs[0].artifact)
    }

    fn assert_whole(view: &Path) {
        for name in FILES {
            let text = fs::read_to_string(view.join(name));
            assert_eq!(text.unwrap_or_else(|error| panic!("{}: {error}", view.join(name).display())), name);
        }
    }

    /// Many ask for one view at once, each with a store of its own as processes
    /// have, and read it at once.
    fn ask_at_once(root: &Path, artifact: Digest) {
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let store = Store::open(root).expect("opens");
                    barrier.wait();
                    for _ in 0..3 {
                        assert_whole(&store.view(&artifact).expect("a view"));
                    }
                });
            }
        });
    }

    #[test]
    fn ask_30_a_view_asked_for_by_many_at_once_is_never_taken_away() {
        let home = tempfile::tempdir().expect("a folder");
        let (store, artifact) = model(home.path());
        for _ in 0..40 {
            ask_at_once(home.path(), artifact);
            fs::remove_dir_all(store.view_folder(&artifact)).expect("removed");
        }
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 1, "only the model's own folder");
    }

    #[test]
    fn ask_30_a_stale_view_is_mended_under_its_readers() {
        let home = tempfile::tempdir().expect("a folder");
        let (store, artifact) = model(home.path());
        let view = store.view(&artifact).expect("a view");
        for round in 0..40 {
            // The blobs are other files now, and the view holds copies of old ones.
            for name in FILES {
                fs::copy(view.join(name), home.path().join("copy")).expect("copied");
                fs::rename(home.path().join("copy"), view.join(name)).expect("replaced");
            }
            if round % 2 == 0 {
                fs::write(view.join("chat_template.jinja"), "of another model").expect("written");
            }
            ask_at_once(home.path(), artifact);
            assert!(!view.join("chat_template.jinja").exists());
            assert!(store.view_is_right(&view, &store.manifest(&artifact).expect("a manifest")));
        }
        assert_eq!(fs::read_dir(home.path().join("quarantine")).expect("quarantine").count(), 20);
    }

    #[test]
    fn an_empty_folder_in_its_place_is_replaced() {
        let home = tempfile::tempdir().expect("a folder");
        let (store, artifact) = model(home.path());
        fs::create_dir_all(store.view_folder(&artifact)).expect("made");
        assert_whole(&store.view(&artifact).expect("a view"));
    }
}
