//! Secrets: looked up in the process that needs them, in its environment or in
//! a file that only its user can read, and kept out of everything that is
//! written: reports, errors and logs have `[secret NAME]` in the place of a
//! value. Must not know operators.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fuseline_contract::{StageError, secret};
use serde_json::Value as Json;

/// The variable that names the file of secrets.
pub(crate) const FILE: &str = "FUSELINE_SECRETS";

/// How much of a log is read at once.
const CHUNK: usize = 8 << 10;

/// The names of all secrets in a stage's parameters.
pub(crate) fn names(params: &Json) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(params, &mut found);
    found
}

fn collect(value: &Json, found: &mut BTreeSet<String>) {
    match (secret::of_json(value), value) {
        (Some(name), _) => drop(found.insert(name.to_owned())),
        (None, Json::Array(items)) => items.iter().for_each(|item| collect(item, found)),
        (None, Json::Object(map)) => map.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// The values of some secrets, by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct Vault {
    known: BTreeMap<String, Result<String, StageError>>,
}

impl Vault {
    /// Looks secrets up in this process.
    pub(crate) fn of_process(names: &BTreeSet<String>) -> Self {
        Self::look_up(names, |name| std::env::var(name).ok(), std::env::var_os(FILE).map(PathBuf::from).as_deref())
    }

    /// Looks secrets up in an environment, then in a file.
    fn look_up(names: &BTreeSet<String>, environment: impl Fn(&str) -> Option<String>, file: Option<&Path>) -> Self {
        if names.is_empty() {
            return Self::default();
        }
        let listed = file.map(read);
        let find = |name: &String| match (environment(name).filter(|value| !value.is_empty()), &listed) {
            (Some(value), _) => Ok(value),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, Some(Ok(listed))) if listed.contains_key(name) => Ok(listed[name].clone()),
            _ => Err(StageError::input(format!("the secret {name} is not set"))
                .hint(format!("export {name}, or put a line {name}=VALUE into the file that {FILE} names"))),
        };
        Self { known: names.iter().map(|name| (name.clone(), find(name))).collect() }
    }

    /// A secret's value.
    pub(crate) fn get(&self, name: &str) -> Result<&str, StageError> {
        match self.known.get(name) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(error.clone()),
            None => Err(StageError::bug(format!("the secret {name} is not among the stage's parameters"))),
        }
    }

    /// Whether there is nothing to keep out.
    pub(crate) fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    /// Names and values, the longest first, so that none hides in another.
    fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut known: Vec<(&str, &str)> =
            self.known.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref().ok()?))).collect();
        known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        known.into_iter()
    }

    /// A text without values of secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in self.values().filter(|(_, value)| !value.is_empty()) {
            if text.contains(value) {
                text = text.replace(value, &marker(name));
            }
        }
        text
    }

    /// An error without values of secrets.
    pub(crate) fn redact_error(&self, error: StageError) -> StageError {
        let hint = error.hint.as_deref().map(|hint| self.redact(hint));
        StageError { message: self.redact(&error.message), hint, ..error }
    }

    /// Copies a log without values of secrets, as it is written.
    pub(crate) fn filter(&self, mut from: impl Read, mut to: impl Write) -> io::Result<()> {
        let mut pending: Vec<u8> = Vec::new();
        let mut chunk = [0; CHUNK];
        loop {
            let n = match from.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            pending.extend(&chunk[..n]);
            let ready = if n == 0 { pending.len() } else { self.ready(&pending) };
            let rest = pending.split_off(ready);
            for (name, value) in self.values() {
                replace(&mut pending, value.as_bytes(), marker(name).as_bytes());
            }
            to.write_all(&pending)?;
            pending = rest;
            if n == 0 {
                return to.flush();
            }
        }
    }

    /// How many bytes may be given on: a value may begin in one piece and end
    /// in the next.
    fn ready(&self, bytes: &[u8]) -> usize {
        let longest = self.values().map(|(_, value)| value.len()).max().unwrap_or(0);
        let begins = |n: &usize| {
            let end = &bytes[bytes.len() - n..];
            self.values().any(|(_, value)| value.as_bytes().starts_with(end))
        };
        let open = (1..=longest.min(bytes.len())).rev().find(begins).unwrap_or(0);
        let mut ready = bytes.len() - open;
        // What is given on does not end within a value either.
        while let Some(start) = self.values().find_map(|(_, value)| across(bytes, value.as_bytes(), ready)) {
            ready = start;
        }
        ready
    }
}

/// Where a value begins that lies on both sides of a place.
fn across(bytes: &[u8], value: &[u8], place: usize) -> Option<usize> {
    let first = (place + 1).saturating_sub(value.len());
    (first..place).find(|start| bytes[*start..].starts_with(value))
}

fn marker(name: &str) -> String {
    format!("[secret {name}]")
}

fn replace(bytes: &mut Vec<u8>, what: &[u8], with: &[u8]) {
    if what.is_empty() {
        return;
    }
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(what.len()).position(|window| window == what) {
        let at = from + at;
        bytes.splice(at..at + what.len(), with.iter().copied());
        from = at + with.len();
    }
}

/// Reads a file of lines `NAME=VALUE`; it must be its user's alone.
fn read(path: &Path) -> Result<BTreeMap<String, String>, StageError> {
    let shown = path.display();
    let refuse = |error: io::Error| StageError::input(format!("failed to read {shown}, which {FILE} names: {error}"));
    let mode = std::fs::metadata(path).map_err(refuse)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StageError::input(format!("{shown} holds secrets, but others may read it (mode {mode:04o})"))
            .hint(format!("chmod 600 {shown}")));
    }
    let text = std::fs::read_to_string(path).map_err(refuse)?;
    let mut found = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself stays out of the message: it may be a value.
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let (name, value) = pair
            .filter(|(name, _)| secret::is_secret_name(name))
            .ok_or_else(|| StageError::input(format!("{shown}:{}: expected NAME=VALUE", index + 1)))?;
        if !value.is_empty() {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn vault(pairs: &[(&str, &str)]) -> Vault {
        let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        let find = |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Vault::look_up(&asked(&names), find, None)
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        let params = json!({"a": {"!secret": "A"}, "b": [1, {"c": {"!secret": "B"}}], "d": {"!secret": "C", "e": 1}});
        assert_eq!(names(&params), asked(&["A", "B"]));
    }

    #[test]
    fn the_environment_comes_before_the_file_and_the_file_is_its_users_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets");
        std::fs::write(&path, "# mine\nA=from file\n B = b=1 \nEMPTY=\n").expect("written");
        let look = |names: &[&str]| {
            Vault::look_up(&asked(names), |name| (name == "A").then(|| "from environment".to_owned()), Some(&path))
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let open = look(&["A", "B"]);
        assert_eq!(open.get("A"), Ok("from environment"));
        let error = open.get("B").expect_err("the file is open to others");
        assert!(error.message.ends_with("but others may read it (mode 0640)"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let own = look(&["A", "B", "C", "EMPTY"]);
        assert_eq!((own.get("A"), own.get("B")), (Ok("from environment"), Ok("b=1")));
        for name in ["C", "EMPTY"] {
            let error = own.get(name).expect_err("not set");
            assert_eq!(error.message, format!("the secret {name} is not set"));
        }
        std::fs::write(&path, "B=1\nsk-very-secret\n").expect("written");
        let error = look(&["B"]).get("B").expect_err("a broken file").message.clone();
        assert!(error.ends_with("secrets:2: expected NAME=VALUE"), "{error}");
    }

    #[test]
    fn values_are_replaced_the_longest_first() {
        let vault = vault(&[("SHORT", "abc"), ("LONG", "abcdef")]);
        assert_eq!(vault.redact("x abcdef abc"), "x [secret LONG] [secret SHORT]");
        let error = vault.redact_error(StageError::work("got abc").hint("try abcdef"));
        assert_eq!((error.message.as_str(), error.hint.as_deref()), ("got [secret SHORT]", Some("try [secret LONG]")));
    }

    /// Gives a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn a_log_is_filtered_however_it_comes() {
        let vault = vault(&[("KEY", "s3cret\nkey"), ("OTHER", "zz")]);
        let text = b"a s3cret\nkey b s3cret\n zzz s3cs3cret\nkey\n";
        for pace in 1..text.len() + 1 {
            let mut out = Vec::new();
            vault.filter(Drip(text, pace), &mut out).expect("copied");
            let out = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(out, "a [secret KEY] b s3cret\n [secret OTHER]z s3c[secret KEY]\n", "{pace} bytes at a time");
        }
    }
}
