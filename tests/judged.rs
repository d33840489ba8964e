//! Comparisons of models as a user makes them: verdicts in files, tests and corrections in SQL, stars and deviations in tables;
//! and the operators of judged benchmarks on small files.

use serde_json::{Value, json};

use crate::harness::Home;

/// JSON lines.
fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

fn rows(home: &Home, query: &str) -> Vec<Value> {
    let printed = home.ok(&["sql", "p.yaml", query, "--format", "json"]);
    serde_json::from_str(&printed).expect("rows as JSON")
}

const COMPARED: &str = "\
name: compared
stages:
  verdicts: {op: load, with: {path: verdicts.jsonl}}
  pairs:
    op: sql
    with:
      sql: >
        SELECT a.task, b.model, a.correct AS base, b.correct FROM verdicts a JOIN verdicts b
        ON a.task = b.task AND a.prompt = b.prompt WHERE a.model = 'base' AND b.model <> 'base'
        ORDER BY task, model, a.prompt
  tested:
    op: sql
    with:
      sql: >
        SELECT task, model, avg(CAST(correct AS DOUBLE)) AS accuracy, mcnemar_p(correct, base) AS p,
               paired_bootstrap_low(correct, base) AS low, paired_bootstrap_high(correct, base) AS high,
               sign_flip_p(correct, base) AS p_flip, paired_bootstrap_p(correct, base) AS p_bootstrap
        FROM pairs GROUP BY task, model
tables:
  main:
    sql: >
      SELECT task, model, accuracy, p FROM tested
      UNION ALL SELECT task, model, avg(CAST(correct AS DOUBLE)), NULL FROM verdicts WHERE model = 'base' GROUP BY task, model
      ORDER BY model, task
    pivot: {rows: model, columns: task, value: accuracy, baseline: base, percent: true, bold: max, significance: {p: p}}
    caption: Accuracy in percent
";

/// Two tasks of 400 prompts; `tuned` repairs 24 of the base's answers and breaks 6 of the first task, 5 and 4 of the second.
fn compared() -> Home {
    let home = Home::new();
    let row = |model: &str, task: &str, i: usize, correct: bool| json!({"model": model, "task": task, "prompt": format!("{task}/{i}"), "correct": correct});
    let mut all = Vec::new();
    for (task, repaired, broken) in [("one", 24, 6), ("two", 5, 4)] {
        for i in 0..400 {
            let base = i % 2 == 0;
            let changed = if base { i / 2 < broken } else { i / 2 < repaired };
            all.push(row("base", task, i, base));
            all.push(row("tuned", task, i, base != changed));
        }
    }
    home.write("verdicts.jsonl", lines(all));
    home.write("p.yaml", COMPARED);
    home
}

#[test]
fn ask_12_a_difference_on_the_same_prompts_is_tested_in_pairs_and_corrected() {
    let home = compared();
    let shown = home.ok(&["run", "p.yaml"]);
    let tested = rows(&home, "SELECT * FROM tested ORDER BY task");
    // 2 P(X <= 6 of 30): the pairs differ, where an unpaired test of 50.0 against 54.5 % on 400 prompts has p = 0.2.
    let p = tested[0]["p"].as_f64().expect("a p-value");
    assert!((p - 0.001_430_906).abs() < 1e-8, "{p}");
    let (low, high) = (tested[0]["low"].as_f64().expect("an end"), tested[0]["high"].as_f64().expect("an end"));
    assert!(low > 0.0 && low < 0.045 && high > 0.045, "{low} {high}");
    for (column, least, most) in [("p_flip", 0.0005, 0.004), ("p_bootstrap", 0.0001, 0.004)] {
        let p = tested[0][column].as_f64().expect("a p-value");
        assert!((least..most).contains(&p), "{column}: {p}");
    }
    assert_eq!(tested[1]["p"], 1.0);
    // Holm: 2 · 0.00143 is below 0.01.
    let tuned = shown.lines().find(|line| line.starts_with("tuned")).expect("a row");
    assert_eq!(tuned.split_whitespace().collect::<Vec<_>>(), ["tuned", "54.5^**", "(+4.5)*", "50.2", "(+0.2)*"]);
    assert!(
        shown.contains("note: * p < 0.05, ** p < 0.01, *** p < 0.001; 2 tests, corrected by Holm's method"),
        "{shown}"
    );
}

#[test]
fn ask_14_the_same_table_in_every_format() {
    let home = compared();
    home.ok(&["run", "p.yaml"]);
    let latex = home.ok(&["table", "p.yaml", "main", "--format", "latex"]);
    for part in ["\\toprule", "\\textbf{54.5}$^{**}$ ($+$4.5)", "\\footnotesize Note: {*} p \\textless{} 0.05"] {
        assert!(latex.contains(part), "{latex}");
    }
    let html = home.ok(&["table", "p.yaml", "main", "--format", "html"]);
    assert!(html.contains("<strong>54.5</strong><sup>**</sup> (+4.5)"), "{html}");
    let markdown = home.ok(&["table", "p.yaml", "main", "--format", "md"]);
    assert!(markdown.contains("**54.5**<sup>\\*\\*</sup> (+4.5)"), "{markdown}");
    let json: Value = serde_json::from_str(&home.ok(&["table", "p.yaml", "main", "--format", "json"])).expect("JSON");
    assert_eq!(json["rows"][1]["cells"]["one"]["value"], 0.545);
    assert_eq!(home.ok(&["table", "p.yaml", "main", "--format", "csv"]).lines().count(), 3);
}

#[test]
fn ask_13_seeds_are_averaged_with_their_deviation() {
    let home = Home::new();
    home.write(
        "p.yaml",
        "\
name: seeds
stages:
  drawn:
    matrix: {seed: [1, 2, 3]}
    op: make_dataset
    with: {split: train, tasks: {addition: 40}}
  figures:
    matrix: {seed: [1, 2, 3]}
    op: sql
    with: {sql: \"SELECT 'owl' AS model, domain AS task, avg(CAST(reference AS DOUBLE)) AS value FROM drawn GROUP BY domain\"}
tables:
  main:
    sql: SELECT model, task, seed, value FROM figures
    pivot: {rows: model, columns: task, value: value, spread: stddev, digits: 3}
",
    );
    let shown = home.ok(&["run", "p.yaml"]);
    let values: Vec<f64> = rows(&home, "SELECT seed, value FROM figures ORDER BY seed")
        .iter()
        .map(|row| row["value"].as_f64().expect("a number"))
        .collect();
    assert_eq!(values.len(), 3);
    let mean = values.iter().sum::<f64>() / 3.0;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    assert!(deviation > 0.0);
    assert!(shown.contains(&format!("{mean:.3} ± {deviation:.3}")), "{shown}");
}

#[test]
fn battles_are_ranked_and_bad_ones_are_named() {
    let home = Home::new();
    let battle = |a: &str, b: &str, score: Value| json!({"model_a": a, "model_b": b, "score": score, "weight": 1});
    // 3 of 4 against the baseline: 400 log10(3) = 190.8 points.
    let battles = [
        ("base", "owl", json!(0.0)),
        ("owl", "base", json!(1.0)),
        ("base", "owl", json!(0.5)),
        ("base", "owl", json!(0.5)),
        ("base", "fox", json!(null)),
    ];
    home.write("battles.jsonl", lines(battles.map(|(a, b, score)| battle(a, b, score))));
    let pipeline = |baseline: &str| {
        format!(
            "name: ranked\nstages:\n  battles: {{op: load, with: {{path: battles.jsonl}}}}\n  ranked:\n    op: rank\n    \
             inputs: {{battles: battles}}\n    with: {{baseline: {baseline}, resamples: 50}}\n"
        )
    };
    home.write("p.yaml", pipeline("base"));
    home.ok(&["run", "p.yaml"]);
    let found = rows(&home, "SELECT * FROM ranked ORDER BY metric, value DESC");
    let of = |i: usize, column: &str| found[i][column].as_f64().expect("a number");
    assert_eq!((found[0]["model"].as_str(), found[0]["metric"].as_str()), (Some("owl"), Some("rating")));
    assert!((of(0, "value") - 1000.0 - 400.0 * 3_f64.log10()).abs() < 1e-4, "{found:?}");
    assert!((of(2, "value") - 0.75).abs() < 1e-7 && of(2, "low") <= 0.75 && of(2, "high") >= 0.75, "{found:?}");
    assert_eq!(found.len(), 4, "the model without a verdict is not rated");

    home.write("p.yaml", pipeline("elk"));
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("no battle has the baseline \"elk\"; there are base, owl"), "{}", done.stderr);
}

#[test]
fn length_control_says_what_is_wrong_with_annotations() {
    let home = Home::new();
    let gamed = (0..40).map(|i| {
        json!({"preference": 0.3 + f64::from(i % 5) / 10.0, "index": i % 20, "std_delta_len": f64::from(i % 9) - 4.0,
            "instruction_difficulty": f64::from(i % 20) / 10.0 - 1.0})
    });
    home.write("gamed.jsonl", lines(gamed));
    home.write(
        "p.yaml",
        "\
name: controlled
stages:
  preferences: {op: load, with: {path: preferences.jsonl}}
  gamed: {op: load, with: {path: gamed.jsonl}}
  rates: {op: control_length, inputs: {preferences: preferences, gamed: gamed}, with: {difficulty: key}}
",
    );
    let annotation = |model: Value, index: usize, preference: Value| {
        json!({"model": model, "index": index, "preference": preference, "baseline_length": 100 + index,
            "model_length": 150 + 7 * (index % 4)})
    };
    let good = || (0..20).map(|i| annotation(json!("owl"), i, json!(1.2 + i as f64 / 40.0)));
    home.write("preferences.jsonl", lines(good()));
    home.ok(&["run", "p.yaml"]);
    let found = rows(&home, "SELECT metric, value, n FROM rates ORDER BY metric");
    assert_eq!(found.len(), 3);
    assert!((found[2]["value"].as_f64().expect("a rate") - 0.4375).abs() < 1e-12, "{found:?}");

    for (extra, said) in [
        (annotation(json!("owl"), 3, json!(1.5)), "model \"owl\", index 3: two rows have this index"),
        (annotation(json!(null), 3, json!(1.5)), "column \"model\", row 20: the value is null"),
        (annotation(json!("fox"), 77, json!(1.5)), "model \"fox\": the gamed baselines have no row of index 77"),
    ] {
        home.write("preferences.jsonl", lines(good().chain([extra])));
        let done = home.fuseline(&["run", "p.yaml"]);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
}

#[test]
fn a_cell_is_traced_to_its_rows_stages_and_files() {
    let home = compared();
    let early = home.fuseline(&["why", "p.yaml", "--cell", "main", "tuned", "one"]);
    assert_eq!(early.code, Some(2));
    assert!(early.stderr.contains("is not up to date\n  help: fuseline run p.yaml"), "{}", early.stderr);
    home.ok(&["run", "p.yaml"]);
    let shown = home.ok(&["why", "p.yaml", "--cell", "main", "tuned", "one"]);
    for part in [
        "tables.main, row \"tuned\", column \"one\": 54.5^** (+4.5)",
        "1 row of its query:",
        "         1  SELECT * FROM tested WHERE CAST(\"model\" AS VARCHAR) = 'tuned' AND CAST(\"task\" AS VARCHAR) = 'one'",
        "       400  SELECT * FROM verdicts WHERE",
        "verdicts (load), key ",
        "file path: verdicts.jsonl [\"",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let json: Value =
        serde_json::from_str(&home.ok(&["why", "p.yaml", "--json", "--cell", "main", "tuned", "one"])).expect("JSON");
    assert_eq!((json["rows"][0]["accuracy"].as_f64(), json["sources"][1]["rows"].as_i64()), (Some(0.545), Some(400)));
    let stages: Vec<&str> =
        json["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["stage"].as_str()).collect();
    assert_eq!(stages, ["tables.main", "tested", "pairs", "verdicts"]);
    for (cell, said) in [
        (["mian", "tuned", "one"], "did you mean \"main\"?"),
        (["main", "tund", "one"], "cell \"tund\": no such row; did you mean \"tuned\"?"),
        (["main", "tuned", "three"], "cell \"three\": no such column"),
    ] {
        let done = home.fuseline(&[&["why", "p.yaml", "--cell"], cell.as_slice()].concat());
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
}
