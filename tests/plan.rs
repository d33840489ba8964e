//! Asking about a pipeline and choosing in it: what would run and why, what is
//! selected, accepted, locked, and what differs between two runs.

use serde_json::Value;

use crate::harness::{Done, Home, fused};

/// Answers from a file, scored, summed up in figures and a table.
const SMALL: &str = "\
name: small
seed: 1
vars: {factor: 1.0}
stages:
  answers: {op: load, with: {path: answers.csv}}
  scored:
    op: sql
    tags: [cheap]
    with:
      sql: SELECT *, CAST(length(text) AS DOUBLE) * ${factor} AS reward FROM answers ORDER BY prompt_id, source
  figures:
    op: sql
    with:
      as: metric
      sql: >
        SELECT source AS model, 'all' AS task, 'mean_reward' AS metric, avg(reward) AS value,
        CAST(NULL AS DOUBLE) AS stderr, count(*) AS n, CAST(NULL AS BIGINT) AS seed
        FROM scored GROUP BY source ORDER BY source
tables:
  main:
    sql: SELECT model, value FROM figures ORDER BY model
";
const ANSWERS: &str = "prompt_id,source,text\na,owl,one\nb,owl,three\na,fox,seven\nb,fox,eleven\n";

/// A home in which the pipeline ran.
fn small() -> Home {
    let home = Home::new();
    home.write("small.yaml", SMALL);
    home.write("answers.csv", ANSWERS);
    home.ok(&["run", "small.yaml"]);
    home
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A plan that found work.
fn planned(home: &Home, more: &[&str]) -> String {
    let done = home.fuseline(&[&["plan", "small.yaml"], more].concat());
    assert_eq!(done.code, Some(5), "{}{}", done.stdout, done.stderr);
    done.stdout
}

/// What was refused, as the wrong input that it is.
fn refused(home: &Home, arguments: &[&str]) -> String {
    let done = home.fuseline(arguments);
    assert_eq!(done.code, Some(2), "{}{}", done.stdout, done.stderr);
    done.stderr
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

/// The ids of all runs, the latest first.
fn runs(home: &Home) -> Vec<String> {
    let runs = json(&home.ok(&["runs", "--json"]));
    runs.as_array().expect("a list").iter().map(|run| run["run"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn ask_3_a_plan_lists_causes_rows_to_compute_a_forecast_and_what_is_saved() {
    let home = small();
    home.write("answers.csv", format!("{ANSWERS}c,owl,twelve\nc,fox,one\n"));
    let plan = planned(&home, &[]);
    contains(
        &plan,
        &["answers      run      file of path changed  [about ", ", 4 rows]", "scored       maybe    answers will run"],
    );
    contains(&plan, &["forecast: ", " rows\n", "0 cached, 1 to run, 3 that may run\n"]);
    home.ok(&["run", "small.yaml", "--target", "answers"]);
    let plan = planned(&home, &[]);
    let cause = "scored       run      answers: 2 rows added, because answers ran: file of path changed  [about ";
    contains(&plan, &[cause, "answers      hit\n", "saved: ", " of earlier work\n"]);
    let plan = json(&planned(&home, &["--json"]));
    let stages = plan["stages"].as_array().expect("stages");
    let of = |name: &str| stages.iter().find(|stage| stage["stage"] == name).expect("listed");
    assert_eq!((&of("scored")["state"], &of("scored")["code"]), (&"run".into(), &"input".into()));
    // Six rows now where four were read by the run that is known.
    assert_eq!(of("scored")["forecast"]["rows"], 6);
    assert_eq!(of("scored")["forecast"]["basis"], "stage");
    assert_eq!((&of("figures")["state"], &of("figures")["key"]), (&"maybe".into(), &Value::Null));
    let totals = &plan["totals"];
    assert_eq!((&totals["hit"], &totals["run"], &totals["maybe"]), (&1.into(), &1.into(), &2.into()));
    assert!(totals["forecast"]["seconds"].as_f64() > Some(0.0) && totals["saved"]["seconds"].as_f64() > Some(0.0));
    let values = planned(&home, &["--values", "--target", "scored"]);
    contains(&values, &["    as: null", "    sql: \"SELECT *, CAST(length(text) AS DOUBLE) * 1.0 AS reward"]);
}

#[test]
fn ask_3_tokens_of_models_are_forecast() {
    let done = fused().fuseline(&["plan", "fusion.yaml", "--json", "--set", "wrpo.beta=0.8"]);
    let plan = json(&done.stdout);
    let stages = plan["stages"].as_array().expect("stages");
    let tokens = |name: &str| {
        let stage = stages.iter().find(|stage| stage["stage"] == name).expect("listed");
        let usage = &stage["forecast"]["usage"];
        Some((usage["tokens_in"].as_u64()?, usage["tokens_out"].as_u64()?))
    };
    // Sixteen answers of at most six tokens; a training reads only; a merge reads models and no text.
    assert!(tokens("answers[model=wrpo]").is_some_and(|(read, said)| read > 8 && (16..=96).contains(&said)));
    assert!(tokens("wrpo").is_some_and(|(read, said)| read > 0 && said == 0), "{}", done.stdout);
    assert_eq!((tokens("ties"), tokens("graded")), (None, None));
    let spent = |what: &str, of: &str| plan["totals"][of]["usage"][what].as_u64();
    assert!(spent("tokens_out", "forecast") >= Some(16) && spent("tokens_out", "saved") >= Some(16), "{}", done.stdout);
    let text = fused().fuseline(&["plan", "fusion.yaml", "--set", "wrpo.beta=0.8"]).stdout;
    let last: Vec<&str> = text.lines().filter(|line| line.contains(" tokens in, ")).collect();
    assert!(
        last.iter().any(|line| line.starts_with("forecast: ")) && last.iter().any(|line| line.starts_with("saved: "))
    );
}

#[test]
fn ask_3_rows_that_are_remembered_are_not_to_be_computed() {
    let home = Home::new();
    let prompts = |n: usize| (0..n).map(|i| format!("{{\"prompt\": \"say {i}\"}}\n")).collect::<String>();
    home.write("prompts.jsonl", prompts(4));
    home.write(
        "small.yaml",
        "\
name: asked
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 8}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: byte_level_bpe, vocab_size: 290, chat: chatml}}
  owl:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: qwen2, hidden_size: 16, intermediate_size: 24, layers: 1, heads: 2, max_positions: 128}
  prompts: {op: load, with: {path: prompts.jsonl, as: prompt}}
  sampled: {op: sample, inputs: {prompts: prompts, model: owl}, with: {n: 2, max_tokens: 4, label: owl}}
",
    );
    home.ok(&["run", "small.yaml"]);
    home.write("prompts.jsonl", prompts(5));
    home.ok(&["run", "small.yaml", "--target", "prompts"]);
    let text = planned(&home, &[]);
    contains(&text, &["sampled     run      prompts: 1 row added, because prompts ran", "2 of 10 rows to compute"]);
    let plan = json(&planned(&home, &["--json"]));
    assert_eq!(plan["totals"]["forecast"]["rows"], 2);
    // Another temperature costs every row.
    let plan = json(&planned(&home, &["--json", "--set", "sampled.temperature=0.5"]));
    assert_eq!(plan["totals"]["forecast"]["rows"], 10);
}

#[test]
fn ask_3_what_never_ran_is_not_guessed() {
    let home = Home::new();
    home.write("small.yaml", SMALL);
    home.write("answers.csv", ANSWERS);
    let plan = planned(&home, &[]);
    contains(&plan, &["answers      run      never run\n", "0 cached, 1 to run, 3 that may run\n"]);
    assert!(!plan.contains("forecast"), "{plan}");
    home.write("blocked.yaml", SMALL.replace("answers.csv", "none.csv"));
    assert!(refused(&home, &["plan", "blocked.yaml"]).contains("none.csv"));
}

#[test]
fn why_tells_the_line_the_rows_and_what_is_no_cause() {
    let home = small();
    home.write(
        "small.yaml",
        SMALL.replace("factor: 1.0", "factor: 2.0").replace("tags: [cheap]", "resources: {cpus: 2}"),
    );
    let why = home.ok(&["why", "small.yaml", "scored"]);
    contains(
        &why,
        &[
            "scored: will run, key ",
            "compared with its last key (",
            " AS DOUBLE) * 1.0 AS reward FROM answers",
            " AS DOUBLE) * 2.0 AS reward",
            "small.yaml:3\n",
            "not causes",
            "resources.cpus  1 → 2\n",
        ],
    );
    home.write("small.yaml", SMALL);
    home.write("answers.csv", ANSWERS.replace("three", "four"));
    home.ok(&["run", "small.yaml", "--target", "answers"]);
    let why = home.ok(&["why", "small.yaml", "scored"]);
    contains(&why, &["    input answers  1 row changed  because answers ran: file of path changed\n"]);
    let figures = home.ok(&["why", "small.yaml", "figures"]);
    contains(&figures, &["figures: may run\n", "it will run, because answers: 1 row changed, because answers ran"]);
    let told = json(&home.ok(&["why", "small.yaml", "scored", "--json"]));
    assert_eq!(told[0]["code"], "input");
    assert_eq!(told[0]["explanation"]["differences"][0]["words"], "1 row changed");
    // What never ran here is held against the likest result of anyone.
    home.write("other.yaml", SMALL.replace("name: small", "name: other").replace("length(text)", "length(source)"));
    contains(
        &home.ok(&["why", "other.yaml", "scored"]),
        &["never run", "compared with the likest key that has a result"],
    );
}

#[test]
fn why_names_the_place_of_a_value_in_the_file_an_included_one_or_an_argument() {
    let home = Home::new();
    let stage = |by: &str| {
        format!(
            "stages:\n  drawn:\n    op: make_dataset\n    with:\n      split: test\n      tasks: {{reverse_word: {by}}}\n"
        )
    };
    home.write("data.yaml", format!("vars: {{n: 2}}\n{}", stage("\"${n}\"")));
    home.write("top.yaml", "name: top\ninclude: [{file: data.yaml, prefix: part}]\nstages:\n  all: {op: sql, with: {sql: SELECT * FROM part_drawn}}\n");
    home.ok(&["run", "top.yaml"]);
    let place = |parameter: &str, more: &[&str]| {
        let why = home.ok(&[&["why", "top.yaml", "part_drawn"], more].concat());
        let line = why.lines().find(|line| line.trim_start().starts_with(parameter));
        let words = line.unwrap_or_else(|| panic!("{why}")).split_whitespace();
        words.skip(4).collect::<Vec<_>>().join(" ")
    };
    let tasks = "tasks.reverse_word ";
    assert_eq!(place(tasks, &["--set", "part_drawn.tasks.reverse_word=3"]), "--set part_drawn.tasks.reverse_word=3");
    home.write("data.yaml", format!("vars: {{n: 3}}\n{}", stage("\"${n}\"")));
    assert_eq!(place(tasks, &[]), "data.yaml:1");
    home.write("data.yaml", format!("vars: {{n: 2}}\n{}", stage("4")));
    assert_eq!(place(tasks, &[]), "data.yaml:7");
    home.write("data.yaml", format!("vars: {{n: 2}}\n{}      skip: 1\n", stage("2")));
    assert_eq!(place("skip ", &[]), "data.yaml:8");
    home.ok(&["run", "top.yaml"]);
    home.write("data.yaml", format!("vars: {{n: 2}}\n{}", stage("5")));
    assert_eq!(place("skip ", &[]), "by default");
}

#[test]
fn why_not_explains_a_hit() {
    let home = small();
    let text = home.ok(&["why-not", "small.yaml", "scored"]);
    contains(&text, &["scored: a hit: every part of its key ", "  made in ", "  it ran because: never run\n"]);
    home.write(
        "renamed.yaml",
        SMALL.replace("name: small", "name: renamed").replace("tags: [cheap]", "resources: {cpus: 2}"),
    );
    let text = home.ok(&["why-not", "renamed.yaml", "scored"]);
    contains(
        &text,
        &["  as scored of pipeline small\n", "changed since, but not in the key\n    resources.cpus  1 → 2\n"],
    );
    let text = home.ok(&["why-not", "small.yaml", "scored", "--set", "factor=3.0"]);
    assert_eq!(text, "scored: no result is used; `fuseline why` tells the cause\n");
    let told = json(&home.ok(&["why-not", "small.yaml", "scored", "--json"]));
    assert_eq!((&told[0]["state"], told[0]["not_causes"].as_array().map(Vec::len)), (&"hit".into(), Some(0)));
}

#[test]
fn selections_are_those_of_dbt() {
    let home = small();
    let planned = |select: &str, more: &[&str]| -> Vec<String> {
        let done = home.fuseline(&[&["plan", "small.yaml", "--json", "--target", select], more].concat());
        let plan = json(&done.stdout);
        let stages = plan["stages"].as_array().expect("stages").iter();
        stages.map(|stage| stage["stage"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(planned("scored", &[]), ["answers", "scored"]);
    assert_eq!(planned("scored+", &[]), ["answers", "scored", "figures", "tables.main"]);
    assert_eq!(planned("tag:cheap", &[]), ["answers", "scored"]);
    assert_eq!(planned("changed", &[]), [""; 0]);
    assert_eq!(planned("changed", &["--set", "factor=2.0"]), ["answers", "scored"]);
    assert_eq!(planned("failed", &[]), [""; 0]);
    assert_eq!(home.ran("small.yaml", &["--force", "+figures"]), ["answers", "figures", "scored"]);
    assert_eq!(home.ran("small.yaml", &["--set", "factor=2.0", "--target", "changed"]), ["scored"]);
    let error = refused(&home, &["plan", "small.yaml", "--target", "tag:chep"]);
    contains(&error, &["no stage has the tag \"chep\"", "did you mean \"cheap\"?"]);
    contains(&refused(&home, &["run", "small.yaml", "--target", "scored.rows"]), &["leave out .rows"]);
}

#[test]
fn failed_stages_are_selected_and_run_again() {
    let home = small();
    home.write("small.yaml", SMALL.replace("length(text)", "length(txet)"));
    assert_eq!(home.fuseline(&["run", "small.yaml"]).code, Some(2));
    let done = home.fuseline(&["run", "small.yaml", "--target", "failed"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    contains(&done.stderr, &["failed scored", "1 failed"]);
    home.write("small.yaml", SMALL.replace("length(text)", "2 * length(text)"));
    assert_eq!(home.ran("small.yaml", &["--target", "failed+"]), ["figures", "scored", "tables.main"]);
}

#[test]
fn only_and_defer_take_inputs_as_they_are() {
    let home = small();
    let first = runs(&home).remove(0);
    let factor = ["--set", "factor=2.0"];
    let only = |stage: &str, more: &[&str]| home.ran("small.yaml", &[&["--only", stage], &factor[..], more].concat());
    let error = refused(&home, &["run", "small.yaml", "--only", "figures", "--set", "factor=2.0"]);
    contains(&error, &["in `--only figures`: its input scored is not there", "--target figures", "--only +figures"]);
    // With the scores of the first run in place of those that the pipeline asks for now.
    assert_eq!(only("figures", &["--defer", &first[..20]]), [""; 0], "their figures are there");
    assert_eq!(only("scored", &[]), ["scored"]);
    assert_eq!(only("figures", &[]), ["figures"]);
    contains(&refused(&home, &["plan", "small.yaml", "--defer", &first]), &["every stage is selected"]);
    contains(&refused(&home, &["plan", "small.yaml", "--only", "scored", "--defer", "0"]), &["begins the names of"]);
}

#[test]
fn an_accepted_result_says_so_wherever_it_shows() {
    let home = small();
    let factor = ["--set", "factor=4.0"];
    let with =
        |verb: &str, more: &[&str]| -> Done { home.fuseline(&[&[verb, "small.yaml"], &factor[..], more].concat()) };
    let accept = ["--accept", "scored", "--reason", "the factor is of the plot alone"];
    assert!(with("run", &accept[..2]).stderr.contains("--reason"), "a reason must be given");
    assert!(with("run", &["--accept", "scored", "--reason", ""]).stderr.contains("--reason"));
    let plan = with("plan", &accept);
    assert_eq!(plan.code, Some(5));
    contains(
        &plan.stdout,
        &[
            "scored       accept   the factor is of the plot alone; instead of running: sql …",
            "figures      hit\n",
            "1 accepted\n",
        ],
    );
    let done = with("run", &accept);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let note = "note: the tables rest on the result of scored that ";
    contains(&done.stderr, &["0 ran, 4 cached", note, " accepted: the factor is of the plot alone\n"]);
    contains(&with("table", &[]).stderr, &[note]);
    contains(
        &with("why", &["scored"]).stdout,
        &["scored: cached", "  accepted by ", "the factor is of the plot alone (made for key "],
    );
    contains(&with("lock", &[]).stdout, &["accepted: ", "the factor is of the plot alone"]);
    assert_eq!(with("plan", &[]).code, Some(0));
    assert!(!with("run", &["--force", "scored"]).stderr.contains(note), "it was made for its own key now");
    assert!(refused(&home, &["run", "small.yaml", "--accept", "nobody", "--reason", "x"]).contains("unknown stage"));
}

#[test]
fn ask_11_a_lock_is_written_compared_and_recomputed() {
    let home = small();
    let before = runs(&home).len();
    home.ok(&["lock", "small.yaml", "-o", "small.lock.yaml"]);
    assert_eq!(
        home.ok(&["lock", "small.yaml"]),
        std::fs::read_to_string(home.path("small.lock.yaml")).expect("written")
    );
    assert_eq!(home.ok(&["verify", "small.yaml"]), "as small.lock.yaml says: 4 stages\n");
    assert_eq!(
        home.ok(&["verify", "small.yaml", "scored", "--lock", "small.lock.yaml"]),
        "as small.lock.yaml says: 1 stage\n"
    );
    assert_eq!(home.ok(&["verify", "small.yaml", "+figures", "--rerun"]), "the same bytes again: 3 stages\n");
    assert_eq!(runs(&home).len(), before, "a rerun aside is no run of the store");
    let left: Vec<_> = std::fs::read_dir(home.path("store/tmp")).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?}");
    // Another parameter and another file are told without running anything.
    let done = home.fuseline(&["verify", "small.yaml", "--set", "factor=2.0"]);
    assert_eq!((done.code, done.stdout.lines().count()), (Some(2), 1), "{}", done.stdout);
    contains(&done.stdout, &["scored: sql …"]);
    home.write("answers.csv", ANSWERS.replace("one", "two"));
    let done = home.fuseline(&["verify", "small.yaml", "--json"]);
    assert_eq!(done.code, Some(2));
    assert_eq!(json(&done.stdout)["deviations"][0]["what"], "file of path changed");
    let error = refused(&home, &["run", "small.yaml", "--locked", "small.lock.yaml"]);
    contains(
        &error,
        &["this is not what the lock says:\n  answers: file of path changed\n", "help: run without --locked"],
    );
    home.write("answers.csv", ANSWERS);
    home.ok(&["run", "small.yaml", "--locked", "small.lock.yaml"]);
    // An empty store makes the locked bytes again.
    let elsewhere = home.command(&["run", "small.yaml", "--locked", "small.lock.yaml", "--store", "other"]).output();
    let done = Done::of(elsewhere.expect("starts"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    // A damaged byte is the disk's fault.
    let folder = home.ok(&["path", "small.yaml", "figures"]);
    let file = home.path(folder.trim()).join("data.parquet");
    let mut bytes = std::fs::read(&file).expect("a table");
    bytes[20] ^= 1;
    let mut writable = std::fs::metadata(&file).expect("there").permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    writable.set_readonly(false);
    std::fs::set_permissions(&file, writable).expect("ours");
    std::fs::write(&file, bytes).expect("written");
    let done = home.fuseline(&["verify", "small.yaml"]);
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    contains(&done.stdout, &["figures: output rows: blob "]);
    assert!(
        refused(&home, &["verify", "small.yaml", "--lock", "none.yaml"]).contains("fuseline lock PIPELINE -o FILE")
    );
    assert!(refused(&home, &["lock", "small.yaml", "--set", "factor=9.0"]).contains("help: fuseline run small.yaml"));
}

#[test]
fn ask_29_two_runs_differ_in_stages_metrics_rows_and_schema() {
    let home = small();
    home.write("answers.csv", ANSWERS.replace("a,owl,one\n", "").replace("seven", "ten") + "c,fox,a whole sentence\n");
    home.ok(&["run", "small.yaml"]);
    home.ok(&["run", "small.yaml", "--set", "factor=1.0000000001"]);
    home.write("wide.yaml", SMALL.replace("AS reward FROM", "AS reward, 1 AS extra FROM"));
    home.ok(&["run", "wide.yaml"]);
    let runs: Vec<String> = runs(&home).into_iter().rev().collect();
    let diff = |before: usize, now: usize, more: &[&str]| -> String {
        home.ok(&[&["diff", &runs[before], &runs[now]], more].concat())
    };
    let text = diff(0, 1, &[]);
    contains(&text, &["  answers: file of path changed\n", "  scored: input answers changed\n"]);
    contains(&text, &["metrics\n", "  figures: fox all mean_reward 5.5 → ", "  figures: owl all mean_reward 4 → 5\n"]);
    assert!(diff(1, 1, &[]).contains("no stage differs"));
    let rows = diff(0, 1, &["answers"]);
    contains(&rows, &["answers: 4 rows → 4: 1 row added, 1 removed, 1 changed\n", "  compared by prompt_id, source\n"]);
    contains(&rows, &["  + prompt_id=c source=fox\n", "  - prompt_id=a source=owl\n"]);
    contains(&rows, &["  ~ prompt_id=a source=fox\n      text: seven → ten\n"]);
    contains(&diff(0, 1, &["answers", "--key", "prompt_id"]), &["compared by prompt_id\n"]);
    // A last bit is a difference only without a tolerance.
    assert!(diff(1, 2, &["scored"]).contains("4 rows changed"));
    assert!(diff(1, 2, &["scored", "--tol", "1e-6"]).contains("the same rows\n"));
    let drift = diff(1, 3, &["scored.rows"]);
    contains(&drift, &["scored: 4 rows → 4: column extra added (Int64)\n", "  schema: column extra added (Int64)\n"]);
    let told = json(&diff(0, 1, &["answers", "--json"]));
    assert_eq!((&told[0]["added"], &told[0]["removed"], &told[0]["changed"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(told[0]["shown"]["changed"][0]["cells"][0]["before"], "seven");
    assert_eq!(json(&diff(0, 1, &["--json"]))["metrics"].as_array().map(Vec::len), Some(2));
    let wrong = |arguments: &[&str]| refused(&home, &[&["diff", &runs[0], &runs[1]], arguments].concat());
    assert!(wrong(&["anwsers"]).contains("did you mean \"answers\"?"));
    assert!(wrong(&["answers", "--key", "sauce"]).contains("\"sauce\""));
    assert!(wrong(&["answers", "--tol", "many"]).contains("expected a number from 0"));
    assert!(refused(&home, &["diff", "ZZZ", &runs[0]]).contains("`fuseline runs` lists them"));
}

#[test]
fn a_rerun_that_differs_is_wrong_only_where_the_same_bytes_were_promised() {
    let home = Home::new();
    let program = "{program: sh, args: [-c, 'echo a > $0; cat /proc/sys/kernel/random/uuid >> $0', '{output.rows.csv}'], outputs: {rows: table}}";
    home.write("p.yaml", format!("stages:\n  drift: {{op: command, with: {program}}}\n"));
    if !std::path::Path::new("/proc/sys/kernel/random/uuid").exists() {
        println!("skipped: nothing here is different every time");
        return;
    }
    home.ok(&["run", "p.yaml"]);
    let text = home.ok(&["verify", "p.yaml", "drift", "--rerun"]);
    contains(&text, &["drift: output rows differs: ", "; its operator promises no equal bytes\n"]);
    assert!(text.ends_with("the same bytes again: 0 stages\n"), "{text}");
    let told = json(&home.ok(&["verify", "p.yaml", "drift", "--rerun", "--json"]));
    assert_eq!((told["deviations"].as_array(), told["expected"][0]["stage"].as_str()), (Some(&vec![]), Some("drift")));
}
