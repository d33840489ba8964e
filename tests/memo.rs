//! Rows are paid for once: what a run generates after an edit, a kill, a
//! renaming or beside another run, counted, and the bytes that come out.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use crate::harness::{Done, Home};

/// A model whose answers cost next to nothing, and prompts out of a file.
const MODEL: &str = "\
seed: 3
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 16}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: byte_level_bpe, vocab_size: 290, chat: chatml}}
  blank:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: llama, hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, max_positions: 128}
";

/// A home in which the model is made, shared by all tests that run at the same
/// time. Each of them samples with a seed of its own, so that they share no rows.
fn modelled() -> Arc<Home> {
    static SHARED: Mutex<Weak<Home>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(home) = shared.upgrade() {
        return home;
    }
    let home = Arc::new(Home::new());
    home.write("model.yaml", MODEL);
    home.ok(&["run", "model.yaml"]);
    *shared = Arc::downgrade(&home);
    home
}

/// One test's pipeline in the shared home.
struct Study {
    home: Arc<Home>,
    name: &'static str,
    seed: u32,
}

impl Study {
    fn new(name: &'static str, seed: u32) -> Self {
        Self { home: modelled(), name, seed }
    }

    /// Writes the pipeline: which prompts, and how they are sampled and graded.
    fn write(&self, prompts: impl IntoIterator<Item = u32>, sampling: &str, stage: &str, method: &str) -> String {
        self.write_as(self.name, prompts, sampling, stage, method)
    }

    fn write_as(
        &self,
        name: &str,
        prompts: impl IntoIterator<Item = u32>,
        sampling: &str,
        stage: &str,
        method: &str,
    ) -> String {
        let prompts: String = prompts
            .into_iter()
            .map(|number| {
                format!("{{\"prompt\": \"say {number}\", \"prompt_id\": \"p{number}\", \"reference\": \"{number}\"}}\n")
            })
            .collect();
        self.home.write(&format!("{name}.jsonl"), prompts);
        let seed = self.seed;
        let text = format!(
            "name: {name}\n{MODEL}  prompts: {{op: load, with: {{path: {name}.jsonl, as: prompt}}}}\n  \
             {stage}: {{op: sample, seed: {seed}, inputs: {{prompts: prompts, model: blank}}, with: {{label: blank, {sampling}}}}}\n  \
             graded: {{op: verify, inputs: {{responses: {stage}}}, with: {{method: {method}}}}}\n"
        );
        let file = format!("{name}.yaml");
        self.home.write(&file, text);
        file
    }

    /// Runs a pipeline; gives the rows that `answers` took from the memo and those that it generated.
    fn run(&self, file: &str, more: &[&str]) -> (u64, u64) {
        self.run_of(file, "answers", more)
    }

    /// The same for another stage.
    fn run_of(&self, file: &str, stage: &str, more: &[&str]) -> (u64, u64) {
        let arguments: Vec<&str> = ["run", file, "--json"].iter().chain(more).copied().collect();
        counts(&self.home.ok(&arguments), stage)
    }

    /// The answers as text, in their order.
    fn answers(&self, file: &str, stage: &str) -> Vec<Value> {
        let query = format!("SELECT prompt_id, sample, text, finish_reason, n_tokens, seed FROM {stage}");
        let text = self.home.ok(&["sql", file, &query, "--format", "json"]);
        serde_json::from_str(&text).expect("a list of rows")
    }

    /// Computes every row anew and gives the same bytes: the artifact stays the one that was assembled.
    fn equals_a_cold_run(&self, file: &str, stage: &str) {
        let path = || self.home.ok(&["path", file, stage]);
        let assembled = path();
        let (reused, fresh) = self.run_of(file, stage, &["--force", stage]);
        assert!(reused == 0 && fresh > 0, "a forced run takes nothing from the memo");
        assert_eq!(path(), assembled);
    }
}

/// Reused and fresh rows of a stage, out of a run's events.
fn counts(events: &str, stage: &str) -> (u64, u64) {
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("events are JSON"));
    let ended = events.find(|event| event["event"] == "stage_ended" && event["stage"]["stage"] == stage);
    let memo = ended.map_or(Value::Null, |event| event["memo"].clone());
    let count = |name: &str| memo[name].as_u64().unwrap_or(0);
    (count("reused"), count("fresh"))
}

#[test]
fn ask_6_one_more_prompt_costs_its_generations_and_no_other() {
    let study = Study::new("grown", 101);
    let sampling = "n: 1, max_tokens: 6";
    let file = study.write(0..10, sampling, "answers", "exact");
    assert_eq!(study.run(&file, &[]), (0, 10));
    let before = study.answers(&file, "answers");
    study.write((0..4).chain([77]).chain(4..10), sampling, "answers", "exact");
    assert_eq!(study.run(&file, &[]), (10, 1));
    let mut after = study.answers(&file, "answers");
    assert_eq!(after.remove(4)["prompt_id"], "p77");
    assert_eq!(after, before);
    study.equals_a_cold_run(&file, "answers");
}

#[test]
fn ask_6_a_fifth_sample_costs_a_quarter_of_four_and_another_temperature_all() {
    let study = Study::new("wider", 102);
    let file = study.write(0..8, "n: 4, max_tokens: 6", "answers", "exact");
    assert_eq!(study.run(&file, &[]), (0, 32));
    assert_eq!(study.run(&file, &["--set", "answers.n=5"]), (32, 8));
    study.write(0..8, "n: 5, max_tokens: 6", "answers", "exact");
    study.equals_a_cold_run(&file, "answers");
    assert_eq!(study.run(&file, &["--set", "answers.temperature=0.9"]), (0, 40));
    assert_eq!(study.run(&file, &["--set", "answers.n=3", "--set", "answers.temperature=0.9"]), (24, 0));
}

#[test]
fn log_probabilities_are_computed_once_and_do_not_depend_on_the_others() {
    let study = Study::new("scored", 109);
    let file = study.write(0..12, "n: 2, max_tokens: 20, temperature: 1.5", "answers", "exact");
    let text = std::fs::read_to_string(study.home.path(&file)).expect("read");
    let scored = "  scored: {op: logprobs, inputs: {texts: answers, model: blank}, with: {label: blank}}\n";
    study.home.write(&file, text + scored);
    let (reused, first) = study.run_of(&file, "scored", &[]);
    assert!(reused == 0 && first > 20, "almost all of 24 answers differ: {first}");
    let (reused, more) = study.run_of(&file, "scored", &["--set", "answers.n=5"]);
    assert!(reused == first && more > 30, "{reused}, {more}");
    assert_eq!(
        study.run_of(&file, "scored", &["--set", "answers.n=5", "--set", "scored.per_token=true"]),
        (first + more, 0)
    );
    // Computed with other texts about, the numbers are the same to the last bit.
    study.home.write(&file, std::fs::read_to_string(study.home.path(&file)).expect("read").replace("n: 2", "n: 5"));
    study.equals_a_cold_run(&file, "scored");
}

#[test]
fn ask_8_another_verifier_generates_nothing() {
    let study = Study::new("graded_again", 103);
    let file = study.write(0..4, "n: 2, max_tokens: 6", "answers", "exact");
    assert_eq!(study.run(&file, &[]), (0, 8));
    study.write(0..4, "n: 2, max_tokens: 6", "answers", "numeric");
    assert_eq!(study.home.ran(&file, &[]), ["graded"]);
}

#[test]
fn stages_and_pipelines_of_other_names_share_rows() {
    let study = Study::new("shared", 104);
    let file = study.write(0..6, "n: 2, max_tokens: 6", "answers", "exact");
    assert_eq!(study.run(&file, &[]), (0, 12));
    let other = study.write_as("sharing", 3..9, "n: 2, max_tokens: 6", "replies", "exact");
    assert_eq!(study.run_of(&other, "replies", &[]), (6, 6));
    let mut theirs = study.answers(&file, "answers");
    let ours = study.answers(&other, "replies");
    assert_eq!(theirs.split_off(6), ours[..6]);
}

#[test]
fn ask_5_a_killed_stage_goes_on_where_it_was() {
    let study = Study::new("killed", 105);
    let file = study.write(0..40, "n: 40, max_tokens: 60", "answers", "exact");
    let told = interrupted(&study, &file, |mut run| {
        run.kill().expect("the run can be killed");
        run.wait().expect("the run ends");
    });
    let (reused, fresh) = study.run(&file, &[]);
    assert_eq!(reused + fresh, 1600);
    assert!(reused >= told, "{told} rows were told to be done, {reused} were found");
    study.equals_a_cold_run(&file, "answers");
}

#[test]
fn ask_7_an_interrupted_stage_leaves_whole_rows_only() {
    let study = Study::new("stopped", 106);
    let file = study.write(0..40, "n: 40, max_tokens: 60", "answers", "exact");
    let told = interrupted(&study, &file, |run| {
        let sent = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status();
        assert!(sent.expect("kill starts").success());
        assert_eq!(Done::of(run.wait_with_output().expect("the run ends")).code, Some(130));
    });
    let (reused, fresh) = study.run(&file, &[]);
    assert_eq!(reused + fresh, 1600);
    assert!(reused >= told && fresh > 0, "{told}, {reused}, {fresh}");
    study.equals_a_cold_run(&file, "answers");
}

/// Starts a run, ends it when some rows are done, and says how many were told to be.
fn interrupted(study: &Study, file: &str, end: impl FnOnce(Child)) -> u64 {
    let mut command = study.home.command(&["run", file, "--json"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let events = BufReader::new(run.stdout.take().expect("it is piped"));
    for line in events.lines() {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("events are JSON");
        let done = event["progress"]["done"].as_u64().filter(|_| event["stage"]["stage"] == "answers").unwrap_or(0);
        if done > 0 {
            assert!(done < 1600, "the stage is too short to be interrupted");
            end(run);
            return done;
        }
    }
    panic!("no row was ever done: {:?}", run.wait_with_output());
}

#[test]
fn two_runs_at_once_share_what_they_can_and_agree() {
    let study = Study::new("first_of_two", 107);
    let sampling = "n: 8, max_tokens: 40";
    let one = study.write(0..20, sampling, "answers", "exact");
    let two = study.write_as("second_of_two", 10..30, sampling, "answers", "exact");
    let start = |file: &str| {
        let mut command = study.home.command(&["run", file, "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let fresh: u64 = [start(&one), start(&two)]
        .into_iter()
        .map(|run| {
            let done = Done::of(run.wait_with_output().expect("the run ends"));
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            let (reused, fresh) = counts(&done.stdout, "answers");
            assert_eq!(reused + fresh, 160);
            fresh
        })
        .sum();
    assert!((240..=320).contains(&fresh), "{fresh}");
    assert_eq!(study.answers(&one, "answers")[80..], study.answers(&two, "answers")[..80]);
    let all = study.write_as("both", 0..30, sampling, "answers", "exact");
    assert_eq!(study.run(&all, &[]), (240, 0));
    study.equals_a_cold_run(&all, "answers");
}

#[test]
fn ask_7_a_damaged_row_is_computed_again_and_told() {
    // A home of its own: it changes the store.
    let home = Arc::new(Home::new());
    let study = Study { home: home.clone(), name: "rotten", seed: 1 };
    let file = study.write(0..5, "n: 2, max_tokens: 6", "answers", "exact");
    assert_eq!(study.run(&file, &[]), (0, 10));
    let answers = study.answers(&file, "answers");
    let folder = home.path("store/memo/sample");
    let segments = std::fs::read_dir(folder).expect("the memo").map(|entry| entry.expect("an entry").path());
    let segment = segments.filter(|path| path.extension().is_some_and(|kind| kind == "rows")).last().expect("one");
    let mut bytes = std::fs::read(&segment).expect("read");
    let last = bytes.len() - 3;
    bytes[last] ^= 0x20;
    std::fs::write(&segment, bytes).expect("written");
    // Another stage's parameters, so that the stage runs, with the same rows.
    study.write(0..6, "n: 2, max_tokens: 6", "answers", "exact");
    let events = home.ok(&["run", &file, "--json"]);
    assert_eq!(counts(&events, "answers"), (9, 3));
    assert!(events.contains("9 of 12 rows are remembered"), "{events}");
    assert!(events.contains("1 remembered rows are damaged and are computed again"), "{events}");
    assert_eq!(study.answers(&file, "answers")[..10], answers);
    study.write(0..5, "n: 2, max_tokens: 6", "answers", "exact");
    assert_eq!(study.run(&file, &["--set", "answers.label=again"]), (10, 0), "what was put in its place answers");
}

#[test]
fn memo_off_takes_and_leaves_nothing_and_the_ledger_counts() {
    let study = Study::new("switched_off", 108);
    let file = study.write(0..4, "n: 2, max_tokens: 6", "answers", "exact");
    let text = std::fs::read_to_string(study.home.path(&file)).expect("read");
    let off = text.replace("{op: sample,", "{op: sample, memo: off,");
    assert_ne!(off, text);
    study.home.write("off.yaml", off.replace("name: switched_off", "name: off"));
    assert_eq!(study.run("off.yaml", &[]), (0, 8));
    // The same key: a hit, whatever the memo holds.
    assert_eq!(study.home.ran(&file, &[]), [""; 0]);
    let label = |label: &str| format!("answers.label={label}");
    assert_eq!(study.run(&file, &["--set", &label("on")]), (0, 8), "nothing was left by the run without it");
    assert_eq!(study.run("off.yaml", &["--set", &label("off")]), (0, 8), "nothing is taken by a run without it");
    assert_eq!(study.run(&file, &["--set", &label("on_again")]), (8, 0));
    let query = "SELECT rows_reused, rows_fresh FROM system.stages \
                 WHERE pipeline = 'switched_off' AND outcome = 'ran' AND stage = 'answers' ORDER BY started";
    let rows: Value = serde_json::from_str(&study.home.ok(&["sql", &file, query, "--format", "json"])).expect("JSON");
    assert_eq!(rows, serde_json::json!([{"rows_reused": 0, "rows_fresh": 8}, {"rows_reused": 8, "rows_fresh": 0}]));
}

#[test]
fn ask_7_rows_that_fail_are_counted_named_and_never_remembered() {
    let study = Study::new("failing", 131);
    let file = study.write(0..4, "n: 2, max_tokens: 4", "answers", "exact");
    // Two prompts that are longer than the model's 128 positions.
    let path = study.home.path("failing.jsonl");
    let mut prompts = std::fs::read_to_string(&path).expect("prompts");
    for number in [8, 9] {
        let long = "very long ".repeat(200);
        prompts += &format!("{{\"prompt\": \"{long}{number}\", \"prompt_id\": \"p{number}\", \"reference\": \"1\"}}\n");
    }
    std::fs::write(&path, prompts).expect("written");
    let with = |parameters: &[&str]| {
        let sets: Vec<&str> = parameters.iter().flat_map(|set| ["--set", set]).collect();
        study.home.fuseline(&[&["run", &file, "--json"], sets.as_slice()].concat())
    };
    let error = |done: &Done| -> Value {
        let mut events = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        events.rfind(|event| event["outcome"]["outcome"] == "failed").expect("it failed")["outcome"].clone()
    };
    let failed = with(&[]);
    assert_eq!((failed.code, counts(&failed.stdout, "answers")), (Some(1), (0, 8)), "the good rows are computed");
    let said = error(&failed);
    let message = said["message"].as_str().expect("a text");
    assert!(message.starts_with("4 of 12 rows failed: prompt \"p8\": it has "), "{message}");
    assert!(message.contains(" tokens and the model takes 128 with its answer; prompt \"p9\": "), "{message}");
    assert!(said["hint"].as_str().is_some_and(|hint| hint.contains("max_failed_rows: 4;")), "{said}");
    // They are tried again, and what was paid for is not paid for again.
    let few = with(&["answers.max_failed_rows=3"]);
    assert_eq!((few.code, counts(&few.stdout, "answers")), (Some(1), (8, 0)));
    assert!(error(&few)["message"].as_str().is_some_and(|said| said.starts_with("4 of 12 rows failed, 3 may: ")));
    let some = with(&["answers.max_failed_rows=4"]);
    assert_eq!((some.code, counts(&some.stdout, "answers")), (Some(0), (8, 0)), "{}", some.stderr);
    let ask = |query: &str| -> Value {
        let sql = ["sql", &file, query, "--format", "json", "--set", "answers.max_failed_rows=4"];
        serde_json::from_str(&study.home.ok(&sql)).expect("rows")
    };
    let left: Vec<(String, u64)> = ask("SELECT prompt_id, sample, reason FROM answers.failed")
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            assert!(row["reason"].as_str().is_some_and(|reason| reason.starts_with("it has ")), "{row}");
            (row["prompt_id"].as_str().expect("an id").to_owned(), row["sample"].as_u64().expect("a number"))
        })
        .collect();
    assert_eq!(left, [("p8".into(), 0), ("p8".into(), 1), ("p9".into(), 0), ("p9".into(), 1)]);
    assert_eq!(ask("SELECT count(*) AS n FROM answers")[0]["n"], 8);
    // A table that rests on the rest says so.
    let mut text = std::fs::read_to_string(study.home.path(&file)).expect("the pipeline");
    text += "tables:\n  main: {sql: \"SELECT source, count(*) AS n FROM graded GROUP BY source ORDER BY source\"}\n";
    study.home.write(&file, text);
    let table = study.home.fuseline(&["run", &file, "--set", "answers.max_failed_rows=4"]);
    assert!(
        table.stdout.ends_with("\n\nnote: 4 rows of answers failed and are left out (failed)\n"),
        "{}",
        table.stdout
    );

    // The same of log-probabilities.
    let text = MODEL.replace("seed: 3\n", "name: scoring\nseed: 3\n")
        + "  texts: {op: load, with: {path: texts.jsonl, as: example}}\n  \
           scored: {op: logprobs, inputs: {texts: texts, model: blank}, with: {label: blank}}\n";
    study.home.write("scoring.yaml", text);
    let line = |id: &str, answer: &str| {
        format!(
            "{{\"prompt_id\": \"{id}\", \"messages\": [{{\"role\": \"user\", \"content\": \"{id}?\"}}], \"completion\": \"{answer}\"}}\n"
        )
    };
    study.home.write("texts.jsonl", line("a", "yes") + &line("b", &"no ".repeat(300)) + &line("c", "maybe"));
    let done = study.home.fuseline(&["run", "scoring.yaml", "--json"]);
    assert_eq!((done.code, counts(&done.stdout, "scored")), (Some(1), (0, 2)));
    let message = error(&done)["message"].as_str().expect("a text").to_owned();
    assert!(
        message.starts_with("1 of 3 rows failed: text ") && message.contains(" tokens with its messages"),
        "{message}"
    );
    let set = ["--set", "scored.max_failed_rows=1"];
    let done = study.home.fuseline(&[&["run", "scoring.yaml", "--json"], set.as_slice()].concat());
    assert_eq!((done.code, counts(&done.stdout, "scored")), (Some(0), (2, 0)), "{}", done.stderr);
    let query = ["sql", "scoring.yaml", "SELECT prompt_id FROM scored.failed", "--format", "csv"];
    assert_eq!(study.home.ok(&[query.as_slice(), set.as_slice()].concat()), "prompt_id\r\nb\r\n");
}
