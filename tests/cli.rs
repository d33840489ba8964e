//! The verbs on a small pipeline: what they print, and their exit codes.

use serde_json::Value;

use crate::harness::{Home, fused};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn plan_has_found_nothing_or_work() {
    let home = fused();
    assert!(home.ok(&["plan", "fusion.yaml"]).ends_with("28 cached, 0 to run, 0 that may run\n"));
    let done = home.fuseline(&["plan", "fusion.yaml", "--json", "--set", "beta=0.9"]);
    assert_eq!(done.code, Some(5), "{}", done.stderr);
    let plan = json(&done.stdout);
    let stages = plan["stages"].as_array().expect("stages");
    let with_state = |state: &str| -> Vec<&str> {
        stages.iter().filter(|row| row["state"] == state).filter_map(|row| row["stage"].as_str()).collect()
    };
    assert_eq!(with_state("run"), ["dpo", "wrpo"]);
    assert_eq!(stages.len(), 28);
    let values = home.ok(&["plan", "fusion.yaml", "--values", "--target", "exam"]);
    assert!(values.contains("    split: \"test\"\n") && values.contains("    seed: 7\n"), "{values}");
    assert!(values.ends_with("1 cached, 0 to run, 0 that may run\n"), "{values}");
}

#[test]
fn ls_lists_rows_and_sizes() {
    let home = fused();
    let text = home.ok(&["ls", "fusion.yaml"]);
    let line = text.lines().find(|line| line.starts_with("sampled[source=owl] ")).expect("the instance is listed");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[1..4], ["sample", "cached", "16"], "{line}");
    let listed = json(&home.ok(&["ls", "fusion.yaml", "--json"]));
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 28);
    assert!(listed.iter().all(|row| row["state"] == "cached" && row["bytes"].as_u64() > Some(0)), "{listed:?}");
}

#[test]
fn sql_asks_stages_and_system_tables() {
    let home = fused();
    let asked = "SELECT source, count(*) AS n FROM sampled GROUP BY source ORDER BY source";
    let ask = |format: &str| home.ok(&["sql", "fusion.yaml", asked, "--format", format]);
    assert_eq!(ask("csv"), "source,n\r\nowl,16\r\ntarget,16\r\n");
    assert_eq!(json(&ask("json"))[0], serde_json::json!({"source": "owl", "n": 16}));
    assert!(ask("text").contains("source"), "{}", ask("text"));
    home.write("question.sql", asked);
    home.ok(&["sql", "fusion.yaml", "-f", "question.sql", "--format", "csv", "-o", "answer.csv"]);
    assert_eq!(std::fs::read_to_string(home.path("answer.csv")).expect("written"), ask("csv"));
    let system = "SELECT count(*) > 0 AS some FROM system.runs";
    assert_eq!(home.ok(&["sql", "fusion.yaml", system, "--format", "csv"]), "some\r\ntrue\r\n");
    for table in ["system.stages", "system.artifacts"] {
        home.ok(&["sql", "fusion.yaml", &format!("SELECT * FROM {table}")]);
    }
    for wrong in ["SELECT * FROM smapled", "SELECT sauce FROM sampled", "SELEC 1"] {
        let done = home.fuseline(&["sql", "fusion.yaml", wrong]);
        assert_eq!(done.code, Some(2), "{wrong}: {}", done.stderr);
        assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    }
}

#[test]
fn table_in_every_format() {
    let home = fused();
    let table = |format: &str| home.ok(&["table", "fusion.yaml", "main", "--format", format]);
    assert!(table("text").starts_with("Letters by skill.\n\nmodel "), "{}", table("text"));
    assert!(table("md").contains("| model "), "{}", table("md"));
    let latex = table("latex");
    for part in
        ["\\toprule", "\\midrule", "\\bottomrule", "\\textbf{", "\\caption{Letters by skill.}", "\\label{tab:fusion}"]
    {
        assert!(latex.contains(part), "{part} is missing in\n{latex}");
    }
    let csv = table("csv");
    let rows: Vec<&str> = csv.lines().map(|line| line.split(',').next().expect("a cell")).collect();
    assert_eq!(rows, ["model", "target", "dpo", "wrpo", "linear", "ties"], "{csv}");
    assert!(json(&table("json")).to_string().contains("compare_numbers"));
    home.ok(&["table", "fusion.yaml", "--format", "csv", "-o", "table.csv"]);
    assert_eq!(std::fs::read_to_string(home.path("table.csv")).expect("written"), csv);
    let done = home.fuseline(&["table", "fusion.yaml", "mian"]);
    assert_eq!(done.code, Some(2));
    assert_eq!(done.stderr, "error: the pipeline has no table \"mian\"\n  help: did you mean \"main\"?\n");
    let done = home.fuseline(&["table", "fusion.yaml", "--set", "beta=0.9"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("is not up to date\n  help: fuseline run fusion.yaml"), "{}", done.stderr);
}

#[test]
fn why_tells_what_a_result_was_made_of_and_why_it_would_rerun() {
    let home = fused();
    let cached = home.ok(&["why", "fusion.yaml", "wrpo"]);
    assert!(cached.starts_with("wrpo: cached, key "), "{cached}");
    for part in ["\"beta\": 0.1", "  input model: target.model\n", "  input pairs: triples.pairs\n"] {
        assert!(cached.contains(part), "{part} is missing in\n{cached}");
    }
    let changed = home.ok(&["why", "fusion.yaml", "wrpo", "--set", "wrpo.beta=0.9"]);
    assert!(changed.contains("wrpo: will run, key ") && changed.contains("  because beta 0.1 → 0.9\n"), "{changed}");
    assert!(changed.contains("    beta  0.1 → 0.9  --set wrpo.beta=0.9\n"), "{changed}");
    let below = home.ok(&["why", "fusion.yaml", "ties", "--set", "wrpo.beta=0.9"]);
    assert!(below.starts_with("ties: may run\n  if wrpo gives another result"), "{below}");
    let done = home.fuseline(&["why", "fusion.yaml", "wrop"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("wrpo"), "{}", done.stderr);
}

#[test]
fn graph_draws_every_edge() {
    let home = fused();
    let mermaid = home.ok(&["graph", "fusion.yaml"]);
    assert!(mermaid.starts_with("flowchart") && mermaid.contains("-->"), "{mermaid}");
    let dot = home.ok(&["graph", "fusion.yaml", "--format", "dot"]);
    assert!(dot.starts_with("digraph") && dot.contains("->"), "{dot}");
    for stage in ["lessons", "wrpo", "ties", "tables.main"] {
        assert!(mermaid.contains(stage) && dot.contains(stage), "{stage} is missing");
    }
}

#[test]
fn path_is_a_folder_of_real_files() {
    let home = fused();
    let folder = home.path(home.ok(&["path", "fusion.yaml", "wrpo"]).trim());
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(folder.join(file).is_file(), "{file} is missing in {}", folder.display());
    }
    let trace = home.path(home.ok(&["path", "fusion.yaml", "wrpo.trace"]).trim());
    assert!(trace.join("data.parquet").is_file());
    assert_eq!(home.ok(&["path", "fusion.yaml", "sampled[source=owl]"]).lines().count(), 1);
    let done = home.fuseline(&["path", "fusion.yaml", "wrpo", "--set", "beta=0.9"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("stage wrpo has no result yet"), "{}", done.stderr);
}

#[test]
fn runs_lists_them() {
    let home = fused();
    assert!(home.ok(&["runs"]).contains("  fusion "), "{}", home.ok(&["runs"]));
    let runs = json(&home.ok(&["runs", "--json"]));
    let first = runs.as_array().expect("a list").iter().find(|run| run["ran"] == 28).expect("the first run");
    assert_eq!((&first["pipeline"], &first["exit"]), (&"fusion".into(), &0.into()), "{first}");
}

#[test]
fn targets_select_what_runs() {
    let home = Home::new();
    home.write("p.yaml", crate::harness::FUSION);
    assert_eq!(home.ran("p.yaml", &["--target", "exam", "--target", "pool"]), ["exam", "pool"]);
    assert_eq!(home.ran("p.yaml", &["--target", "exam", "--force", "exam"]), ["exam"]);
    let done = home.fuseline(&["run", "p.yaml", "--target", "exams"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("\"exam\""), "{}", done.stderr);
}

#[test]
fn ops_has_a_manual_for_each() {
    let home = Home::new();
    let list = home.ok(&["ops"]);
    for entry in fuseline_operators::ALL {
        assert!(list.contains(entry.summary()), "{} is missing", entry.name);
        let manual = home.ok(&["ops", entry.name]);
        for part in [entry.name, "\nExample:\n", "\nInputs and outputs of the example:\n"] {
            assert!(manual.contains(part), "{part} is missing in\n{manual}");
        }
    }
    let done = home.fuseline(&["ops", "smaple"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("did you mean \"sample\"?"), "{}", done.stderr);
}

#[test]
fn check_tells_problems_as_json() {
    let home = Home::new();
    home.write("p.yaml", "stages:\n  a: {op: laod, with: {path: x.csv}}\n  b: {op: sql}\n");
    let done = home.fuseline(&["check", "p.yaml", "--json"]);
    assert_eq!(done.code, Some(2));
    let problems = json(&done.stdout);
    let problems = problems["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!((&problems[0]["line"], &problems[0]["column"]), (&2.into(), &11.into()), "{problems:?}");
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = Home::new().ok(&["--help"]);
    for part in ["Examples:", "Exit codes:", "run", "plan", "sql"] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
    assert_eq!(Home::new().fuseline(&["rum"]).code, Some(2));
}
