//! Failures: what is tried again, what the ledger says of it, what logs show,
//! and that one branch's failure is not another's.

use serde_json::{Value, json};

use crate::harness::Home;

/// What a query gives, as rows.
fn rows(home: &Home, query: &str) -> Vec<Value> {
    let text = home.ok(&["sql", "p.yaml", query, "--format", "json"]);
    serde_json::from_str::<Value>(&text).expect("JSON").as_array().expect("rows").clone()
}

/// A pipeline of one stage that runs a script of the shell, which finds `$HERE`
/// and the output's path as its argument.
fn shell(home: &Home, script: &str, more: &str) {
    home.write("script.sh", script);
    home.write(
        "p.yaml",
        format!(
            "name: p\nstages:\n  far:\n    op: command\n{more}    with:\n      program: sh\n      \
             args: ['{{file.script}}', '{{output.rows.jsonl}}']\n      files: {{script: script.sh}}\n      \
             set_env: {{HERE: '{}'}}\n      outputs: {{rows: table}}\n",
            home.path("").display()
        ),
    );
}

const ATTEMPTS: &str = "SELECT number, class, exit FROM system.attempts WHERE stage = 'far' ORDER BY run, number";

#[test]
fn a_failure_of_the_moment_is_tried_again() {
    let home = Home::new();
    let script = "echo x >> $HERE/tries; test $(wc -l < $HERE/tries) -gt 2 || exit 75; echo '{\"a\": 1}' > $1";
    shell(&home, script, "    retry: {times: 3, backoff: 10ms}\n");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("attempt 2 of 4 failed (transient): sh ended with status 75"), "{}", done.stderr);
    let again = |number: u64| json!({"number": number, "class": "transient", "exit": "exit 1"});
    assert_eq!(rows(&home, ATTEMPTS), [again(1), again(2), json!({"number": 3, "class": null, "exit": "exit 0"})]);
    // How often it was tried is not in the key.
    shell(&home, script, "    retry: {times: 1}\n");
    assert_eq!(home.ran("p.yaml", &[]), [""; 0]);
}

#[test]
fn attempts_are_spent_and_other_failures_are_final() {
    let home = Home::new();
    shell(&home, "echo x >> $HERE/tries; exit 75", "    retry: {times: 1, backoff: 0}\n");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    shell(&home, "echo x >> $HERE/tries; exit 3", "    retry: {times: 5}\n");
    assert_eq!(home.fuseline(&["run", "p.yaml"]).code, Some(1));
    let tries = std::fs::read_to_string(home.path("tries")).expect("they left lines");
    assert_eq!(tries.lines().count(), 3);
    let class = |number: u64, class: &str| json!({"number": number, "class": class, "exit": "exit 1"});
    assert_eq!(rows(&home, ATTEMPTS), [class(1, "transient"), class(2, "transient"), class(1, "code")]);
}

#[test]
fn the_end_of_the_log_is_in_the_error_and_logs_has_all_of_it() {
    let home = Home::new();
    shell(&home, "seq 30; echo out; echo first >&2; seq 20 >&2; echo 'no such column: x' >&2; exit 3", "");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(1));
    let end = "failed far: sh ended with status 3\n         its log ends:\n           10\n";
    assert!(done.stderr.contains(end) && done.stderr.contains("\n           no such column: x\n"), "{}", done.stderr);
    assert!(!done.stderr.contains("first"), "{}", done.stderr);
    let logs = home.fuseline(&["logs", "p.yaml", "far"]);
    assert_eq!(logs.code, Some(0), "{}", logs.stderr);
    let mut expected: String = (1..=30).map(|n| format!("{n}\n")).collect();
    expected += "out\nfirst\n";
    expected.extend((1..=20).map(|n| format!("{n}\n")));
    expected += "no such column: x\n";
    assert_eq!(logs.stdout, expected);
    assert!(logs.stderr.contains("code, exit 1"), "{}", logs.stderr);

    // Its run is found by a beginning of its id, and a later attempt takes its place.
    let run = rows(&home, "SELECT run FROM system.runs")[0]["run"].as_str().expect("a text").to_owned();
    shell(&home, "echo better; echo '{\"a\": 1}' > $1", "");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(home.ok(&["logs", "p.yaml", "far"]), "better\n");
    let beginning = &run[..run.len() - 1];
    assert_eq!(home.ok(&["logs", "p.yaml", "far", "--run", &run]), expected);
    let ambiguous = home.fuseline(&["logs", "p.yaml", "far", "--run", &beginning[..4]]);
    assert_eq!(ambiguous.code, Some(2));
    assert!(ambiguous.stderr.contains("begins the names of 2 runs"), "{}", ambiguous.stderr);
    let unknown = home.fuseline(&["logs", "p.yaml", "far", "--run", "ZZ"]);
    assert!(unknown.stderr.contains("no run is \"ZZ\""), "{}", unknown.stderr);
}

#[test]
fn logs_of_a_running_attempt_are_read_from_its_folder() {
    let home = Home::new();
    let script = "echo begun; echo '{\"progress\": {\"done\": 1, \"total\": 2}}'; \
                  until test -e $HERE/go; do sleep 0.02; done; echo ended; echo '{\"a\": 1}' > $1";
    shell(&home, script, "");
    let nothing = home.fuseline(&["logs", "p.yaml", "far"]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("there was no attempt at far"), "{}", nothing.stderr);
    let mut run = home.start_until("p.yaml", "far");
    let log = home.fuseline(&["logs", "p.yaml", "far"]);
    assert_eq!(log.stdout, "begun\n", "{}", log.stderr);
    assert!(log.stderr.contains("goes on"), "{}", log.stderr);
    let follower = home.command(&["logs", "p.yaml", "far", "--follow"]).stdout(std::process::Stdio::piped()).spawn();
    home.write("go", "");
    assert!(run.wait().expect("it ends").success());
    let followed = follower.expect("it starts").wait_with_output().expect("it ends");
    // The follower may have begun when all was over, and then reads the blobs.
    assert_eq!(String::from_utf8_lossy(&followed.stdout), "begun\nended\n");
    // A hit's log is that of the attempt that made it, though another run asks.
    home.ok(&["run", "p.yaml"]);
    assert_eq!(home.ok(&["logs", "p.yaml", "far"]), "begun\nended\n");
}

#[test]
fn a_killed_run_leaves_its_log() {
    let home = Home::new();
    let script = "echo begun; echo '{\"progress\": {\"done\": 1, \"total\": 2}}'; sleep 1000";
    shell(&home, script, "");
    let mut run = home.start_until("p.yaml", "far");
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
    home.wait_for_workers();
    let log = home.fuseline(&["logs", "p.yaml", "far"]);
    assert_eq!(log.stdout, "begun\n", "{}", log.stderr);
    assert!(log.stderr.contains("its run was killed"), "{}", log.stderr);
}

#[test]
fn a_failed_branch_does_not_stop_another() {
    let home = Home::new();
    let branches = |status: u8| {
        format!(
            "name: p\nstages:\n  left: {{op: command, with: {{program: sh, args: [-c, 'exit {status}'], outputs: {{rows: table}}}}}}\n  \
             behind: {{op: sql, with: {{sql: SELECT * FROM left}}}}\n  \
             right: {{op: sql, with: {{sql: SELECT 1 AS a}}}}\n  after: {{op: sql, with: {{sql: SELECT * FROM right}}}}\n"
        )
    };
    home.write("p.yaml", branches(3));
    let done = home.fuseline(&["run", "p.yaml", "--keep-going", "--jobs", "1"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("2 ran, 0 cached, 1 failed, 1 skipped"), "{}", done.stderr);
    // Without it the failure stops the run, and the failed stage is what runs next.
    let done = home.fuseline(&["run", "p.yaml", "--force", "right", "--jobs", "1"]);
    assert!(done.stderr.contains("0 ran, 0 cached, 1 failed, 3 skipped"), "{}", done.stderr);
    home.write("p.yaml", branches(3).replace("'exit 3'", "'echo a > $0; echo 1 >> $0', '{output.rows.csv}'"));
    assert_eq!(home.ran("p.yaml", &[]), ["behind", "left"]);
}

#[test]
fn wrong_retries_name_their_place() {
    let home = Home::new();
    let check = |retry: &str| {
        home.write("p.yaml", format!("stages:\n  a: {{op: sql, with: {{sql: SELECT 1 AS a}}, retry: {retry}}}\n"));
        home.fuseline(&["check", "p.yaml"])
    };
    assert_eq!(check("{times: 0, backoff: 1.5 min}").code, Some(0));
    for (retry, words) in [
        ("{times: -1}", "expected an integer from 0, found -1"),
        ("{backoff: soon}", "expected a time such as 10s, or seconds, found"),
        ("{time: 1}", "unknown field \"time\" of `retry`"),
        ("3", "expected a map of times and backoff, found"),
    ] {
        let done = check(retry);
        assert_eq!(done.code, Some(2), "{retry}");
        assert!(done.stderr.contains(words) && done.stderr.contains("p.yaml:2:"), "{}", done.stderr);
    }
}
