//! What differs between an input as it was and as it is, in words.

use std::collections::BTreeMap;

use fuseline_contract::Digest;
use fuseline_engine::explain::Replaced;
use fuseline_engine::store::{ArtifactKind, Store};
use fuseline_query::diff::{Options, compare};

/// Larger tables are only counted: comparing rows takes both in memory.
const ROWS: u64 = 1_000_000;

/// The share of a table's rows that are not as they were; nothing where that is
/// not known.
pub fn share(store: &Store, replaced: &Replaced) -> Option<f64> {
    let (before, now) = (&replaced.before, &replaced.now);
    if now.kind != ArtifactKind::Table || before.rows.max(now.rows)? > ROWS {
        return None;
    }
    let (before, now) = (store.table(&before.artifact).ok()?, store.table(&now.artifact).ok()?);
    let diff = compare(&before, &now, &Options::default()).ok()?;
    (diff.drift.is_empty() && diff.rows.1 > 0)
        .then(|| (diff.added.len() + diff.changed.len()) as f64 / diff.rows.1 as f64)
}

/// `12 rows added`, `weights changed`; nothing where the artifacts are gone.
pub fn words(store: &Store, replaced: &Replaced) -> Option<String> {
    let (before, now) = (&replaced.before, &replaced.now);
    match now.kind {
        ArtifactKind::Table => {
            let counts = || match (before.rows?, now.rows?) {
                (before, now) if before == now => None,
                (before, now) => Some(format!("{before} rows → {now}")),
            };
            if before.rows.max(now.rows).unwrap_or(0) > ROWS {
                return counts();
            }
            let tables = store.table(&before.artifact).ok().zip(store.table(&now.artifact).ok());
            let diff = tables.and_then(|(before, now)| compare(&before, &now, &Options::default()).ok());
            match diff {
                Some(diff) if diff.is_empty() => Some("the same rows in another order".to_owned()),
                Some(diff) => Some(diff.words()),
                None => counts(),
            }
        }
        ArtifactKind::Model => {
            let files = |artifact: &Digest| -> Option<BTreeMap<String, Digest>> {
                let manifest = store.manifest(artifact).ok()?;
                Some(manifest.files.into_iter().map(|file| (file.name, file.digest)).collect())
            };
            let (before, now) = (files(&before.artifact)?, files(&now.artifact)?);
            let differs = |name: &&String| before.get(*name) != now.get(*name);
            let mut names: Vec<&str> = before.keys().chain(now.keys()).filter(differs).map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            (!names.is_empty()).then(|| format!("{} changed", names.join(", ")))
        }
    }
}
