//! Killed runs: at any moment, at most the unfinished stages are lost, and the
//! next run gives the same bytes.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use fuseline_engine::store::fault::POINTS;

use serde_json::Value;

use crate::harness::{Done, Home, LONG};

/// The tables of the uninterrupted run as CSV, made once for tests that run at the same time.
fn uninterrupted() -> Arc<String> {
    static SHARED: Mutex<Weak<String>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tables) = shared.upgrade() {
        return tables;
    }
    let home = Home::new();
    home.write("long.yaml", LONG);
    home.ok(&["run", "long.yaml"]);
    let tables = Arc::new(tables(&home));
    *shared = Arc::downgrade(&tables);
    tables
}

fn tables(home: &Home) -> String {
    home.ok(&["table", "long.yaml", "--format", "csv"])
}

/// What `ls` says of a stage.
fn state(home: &Home, pipeline: &str, stage: &str) -> String {
    let listed: serde_json::Value =
        serde_json::from_str(&home.ok(&["ls", pipeline, "--json"])).expect("ls prints JSON");
    let row = listed.as_array().expect("a list").iter().find(|row| row["stage"] == stage);
    row.expect("the stage is listed")["state"].as_str().expect("a state").to_owned()
}

fn killed_during(stage: &str) {
    let expected = uninterrupted();
    let home = Home::new();
    home.write("long.yaml", LONG);
    let mut run = home.start_until("long.yaml", stage);
    run.kill().expect("the run can be killed");
    run.wait().expect("the run ends");
    home.wait_for_workers();
    assert_eq!(state(&home, "long.yaml", stage), "to run");
    assert_eq!(state(&home, "long.yaml", "lessons"), "cached");
    let again = home.ran("long.yaml", &[]);
    assert!(again.contains(&stage.to_owned()) && !again.contains(&"lessons".to_owned()), "{again:?}");
    assert_eq!(tables(&home), *expected);
}

#[test]
fn killed_while_training() {
    killed_during("tuned");
}

#[test]
fn killed_while_sampling() {
    killed_during("answers");
}

#[test]
fn interrupted_while_training() {
    let expected = uninterrupted();
    let home = Home::new();
    home.write("long.yaml", LONG);
    let run = home.start_until("long.yaml", "tuned");
    let sent = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill starts");
    assert!(sent.success());
    let done = Done::of(run.wait_with_output().expect("the run ends"));
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("finished stages are kept"), "{}", done.stderr);
    assert!(!done.stderr.contains("panic"), "{}", done.stderr);
    assert_eq!(home.workers(), [""; 0], "a worker outlived the run");
    assert_eq!(state(&home, "long.yaml", "tuned"), "to run");
    home.ok(&["run", "long.yaml"]);
    assert_eq!(tables(&home), *expected);
}

/// A stage of this process, then one of a worker.
pub const TWO: &str = "\
name: two
seed: 1
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 8}}}
  vocabulary:
    op: train_tokenizer
    inputs: {texts: lessons.examples}
    with: {kind: unigram, vocab_size: 290, chat: gemma}
    retry: {times: 0}
";

/// The lessons and the vocabulary.
pub fn results(home: &Home) -> (String, Vec<u8>) {
    let lessons = home.ok(&["sql", "two.yaml", "SELECT * FROM lessons.examples", "--format", "json"]);
    let folder = home.ok(&["path", "two.yaml", "vocabulary"]);
    let vocabulary = std::fs::read(home.path(folder.trim()).join("tokenizer.json")).expect("a tokenizer");
    (lessons, vocabulary)
}

#[test]
fn killed_at_every_point_of_publication() {
    let whole = Home::new();
    whole.write("two.yaml", TWO);
    whole.ok(&["run", "two.yaml"]);
    let expected = results(&whole);
    for point in POINTS {
        let home = Home::new();
        home.write("two.yaml", TWO);
        let fault = format!("{point}:kill");
        // The driver dies of it in its own first stage.
        let output = home.command(&["run", "two.yaml"]).env("FUSELINE_FAULT", &fault).output().expect("starts");
        assert_eq!(output.status.code(), None, "{point}: the driver is killed");
        home.ok(&["run", "two.yaml", "--target", "lessons"]);
        // The worker dies of it and the driver tells, or finds the result complete;
        // the last point is passed by the driver alone.
        let output = home.command(&["run", "two.yaml"]).env("FUSELINE_FAULT", &fault).output().expect("starts");
        let done = Done::of(output);
        let (code, told) = match point {
            "work-removed" => (None, false),
            "record-linked" => (Some(0), false),
            _ => (Some(3), true),
        };
        assert_eq!((done.code, done.stderr.contains("was killed")), (code, told), "{point}: {}", done.stderr);
        home.ok(&["run", "two.yaml"]);
        assert_eq!(results(&home), expected, "{point}");
        let left: Vec<_> = std::fs::read_dir(home.path("store/work")).expect("the store has it").collect();
        assert!(left.is_empty(), "{point}: {left:?}");
    }
}

/// Sampling, training, merging in about a second.
pub const SMALL: &str = include_str!("tiny/crash.yaml");

/// How many kills.
fn kills(by_default: u32) -> u32 {
    std::env::var("FUSELINE_KILLS").map_or(by_default, |text| text.parse().expect("FUSELINE_KILLS is a number"))
}

/// Numbers in 0..1 from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Starts a run in a process group of its own.
fn start(home: &Home) -> Child {
    use std::os::unix::process::CommandExt;
    let mut command = home.command(&["run", "small.yaml"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("the program starts")
}

/// Kills runs at random instants until so many have died, `at_once` of them on
/// one store; whenever a run gets through, and at the end, the result is held
/// against the undisturbed one and a new store begun.
fn kill_at_random(seed: u64, kills: u32, at_once: usize) {
    let table = |home: &Home| home.ok(&["table", "small.yaml", "--format", "csv"]);
    let fresh = || {
        let home = Home::new();
        home.write("small.yaml", SMALL);
        home
    };
    let undisturbed = fresh();
    let clock = Instant::now();
    undisturbed.ok(&["run", "small.yaml"]);
    let (whole, expected) = (clock.elapsed(), table(&undisturbed));
    let mut random = Random(seed);
    let (mut home, mut killed, mut stores) = (fresh(), 0, 0);
    while killed < kills {
        let mut runs: Vec<Child> = (0..at_once).map(|_| start(&home)).collect();
        std::thread::sleep(whole.mul_f64(random.next() * 0.8));
        // All of them, or all but one that goes on beside.
        let spared = usize::from(at_once > 1 && random.next() < 0.5);
        for run in runs.iter_mut().skip(spared) {
            // The driver alone, whose workers then find themselves alone; or a worker, too.
            if random.next() < 0.3 {
                home.kill_a_worker(random.next());
            }
            run.kill().expect("it can be killed");
        }
        let mut through = false;
        for mut run in runs {
            let status = run.wait().expect("the run ends");
            killed += u32::from(status.signal() == Some(9));
            through |= status.success();
        }
        home.wait_for_workers();
        if through || killed >= kills {
            home.ok(&["run", "small.yaml"]);
            assert_eq!(table(&home), expected, "seed {seed}, store {stores}, after {killed} kills");
            assert_left_clean(&home);
            (home, stores) = (fresh(), stores + 1);
        }
    }
    println!("seed {seed}: {killed} kills, {stores} stores");
}

/// Neither `fsck` nor `gc` finds anything to complain about, and nothing is needed again.
fn assert_left_clean(home: &Home) {
    let checked = home.fuseline(&["fsck"]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let collected: Value =
        serde_json::from_str(&home.ok(&["gc", "--yes", "--min-age", "0", "--keep-runs", "1", "--json"])).expect("JSON");
    assert_eq!(collected["records"], serde_json::json!([]), "the last run's results are all that there is");
    for folder in ["work", "leases", "locks", "quarantine"] {
        let left: Vec<_> = std::fs::read_dir(home.path("store").join(folder)).expect("a folder").flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    assert_eq!(home.ran("small.yaml", &[]), [""; 0]);
}

#[test]
fn ask_30_killed_at_random_instants_the_bytes_are_those_of_an_undisturbed_run() {
    kill_at_random(1, kills(6), 1);
}

#[test]
fn ask_28_killed_at_random_instants_while_two_share_the_store() {
    kill_at_random(2, kills(6), 2);
}
