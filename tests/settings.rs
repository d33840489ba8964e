//! Nothing that can be written is without effect: every field of the pipeline
//! file and every option of `run` and `plan` changes what is done or shown.
//! The fields are those of the schema and the options those of the help, so a
//! new one fails here until it is shown to do something. The parameters of
//! operators are walked in `stale_hits.rs`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::Home;

const BASE: &str = "\
name: base
seed: 1
vars: {n: 1}
stages:
  a: {op: sql, with: {sql: 'SELECT ${n} AS x'}}
  b: {op: sql, with: {sql: SELECT * FROM a}}
  c: {op: make_dataset, with: {split: train, tasks: {reverse_word: 2}}}
";
const MORE: &str = "vars: {m: 1}\nstages:\n  d: {op: sql, with: {sql: 'SELECT ${m} AS y'}}\n";
/// Fails in a way that is tried again.
const BUSY: &str = "  busy: {op: command, with: {program: sh, args: [-c, exit 75], outputs: {rows: table}}}\n";
/// Two stages that begin at once where there is room for both.
const TWO: &str = "\
name: two
stages:
  l: {op: command, with: {program: sh, args: [-c, 'sleep 0.2; echo a > $0', '{output.rows.csv}'], outputs: {rows: table}}}
  r: {op: command, with: {program: sh, args: [-c, 'sleep 0.2; echo b > $0', '{output.rows.csv}'], outputs: {rows: table}}}
";

/// A text without what two runs of the same never share: ids of runs, times, digests.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '.') {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let id = bare.len() == 26 && bare.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        let time = bare.contains('.') && bare.trim_end_matches('e').parse::<f64>().is_ok();
        out.push_str(if id || time { "#" } else { bare });
        out.push_str(&word[bare.len()..]);
    }
    out
}

/// What commands print and how they end, in a new home with a pipeline.
fn look(pipeline: &str, commands: &[&str]) -> String {
    let home = Home::new();
    home.write("p.yaml", pipeline);
    home.write("more.yaml", MORE);
    let said = commands.iter().map(|command| {
        let arguments: Vec<&str> = command.split(' ').collect();
        let done = home.fuseline(&arguments);
        plain(&format!("{:?}\n{}\n{}", done.code, done.stdout, done.stderr))
    });
    said.collect()
}

/// Every field below a schema, by its path; what belongs to operators is not followed.
fn fields(root: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let own = target == "#/$defs/stage";
        return if own {
            fields(root, &root["$defs"]["stage"], at, found)
        };
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        fields(root, property, &path, found);
        found.insert(path);
    }
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        fields(root, inner, at, found);
    }
    for inner in [&schema["items"], &schema["additionalProperties"]].into_iter().filter(|inner| inner.is_object()) {
        fields(root, inner, at, found);
    }
}

/// How a field is shown to do something.
enum Proof {
    /// These commands say something else with the second pipeline than with the first.
    Differs(String, String, &'static [&'static str]),
    /// The stages of the second pipeline do not overlap, as those of the first do.
    Apart(String, String),
    /// A test that needs more than that.
    Test(&'static str, &'static str),
}

fn edit(from: &str, to: &str) -> (String, String) {
    assert!(BASE.contains(from), "{from}");
    (BASE.to_owned(), BASE.replacen(from, to, 1))
}

fn proof(field: &str) -> Option<Proof> {
    const PLAN: &[&str] = &["plan p.yaml --json"];
    let differs = |(before, after): (String, String), commands| Some(Proof::Differs(before, after, commands));
    let more = |text: &str| (BASE.to_owned(), format!("{BASE}{text}\n"));
    let both = |before: &str, after: &str| (format!("{BASE}{before}\n"), format!("{BASE}{after}\n"));
    let of_b = |more: &str| edit("b: {op: sql,", &format!("b: {{op: sql, {more},"));
    match field {
        "name" => differs(edit("name: base", "name: other"), &["run p.yaml --json --jobs 1"]),
        "seed" => differs(edit("seed: 1", "seed: 2"), PLAN),
        "salt" => differs(more("salt: bitter"), PLAN),
        "vars" => differs(edit("{n: 1}", "{n: 2}"), PLAN),
        "include" => differs(more("include: [{file: more.yaml}]"), PLAN),
        "include.file" => differs(both("include: [{file: more.yaml}]", "include: [{file: less.yaml}]"), PLAN),
        "include.prefix" => {
            differs(both("include: [{file: more.yaml}]", "include: [{file: more.yaml, prefix: z}]"), PLAN)
        }
        "include.vars" => {
            differs(both("include: [{file: more.yaml}]", "include: [{file: more.yaml, vars: {m: 2}}]"), PLAN)
        }
        "repeat" => differs(more("repeat: {round: {times: 2, stages: [b]}}"), PLAN),
        "repeat.times" => {
            differs(both("repeat: {round: {times: 2, stages: [b]}}", "repeat: {round: {times: 3, stages: [b]}}"), PLAN)
        }
        "repeat.stages" => differs(
            both("repeat: {round: {times: 2, stages: [b]}}", "repeat: {round: {times: 2, stages: [b, c]}}"),
            PLAN,
        ),
        "repeat.carry" => {
            let repeat = |carry: &str| {
                let text = BASE.replace("FROM a}", "FROM before}");
                format!("{text}repeat: {{round: {{times: 2, stages: [b], carry: {{before: [{carry}, b]}}}}}}\n")
            };
            differs((repeat("a"), repeat("c")), &["graph p.yaml"])
        }
        "stages" => differs(edit("  c: {", "  other: {"), PLAN),
        "tables" => differs(more("tables:\n  t: {sql: SELECT * FROM a}"), PLAN),
        "stages.op" => differs(edit("b: {op: sql", "b: {op: table"), PLAN),
        "stages.inputs" => differs(of_b("inputs: {a: c}"), &["graph p.yaml"]),
        "stages.with" => differs(edit("* FROM a", "x FROM a"), PLAN),
        "stages.matrix" => differs(of_b("matrix: {k: [1, 2]}"), PLAN),
        "stages.matrix.include" => {
            let (before, after) = (of_b("matrix: {k: [1]}").1, of_b("matrix: {k: [1], include: [{k: 2}]}").1);
            differs((before, after), PLAN)
        }
        "stages.matrix.exclude" => {
            let (before, after) = (of_b("matrix: {k: [1, 2]}").1, of_b("matrix: {k: [1, 2], exclude: [{k: 2}]}").1);
            differs((before, after), PLAN)
        }
        "stages.when" => differs(of_b("when: false"), PLAN),
        "stages.seed" => differs(edit("make_dataset,", "make_dataset, seed: 9,"), PLAN),
        "stages.tags" => differs(of_b("tags: [slow]"), &["plan p.yaml --target tag:slow"]),
        "stages.uncacheable" => differs(of_b("uncacheable: true"), &["run p.yaml --jobs 1", "run p.yaml --jobs 1"]),
        "stages.retry" | "stages.retry.times" => {
            let busy = format!("{BASE}{BUSY}").replace("busy: {op: command,", "busy: {op: command, retry: {times: 0},");
            let after = busy.replace("{times: 0}", "{times: 1, backoff: 0}");
            differs((busy, after), &["run p.yaml --target busy --jobs 1"])
        }
        "stages.resources" | "stages.resources.gpus" => {
            differs(of_b("resources: {gpus: 99}"), &["run p.yaml --jobs 1"])
        }
        "stages.resources.mem" => {
            // Both ask for more than there is, so they run one after the other.
            let all = TWO.replace("{op: command,", "{op: command, resources: {mem: 999999GiB},");
            Some(Proof::Apart(TWO.to_owned(), all))
        }
        "stages.resources.cpus" => {
            let all = TWO.replace("{op: command,", "{op: command, resources: {cpus: 999},");
            Some(Proof::Apart(TWO.to_owned(), all))
        }
        "stages.retry.backoff" => Some(Proof::Test("src/engine/schedule/tests.rs", "pause(")),
        "stages.memo" => {
            Some(Proof::Test("tests/memo.rs", "fn memo_off_takes_and_leaves_nothing_and_the_ledger_counts()"))
        }
        _ => None,
    }
}

#[test]
fn ask_21_every_field_of_the_pipeline_file_changes_something() {
    let schema: Value = serde_json::from_str(&Home::new().ok(&["schema"])).expect("JSON");
    let mut all = BTreeSet::new();
    fields(&schema, &schema, "", &mut all);
    for known in ["seed", "include.prefix", "repeat.carry", "stages.retry.times", "stages.resources.mem"] {
        assert!(all.contains(known), "the walk misses {known}: {all:?}");
    }
    let one_thread = std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1);
    for field in all {
        match proof(&field) {
            None => panic!("nothing shows that the field {field} does anything: add a case"),
            Some(Proof::Test(file, words)) => {
                let text = std::fs::read_to_string(crate::root().join(file)).expect("a file of tests");
                assert!(text.contains(words), "{field}: {file} has no {words}");
            }
            Some(Proof::Apart(..)) if one_thread => println!("skipped {field}: two stages cannot run at once here"),
            Some(Proof::Apart(before, after)) => {
                let kinds = |pipeline: &str| steps(&look(pipeline, &["run p.yaml --json"]));
                assert_eq!(kinds(&before), ["stage_started", "stage_started", "stage_ended", "stage_ended"], "{field}");
                assert_eq!(kinds(&after), ["stage_started", "stage_ended", "stage_started", "stage_ended"], "{field}");
            }
            Some(Proof::Differs(before, after, commands)) => {
                assert_ne!(before, after, "{field}");
                let (first, second) = (look(&before, commands), look(&after, commands));
                assert_ne!(ordered(&first), ordered(&second), "{field} changes nothing:\n{first}");
                assert_eq!(
                    ordered(&look(&before, commands)),
                    ordered(&first),
                    "{field}: the same twice is not the same"
                );
            }
        }
    }
}

/// What happens to stages, in order.
fn steps(events: &str) -> Vec<&'static str> {
    let kind = |line: &str| ["stage_started", "stage_ended"].into_iter().find(|kind| line.contains(kind));
    events.lines().filter_map(kind).collect()
}

/// What is said, without progress, which comes when it comes, and in an order that does not depend on which of two
/// stages ends first.
fn ordered(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains("\"event\":\"progress\"")).collect();
    lines.sort_unstable();
    lines
}

/// The long options that a verb's help names.
fn options(verb: &str) -> BTreeSet<String> {
    let help = Home::new().ok(&[verb, "--help"]);
    let words = help.lines().filter(|line| line.starts_with(' ')).flat_map(|line| line.split_whitespace().take(2));
    let long = words.filter_map(|word| word.strip_prefix("--")).map(|word| word.trim_end_matches(',').to_owned());
    long.filter(|name| name != "help").collect()
}

#[test]
fn ask_21_every_option_of_run_and_plan_changes_something() {
    for verb in ["run", "plan"] {
        let all = options(verb);
        assert!(all.contains("set") && all.contains("json") && all.len() > 8, "{all:?}");
        for option in all {
            if option == "jobs" {
                if std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1) {
                    println!("skipped --jobs: two stages cannot run at once here");
                    continue;
                }
                let kinds = |command: &str| steps(&look(TWO, &[command]));
                assert_ne!(kinds("run p.yaml --json"), kinds("run p.yaml --json --jobs 1"));
                continue;
            }
            let (pipeline, before, plainly, with): (String, &[&str], String, String) = {
                // One stage after the other, so that what a failure stops is always the same.
                let one = if verb == "run" { " --jobs 1" } else { "" };
                let to = |arguments: &str| format!("{verb} p.yaml{one}{arguments}");
                let base = || BASE.to_owned();
                let case = |arguments: &str| (base(), &[] as &[&str], to(""), to(arguments));
                let after_a_run = |arguments: &str| (base(), &["run p.yaml"] as &[&str], to(""), to(arguments));
                match option.as_str() {
                    "set" => after_a_run(" --set n=2"),
                    "json" => case(" --json"),
                    "values" => case(" --values"),
                    "target" => case(" --target a"),
                    "only" => case(" --only a"),
                    "store" => after_a_run(" --store elsewhere"),
                    "remote" => case(" --remote nothing://here"),
                    "force" => after_a_run(" --force a"),
                    "defer" => {
                        (base(), &["run p.yaml"], to(" --only b --set n=2"), to(" --only b --set n=2 --defer RUN"))
                    }
                    "accept" => {
                        (base(), &["run p.yaml"], to(" --set n=2"), to(" --set n=2 --accept a --reason because"))
                    }
                    "reason" => {
                        let accept = |reason: &str| to(&format!(" --set n=2 --accept a --reason {reason}"));
                        (base(), &["run p.yaml"], accept("because"), accept("therefore"))
                    }
                    "locked" => (
                        base(),
                        &["run p.yaml", "lock p.yaml -o l.yaml"],
                        to(" --set n=2"),
                        to(" --set n=2 --locked l.yaml"),
                    ),
                    "keep-going" => {
                        let text = BASE.replace("  a:", &format!("{}  a:", BUSY.replace("75", "3")));
                        (text, &[], to(""), to(" --keep-going"))
                    }
                    other => panic!("nothing shows that --{other} of {verb} does anything: add a case"),
                }
            };
            let (first, second) = (said(&pipeline, before, &plainly), said(&pipeline, before, &with));
            assert_ne!(ordered(&first), ordered(&second), "--{option} of {verb}: {with}");
            assert_eq!(
                ordered(&first),
                ordered(&said(&pipeline, before, &plainly)),
                "{plainly}: the same twice is not the same"
            );
        }
    }
}

/// What one command says after others; RUN in it is the id of the latest run.
fn said(pipeline: &str, before: &[&str], command: &str) -> String {
    let home = Home::new();
    home.write("p.yaml", pipeline);
    for command in before {
        home.ok(&command.split(' ').collect::<Vec<_>>());
    }
    let command = match command.contains("RUN") {
        true => {
            let runs: Value = serde_json::from_str(&home.ok(&["runs", "--json"])).expect("JSON");
            command.replace("RUN", runs[0]["run"].as_str().expect("an id"))
        }
        false => command.to_owned(),
    };
    let done = home.fuseline(&command.split(' ').collect::<Vec<_>>());
    plain(&format!("{:?}\n{}\n{}", done.code, done.stdout, done.stderr))
}
