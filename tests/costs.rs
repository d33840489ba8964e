//! What stages consumed, as it is told: in the events, in the ledger and in the
//! forecast of the next run.

use serde_json::{Value, json};

use crate::harness::{FUSION, Home, fused};

/// What a query gives, as rows.
fn rows(home: &Home, pipeline: &str, query: &str) -> Vec<Value> {
    let text = home.ok(&["sql", pipeline, query, "--format", "json"]);
    serde_json::from_str::<Value>(&text).expect("JSON").as_array().expect("rows").clone()
}

#[test]
fn what_a_program_says_it_consumed_is_in_the_ledger_and_in_the_forecast() {
    let home = Home::new();
    home.write(
        "script.sh",
        "echo '{\"usage\": {\"tokens_in\": 900, \"tokens_out\": 100, \"price_usd\": 0.25}}'\n\
         echo '{\"usage\": {\"tokens_in\": 100}}'\n\
         echo '{\"usage\": {\"tokens\": 5}}'\n\
         echo '{\"usage\": {\"price_usd\": -1}}'\n\
         test -e $HERE/tried || { touch $HERE/tried; exit 75; }\n\
         echo '{\"a\": 1}' > $1\n",
    );
    let pipeline = |line: &str| {
        format!(
            "name: p\nstages:\n  paid:\n    op: command\n    retry: {{times: 1, backoff: 0}}\n    with:\n      program: sh\n      \
             args: ['{{file.script}}', '{{output.rows.jsonl}}', '{line}']\n      files: {{script: script.sh}}\n      \
             set_env: {{HERE: '{}'}}\n      outputs: {{rows: table}}\n  kept: {{op: sql, with: {{sql: SELECT 1 AS a}}}}\n",
            home.path("").display()
        )
    };
    home.write("p.yaml", pipeline("once"));
    let done = home.fuseline(&["run", "p.yaml", "--json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let events: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ended = |stage: &str| {
        events.iter().find(|event| event["event"] == "stage_ended" && event["stage"]["stage"] == stage).expect("ended")
    };
    // Both attempts were paid for.
    assert_eq!(ended("paid")["usage"], json!({"tokens_in": 2000, "tokens_out": 200, "price_usd": 0.5}));
    assert_eq!(ended("kept")["usage"], Value::Null);
    let notes: Vec<&str> = events.iter().filter_map(|event| event["text"].as_str()).collect();
    let refused = |line: &str| notes.iter().filter(|note| **note == format!("not counted: {line}")).count();
    assert_eq!(refused("{\"usage\": {\"tokens\": 5}}"), 2, "{notes:?}");
    assert_eq!(refused("{\"usage\": {\"price_usd\": -1}}"), 2, "{notes:?}");

    let query = |table: &str| {
        format!("SELECT tokens_in, tokens_out, price_usd FROM system.{table} WHERE stage = 'paid' ORDER BY started")
    };
    let each = json!({"tokens_in": 1000, "tokens_out": 100, "price_usd": 0.25});
    assert_eq!(rows(&home, "p.yaml", &query("attempts")), [each.clone(), each]);
    let both = json!({"tokens_in": 2000, "tokens_out": 200, "price_usd": 0.5});
    assert_eq!(rows(&home, "p.yaml", &query("stages")), std::slice::from_ref(&both));

    // What the stage cost is what it will cost, and then what it saves.
    home.write("p.yaml", pipeline("twice"));
    let plan: Value = serde_json::from_str(&home.fuseline(&["plan", "p.yaml", "--json"]).stdout).expect("JSON");
    assert_eq!(plan["totals"]["forecast"]["usage"], both);
    let text = home.fuseline(&["plan", "p.yaml"]).stdout;
    let cost = "2000 tokens in, 200 tokens out, $0.50";
    assert!(text.lines().any(|line| line.starts_with("paid  run") && line.ends_with(&format!("{cost}]"))), "{text}");
    assert!(text.lines().any(|line| line.starts_with("forecast: ") && line.ends_with(cost)), "{text}");
    let run = home.fuseline(&["run", "p.yaml"]);
    assert!(run.stderr.contains("  done   paid: ") && run.stderr.contains(", 1 rows, $0.25\n"), "{}", run.stderr);
    home.write("p.yaml", pipeline("twice").replace("SELECT 1", "SELECT 2"));
    let text = home.fuseline(&["plan", "p.yaml"]).stdout;
    let saved = "1000 tokens in, 100 tokens out, $0.25 of earlier work";
    assert!(text.lines().any(|line| line.starts_with("saved: ") && line.ends_with(saved)), "{text}");
}

#[test]
fn models_report_their_tokens_and_remembered_rows_none() {
    let home = fused();
    let one = |query: &str| rows(&home, "fusion.yaml", query).remove(0);
    let spent = |instance: &str| {
        one(&format!(
            "SELECT tokens_in, tokens_out, rows_fresh FROM system.stages WHERE outcome = 'ran' AND instance = '{instance}'"
        ))
    };
    let said = one("SELECT sum(n_tokens) AS n FROM sampled WHERE source = 'owl'")["n"].as_u64();
    let sampled = spent("sampled[source=owl]");
    assert_eq!((sampled["tokens_out"].as_u64(), sampled["rows_fresh"].as_u64()), (said, Some(16)));
    // Each of eight prompts is read once for its two samples.
    assert!((8 * 5..8 * 60).contains(&sampled["tokens_in"].as_u64().expect("tokens")), "{sampled}");
    let scored = one("SELECT sum(n_tokens) AS n FROM reference")["n"].as_u64();
    let reference = spent("reference");
    assert!(reference["tokens_in"].as_u64() > scored && reference["tokens_out"] == 0, "{reference}");
    for training in ["target", "dpo", "wrpo"] {
        assert!(spent(training)["tokens_in"].as_u64() > Some(50), "{training}");
    }
    assert_eq!(spent("ties")["tokens_in"], Value::Null);
}

#[test]
fn remembered_rows_cost_no_tokens() {
    let home = Home::new();
    home.write("fusion.yaml", FUSION);
    home.ok(&["run", "fusion.yaml", "--target", "sampled"]);
    // The same answers under another name.
    let text = FUSION.replace("name: fusion", "name: again").replace("  sampled:\n", "  asked:\n");
    let text = text
        .replace("FROM sampled ", "FROM asked ")
        .replace("n: 2, max_tokens: 6}\n  # The second", "n: 1, max_tokens: 6}\n  # The second");
    home.write("again.yaml", text);
    home.ok(&["run", "again.yaml", "--target", "asked"]);
    let asked = rows(
        &home,
        "again.yaml",
        "SELECT tokens_in, tokens_out, rows_fresh, rows_reused FROM system.stages WHERE stage = 'asked'",
    );
    let nothing = json!({"tokens_in": null, "tokens_out": null, "rows_fresh": 0, "rows_reused": 8});
    assert_eq!(asked, [nothing.clone(), nothing]);
}

#[test]
fn the_ledger_says_who_asked_for_what_where() {
    let home = Home::new();
    home.write("p.yaml", "stages:\n  a: {op: command, with: {program: sh, args: [-c, 'echo a > $0', '{output.rows.csv}'], secrets: {KEY: !secret COSTS_KEY}, outputs: {rows: table}}}\n");
    let commit = "0123456789".repeat(4);
    std::fs::create_dir(home.path(".git")).expect("a folder");
    home.write(".git/HEAD", format!("{commit}\n"));
    let mut command = home.command(&["run", "p.yaml", "--set", "a.timeout_seconds=7531"]);
    command.env("USER", "ada").env("COSTS_KEY", "7531");
    let done = crate::harness::Done::of(command.output().expect("the program starts"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let run = rows(
        &home,
        "p.yaml",
        "SELECT \"user\", host, command, version, git_commit, seconds > 0 AS took FROM system.runs",
    )
    .remove(0);
    assert_eq!((&run["user"], &run["git_commit"], &run["took"]), (&json!("ada"), &json!(commit), &json!(true)));
    let typed = "fuseline run p.yaml --set a.timeout_seconds=[secret COSTS_KEY]";
    assert_eq!((&run["command"], &run["version"]), (&json!(typed), &json!(env!("CARGO_PKG_VERSION"))));
    let stage =
        rows(&home, "p.yaml", "SELECT device, energy_joules, peak_bytes > 0 AS peak FROM system.stages").remove(0);
    assert_eq!(stage, json!({"device": "cpu", "energy_joules": null, "peak": true}));
    // The shell says what every column holds.
    home.write("ask", "\\d system.runs\n\\d system.stages\n\\d system.attempts\n\\d system.artifacts\n");
    let mut shell = home.command(&["sql", "p.yaml"]);
    let shell = shell.stdin(std::fs::File::open(home.path("ask")).expect("written")).output().expect("it starts");
    let text = String::from_utf8_lossy(&shell.stdout).into_owned();
    assert!(text.lines().count() > 60, "{text}");
    for line in text.lines() {
        assert!(line.contains(": "), "a column says nothing of itself: {line}");
    }
}
