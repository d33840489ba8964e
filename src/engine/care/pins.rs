//! Pins: names under which results are kept whatever else is collected.

use std::fs;
use std::path::PathBuf;

use fuseline_contract::{Digest, Key, StageError};
use serde::{Deserialize, Serialize};

use crate::care::inventory::{entries, name};
use crate::error::{At, Error, Result};
use crate::here::now_ms;
use crate::store::{Record, Store, disk, publish, seal};

/// A name and what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The name.
    pub name: String,
    /// When it was given, in milliseconds since 1970.
    pub pinned_ms: u64,
    /// The pipeline.
    pub pipeline: String,
    /// The stage, as it was typed.
    pub stage: String,
    /// The keys whose records are kept, with all they were made from.
    pub keys: Vec<Key>,
    /// Their artifacts.
    pub artifacts: Vec<Digest>,
}

/// Gives results a name; one that is taken is refused.
pub fn pin(store: &Store, name: &str, pipeline: &str, stage: &str, records: &[Record]) -> Result<Pin> {
    let path = path(store, name)?;
    store.prepare()?;
    let pin = Pin {
        name: name.to_owned(),
        pinned_ms: now_ms(),
        pipeline: pipeline.to_owned(),
        stage: stage.to_owned(),
        keys: records.iter().map(|record| record.key).collect(),
        artifacts: records.iter().flat_map(|record| record.outputs.iter().map(|output| output.artifact)).collect(),
    };
    let temporary = store.temporary("pin");
    fs::write(&temporary, seal::seal(&pin)).at("write", &temporary)?;
    disk::settle(store, std::slice::from_ref(&temporary))?;
    if !publish::create_only(&temporary, &path)? {
        let error = StageError::input(format!("the name {name:?} is pinned already"));
        return Err(Error::Stage(error.hint(format!("choose another, or free it: fuseline unpin {name}"))));
    }
    disk::settle(store, &[store.root().join("roots")])?;
    Ok(pin)
}

/// Takes a name away; the collector may have what it kept.
pub fn unpin(store: &Store, name: &str) -> Result<()> {
    let path = path(store, name)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let known: Vec<_> = pins(store)?.into_iter().map(|pin| pin.name).collect();
            let hint = match known.is_empty() {
                true => "nothing is pinned".to_owned(),
                false => format!("pinned are: {}", known.join(", ")),
            };
            Err(Error::Stage(StageError::input(format!("nothing is pinned as {name:?}")).hint(hint)))
        }
        removed => removed.at("remove", &path),
    }
}

/// Every pin, by name. One that cannot be read is an error: what it keeps is not known.
pub fn pins(store: &Store) -> Result<Vec<Pin>> {
    let mut pins = Vec::new();
    for entry in entries(&store.root().join("roots"))? {
        let path = entry.path();
        let bytes = fs::read(&path).at("read", &path)?;
        let pin: Option<Pin> = seal::unseal(&bytes);
        let named = pin.filter(|pin| pin.name == name(&path));
        pins.push(named.ok_or_else(|| {
            let message = format!("{} is damaged: what this pin keeps is not known", path.display());
            Error::Stage(StageError::environment(message).hint("type fuseline fsck --repair, then pin it again"))
        })?);
    }
    Ok(pins)
}

fn path(store: &Store, name: &str) -> Result<PathBuf> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('.') || name.len() > 100 || !name.bytes().all(plain) {
        let error = StageError::input(format!("{name:?} cannot be the name of a pin"));
        return Err(Error::Stage(error.hint("use letters, digits, '-', '_' and '.', as in paper-v1")));
    }
    Ok(store.root().join("roots").join(name))
}
