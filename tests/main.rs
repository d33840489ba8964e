//! Whole-program tests, in one binary so that there is one link.

mod bad_input;
mod bucket;
mod care;
mod cli;
mod command;
mod costs;
mod crash;
mod endpoint;
mod events;
mod failures;
mod faults;
mod fuzz;
mod harness;
mod hub;
mod incremental;
mod judge;
mod judged;
mod language;
mod layers;
mod light;
mod memo;
mod outside;
mod pipelines;
mod plan;
mod property;
mod real;
mod resume;
mod sampling;
mod schema;
mod serve;
mod settings;
mod share;
mod sql;
mod stale_hits;
mod tidy;

/// The repository's root.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root exists")
}

/// Every source file below `src`, `operators` and `tests` with a suffix.
fn sources(suffix: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for folder in ["src", "operators", "tests"] {
        found.extend(files(&root().join(folder), suffix));
    }
    found.sort();
    found
}

/// Every file below a folder with a suffix.
fn files(folder: &std::path::Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
