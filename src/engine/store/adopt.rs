//! Records for results whose blobs are in the store already: an earlier result
//! that is accepted for another key.

use std::fs::{self, File};
use std::io::Write;

use crate::error::{At, Result};
use crate::store::{Record, Store, publish};

/// Commits a record; its blobs must be there. It answers after those that the
/// key has already, unless it supersedes them.
pub fn adopt(store: &Store, record: &Record) -> Result<()> {
    let folder = store.records(&record.key);
    fs::create_dir_all(&folder).at("create", &folder)?;
    let mut number = 1;
    loop {
        let to = folder.join(format!("{number}.rec"));
        number += 1;
        if to.exists() {
            continue;
        }
        let temporary = store.temporary("record");
        let mut file = File::create_new(&temporary).at("create", &temporary)?;
        file.write_all(&record.bytes()).and_then(|()| file.sync_all()).at("write", &temporary)?;
        if publish::create_only(&temporary, &to)? {
            break;
        }
    }
    for path in [folder.as_path(), folder.parent().expect("inside the store")] {
        File::open(path).and_then(|file| file.sync_all()).at("write", path)?;
    }
    Ok(())
}
