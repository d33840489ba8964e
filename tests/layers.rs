//! The walls: which crate may use which, and which module which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate → the crates of ours that it may use (`src/ARCHITECTURE.md`).
const CRATES: &[(&str, &[&str])] = &[
    ("fuseline", &["contract", "engine", "lm", "operators", "query", "serve"]),
    ("fuseline-contract", &[]),
    ("fuseline-engine", &["contract"]),
    ("fuseline-lm", &["torch", "weights"]),
    ("fuseline-metrics", &[]),
    ("fuseline-operators", &["contract", "lm", "metrics", "query", "remote", "weights"]),
    ("fuseline-query", &["contract", "metrics"]),
    ("fuseline-remote", &[]),
    ("fuseline-serve", &["lm"]),
    ("fuseline-torch", &[]),
    ("fuseline-weights", &[]),
];

/// Crate folder → its modules, lowest first: a module may use only those before it.
const MODULES: &[(&str, &[&str])] = &[
    (
        "src/contract",
        &[
            "id", "value", "hash", "table", "rows", "error", "event", "port", "secret", "operator", "memo", "run",
            "runner",
        ],
    ),
    (
        "src/engine",
        &[
            "locate",
            "problem",
            "yaml",
            "reference",
            "spec",
            "vars",
            "expand",
            "repeat",
            "include",
            "plan",
            "graph",
            "settings",
            "parameters",
            "bind",
            "settle",
            "resolve",
            "schema",
            "error",
            "here",
            "device",
            "key",
            "store",
            "ledger",
            "logs",
            "why",
            "decide",
            "definition",
            "select",
            "lineage",
            "resources",
            "secrets",
            "attempt",
            "care",
            "run",
            "worker",
            "publisher",
            "executor",
            "schedule",
            "choice",
            "history",
            "origin",
            "explain",
            "rundiff",
            "lock",
            "rerun",
            "footnotes",
        ],
    ),
    (
        "src/lm",
        &[
            "error",
            "arch",
            "families",
            "parts",
            "cache",
            "decoder",
            "cpu",
            "init",
            "checkpoint",
            "tokenizer",
            "template",
            "generate",
            "score",
            "objectives",
            "train",
        ],
    ),
    (
        "src/metrics",
        &["rng", "error", "sandbox", "text", "code", "ifeval", "verify", "tasks", "selection", "stats", "judged"],
    ),
    (
        "src/query",
        &[
            "error",
            "names",
            "scan",
            "functions",
            "memory",
            "session",
            "order",
            "spec",
            "cells",
            "render",
            "table",
            "diff",
        ],
    ),
    ("src/remote", &["error", "limits", "prices", "wire", "endpoint", "hub"]),
    ("src/serve", &["error", "http", "wire", "engine", "server", "chat"]),
    ("src/weights", &["dtype", "error", "folder", "shard", "names", "methods", "merge"]),
];

/// (file, higher module that it uses, reason).
const EXCUSED: &[(&str, &str, &str)] = &[
    ("src/contract/table.rs", "rows", "a table is brought to a row type, and rows are read from tables"),
    ("src/engine/bind.rs", "resolve", "binding is the part of resolving that looks at other stages"),
    ("src/engine/settle.rs", "resolve", "what is left out is the part of resolving that looks at other instances"),
    ("src/metrics/error.rs", "tasks", "an error names the split that has too few problems"),
    ("src/query/cells.rs", "render", "a nested value in a cell is shown as the JSON renderer writes it"),
];

#[test]
fn crates_depend_only_as_the_table_says() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(super::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let allowed: BTreeMap<&str, &[&str]> = CRATES.iter().copied().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), CRATES.len(), "a crate is missing in the table");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} is missing in the table"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            // The whole-program tests may use every crate.
            if dependency["kind"] == "dev" {
                continue;
            }
            if let Some(short) = dependency["name"].as_str().and_then(|name| name.strip_prefix("fuseline-")) {
                assert!(allowed.contains(&short), "{name} must not use fuseline-{short}");
            }
        }
    }
}

/// Upward uses in a crate: (file, module used).
fn upward_uses(order: &[&str], files: &[(String, String)]) -> BTreeSet<(String, String)> {
    let rank = |module: &str| order.iter().position(|known| *known == module);
    let mut found = BTreeSet::new();
    for (path, text) in files {
        let Some(own) = rank(module_of(path)) else { continue };
        // Tests may use whatever helps them.
        if path.ends_with("tests.rs") || path.contains("/tests/") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in code.split("crate::").skip(1).flat_map(first_names) {
            if rank(&used).is_some_and(|rank| rank > own) {
                found.insert((path.clone(), used));
            }
        }
    }
    found
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// The names that may stand directly after `crate::`: one, or all of a group.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    match rest.strip_prefix('{') {
        Some(group) => group.split('}').next().unwrap_or_default().split(',').map(|one| word(one.trim())).collect(),
        None => vec![word(rest)],
    }
}

#[test]
fn modules_use_only_lower_ones() {
    let mut excused: BTreeSet<(String, String)> = BTreeSet::new();
    for (crate_folder, order) in MODULES {
        let folder = super::root().join(crate_folder);
        let read = |path: std::path::PathBuf| {
            let relative = path.strip_prefix(&folder).ok()?.to_string_lossy().into_owned();
            Some((relative, std::fs::read_to_string(&path).expect("a text")))
        };
        let files: Vec<(String, String)> = super::sources(".rs").into_iter().filter_map(read).collect();
        for (path, _) in &files {
            let module = module_of(path);
            assert!(module == "lib" || order.contains(&module), "{crate_folder}/{path} has no place in the order");
        }
        for module in *order {
            assert!(files.iter().any(|(path, _)| module_of(path) == *module), "{crate_folder} has no {module}");
        }
        for (path, used) in upward_uses(order, &files) {
            let path = format!("{crate_folder}/{path}");
            let known = EXCUSED.iter().any(|(file, module, _)| *file == path && *module == used);
            assert!(known, "{path} uses the higher module {used}");
            excused.insert((path, used));
        }
    }
    assert_eq!(excused.len(), EXCUSED.len(), "an excuse is no longer needed: {excused:?}");
}

#[test]
fn a_planted_upward_use_is_found() {
    let order = ["low", "high"];
    let found = |text: &str| upward_uses(&order, &[("low.rs".to_owned(), text.to_owned())]).len();
    assert_eq!(found("use crate::high::Thing;"), 1);
    assert_eq!(found("use crate::{low::Other,\n    high};"), 1);
    assert_eq!(found("//! Not `crate::high`.\n#[cfg(test)]\nuse crate::high::Thing;"), 0);
}
