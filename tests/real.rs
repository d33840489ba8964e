//! The pipelines on recorded answers of published models: what they say where
//! the data are absent, and, where they are there, all stages but the training.

use serde_json::Value;

use crate::harness::{Done, Home};

const PIPELINE: &str = "pipelines/real/responses.yaml";
const GRADERS: &str = "pipelines/real/graders.yaml";
const INSTRUCTIONS: &str = "pipelines/real/instructions.yaml";
const CHOICES: &str = "pipelines/real/choices.yaml";
const CODE: &str = "pipelines/real/code.yaml";

/// Runs the program in the repository's root, where the pipeline's paths lead from, with a store elsewhere.
fn fuseline(home: &Home, arguments: &[&str]) -> Done {
    let mut command = home.command(arguments);
    command.env("FUSELINE_STORE", home.path("store")).current_dir(crate::root());
    Done::of(command.output().expect("the program starts"))
}

/// The one number `n` of a query.
fn number(home: &Home, query: &str) -> f64 {
    number_of(home, PIPELINE, query)
}

fn number_of(home: &Home, pipeline: &str, query: &str) -> f64 {
    let done = fuseline(home, &["sql", pipeline, query, "--format", "json"]);
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

/// Where the data lie, or none where the file is absent.
fn data(file: &str) -> Option<std::path::PathBuf> {
    let folder = crate::root().join("../shared/data");
    let path = folder.join(file);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return None;
    }
    Some(folder)
}

fn expected(folder: &std::path::Path, benchmark: &str) -> Value {
    let text = std::fs::read_to_string(folder.join(benchmark).join("expected_dev.json")).expect("it is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Runs a pipeline on real data and gives the rows of a query for each of the queries.
fn run_and_ask<const N: usize>(pipeline: &str, folder: &std::path::Path, queries: [&str; N]) -> [Vec<Value>; N] {
    let home = Home::new();
    let data = format!("data={}", folder.display());
    let run = fuseline(&home, &["run", pipeline, "--set", &data]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    queries.map(|query| {
        let done = fuseline(&home, &["sql", pipeline, query, "--format", "json", "--set", &data]);
        assert_eq!(done.code, Some(0), "{query}\n{}", done.stderr);
        serde_json::from_str(&done.stdout).expect("it prints JSON")
    })
}

#[track_caller]
fn near(what: &str, found: &Value, expected: &Value, tolerance: f64) {
    let (found, expected) = (found.as_f64().expect(what), expected.as_f64().expect(what));
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

#[test]
fn alpaca_eval_is_what_was_published() {
    let Some(folder) = data("alpaca_eval/annotations") else { return };
    let expected = expected(&folder, "alpaca_eval");
    let [rates, fits] = run_and_ask(
        "pipelines/real/alpaca_eval.yaml",
        &folder,
        [
            "SELECT model, folds, metric, 100 * value AS value, 100 * stderr AS stderr FROM win_rates
             WHERE difficulty = 'position' AND solver = 'liblinear'",
            "SELECT * FROM win_rates.fits
             WHERE difficulty = 'position' AND folds = 'scalar' AND solver = 'liblinear'",
        ],
    );
    let find = |model: &str, folds: &str, metric: &str| {
        let row = rates.iter().find(|row| row["model"] == model && row["folds"] == folds && row["metric"] == metric);
        row.unwrap_or_else(|| panic!("{model} has no {metric}")).clone()
    };
    for (model, figures) in expected.as_object().expect("models") {
        let (published, rerun) = (&figures["published"], &figures["reference_rerun"]);
        for folds in ["scalar", "avx512"] {
            let raw = find(model, folds, "win_rate");
            near(model, &raw["value"], &published["win_rate"], 1e-6);
            near(model, &raw["stderr"], &published["standard_error"], 1e-6);
            let discrete = find(model, folds, "discrete_win_rate");
            near(model, &discrete["value"], &published["discrete_win_rate"], 1e-6);
        }
        // The rerun was made with AVX-512, the leaderboard without; both ended where LIBLINEAR does.
        let controlled = find(model, "avx512", "length_controlled_win_rate");
        near(model, &controlled["value"], &rerun["length_controlled_winrate"], 1e-6);
        near(model, &controlled["stderr"], &rerun["lc_standard_error"], 1e-6);
        let controlled = find(model, "scalar", "length_controlled_win_rate");
        near(model, &controlled["value"], &published["length_controlled_winrate"], 1e-6);
        let fit = fits.iter().find(|row| row["model"] == model.as_str()).expect("a fit");
        for (column, name) in
            [("n_wins", "n_wins"), ("n_losses", "n_wins_base"), ("n_draws", "n_draws"), ("n_judged", "n_total")]
        {
            near(model, &fit[column], &published[name], 0.0);
        }
    }
}

#[test]
fn arena_hard_is_what_was_published() {
    let Some(folder) = data("arena_hard/judgments") else { return };
    let expected = expected(&folder, "arena_hard");
    let [ranked, verdicts, by_question, controlled] = run_and_ask(
        "pipelines/real/arena_hard.yaml",
        &folder,
        [
            "SELECT model, metric, CASE metric WHEN 'win_rate' THEN 100 ELSE 1 END * value AS value, 100 * low AS low,
                    100 * high AS high, n FROM ranked",
            "SELECT count(*) AS differ FROM games WHERE verdict IS DISTINCT FROM recorded",
            "SELECT model, 100 * value AS value, 100 * low AS low, 100 * high AS high FROM by_question
             WHERE metric = 'win_rate'",
            "SELECT element, coefficient FROM controlled.styles",
        ],
    );
    assert_eq!(verdicts[0]["differ"], 0, "every verdict is read as it was recorded");
    for (model, figures) in expected.as_object().expect("models") {
        let find = |rows: &[Value], metric: &str| {
            let row = rows
                .iter()
                .find(|row| row["model"] == model.as_str() && (row["metric"] == metric || metric.is_empty()));
            row.unwrap_or_else(|| panic!("{model} has no {metric}")).clone()
        };
        let score = find(&ranked, "win_rate");
        near(model, &score["value"], &figures["score"], 1e-5);
        near(model, &score["low"], &figures["ci_lower"], 1.0);
        near(model, &score["high"], &figures["ci_upper"], 1.0);
        near(model, &find(&ranked, "rating")["value"], &figures["elo"], 1e-3);
        near(model, &score["n"], &figures["n_weighted_battles"], 0.0);
        let sound = find(&by_question, "");
        near(model, &sound["value"], &figures["score"], 1e-5);
        assert!(sound["low"].as_f64() < score["low"].as_f64(), "one question's verdicts agree: {sound} {score}");
    }
    let length = controlled.iter().find(|row| row["element"] == "characters").expect("a coefficient");
    assert!(length["coefficient"].as_f64() > Some(0.0), "the judge likes length: {controlled:?}");
}

#[test]
fn mt_bench_is_what_was_recorded() {
    let Some(folder) = data("mt_bench/judgments") else { return };
    let expected = expected(&folder, "mt_bench");
    let [means, categories, differ] = run_and_ask(
        "pipelines/real/mt_bench.yaml",
        &folder,
        [
            "SELECT model, avg(rating) AS average, avg(CASE WHEN turn = 1 THEN rating END) AS turn1,
                    avg(CASE WHEN turn = 2 THEN rating END) AS turn2, count(*) - count(rating) AS unparsed
             FROM ratings GROUP BY model",
            "SELECT model, category, avg(rating) AS rating FROM ratings GROUP BY model, category",
            "SELECT count(*) AS n FROM ratings WHERE rating IS DISTINCT FROM recorded",
        ],
    );
    assert_eq!(differ[0]["n"], 0, "every rating is read as it was recorded");
    for (model, figures) in expected.as_object().expect("models") {
        let row = means.iter().find(|row| row["model"] == model.as_str()).expect("a row a model");
        for column in ["average", "turn1", "turn2"] {
            near(model, &row[column], &figures[column], 0.005);
        }
        near(model, &row["unparsed"], &figures["unparsed"], 0.0);
        for (category, mean) in figures["by_category"].as_object().expect("categories") {
            let row =
                categories.iter().find(|row| row["model"] == model.as_str() && row["category"] == category.as_str());
            near(model, &row.expect("a row a category")["rating"], mean, 0.005);
        }
    }
}

#[test]
fn instructions_are_judged_as_recorded() {
    if data("ifeval/responses_text_bison_with_verdicts.jsonl.gz").is_none() {
        return;
    }
    let home = Home::new();
    let run = fuseline(&home, &["run", INSTRUCTIONS]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let number = |query: &str| number_of(&home, INSTRUCTIONS, query);
    assert_eq!(number("SELECT count(*) AS n FROM judged"), 156.0);
    assert_eq!(number("SELECT count(*) AS n FROM instructions"), 206.0);
    for (ours, recorded) in [
        ("follow_instruction_list_strict", "recorded_strict"),
        ("follow_instruction_list_loose", "recorded_loose"),
        ("correct", "recorded_all_strict"),
        ("follow_all_loose", "recorded_all_loose"),
    ] {
        assert_eq!(number(&format!("SELECT count(*) AS n FROM judged WHERE {ours} = {recorded}")), 156.0, "{ours}");
    }
}

#[test]
fn letters_are_read_as_recorded() {
    if data("mmlu_pro_outputs/Meta-Llama-3_1-8B.jsonl.gz").is_none() {
        return;
    }
    let home = Home::new();
    let run = fuseline(&home, &["run", CHOICES]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let number = |query: &str| number_of(&home, CHOICES, query);
    let of = |what: &str, reader: &str| number(&format!("SELECT {what} AS n FROM judged WHERE reader = '{reader}'"));
    // What the data's own record says of them.
    assert_eq!(of("count(*)", "mmlu_pro"), 1500.0);
    assert_eq!(of("avg(reward)", "mmlu_pro"), 0.362);
    assert_eq!(of("sum(reward)", "mmlu_pro_first"), 541.0);
    assert_eq!(of("sum(CAST(extracted IS NULL AS BIGINT))", "mmlu_pro"), 74.0);
    assert_eq!(of("sum(CAST(extracted IS NULL AS BIGINT))", "mmlu_pro_first"), 92.0);
    assert_eq!(of("sum(CAST(extracted IS DISTINCT FROM extract_chain AS BIGINT))", "mmlu_pro"), 0.0);
    assert_eq!(of("sum(CAST(extracted IS DISTINCT FROM extract_level1 AS BIGINT))", "mmlu_pro_first"), 0.0);
}

/// One model's programs and the own solutions of HumanEval; the whole pipeline takes minutes.
#[test]
fn programs_get_the_verdicts_that_were_recorded() {
    if data("source_responses/humaneval.parquet").is_none() || data("code_benchmarks/humaneval.jsonl.gz").is_none() {
        return;
    }
    let home = Home::new();
    let run = fuseline(&home, &["run", CODE, "--target", "ran_humaneval", "--target", "judged_humaneval"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let number = |query: &str| number_of(&home, CODE, query);
    assert_eq!(number("SELECT count(*) AS n FROM ran_humaneval WHERE correct"), 164.0);
    assert_eq!(number("SELECT count(*) AS n FROM judged_humaneval"), 393.0);
    assert_eq!(number("SELECT count(*) AS n FROM judged_humaneval WHERE extracted = recorded_program"), 393.0);
    let agreement = number("SELECT avg(CAST(correct = (recorded_score = 1) AS DOUBLE)) AS n FROM judged_humaneval");
    assert!(agreement >= 0.99, "{agreement}");
}
