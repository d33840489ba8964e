//! Faults of the disk: each ends in a clear error and a whole store, and the
//! next run gives what an undisturbed one gives.

use std::process::Command;

use fuseline_engine::store::fault::{NOTES, POINTS};

use crate::crash::{TWO, results};
use crate::harness::{Done, Home};

fn assert_whole(home: &Home, what: &str) {
    let checked = home.fuseline(&["fsck"]);
    assert_eq!(checked.code, Some(0), "{what}: {}{}", checked.stdout, checked.stderr);
}

/// What a fault does, and what is said of it.
const ACTIONS: [(&str, &str); 3] =
    [("full", "free some disk space"), ("eio", "faults of the disk"), ("short", "faults of the disk")];

/// Runs the pipeline with a fault, which must end in a clear error and a whole store.
fn fail(home: &Home, more: &[&str], fault: &str, hint: &str) {
    let arguments: Vec<&str> = ["run", "two.yaml"].iter().chain(more).copied().collect();
    let done = Done::of(home.command(&arguments).env("FUSELINE_FAULT", fault).output().expect("the program starts"));
    assert_eq!(done.code, Some(3), "{fault}: {}", done.stderr);
    assert!(done.stderr.contains(hint), "{fault}: {}", done.stderr);
    assert!(!done.stderr.contains("panic"), "{fault}: {}", done.stderr);
    assert_whole(home, fault);
}

#[test]
fn ask_30_a_failing_write_of_the_driver_is_a_clear_error_and_a_rerun_succeeds() {
    let lessons = |home: &Home| home.ok(&["sql", "two.yaml", "SELECT * FROM lessons.examples", "--format", "json"]);
    let whole = Home::new();
    whole.write("two.yaml", TWO);
    whole.ok(&["run", "two.yaml", "--target", "lessons"]);
    let expected = lessons(&whole);
    for point in POINTS.iter().chain(&NOTES) {
        for (action, hint) in ACTIONS {
            let home = Home::new();
            home.write("two.yaml", TWO);
            fail(&home, &["--target", "lessons"], &format!("{point}:{action}"), hint);
            home.ok(&["run", "two.yaml", "--target", "lessons"]);
            assert_eq!(lessons(&home), expected, "{point}:{action}");
        }
    }
}

#[test]
fn ask_30_a_failing_write_of_a_worker_is_a_clear_error_and_a_rerun_succeeds() {
    let whole = Home::new();
    whole.write("two.yaml", TWO);
    whole.ok(&["run", "two.yaml"]);
    let expected = results(&whole);
    for (point, (action, hint)) in POINTS.iter().zip(ACTIONS.iter().cycle()) {
        let home = Home::new();
        home.write("two.yaml", TWO);
        home.ok(&["run", "two.yaml", "--target", "lessons"]);
        fail(&home, &[], &format!("{point}:{action}"), hint);
        home.ok(&["run", "two.yaml"]);
        assert_eq!(results(&home), expected, "{point}:{action}");
    }
}

/// Runs a script in a working directory where `store` is a file system of so
/// many bytes, which goes away with the script; nothing where that cannot be.
fn on_small_disk(home: &Home, size: &str, script: &str) -> Option<String> {
    let mount = format!("mkdir -p store && mount -t tmpfs -o size={size} tmpfs store || exit 77\n{script}");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &mount])
        .current_dir(home.path("."))
        .env("F", env!("CARGO_BIN_EXE_fuseline"))
        .env("FUSELINE_STORE", "store")
        .output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        failed => {
            let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
            assert!(!(root && std::env::var_os("CI").is_some()), "a file system cannot be mounted: {failed:?}");
            println!("skipped: a file system of its own can only be mounted by root on Linux");
            None
        }
    }
}

#[test]
fn ask_30_a_full_disk_is_a_clear_error_and_room_is_all_it_takes() {
    let whole = Home::new();
    whole.write("two.yaml", TWO);
    whole.ok(&["run", "two.yaml"]);
    let expected = results(&whole);
    let script = r#"
        "$F" run two.yaml >/dev/null 2>first.err; echo "first $?"
        mount -o remount,size=64m store
        "$F" fsck >fsck.out 2>&1; echo "fsck $?"
        "$F" run two.yaml >/dev/null 2>again.err; echo "again $?"
        "$F" sql two.yaml "SELECT * FROM lessons.examples" --format json >lessons.json
        cp "$("$F" path two.yaml vocabulary)/tokenizer.json" .
    "#;
    let (mut driver, mut worker, mut kilobytes) = (0, 0, 4);
    loop {
        let home = Home::new();
        home.write("two.yaml", TWO);
        let Some(said) = on_small_disk(&home, &format!("{kilobytes}k"), script) else { return };
        let text = |name: &str| std::fs::read_to_string(home.path(name)).unwrap_or_default();
        let first = text("first.err");
        assert!(said.contains("fsck 0"), "{kilobytes} kB: {said}{}", text("fsck.out"));
        assert!(said.contains("again 0"), "{kilobytes} kB: {said}{}", text("again.err"));
        let tokenizer = std::fs::read(home.path("tokenizer.json")).expect("copied");
        assert_eq!((text("lessons.json"), tokenizer), expected, "{kilobytes} kB");
        if said.contains("first 0") {
            break;
        }
        assert!(said.contains("first 3"), "{kilobytes} kB: {said}{first}");
        assert!(first.contains("free some disk space"), "{kilobytes} kB: {first}");
        *(if first.contains("vocabulary") { &mut worker } else { &mut driver }) += 1;
        kilobytes += if kilobytes < 64 { 12 } else { 24 };
    }
    assert!(driver > 0 && worker > 0, "full in the driver {driver} times, in the worker {worker} times");
}

#[test]
fn ask_30_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written() {
    let home = Home::new();
    home.write("two.yaml", TWO);
    let script = r#"
        "$F" run two.yaml >/dev/null 2>&1; echo "first run $?"
        "$F" path two.yaml vocabulary >/dev/null
        mount -o remount,ro store
        for verb in "plan two.yaml" "ls two.yaml" "path two.yaml vocabulary" "du two.yaml" fsck gc runs; do
            "$F" $verb >/dev/null 2>"error"; echo "$verb $?"; cat error
        done
        for verb in "run two.yaml" "gc --yes" "pin mine two.yaml lessons"; do
            "$F" $verb 2>&1 >/dev/null; echo "$verb $?"
        done
    "#;
    let Some(said) = on_small_disk(&home, "64m", script) else { return };
    for (verb, code) in [
        ("first run", 0),
        ("plan two.yaml", 0),
        ("ls two.yaml", 0),
        ("path two.yaml vocabulary", 0),
        ("du two.yaml", 0),
        ("fsck", 0),
        ("gc", 0),
        ("runs", 0),
        ("run two.yaml", 3),
        ("gc --yes", 3),
        ("pin mine two.yaml lessons", 3),
    ] {
        assert!(said.lines().any(|line| line == format!("{verb} {code}")), "{verb}: {said}");
    }
    assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
    assert_eq!(said.matches("choose a folder that you may write").count(), 3, "{said}");
}
