//! The pipelines on recorded answers of published models: what they say where
//! the data are absent, and, where they are there, all stages but the training.

use serde_json::Value;

use crate::harness::{Done, Home};

const PIPELINE: &str = "pipelines/real/responses.yaml";
const GRADERS: &str = "pipelines/real/graders.yaml";

/// Runs the program in the repository's root, where the pipeline's paths lead from, with a store elsewhere.
fn fuseline(home: &Home, arguments: &[&str]) -> Done {
    let mut command = home.command(arguments);
    command.env("FUSELINE_STORE", home.path("store")).current_dir(crate::root());
    Done::of(command.output().expect("the program starts"))
}

/// The one number `n` of a query.
fn number(home: &Home, query: &str) -> f64 {
    let done = fuseline(home, &["sql", PIPELINE, query, "--format", "json"]);
    assert_eq!(done.code, Some(0), "{query}\n{}", done.stderr);
    let rows: Value = serde_json::from_str(&done.stdout).expect("it prints JSON");
    rows[0]["n"].as_f64().unwrap_or_else(|| panic!("{query} gives {}", done.stdout))
}

#[test]
fn absent_data_are_an_error_that_says_what_to_set() {
    let home = Home::new();
    let checked = fuseline(&home, &["check", PIPELINE, "--set", "data=/nowhere"]);
    assert_eq!(checked.code, Some(0), "the pipeline itself is right: {}", checked.stderr);
    for verb in ["plan", "run"] {
        let done = fuseline(&home, &[verb, PIPELINE, "--set", "data=/nowhere"]);
        assert_eq!(done.code, Some(2), "{verb}: {}", done.stderr);
        for part in ["\"/nowhere/source_responses/gsm8k.parquet\" does not exist", "--set data="] {
            assert!(done.stderr.contains(part), "{verb}: {}", done.stderr);
        }
    }
}

#[test]
fn every_recorded_answer_is_read_judged_and_accounted_for() {
    let data = crate::root().join("../shared/data/source_responses/gsm8k.parquet");
    if !data.is_file() {
        println!("skipped: {} is absent", data.display());
        return;
    }
    let home = Home::new();
    let mut arguments = vec!["run", PIPELINE];
    for target in
        ["tables.agreement", "tables.models", "tables.pairs", "tables.dropped", "tokenizer", "train", "held_out"]
    {
        arguments.extend(["--target", target]);
    }
    let run = fuseline(&home, &arguments);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("Llama-3.1-8B-Instruct"), "{}", run.stdout);

    let number = |query: &str| number(&home, query);
    assert_eq!(number("SELECT count(*) AS n FROM recorded"), 3144.0);
    assert_eq!(number("SELECT count(*) AS n FROM judged"), 3144.0);
    let agreement = number("SELECT avg(CAST(recorded_score = reward AS DOUBLE)) AS n FROM judged");
    assert!(agreement >= 0.98, "{agreement}");
    let agreement = number("SELECT avg(CAST(fuseeval_correct = correct AS DOUBLE)) AS n FROM judged");
    assert!(agreement >= 0.99, "{agreement}");

    // Every prompt is used once or dropped once, in both readings of "one source".
    for stage in ["by_source", "pooled"] {
        let parts = [
            number(&format!("SELECT count(*) AS n FROM {stage}.pairs")),
            number(&format!("SELECT count(*) AS n FROM {stage}.examples")),
            number(&format!("SELECT count(*) AS n FROM {stage}.dropped WHERE source IS NULL")),
        ];
        assert_eq!(parts.iter().sum::<f64>(), 1048.0, "{stage}: {parts:?}");
    }
    assert_eq!(number("SELECT count(*) AS n FROM by_source.pairs"), 0.0, "each model answered once");
    assert!(number("SELECT count(*) AS n FROM pooled.pairs") > 150.0);

    // Every best answer is in one part, and no prompt is in two.
    let best = number("SELECT count(*) AS n FROM best");
    let too_long = number("SELECT count(*) AS n FROM best WHERE part = 'too long'");
    let (train, held_out) = (number("SELECT count(*) AS n FROM train"), number("SELECT count(*) AS n FROM held_out"));
    assert_eq!(train + held_out + too_long, best);
    assert!((0.15..0.25).contains(&(held_out / best)), "{held_out} of {best}");
    assert_eq!(number("SELECT count(*) AS n FROM train JOIN held_out ON train.prompt_id = held_out.prompt_id"), 0.0);
}

#[test]
fn graders_give_the_verdicts_that_were_recorded_of_them() {
    let data = crate::root().join("../shared/data/source_responses/math.parquet");
    if !data.is_file() {
        println!("skipped: {} is absent", data.display());
        return;
    }
    let home = Home::new();
    let run = fuseline(&home, &["run", GRADERS]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let query = "SELECT benchmark, grader, count(*) AS answers,
                        avg(CAST(correct = (opencompass_score = 1) AS DOUBLE)) AS opencompass,
                        avg(CAST(correct = fuseeval_correct AS DOUBLE)) AS fuseeval
                 FROM judged GROUP BY benchmark, grader ORDER BY benchmark";
    let done = fuseline(&home, &["sql", GRADERS, query, "--format", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&done.stdout).expect("it prints JSON");
    let of = |grader: &str, column: &str| -> Vec<f64> {
        let rows = rows.iter().filter(|row| row["grader"] == grader);
        rows.map(|row| row[column].as_f64().expect("a number")).collect()
    };
    assert_eq!(of("opencompass", "answers"), [3144.0, 11823.0]);
    assert_eq!(of("opencompass", "opencompass"), [1.0, 1.0], "from the raw answers, every one");
    // Eleven of MATH's differ, see pipelines/README.md.
    let fuseeval = of("fuseeval", "fuseeval");
    assert!(fuseeval[0] == 1.0 && fuseeval[1] > 0.999, "{fuseeval:?}");
    assert!(of("math_verify", "fuseeval").iter().all(|share| *share > 0.98), "{rows:?}");
}
