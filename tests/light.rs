//! What a planner must not need: libtorch, and workers where nothing changed.

use std::process::Command;

use crate::harness::{Done, fused};

/// The libraries that the loader would load.
#[cfg(target_os = "linux")]
fn libraries(program: &str) -> String {
    let output = Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output().expect("the loader answers");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn only_the_worker_loads_libtorch() {
    let driver = libraries(env!("CARGO_BIN_EXE_fuseline"));
    assert!(driver.contains("libc.so"), "the loader lists libraries: {driver}");
    assert!(!driver.contains("torch"), "{driver}");
    assert!(libraries(env!("CARGO_BIN_EXE_fuseline-worker")).contains("torch"));
}

#[test]
fn a_second_run_starts_no_worker_and_prints_the_same_table() {
    let home = fused();
    // A copy of the program whose worker only tells that it was started.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (driver, worker, trace) =
        (folder.path().join("fuseline"), folder.path().join("fuseline-worker"), folder.path().join("started"));
    std::fs::hard_link(env!("CARGO_BIN_EXE_fuseline"), &driver).expect("one file system");
    std::fs::write(&worker, format!("#!/bin/sh\ntouch '{}'\nexit 3\n", trace.display())).expect("written");
    let executable = Command::new("chmod").arg("+x").arg(&worker).status().expect("chmod starts");
    assert!(executable.success());

    let table = home.ok(&["table", "fusion.yaml"]);
    let run = |more: &[&str]| {
        let arguments: Vec<&str> = ["run", "fusion.yaml"].iter().chain(more).copied().collect();
        Done::of(home.command_of(&driver, &arguments).output().expect("the copy starts"))
    };
    let again = run(&[]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), table.as_str()), "{}", again.stderr);
    assert!(again.stderr.contains("0 ran, 28 cached"), "{}", again.stderr);
    assert!(!trace.exists());
    // The copy does use that worker. A file just written cannot be started while a process that another test forks
    // at that moment still has it open, so it may take more than one try.
    let started = (0..20).any(|_| run(&["--set", "target.train.steps=3"]).code == Some(3) && trace.exists());
    assert!(started);
}
