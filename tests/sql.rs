//! `fuseline sql` beyond one query: earlier runs, files, pipes and the terminal.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Done, Home, fused};

const PIPELINE: &str = "\
name: asked
vars: {n: 3}
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: \"${n}\"}}}
  counted: {op: sql, with: {sql: \"SELECT domain, count(*) AS n FROM lessons GROUP BY domain\"}}
";

fn csv(home: &Home, query: &str) -> String {
    home.ok(&["sql", "p.yaml", query, "--format", "csv"])
}

#[test]
fn every_run_has_its_tables() {
    let home = Home::new();
    home.write("p.yaml", PIPELINE);
    let none = home.fuseline(&["sql", "p.yaml", "SELECT * FROM latest.counted"]);
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("pipeline asked has not run yet"), "{}", none.stderr);
    home.ok(&["run", "p.yaml"]);
    home.ok(&["run", "p.yaml", "--set", "n=5"]);
    assert_eq!(csv(&home, "SELECT n FROM counted"), "n\r\n3\r\n");
    assert_eq!(csv(&home, "SELECT n FROM latest.counted"), "n\r\n5\r\n");
    let first = csv(&home, "SELECT run FROM system.runs ORDER BY started LIMIT 1");
    let first = first.lines().nth(1).expect("a run").to_owned();
    assert_eq!(csv(&home, &format!("SELECT n FROM \"{first}\".counted.rows")), "n\r\n3\r\n");
    assert_eq!(
        csv(&home, &format!("SELECT count(*) AS n FROM \"{}\".lessons.examples", first.to_lowercase())),
        "n\r\n3\r\n"
    );
    let both = "SELECT a.n AS before, b.n AS after FROM counted a JOIN latest.counted b USING (domain)";
    assert_eq!(csv(&home, both), "before,after\r\n3,5\r\n");
    for (query, said) in [
        ("SELECT * FROM \"0\".counted", "begins the names of 2 runs"),
        ("SELECT * FROM latest.cuonted", "did you mean \"counted\"?"),
        ("SELECT * FROM \"7ZZZ\".counted", "no run is \"7ZZZ\""),
    ] {
        let done = home.fuseline(&["sql", "p.yaml", query]);
        assert_eq!(done.code, Some(2), "{query}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{query}: {}", done.stderr);
    }
    let unmade = home.fuseline(&["sql", "p.yaml", "SELECT * FROM counted", "--set", "n=6"]);
    assert_eq!(unmade.code, Some(2));
    assert!(
        unmade.stderr.contains("stage counted has no result yet\n  help: fuseline run p.yaml"),
        "{}",
        unmade.stderr
    );
}

#[test]
fn instances_without_a_result_are_said_to_be_left_out() {
    let home = fused();
    let query = "SELECT DISTINCT source FROM sampled";
    let some = home.fuseline(&["sql", "fusion.yaml", query, "--format", "csv", "--set", "target.train.steps=3"]);
    assert_eq!(some.stdout, "source\r\nowl\r\n", "{}", some.stderr);
    assert!(some.stderr.contains("note: sampled[source=target] has no result yet and is left out"), "{}", some.stderr);
}

#[test]
fn results_become_parquet_files_and_failed_ones_no_files() {
    let home = fused();
    let query = "SELECT prompt_id, text, row_number() OVER (ORDER BY prompt_id, source, sample) AS place FROM sampled";
    home.ok(&["sql", "fusion.yaml", query, "--format", "parquet", "-o", "rows.parquet"]);
    let bytes = std::fs::read(home.path("rows.parquet")).expect("written");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    // What was written can be a stage's input.
    home.write("q.yaml", "name: q\nstages:\n  rows: {op: load, with: {path: rows.parquet}}\n");
    let counted = home.ok(&["run", "q.yaml", "--json"]);
    assert!(counted.contains("\"rows\":32"), "{counted}");
    let terminal = home.fuseline(&["sql", "fusion.yaml", query, "--format", "parquet"]);
    assert_eq!(terminal.code, Some(2));
    assert!(terminal.stderr.contains("help: name a file with -o"), "{}", terminal.stderr);
    let failed = home.fuseline(&[
        "sql",
        "fusion.yaml",
        "SELECT 1 / (sample - sample) FROM sampled",
        "--format",
        "csv",
        "-o",
        "x.csv",
    ]);
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    let left = std::fs::read_dir(home.path("")).expect("a folder").flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("x.csv")));
    for name in ["rows.parquet", "q.yaml"] {
        std::fs::remove_file(home.path(name)).expect("ours");
    }
}

#[test]
fn a_little_memory_is_enough() {
    let home = Home::new();
    home.write("p.yaml", PIPELINE);
    home.ok(&["run", "p.yaml"]);
    let query = "SELECT count(*) AS n FROM (SELECT row_number() OVER (ORDER BY hash_fraction(CAST(value AS VARCHAR))) AS p \
                 FROM generate_series(1, 300000))";
    assert_eq!(home.ok(&["sql", "p.yaml", query, "--memory", "16MiB", "--format", "csv"]), "n\r\n300000\r\n");
    assert_eq!(std::fs::read_dir(home.path("store/tmp")).expect("tmp").count(), 0, "nothing is left behind");
    let wrong = home.fuseline(&["sql", "p.yaml", query, "--memory", "much"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("write a size as in"), "{}", wrong.stderr);
}

/// Runs the shell with a text as its standard input.
fn piped(home: &Home, text: &str, more: &[&str]) -> Done {
    let arguments: Vec<&str> = ["sql", "fusion.yaml"].iter().chain(more).copied().collect();
    let mut command = home.command(&arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A shell that ends early reads no more.
    let _ = child.stdin.take().expect("piped").write_all(text.as_bytes());
    Done::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_pipe_brings_statements() {
    let home = fused();
    let text = "SELECT count(*) AS n\n  FROM sampled -- all;\n;\n\\format csv\nSELECT ';' AS x; SELECT 2 AS y";
    let done = piped(&home, text, &["--format", "json"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(0), "[\n{\"n\":32}\n]\nx\r\n;\r\ny\r\n2\r\n"),
        "{}",
        done.stderr
    );

    let done =
        piped(&home, "\\d\n\\d sampled\n\\df\n\\?\n\\timing\nSELECT 1 AS one;\n\\q\nSELECT 2 AS unreached;\n", &[]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for part in ["sampled.responses", "system.runs", "finish_reason", "win_rate(a, b)", "\\timing", "one\n"] {
        assert!(done.stdout.contains(part), "{part} is missing in\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("unreached"), "{}", done.stdout);
    assert!(done.stderr.contains("timing is on\n1 rows in "), "{}", done.stderr);

    home.write("to.csv", "old");
    let done = piped(&home, "\\o to.csv\nSELECT 1 AS a;\nSELECT 2 AS b;\n\\o\nSELECT 3 AS c;\n", &["--format", "csv"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "c\r\n3\r\n"), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(home.path("to.csv")).expect("written"), "a\r\n1\r\nb\r\n2\r\n");
    std::fs::remove_file(home.path("to.csv")).expect("ours");
}

#[test]
fn the_first_error_ends_a_pipe() {
    let home = fused();
    for (text, said) in [
        ("SELECT nothing FROM sampled;\nSELECT 1 AS one;", "there is no column \"nothing\""),
        ("\\nonsense\nSELECT 1 AS one;", "there is no command \\nonsense\n  help: \\? lists the commands"),
        ("SELECT 'open;\nSELECT 1 AS one;", "SQL, line 1, column 8"),
        ("\\format yaml\n", "help: one of text, csv, json, parquet"),
    ] {
        let done = piped(&home, text, &[]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{text}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{text}: {}", done.stderr);
    }
}

#[test]
fn a_terminal_has_a_shell_with_completion_and_history() {
    // util-linux's `script` gives a program a terminal.
    if !Path::new("/usr/bin/script").exists() {
        println!("skipped: /usr/bin/script is not there");
        return;
    }
    let home = fused();
    let state = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_fuseline");
    let mut child = Command::new("/usr/bin/script")
        .args(["-q", "-e", "-c", &format!("'{program}' sql fusion.yaml --format csv"), "/dev/null"])
        .current_dir(home.path(""))
        .env("FUSELINE_STORE", "store")
        .env("XDG_STATE_HOME", state.path())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is a program");
    let mut keys = child.stdin.take().expect("piped");
    let mut screen = child.stdout.take().expect("piped");
    // Types something and waits until the screen shows what it must lead to.
    let (mut seen, mut from) = (String::new(), 0);
    let mut shown = |typed: &str, until: &str| {
        keys.write_all(typed.as_bytes()).and_then(|()| keys.flush()).expect("it reads");
        let mut some = [0; 4096];
        loop {
            if let Some(at) = seen[from..].find(until) {
                from += at + until.len();
                return;
            }
            let n = screen.read(&mut some).expect("a screen");
            assert!(n > 0, "it ended before {until:?} in\n{seen}");
            seen.push_str(&String::from_utf8_lossy(&some[..n]));
        }
    };
    shown("", "fuseline> ");
    // An error is not the end; a statement goes on until its `;`; Tab completes a name.
    shown("SELECT nothing FROM sampled;\n", "there is no column \"nothing\"");
    shown("SELECT count(*) + 1000 AS many\n", "...> ");
    shown("FROM samp\t", "sampled");
    shown(" WHERE sample = 0;\n", "1016");
    // Ctrl-C forgets what was begun.
    shown("SELECT 'open\n", "...> ");
    shown("\x03", "fuseline> ");
    shown("SELECT 7 * 6 AS answer;\n", "42");
    shown("", "fuseline> ");
    shown("\\q\n", "\\q");
    let mut rest = String::new();
    screen.read_to_string(&mut rest).expect("a screen");
    assert!(child.wait().expect("it is ours").success(), "{rest}");
    let history = std::fs::read_to_string(state.path().join("fuseline/sql_history")).expect("it is kept");
    assert!(history.contains("SELECT 7 * 6 AS answer;") && history.contains("many"), "{history}");
}
