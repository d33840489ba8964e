//! Trainings that are killed go on from their last checkpoint and give the
//! bytes of one that was never stopped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use crate::harness::Home;

const TRAINING: &str = include_str!("tiny/training.yaml");
const MEMORY: &str = include_str!("tiny/memory.yaml");
const OFTEN: &str = "every={steps: 7}";

/// What a query gives, as rows.
fn rows(home: &Home, pipeline: &str, query: &str) -> Vec<Value> {
    let text = home.ok(&["sql", pipeline, query, "--format", "json"]);
    serde_json::from_str::<Value>(&text).expect("JSON").as_array().expect("rows").clone()
}

/// Key and artifacts of every output.
fn artifacts(home: &Home, pipeline: &str) -> Vec<Value> {
    rows(home, pipeline, "SELECT instance, output, key, artifact FROM system.artifacts ORDER BY instance, output")
}

/// The artifacts of trainings that were never stopped and never kept their state.
fn unbroken() -> Arc<Vec<Value>> {
    static SHARED: Mutex<Weak<Vec<Value>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(artifacts) = shared.upgrade() {
        return artifacts;
    }
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    home.ok(&["run", "training.yaml"]);
    assert!(states(&home).is_empty());
    let artifacts = Arc::new(artifacts(&home, "training.yaml"));
    *shared = Arc::downgrade(&artifacts);
    artifacts
}

/// The states of trainings that are not done, sorted.
fn states(home: &Home) -> Vec<PathBuf> {
    let children = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let keys = children(&home.path("store/work"));
    let found = keys.iter().flat_map(|key| children(&key.join("checkpoint")));
    let mut found: Vec<PathBuf> = found.filter(|path| path.to_string_lossy().ends_with(".state")).collect();
    found.sort();
    found
}

/// Kills a run in the middle of a training, some time after it first kept its state.
fn kill_in(home: &Home, pipeline: &str, more: &[&str], stage: &str, after: std::time::Duration) {
    let arguments = [&["--target", stage], more].concat();
    let mut run = home.start_until_with(pipeline, stage, &arguments);
    while states(home).len() < 2 {
        assert!(run.try_wait().expect("it can be asked").is_none(), "{stage} ended before it kept its state");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(after);
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
    home.wait_for_workers();
}

/// The steps from which attempts at a stage went on.
fn resumed(home: &Home, pipeline: &str, stage: &str) -> Vec<u64> {
    let query = format!("SELECT resumed_at_step FROM system.attempts WHERE stage = '{stage}' AND class IS NULL");
    rows(home, pipeline, &query).iter().filter_map(|row| row["resumed_at_step"].as_u64()).collect()
}

fn killed_and_resumed(stage: &str, after_ms: u64) {
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    let more = ["--set", OFTEN];
    kill_in(&home, "training.yaml", &more, stage, std::time::Duration::from_millis(after_ms));
    let kept = states(&home);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let done = home.fuseline(&["run", "training.yaml", "--set", OFTEN]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("{stage}: went on from the checkpoint after update")), "{}", done.stderr);
    // The key is the same whether the state is kept or not, and so are the bytes.
    assert_eq!(artifacts(&home, "training.yaml"), *unbroken());
    let steps = resumed(&home, "training.yaml", stage);
    assert!(matches!(steps[..], [step] if step > 0 && step % 7 == 0), "{steps:?}");
    assert!(states(&home).is_empty(), "nothing is left of it");
}

#[test]
fn ask_16_killed_sft_gives_the_same_bytes() {
    killed_and_resumed("sft", 130);
}

#[test]
fn ask_16_killed_dpo_gives_the_same_bytes() {
    killed_and_resumed("dpo", 40);
}

#[test]
fn ask_16_killed_wrpo_gives_the_same_bytes() {
    killed_and_resumed("wrpo", 0);
}

#[test]
fn ask_16_a_training_that_is_killed_twice_gives_the_same_bytes() {
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    for _ in 0..2 {
        kill_in(&home, "training.yaml", &["--set", OFTEN], "sft", std::time::Duration::from_millis(20));
    }
    home.ok(&["run", "training.yaml", "--set", OFTEN]);
    assert_eq!(artifacts(&home, "training.yaml"), *unbroken());
}

#[test]
fn ask_16_damaged_checkpoints_are_passed_over() {
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    kill_in(&home, "training.yaml", &["--set", OFTEN], "sft", std::time::Duration::ZERO);
    let [first, last] = &states(&home)[..] else { panic!("two states are kept") };
    let mut bytes = std::fs::read(last).expect("a state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(last, &bytes).expect("written");
    // Its run is killed before the next state, so that the damage is met twice.
    let done = home.fuseline(&["run", "training.yaml", "--target", "sft", "--set", "every={steps: 100000}"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    assert!(done.stderr.contains(&format!("{} is not used: it is damaged", name(last))), "{}", done.stderr);
    let step: u64 = name(first).trim_start_matches("step-").trim_end_matches(".state").parse().expect("a number");
    assert_eq!(resumed(&home, "training.yaml", "sft"), [step]);
    home.ok(&["run", "training.yaml"]);
    assert_eq!(artifacts(&home, "training.yaml"), *unbroken());
}

#[test]
fn ask_16_checkpoints_of_another_key_are_refused() {
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    let other = ["--set", OFTEN, "--set", "sft.train.learning_rate=2.0e-3"];
    kill_in(&home, "training.yaml", &other, "sft", std::time::Duration::ZERO);
    let theirs = states(&home)[0].parent().expect("a folder").to_owned();
    let key = unbroken().iter().find(|row| row["instance"] == "sft").expect("it is there")["key"].clone();
    let ours = home.path("store/work").join(key.as_str().expect("a text"));
    std::fs::create_dir_all(&ours).expect("made");
    std::fs::rename(theirs, ours.join("checkpoint")).expect("moved");
    let done = home.fuseline(&["run", "training.yaml"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("is not used: it is of another training"), "{}", done.stderr);
    assert_eq!(artifacts(&home, "training.yaml"), *unbroken());
}

#[test]
fn a_forced_training_begins_anew() {
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    kill_in(&home, "training.yaml", &["--set", OFTEN], "sft", std::time::Duration::ZERO);
    home.ok(&["run", "training.yaml", "--target", "sft", "--force", "sft", "--set", OFTEN]);
    assert_eq!(resumed(&home, "training.yaml", "sft"), [0; 0]);
}

#[test]
fn an_interrupted_training_keeps_the_state_of_its_last_step() {
    let home = Home::new();
    home.write("training.yaml", TRAINING);
    // By time, and a time that does not come.
    let often = ["--set", "every={seconds: 3600}"];
    let run = home.start_until_with("training.yaml", "sft", &[&["--target", "sft"], &often[..]].concat());
    let sent = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill starts");
    assert!(sent.success());
    assert_eq!(run.wait_with_output().expect("it ends").status.code(), Some(130));
    assert_eq!(states(&home).len(), 1);
    home.ok(&["run", "training.yaml", "--target", "sft"]);
    assert_eq!(resumed(&home, "training.yaml", "sft").len(), 1);
    home.ok(&["run", "training.yaml"]);
    assert_eq!(artifacts(&home, "training.yaml"), *unbroken());
}

#[test]
fn ask_16_a_resumed_training_needs_no_more_memory() {
    let peak = |home: &Home| {
        let query = "SELECT peak_bytes FROM system.attempts WHERE stage = 'tuned' AND class IS NULL";
        rows(home, "memory.yaml", query)[0]["peak_bytes"].as_u64().expect("a number") as f64
    };
    let (whole, broken) = (Home::new(), Home::new());
    for home in [&whole, &broken] {
        home.write("memory.yaml", MEMORY);
    }
    whole.ok(&["run", "memory.yaml"]);
    kill_in(&broken, "memory.yaml", &[], "tuned", std::time::Duration::ZERO);
    broken.ok(&["run", "memory.yaml"]);
    assert_eq!(resumed(&broken, "memory.yaml", "tuned").len(), 1);
    assert_eq!(artifacts(&broken, "memory.yaml"), artifacts(&whole, "memory.yaml"));
    // One of the state's three buffers is 29 MB, a tenth of the whole; pages come and go by a few of a hundred.
    let (whole, resumed) = (peak(&whole), peak(&broken));
    assert!(resumed <= 1.05 * whole, "{resumed} bytes where an unbroken training took {whole}");
}

#[test]
fn ask_15_threads_do_not_change_a_training() {
    let result = |threads: usize| {
        let home = Home::new();
        let wide = MEMORY.replace("    op: sft\n", &format!("    op: sft\n    resources: {{cpus: {threads}}}\n"));
        home.write("memory.yaml", wide.replace("steps: 40", "steps: 6"));
        home.ok(&["run", "memory.yaml"]);
        artifacts(&home, "memory.yaml")
    };
    assert_eq!(result(1), result(2));
}
