//! `command`: programs as stages.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::Home;

/// What a query gives, as rows.
fn rows(home: &Home, query: &str) -> Vec<Value> {
    let text = home.ok(&["sql", "p.yaml", query, "--format", "json"]);
    serde_json::from_str::<Value>(&text).expect("JSON").as_array().expect("rows").clone()
}

/// Whether a program is there; says so if not.
fn has(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: {program} {} does not succeed here", arguments.join(" "));
    }
    there
}

/// A pipeline of one `command` that writes JSON lines by a script of the shell.
fn shell(home: &Home, script: &str, with: &str) {
    home.write("script.sh", script);
    let with: String = with.lines().map(|line| format!("      {line}\n")).collect();
    home.write(
        "p.yaml",
        format!(
            "name: p\nstages:\n  made:\n    op: command\n    with:\n      program: sh\n      \
             args: ['{{file.script}}', '{{output.rows.jsonl}}']\n      files: {{script: script.sh}}\n{with}"
        ),
    );
}

const SCRIPT: &str = "\
import json, os, sys
io = json.load(open(os.environ['FUSELINE_IO']))
assert os.getcwd() == io['scratch'] and os.listdir('.') == [], os.listdir('.')
assert io['files']['script'] == os.path.abspath(sys.argv[0])
print('Python says', flush=True)
print(json.dumps({'note': 'half way'}), flush=True)
print(json.dumps({'progress': {'done': 1, 'total': 2, 'unit': 'rows'}}), flush=True)
with open(sys.argv[1], 'w') as out:
    for n in range(3):
        message = {'role': 'user', 'content': f'What is {n} + {n}?'}
        out.write(json.dumps({'messages': [message], 'reference': str(2 * n), 'level': n}) + '\\n')
with open(io['outputs']['counts']['forms']['csv'], 'w') as out:
    out.write('name,n\\nx,%s\\n' % os.environ['N'])
";

/// A Python script makes prompts and a table, and tells how far it is.
fn python(home: &Home) {
    home.write("make.py", SCRIPT);
    home.write(
        "p.yaml",
        "name: p
stages:
  made:
    op: command
    with:
      program: python3
      args: ['{file.script}', '{output.rows.jsonl}']
      files: {script: make.py}
      set_env: {N: '5'}
      outputs: {rows: prompt, counts: table}
  long: {op: sql, with: {sql: \"SELECT level, reference FROM made.rows ORDER BY level\"}}
",
    );
}

#[test]
fn a_python_script_makes_rows_that_are_checked_and_cached() {
    if !has("python3", &["--version"]) {
        return;
    }
    let home = Home::new();
    python(&home);
    let done = home.fuseline(&["run", "p.yaml", "--json"]);
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("\"text\":\"half way\"") && done.stdout.contains("\"unit\":\"rows\""),
        "{}",
        done.stdout
    );
    let references: Vec<Value> =
        rows(&home, "SELECT reference FROM long").into_iter().map(|row| row["reference"].clone()).collect();
    assert_eq!(references, ["0", "2", "4"]);
    assert_eq!(rows(&home, "SELECT n FROM made.counts")[0]["n"], 5);
    assert_eq!(rows(&home, "SELECT count(DISTINCT prompt_id) AS n FROM made.rows")[0]["n"], 3);
    assert_eq!(home.ok(&["logs", "p.yaml", "made"]), "Python says\n");

    assert_eq!(home.ran("p.yaml", &[]), [""; 0]);
    // The script's bytes count and not its name.
    std::fs::rename(home.path("make.py"), home.path("other.py")).expect("moved");
    let text = std::fs::read_to_string(home.path("p.yaml")).expect("ours");
    home.write("p.yaml", text.replace("make.py", "other.py"));
    assert_eq!(home.ran("p.yaml", &[]), [""; 0]);
    home.write("other.py", SCRIPT.replace("Python says", "Python said"));
    assert_eq!(home.ran("p.yaml", &[]), ["made"], "the same rows end it there");
    for parameter in ["made.set_env.N='6'", "made.args=['{file.script}', '{output.rows.jsonl}', more]"] {
        assert_eq!(home.ran("p.yaml", &["--set", parameter]), ["made"], "{parameter}");
    }
    for parameter in ["made.env=[LANG]", "made.timeout_seconds=1000"] {
        assert_eq!(home.ran("p.yaml", &["--set", parameter]), [""; 0], "{parameter}");
    }
}

#[test]
fn the_bytes_of_the_program_count() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let program = |text: &str| {
        home.write("tool", format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(home.path("tool"), std::fs::Permissions::from_mode(0o755)).expect("ours");
    };
    program("echo '{\"a\": 1}' > \"$1\"");
    let path = home.path("tool");
    let pipeline = |program: &str| {
        home.write("p.yaml", format!("stages:\n  made: {{op: command, with: {{program: '{program}', args: ['{{output.rows.jsonl}}'], outputs: {{rows: table}}}}}}\n"));
    };
    pipeline(&path.to_string_lossy());
    home.ok(&["run", "p.yaml"]);
    pipeline("./tool");
    assert_eq!(home.ran("p.yaml", &[]), [""; 0], "how it is found does not count");
    program("echo '{\"a\": 2}' > \"$1\"");
    assert_eq!(home.ran("p.yaml", &[]), ["made"]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    program_is_refused(&home, "made.args=['{output.rows.jsonl}', x]");
}

fn program_is_refused(home: &Home, set: &str) {
    std::fs::set_permissions(home.path("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("ours");
    let done = home.fuseline(&["run", "p.yaml", "--set", set]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("make it executable: chmod +x"), "{}", done.stderr);
}

#[test]
fn inputs_are_parquet_and_model_folders() {
    let home = Home::new();
    home.write("script.sh", "head -c 4 \"$2\"; echo; cat \"$4\" >&2; test -f \"$3/tokenizer.json\" && cp -r \"$3\" copy && cp copy/* \"$5\" && echo '{\"a\": 1}' > \"$1\"");
    home.write(
        "p.yaml",
        "name: p
seed: 1
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 8}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: unigram, vocab_size: 290, chat: gemma}}
  blank:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: llama, hidden_size: 16, intermediate_size: 24, layers: 1, heads: 2, max_positions: 128}
  made:
    op: command
    inputs: {model: blank}
    with:
      program: sh
      args: ['{file.script}', '{output.rows.jsonl}', '{input.lessons}', '{input.model}', '{io}', '{output.tuned}']
      files: {script: script.sh}
      inputs: {lessons: prompt, model: model}
      outputs: {rows: table, tuned: model}
  both:
    op: command
    with:
      program: sh
      args: [-c, 'printf \"n\\n%s\\n\" $(($# - 1)) > \"$1\"', sh, '{output.rows.csv}', '{input.models}']
      inputs: {models: models}
      outputs: {rows: table}
    inputs: {models: {one: blank, two: made.tuned}}
",
    );
    home.ok(&["run", "p.yaml"]);
    assert_eq!(home.ok(&["logs", "p.yaml", "made"]).lines().next(), Some("PAR1"));
    assert_eq!(rows(&home, "SELECT n FROM both")[0]["n"], 2);
    let content = |stage: &str| {
        let query = format!("SELECT content FROM system.artifacts WHERE stage = '{stage}' AND kind = 'model'");
        rows(&home, &query)[0]["content"].clone()
    };
    assert_eq!(content("blank"), content("made"), "it copied the model");
}

#[test]
fn outputs_that_are_not_what_was_promised_are_the_programs_failure() {
    let home = Home::new();
    for (script, outputs, words) in [
        ("true", "{rows: table}", "output \"rows\": the program did not write it; expected "),
        ("echo '{\"a\": 1}' > $1", "{rows: scored}", "output \"rows\": they are no Scored rows: "),
        ("echo '{\"a\": ' > $1", "{rows: table}", "rows.jsonl:1: the line is not JSON"),
        (": > $1", "{rows: table}", "the file is empty, so nothing tells its columns"),
        ("echo a > ${1%.jsonl}.csv; echo > $1", "{rows: table}", "the program wrote both"),
        ("echo '{\"a\": 1}' > $1", "{rows: table, tuned: model}", "output \"tuned\": the folder has no config.json"),
    ] {
        shell(&home, script, &format!("outputs: {outputs}"));
        let done = home.fuseline(&["run", "p.yaml"]);
        assert_eq!(done.code, Some(1), "{script}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{script}: {}", done.stderr);
        let class = rows(&home, "SELECT class FROM system.attempts ORDER BY started DESC")[0]["class"].clone();
        assert_eq!(class, "contract", "{script}");
    }
    shell(&home, ": > $1", "outputs: {rows: prompt}");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(rows(&home, "SELECT count(*) AS n FROM made")[0]["n"], 0, "no prompts are prompts too");
}

#[test]
fn the_environment_is_cleared_but_for_what_is_asked_for() {
    let home = Home::new();
    shell(
        &home,
        "env | sort | sed 's/=.*//' >&2; echo \"{\\\"a\\\": \\\"$MINE$OTHER$SET\\\"}\" > $1",
        "env: [MINE]\nset_env: {SET: c}\noutputs: {rows: table}",
    );
    let mut run = home.command(&["run", "p.yaml"]);
    assert!(run.env("MINE", "a").env("OTHER", "b").output().expect("starts").status.success());
    assert_eq!(rows(&home, "SELECT a FROM made")[0]["a"], "ac");
    let names = home.ok(&["logs", "p.yaml", "made"]);
    for name in names.lines() {
        let known = [
            "DYLD_LIBRARY_PATH",
            "FUSELINE_IO",
            "HOME",
            "LC_ALL",
            "LD_LIBRARY_PATH",
            "MINE",
            "OLDPWD",
            "PATH",
            "PWD",
            "PYTHONDONTWRITEBYTECODE",
            "SET",
            "SHLVL",
            "TMPDIR",
            "_",
        ];
        let kind = name.ends_with("_NUM_THREADS")
            || name.to_uppercase().ends_with("_PROXY")
            || name.starts_with("CUDA_")
            || name.starts_with("NVIDIA_")
            || name.starts_with("LC_");
        assert!(known.contains(&name) || kind, "{name} in\n{names}");
    }
    assert!(names.contains("FUSELINE_IO\n"), "{names}");
}

#[test]
fn secret_of_a_program_is_found_nowhere() {
    const SECRET: &str = "planted-7f3a91c2";
    let home = Home::new();
    let script = r#"echo said $KEY; echo wrote $KEY >&2; echo "{\"note\": \"told $KEY\"}"; echo "{\"a\": ${#KEY}}" > $1; test -e $HERE/go"#;
    let here = home.path("");
    let with =
        format!("secrets: {{KEY: !secret MY_KEY}}\nset_env: {{HERE: '{}'}}\noutputs: {{rows: table}}", here.display());
    shell(&home, script, &with);
    let run = |secret: &str| {
        let output = home.command(&["run", "p.yaml"]).env("MY_KEY", secret).output().expect("starts");
        crate::harness::Done::of(output)
    };
    let failed = run(SECRET);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("wrote [secret MY_KEY]"), "{}", failed.stderr);
    home.write("go", "");
    let done = run(SECRET);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("told [secret MY_KEY]"), "{}", done.stderr);
    assert_eq!(rows(&home, "SELECT a FROM made")[0]["a"], SECRET.len(), "the program had it");
    assert_eq!(home.ok(&["logs", "p.yaml", "made"]), "said [secret MY_KEY]\nwrote [secret MY_KEY]\n");
    for output in [failed, done] {
        assert!(!output.stderr.contains(SECRET) && !output.stdout.contains(SECRET));
    }
    for file in crate::files(&home.path("store"), "") {
        let bytes = std::fs::read(&file).expect("a file of the store");
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{}", file.display());
    }
    // Another secret reruns nothing.
    assert!(run("another").stderr.contains("0 ran, 1 cached"));
}

/// Processes whose command line holds a text.
fn processes(text: &str) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let lines = processes.filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

fn wait_for_none(text: &str) {
    while processes(text) > 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_time_limit_ends_the_program_and_all_that_it_started() {
    let home = Home::new();
    // Deaf to SIGTERM, with a child that would live on.
    let script = "trap '' TERM; echo working >&2; sleep 98761 & sleep 98761";
    shell(&home, script, "timeout_seconds: 0.3\noutputs: {rows: table}");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("sh did not end within its limit of 0.3 s"), "{}", done.stderr);
    assert!(done.stderr.contains("working"), "{}", done.stderr);
    wait_for_none("98761");
}

#[test]
fn what_a_program_left_running_ends_with_it() {
    let home = Home::new();
    shell(&home, "sleep 98762 & echo '{\"a\": 1}' > $1", "outputs: {rows: table}");
    home.ok(&["run", "p.yaml"]);
    wait_for_none("98762");
}

#[test]
fn a_program_ends_with_its_worker_and_with_the_run() {
    let home = Home::new();
    let script = "echo '{\"progress\": {\"done\": 1, \"total\": 2}}'; sleep 98763 & sleep 98763";
    shell(&home, script, "outputs: {rows: table}");
    // The run is killed.
    let mut run = home.start_until("p.yaml", "made");
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
    home.wait_for_workers();
    wait_for_none("98763");
    // The run is interrupted.
    let run = home.start_until("p.yaml", "made");
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill starts").success());
    assert_eq!(run.wait_with_output().expect("it ends").status.code(), Some(130));
    wait_for_none("98763");
    // The worker is killed: it is lost, and tried again unless that is switched off.
    let text = std::fs::read_to_string(home.path("p.yaml")).expect("ours");
    home.write("p.yaml", text.replace("    op: command\n", "    op: command\n    retry: {times: 0}\n"));
    let mut run = home.start_until("p.yaml", "made");
    let worker = std::fs::read_dir("/proc").into_iter().flatten().flatten().find(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("fuseline-worker") && line.contains(&*home.path("").to_string_lossy())
    });
    match worker {
        Some(worker) => {
            let id = worker.file_name().to_string_lossy().into_owned();
            assert!(Command::new("kill").args(["-KILL", &id]).status().expect("kill starts").success());
            assert_eq!(run.wait().expect("it ends").code(), Some(3));
            let class = rows(&home, "SELECT class, exit FROM system.attempts ORDER BY started DESC")[0].clone();
            assert_eq!(class, serde_json::json!({"class": "lost", "exit": "SIGKILL"}));
        }
        None => {
            println!("skipped: processes are not seen here");
            run.kill().expect("it can be killed");
        }
    }
    wait_for_none("98763");
}

#[test]
fn a_program_that_is_nowhere_is_refused_by_the_plan() {
    let home = Home::new();
    home.write("p.yaml", "stages:\n  made: {op: command, with: {program: no-such-tool, outputs: {rows: table}}}\n");
    let done = home.fuseline(&["plan", "p.yaml"]);
    assert_eq!(done.code, Some(2));
    assert!(
        done.stderr.contains("p.yaml:2:") && done.stderr.contains("\"no-such-tool\" does not exist"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("install it where PATH leads"), "{}", done.stderr);
    assert_eq!(home.fuseline(&["check", "p.yaml"]).code, Some(0), "a check looks at no files");
}

/// A Python with pyarrow: the one that the peers are installed for, or the system's.
fn pyarrow() -> Option<String> {
    let peers = crate::root().join(".peers/venv/bin/python");
    let candidates = [peers.to_string_lossy().into_owned(), "python3".to_owned()];
    let found = candidates.into_iter().find(|python| {
        Command::new(python).args(["-c", "import pyarrow"]).output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        println!("skipped: no Python here has pyarrow");
    }
    found
}

fn shipped(name: &str) -> String {
    Path::new("pipelines/examples").join(name).to_string_lossy().into_owned()
}

#[test]
fn the_example_in_python_runs() {
    let Some(python) = pyarrow() else { return };
    let home = Home::new();
    let done = home.at_root(&["run", &shipped("command_python.yaml"), "--set", &format!("python={python}")]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.contains("letters"), "{}", done.stdout);
}

#[test]
fn the_example_with_duckdb_runs() {
    if !has("duckdb", &["--version"]) {
        return;
    }
    let home = Home::new();
    let done = home.at_root(&["run", &shipped("command_duckdb.yaml")]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}
