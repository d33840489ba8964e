//! Toy pipelines: run, change one thing, assert exactly what ran.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};
use fuseline_contract::operator::{Operator, Part};
use fuseline_contract::value::Value;
use fuseline_contract::{
    Class, Entry, Execute, ExternalFile, Input, Kind, Output, Ports, Progress, RowCounts, RowFunction, RowKey, Run,
    Secret, Table, Traits,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::stage::{LONGEST_PAUSE, pause};
use super::*;
use crate::decide::{Decision, decide, decide_with};
use crate::plan::{Bound, Resources, Retry, Source};
use crate::why::Code;
use crate::{ledger, worker};

mod asked;
mod footnotes;
mod property;
mod reasons;
mod rot;
mod rows;
mod secret;
mod sharing;
mod staged;

/// The one configuration of all toys; each reads what it needs.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    n: i64,
    by: i64,
    note: String,
    path: String,
    workers: i64,
    key: Option<Secret>,
}

/// Declares a toy operator.
macro_rules! toy {
    ($type:ident, $name:literal, $traits:expr, $inputs:expr, $output:expr, $run:expr) => {
        struct $type;
        impl Operator for $type {
            const NAME: &'static str = $name;
            const VERSION: u32 = 1;
            const TRAITS: Traits = $traits;
            const MANUAL: &'static str = "A toy.";
            const EXAMPLE: &'static str = "";
            const EXECUTION: &'static [&'static str] = &["workers"];
            const SECRET: &'static [&'static str] = &["key"];
            type Config = Config;
            fn ports(_: &Config) -> Ports {
                Ports { inputs: $inputs, outputs: vec![Output::new("out", $output, "")] }
            }
            fn files(config: &Config) -> Vec<ExternalFile> {
                let file = || ExternalFile::new("path", &config.path);
                (!config.path.is_empty()).then(file).into_iter().collect()
            }
        }
        impl Execute for $type {
            fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
                #[allow(clippy::redundant_closure_call)]
                ($run)(config, run)
            }
        }
    };
}

const TABLE: Kind = Kind::AnyTable;
const WORKER: Traits = Traits { place: Place::Worker, ..Traits::PURE };

fn rows() -> Vec<Input> {
    vec![Input::many("rows", TABLE, "")]
}

fn numbers(values: impl IntoIterator<Item = i64>) -> Table {
    let array = Arc::new(Int64Array::from_iter_values(values));
    Table::of_columns(vec![(Field::new("x", DataType::Int64, false), array)]).expect("a table")
}

fn values(table: &Table) -> Vec<i64> {
    let batch = table.one_batch().expect("one");
    batch.column_by_name("x").expect("x").as_primitive::<Int64Type>().values().to_vec()
}

static COUNTED: AtomicUsize = AtomicUsize::new(0);

toy!(Count, "count", Traits::PURE, vec![], TABLE, |config: &Config, run: &dyn Run| {
    run.write("out", numbers(0..config.n))
});
toy!(Load, "load", Traits::PURE, vec![], TABLE, |_: &Config, run: &dyn Run| {
    let text = fs::read_to_string(run.file("path")?).expect("a file");
    run.write("out", numbers(text.split_whitespace().map(|word| word.parse().expect("a number"))))
});
toy!(Scale, "scale", Traits::PURE, rows(), TABLE, |config: &Config, run: &dyn Run| {
    let scaled = values(&run.table("rows")?).into_iter().map(|x| x * config.by);
    run.write("out", numbers(scaled))
});
toy!(Gather, "gather", Traits::PURE, rows(), TABLE, |_: &Config, run: &dyn Run| run.write("out", run.table("rows")?));
toy!(Seeded, "seeded", Traits { uses_seed: true, ..Traits::PURE }, vec![], TABLE, |_: &Config, run: &dyn Run| {
    run.write("out", numbers([run.seed() as i64]))
});
toy!(Make, "make", Traits::PURE, vec![], Kind::Model, |config: &Config, run: &dyn Run| {
    fs::write(run.model_folder("out")?.join("config.json"), &config.note).expect("written");
    Ok(())
});
toy!(
    Inspect,
    "inspect",
    Traits::PURE,
    vec![Input::many("models", Kind::Model, "").labelled()],
    TABLE,
    |_: &Config, run: &dyn Run| {
        let lengths = run
            .models("models")?
            .into_iter()
            .map(|model| fs::read_to_string(model.path.join("config.json")).expect("a file").len() as i64);
        run.write("out", numbers(lengths))
    }
);
// Pays for every row once; `workers` is the row that fails, `note` a mistake: it decides rows and is not in their keys.
toy!(Pay, "pay", Traits::PURE, rows(), TABLE, |config: &Config, run: &dyn Run| {
    let function = RowFunction::of::<Pay>([("by", Value::Int(config.by.into()))]);
    let (memo, xs) = (run.memo(&function)?, values(&run.table("rows")?));
    let keys: Vec<RowKey> = xs.iter().map(|x| function.key(&Value::Int((*x).into()))).collect();
    let mut paid = vec![None; xs.len()];
    memo.get_many(&keys, &mut |place, row| {
        paid[place] = row.try_into().ok().map(i64::from_le_bytes);
        paid[place].is_some()
    })?;
    for (place, x) in xs.iter().enumerate().filter(|(place, _)| paid[*place].is_none()).collect::<Vec<_>>() {
        if *x > 0 && *x == config.workers {
            return Err(StageError::work("a row failed"));
        }
        let row = x * config.by + config.note.len() as i64;
        memo.put(&keys[place], &row.to_le_bytes())?;
        paid[place] = Some(row);
    }
    run.write("out", numbers(paid.into_iter().flatten()))
});

/// What an endpoint counts that `answer` asks.
static CALLS: AtomicUsize = AtomicUsize::new(0);

// The model `note` answers every prompt `by` times.
toy!(Answer, "answer", Traits::PURE, rows(), TABLE, |config: &Config, run: &dyn Run| {
    let function = RowFunction::of::<Answer>([("model", Value::from(config.note.as_str()))]);
    let (memo, prompts) = (run.memo(&function)?, values(&run.table("rows")?));
    let asked = prompts.iter().flat_map(|prompt| (0..config.by).map(|sample| [*prompt, sample]));
    let keys: Vec<RowKey> =
        asked.map(|row| function.key(&row.into_iter().map(|n| Value::Int(n.into())).collect())).collect();
    let mut answers = vec![None; keys.len()];
    memo.get_many(&keys, &mut |place, row| {
        answers[place] = row.try_into().ok().map(i64::from_le_bytes);
        true
    })?;
    for (place, answer) in answers.iter_mut().enumerate().filter(|(_, answer)| answer.is_none()) {
        let call = CALLS.fetch_add(1, Ordering::SeqCst) as i64;
        memo.put(&keys[place], &call.to_le_bytes())?;
        *answer = Some(call);
    }
    run.write("out", numbers(answers.into_iter().flatten()))
});
toy!(Fail, "fail", Traits::PURE, vec![], TABLE, |_: &Config, _: &dyn Run| Err(StageError::work(
    "too many rows failed"
)));
toy!(Panic, "panic", Traits::PURE, vec![], TABLE, |_: &Config, _: &dyn Run| panic!("index 7"));
toy!(Lazy, "lazy", Traits::PURE, vec![], TABLE, |_: &Config, _: &dyn Run| Ok(()));
toy!(Slow, "slow", Traits::PURE, vec![], TABLE, |_: &Config, run: &dyn Run| {
    COUNTED.fetch_add(1, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(150));
    run.write("out", numbers([1]))
});
toy!(Wait, "wait", Traits::PURE, vec![], TABLE, |_: &Config, run: &dyn Run| loop {
    run.check_cancelled()?;
    std::thread::sleep(Duration::from_millis(2));
});
toy!(Remote, "remote", WORKER, rows(), TABLE, |config: &Config, run: &dyn Run| {
    run.note(format!("{} threads", run.threads()));
    // Cargo sets it for the test itself; the environment of a worker is cleared.
    assert_eq!(std::env::var_os("CARGO_PKG_NAME"), None);
    let scaled = values(&run.table("rows")?).into_iter().map(|x| x * config.by);
    run.write("out", numbers(scaled))
});

static FICKLE: AtomicUsize = AtomicUsize::new(0);

toy!(Fickle, "fickle", Traits::PURE, rows(), TABLE, |_: &Config, run: &dyn Run| {
    let n = FICKLE.fetch_add(1, Ordering::SeqCst) as i64;
    run.write("out", numbers(values(&run.table("rows")?).into_iter().map(|x| x + n)))
});

/// Says its secret wherever it can.
fn blab(config: &Config, run: &dyn Run) -> Result<(), StageError> {
    let value = run.secret(config.key.as_ref().expect("a key"))?;
    run.note(format!("the key is {value}"));
    run.progress(Progress { done: 0, total: 1, unit: "keys".into(), figure: value.clone() });
    if config.n == 0 {
        return Err(StageError::work(format!("it was not {value}")));
    }
    run.write("out", numbers([value.len() as i64]))
}

toy!(Blab, "blab", Traits::PURE, vec![], TABLE, blab);
toy!(BlabFar, "blab_far", WORKER, vec![], TABLE, |config: &Config, run: &dyn Run| {
    let value = run.secret(config.key.as_ref().expect("a key"))?;
    println!("stdout: {value}");
    eprintln!("stderr: {value}");
    assert!(!std::env::args().any(|argument| argument.contains(&value)), "it is on the command line");
    blab(config, run)
});

toy!(Drift, "drift", WORKER, vec![], TABLE, |_: &Config, run: &dyn Run| {
    run.write("out", numbers([std::process::id().into()]))
});

/// The store in which the next `usurped` loses its lease.
static USURP: std::sync::Mutex<Option<PathBuf>> = std::sync::Mutex::new(None);

toy!(Usurped, "usurped", Traits::PURE, vec![], TABLE, |_: &Config, run: &dyn Run| {
    let Some(store) = USURP.lock().expect("free").take() else { return run.write("out", numbers([2])) };
    // Another host takes the stage over and sweeps, makes nothing, and gives up.
    for folder in ["work", "leases"] {
        for entry in fs::read_dir(store.join(folder)).expect("a folder").flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
    Err(StageError::environment("its folder is gone"))
});

static ENTRIES: [Entry; 20] = [
    Entry::of::<Count>(),
    Entry::of::<Load>(),
    Entry::of::<Scale>(),
    Entry::of::<Gather>(),
    Entry::of::<Seeded>(),
    Entry::of::<Make>(),
    Entry::of::<Inspect>(),
    Entry::of::<Pay>(),
    Entry::of::<Answer>(),
    Entry::of::<Fail>(),
    Entry::of::<Panic>(),
    Entry::of::<Lazy>(),
    Entry::of::<Slow>(),
    Entry::of::<Wait>(),
    Entry::of::<Remote>(),
    Entry::of::<Fickle>(),
    Entry::of::<Blab>(),
    Entry::of::<BlabFar>(),
    Entry::of::<Drift>(),
    Entry::of::<Usurped>(),
];

const RUNNERS: [Runner; 20] = [
    Runner::of::<Count>(),
    Runner::of::<Load>(),
    Runner::of::<Scale>(),
    Runner::of::<Gather>(),
    Runner::of::<Seeded>(),
    Runner::of::<Make>(),
    Runner::of::<Inspect>(),
    Runner::of::<Pay>(),
    Runner::of::<Answer>(),
    Runner::of::<Fail>(),
    Runner::of::<Panic>(),
    Runner::of::<Lazy>(),
    Runner::of::<Slow>(),
    Runner::of::<Wait>(),
    Runner::of::<Remote>(),
    Runner::of::<Blab>(),
    Runner::of::<BlabFar>(),
    Runner::of::<Drift>(),
    Runner::of::<Usurped>(),
    Runner::of::<Fickle>(),
];

fn node(name: &str, operator: &str, params: serde_json::Value, inputs: &[usize]) -> Node {
    let entry = ENTRIES.iter().find(|entry| entry.name == operator).expect("a toy");
    let resolved = entry.resolve(&params).expect("good parameters");
    let from = |node: &usize| Source { node: *node, output: 0, label: None, axes: BTreeMap::new() };
    let port = resolved.ports.inputs.first().map(|port| port.name.clone());
    let inputs = port.map(|port| Bound { port, from: inputs.iter().map(from).collect() });
    Node {
        id: StageId::plain(name),
        entry,
        resolved: Arc::new(resolved),
        seed: 7,
        inputs: inputs.into_iter().filter(|bound| !bound.from.is_empty()).collect(),
        resources: Resources::default(),
        tags: vec![],
        retry: Retry { times: 0, backoff_seconds: 0.0 },
        uncacheable: false,
        memo: true,
        file: None,
        line: 1,
    }
}

fn plan(nodes: Vec<Node>) -> Plan {
    Plan { name: "toys".into(), salt: None, nodes, notes: vec![], left_out: vec![] }
}

/// count → scale → gather, and another scale beside.
fn chain(n: i64, by: i64, note: &str) -> Plan {
    plan(vec![
        node("numbers", "count", json!({"n": n, "note": note}), &[]),
        node("scaled", "scale", json!({"by": by}), &[0]),
        node("beside", "scale", json!({"by": 5}), &[0]),
        node("gathered", "gather", json!({}), &[1, 2]),
    ])
}

struct Bench {
    home: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::open(home.path().join("store")).expect("opens");
        Self { home, store }
    }

    fn options(&self) -> RunOptions {
        let machine = Machine { cpus: 4, gpus: vec![], mem_bytes: None };
        RunOptions { machine, ..RunOptions::new(self.home.path().join("no-worker")) }
    }

    fn run_with(&self, plan: &Plan, options: &RunOptions) -> (RunSummary, Vec<Event>) {
        let events = std::sync::Mutex::new(Vec::new());
        let note = |event| events.lock().expect("free").push(event);
        // Every run opens the store anew, as another process would.
        let store = Store::open(self.store.root()).expect("opens");
        let summary = run(plan, &store, options, &RUNNERS, &AtomicBool::new(false), &note).expect("runs");
        (summary, events.into_inner().expect("free"))
    }

    fn run(&self, plan: &Plan) -> RunSummary {
        self.run_with(plan, &self.options()).0
    }

    /// The names of what ran, sorted, after comparing with what was planned.
    fn ran(&self, plan: &Plan) -> Vec<String> {
        let decisions = decide(plan, &self.store);
        let summary = self.run(plan);
        assert_eq!(summary.cause, None, "{:?}", summary.failed);
        for (node, decision) in plan.nodes.iter().zip(&decisions) {
            let ran = summary.ran.contains(&node.id);
            match decision {
                Decision::Hit { .. } => assert!(!ran, "{} was planned as a hit", node.id),
                Decision::Run { .. } => assert!(ran, "{} was planned to run", node.id),
                Decision::Maybe { .. } => {}
                Decision::Accept { .. } => panic!("{}: nobody accepts anything here", node.id),
                Decision::Blocked { error } => panic!("{}: {error}", node.id),
            }
        }
        let mut names: Vec<_> = summary.ran.iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    fn values(&self, summary: &RunSummary, index: usize) -> Vec<i64> {
        let record = summary.records[index].as_ref().expect("done");
        values(&self.store.table(&record.outputs[0].artifact).expect("a table"))
    }

    fn reason(&self, plan: &Plan, name: &str) -> String {
        let (_, events) = self.run_with(plan, &self.options());
        let reason = events.into_iter().find_map(|event| match event {
            Event::StageStarted { stage, reason, .. } if stage.stage == name => Some(reason),
            _ => None,
        });
        reason.expect("it ran")
    }
}

#[test]
fn a_second_run_runs_nothing_and_a_change_what_depends_on_it() {
    let bench = Bench::new();
    assert_eq!(bench.ran(&chain(3, 2, "")), ["beside", "gathered", "numbers", "scaled"]);
    assert_eq!(bench.ran(&chain(3, 2, "")), [""; 0]);
    assert_eq!(bench.ran(&chain(3, 10, "")), ["gathered", "scaled"]);
    let summary = bench.run(&chain(3, 10, ""));
    assert_eq!(summary.hits.len(), 4);
    assert_eq!(bench.values(&summary, 3), [0, 10, 20, 0, 5, 10]);
    assert_eq!(bench.ran(&chain(4, 10, "")), ["beside", "gathered", "numbers", "scaled"]);
    assert_eq!(bench.ran(&chain(3, 2, "")), [""; 0], "what was made before is still there");
}

#[test]
fn an_upstream_rerun_with_the_same_result_stops_there() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, "one note"));
    assert_eq!(bench.ran(&chain(3, 2, "another note")), ["numbers"]);
}

#[test]
fn names_order_and_execution_parameters_are_not_in_keys() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let reordered = plan(vec![
        node("n", "count", json!({"workers": 8, "n": 3}), &[]),
        node("b", "scale", json!({"by": 5}), &[0]),
        node("s", "scale", json!({"by": 2}), &[0]),
        node("g", "gather", json!({}), &[2, 1]),
    ]);
    assert_eq!(bench.ran(&reordered), [""; 0]);
    let swapped = plan(vec![
        node("n", "count", json!({"n": 3}), &[]),
        node("b", "scale", json!({"by": 5}), &[0]),
        node("s", "scale", json!({"by": 2}), &[0]),
        node("g", "gather", json!({}), &[1, 2]),
    ]);
    assert_eq!(bench.ran(&swapped), ["g"], "the order of what is bound counts");
}

#[test]
fn reasons_name_the_first_cause() {
    let bench = Bench::new();
    assert_eq!(bench.reason(&chain(3, 2, ""), "scaled"), "never run");
    assert_eq!(bench.reason(&chain(3, 4, ""), "scaled"), "by 2 → 4");
    assert_eq!(bench.reason(&chain(3, 6, ""), "gathered"), "input rows changed (scaled: by 4 → 6)");
    let decisions = decide(&chain(3, 8, ""), &bench.store);
    assert!(matches!(&decisions[1], Decision::Run { reason, .. } if reason.text == "by 6 → 8"));
    assert!(matches!(decisions[3], Decision::Maybe { because: 1 }));
}

#[test]
fn the_seed_counts_only_where_it_is_used() {
    let bench = Bench::new();
    let with = |seed| {
        let mut plan =
            plan(vec![node("seeded", "seeded", json!({}), &[]), node("plain", "count", json!({"n": 1}), &[])]);
        plan.nodes.iter_mut().for_each(|node| node.seed = seed);
        plan
    };
    bench.run(&with(1));
    assert_eq!(bench.reason(&with(2), "seeded"), "seed 1 → 2");
    assert_eq!(bench.ran(&with(3)), ["seeded"]);
}

#[test]
fn a_file_counts_by_its_content() {
    let bench = Bench::new();
    let (a, b) = (bench.home.path().join("a"), bench.home.path().join("b"));
    let load = |path: &Path| plan(vec![node("loaded", "load", json!({"path": path}), &[])]);
    fs::write(&a, "1 2").expect("written");
    fs::write(&b, "1 2").expect("written");
    assert_eq!(bench.ran(&load(&a)), ["loaded"]);
    assert_eq!(bench.ran(&load(&b)), [""; 0]);
    fs::write(&b, "1 2 3").expect("written");
    assert_eq!(bench.reason(&load(&b), "loaded"), "file of path changed");
    let missing = bench.home.path().join("missing");
    let decisions = decide(&load(&missing), &bench.store);
    assert!(matches!(&decisions[0], Decision::Blocked { error } if error.cause == Cause::Input));
    assert_eq!(bench.run(&load(&missing)).cause, Some(Cause::Input));
}

#[test]
fn labels_count_where_the_port_is_labelled_and_axes_become_columns() {
    let bench = Bench::new();
    let with = |label: &str, source: &str| {
        let mut inspect = node("inspected", "inspect", json!({}), &[0]);
        inspect.inputs[0].from[0].label = Some(label.into());
        let mut gather = node("gathered", "gather", json!({}), &[1, 1]);
        for (from, value) in gather.inputs[0].from.iter_mut().zip([source, "fox"]) {
            from.label = Some(label.into());
            from.axes.insert("source".into(), value.into());
        }
        plan(vec![
            node("made", "make", json!({"note": "{}"}), &[]),
            node("n", "count", json!({"n": 2}), &[]),
            inspect,
            gather,
        ])
    };
    bench.run(&with("owl", "owl"));
    assert_eq!(bench.ran(&with("elk", "owl")), ["inspected"]);
    assert_eq!(bench.ran(&with("elk", "elk")), ["gathered"]);
    let summary = bench.run(&with("elk", "elk"));
    let record = summary.records[3].as_ref().expect("done");
    let table = bench.store.table(&record.outputs[0].artifact).expect("a table");
    let batch = table.one_batch().expect("one");
    let sources: Vec<_> =
        batch.column_by_name("source").expect("a column").as_string::<i32>().iter().flatten().collect();
    assert_eq!(sources, ["elk", "elk", "fox", "fox"]);
}

#[test]
fn failures_stop_what_follows_and_keep_going_finishes_the_rest() {
    let bench = Bench::new();
    let plan = plan(vec![
        node("bad", "fail", json!({}), &[]),
        node("after", "scale", json!({"by": 1}), &[0]),
        node("good", "count", json!({"n": 1}), &[]),
    ]);
    let options = RunOptions { keep_going: true, ..bench.options() };
    let (summary, _) = bench.run_with(&plan, &options);
    assert_eq!((summary.ran.len(), summary.failed.len(), summary.skipped.len()), (1, 1, 1));
    assert_eq!(summary.exit_code(), 1);
    assert_eq!(bench.reason(&plan, "bad"), "failed in the last run");
    assert_eq!(crate::ledger::runs(&bench.store).expect("a table").n_rows(), 2);
    let stages = crate::ledger::stages(&bench.store, Some(&summary.run)).expect("a table");
    assert_eq!(stages.n_rows(), 3);
}

#[test]
fn panics_and_forgotten_outputs_are_bugs_that_name_the_stage() {
    let bench = Bench::new();
    for (operator, words) in [("panic", "culprit panicked: index 7"), ("lazy", "did not write its output \"out\"")] {
        let summary = bench.run(&plan(vec![node("culprit", operator, json!({}), &[])]));
        assert_eq!(summary.exit_code(), 4);
        assert!(summary.failed[0].1.message.contains(words), "{}", summary.failed[0].1);
    }
}

#[test]
fn two_runs_and_two_equal_stages_share_one_execution() {
    let bench = Bench::new();
    let twins = plan(vec![node("a", "slow", json!({}), &[]), node("b", "slow", json!({}), &[])]);
    let ran: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| bench.run(&twins))).collect();
        runs.into_iter().map(|run| run.join().expect("runs").ran.len()).sum()
    });
    assert_eq!((ran, COUNTED.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn forced_and_uncacheable_stages_run_and_cut_off() {
    let bench = Bench::new();
    bench.run(&chain(3, 2, ""));
    let options = RunOptions { overrides: Overrides { force: [0].into(), ..Overrides::default() }, ..bench.options() };
    let names = |summary: RunSummary| summary.ran.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(bench.run_with(&chain(3, 2, ""), &options).0), ["numbers"]);
    let mut plan = chain(3, 2, "");
    plan.nodes[1].uncacheable = true;
    assert_eq!(bench.ran(&plan), ["scaled"]);
    let options = RunOptions { targets: Some([1].into()), ..bench.options() };
    let (summary, _) = bench.run_with(&chain(9, 2, ""), &options);
    assert_eq!(names(summary), ["numbers", "scaled"], "only what the target needs");
}

#[test]
fn lost_and_corrupt_blobs_are_made_again() {
    let bench = Bench::new();
    let summary = bench.run(&chain(3, 2, ""));
    let blob = |index: usize| {
        let record: &Record = summary.records[index].as_ref().expect("done");
        bench.store.blob(&record.outputs[0].files[0])
    };
    fs::remove_file(blob(1)).expect("removed");
    assert_eq!(bench.ran(&chain(3, 2, "")), ["scaled"]);
    // Damaged without a change of size: seen only by the stage that reads it.
    let path = blob(0);
    let mut bytes = fs::read(&path).expect("read");
    bytes[30] ^= 1;
    fs::remove_file(&path).expect("removed");
    fs::write(&path, bytes).expect("written");
    let summary = bench.run(&chain(3, 4, ""));
    let mut ran: Vec<_> = summary.ran.iter().map(ToString::to_string).collect();
    ran.sort();
    assert_eq!((ran, summary.cause), (vec!["gathered".to_owned(), "numbers".into(), "scaled".into()], None));
}

#[test]
fn cancelling_ends_a_run_at_once_and_the_next_one_goes_on() {
    let bench = Bench::new();
    let plan = plan(vec![node("n", "count", json!({"n": 1}), &[]), node("w", "wait", json!({}), &[])]);
    let cancel = AtomicBool::new(false);
    let on_event = |event| {
        if matches!(event, Event::StageEnded { outcome: Fate::Ran, .. }) {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let summary = run(&plan, &bench.store, &bench.options(), &RUNNERS, &cancel, &on_event).expect("runs");
    assert_eq!(summary.exit_code(), 130);
    let decisions = decide(&plan, &bench.store);
    assert!(matches!(decisions[..], [Decision::Hit { .. }, Decision::Run { .. }]));
}

#[test]
fn an_unwritable_store_is_one_clear_error() {
    let bench = Bench::new();
    let store = Store::open("/proc/fuseline-store").expect("opens");
    let result = run(&chain(1, 1, ""), &store, &bench.options(), &RUNNERS, &AtomicBool::new(false), &|_| {});
    assert_eq!(result.expect_err("not writable").cause(), Cause::Environment);
}

fn script(bench: &Bench, text: &str) -> RunOptions {
    use std::os::unix::fs::PermissionsExt;
    let path = bench.home.path().join("worker");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    RunOptions { worker: path, ..bench.options() }
}

fn remote(by: i64) -> Plan {
    plan(vec![node("n", "count", json!({"n": 3}), &[]), node("far", "remote", json!({"by": by}), &[0])])
}

#[test]
fn a_worker_does_the_work_and_reports() {
    let bench = Bench::new();
    let test = std::env::current_exe().expect("this program");
    let entry = "schedule::tests::worker_main --exact --ignored --nocapture";
    let options = script(&bench, &format!("ATTEMPT=\"$1\" exec {} {entry}", test.display()));
    let (summary, events) = bench.run_with(&remote(2), &options);
    assert_eq!(summary.cause, None, "{:?}", summary.failed);
    assert_eq!(bench.values(&summary, 1), [0, 2, 4]);
    assert!(events.iter().any(|event| matches!(event, Event::Note { text, .. } if text == "1 threads")));
    let record = summary.records[1].as_ref().expect("done");
    assert!(record.made.peak_bytes.is_some_and(|bytes| bytes > 1 << 20));
    assert_eq!(fs::read_dir(bench.store.root().join("work")).expect("work").count(), 0);
    let (summary, _) = bench.run_with(&remote(2), &bench.options());
    assert_eq!(summary.hits.len(), 2, "no worker is started for a hit");
}

#[test]
#[ignore = "the worker of other tests"]
fn worker_main() {
    let attempt = std::env::var("ATTEMPT").expect("set by the script");
    std::process::exit(worker::main(Path::new(&attempt), &RUNNERS).into());
}

#[test]
fn a_worker_that_dies_is_an_error_with_its_last_words() {
    let bench = Bench::new();
    for (text, exit, words) in [
        ("echo no more memory >&2; kill -9 $$", 3, "far was killed"),
        ("echo no more memory >&2; kill -TERM $$", 3, "far was ended by SIGTERM"),
        ("echo no more memory >&2; kill -SEGV $$", 4, "crashed by SIGSEGV"),
        ("echo no more memory >&2; exit 7", 4, "status 7 and no result"),
    ] {
        let (summary, _) = bench.run_with(&remote(1), &script(&bench, text));
        assert_eq!(summary.exit_code(), exit, "{text}");
        assert!(summary.failed[0].1.message.contains(words), "{}", summary.failed[0].1);
        assert_eq!(summary.failed[0].1.log, ["no more memory"], "{text}");
    }
    let (summary, _) = bench.run_with(&remote(1), &bench.options());
    assert_eq!(summary.exit_code(), 3);
    assert!(summary.failed[0].1.message.starts_with("failed to start the worker"));
}

/// What the ledger says of a run's attempts at a stage: number, class and end.
fn attempts(bench: &Bench, summary: &RunSummary, stage: &str) -> Vec<(u32, Option<Class>, Option<String>)> {
    let entries = ledger::attempt_entries(&bench.store, &summary.run).expect("readable").into_iter();
    entries.filter(|entry| entry.stage.stage == stage).map(|e| (e.number, e.class, e.exit)).collect()
}

#[test]
fn a_lost_worker_is_tried_again_and_a_crashed_one_is_not() {
    let bench = Bench::new();
    let test = std::env::current_exe().expect("this program");
    let entry = "schedule::tests::worker_main --exact --ignored --nocapture";
    let lost = |times: u32| {
        let marker = bench.home.path().join(format!("lost-{times}"));
        let work = format!("ATTEMPT=\"$1\" exec {} {entry}", test.display());
        // Each attempt leaves a line, and the first two are killed.
        let text = format!("echo x >> {0}; test $(wc -l < {0}) -gt 2 || kill -9 $$; {work}", marker.display());
        let mut plan = remote(times.into());
        plan.nodes[1].retry.times = times;
        bench.run_with(&plan, &script(&bench, &text))
    };
    let killed = |number| (number, Some(Class::Lost), Some("SIGKILL".to_owned()));
    let (summary, events) = lost(2);
    assert_eq!(summary.cause, None, "{:?}", summary.failed);
    assert_eq!(attempts(&bench, &summary, "far"), [killed(1), killed(2), (3, None, Some("exit 0".into()))]);
    let noted =
        |event: &Event| matches!(event, Event::Note { text, .. } if text.starts_with("attempt 2 of 3 failed (lost)"));
    assert!(events.iter().any(noted), "{events:?}");
    let (summary, _) = lost(1);
    assert_eq!((summary.exit_code(), summary.failed.len()), (3, 1));
    assert_eq!(attempts(&bench, &summary, "far"), [killed(1), killed(2)]);

    let mut plan = remote(9);
    plan.nodes[1].retry.times = 5;
    let (summary, _) = bench.run_with(&plan, &script(&bench, "kill -SEGV $$"));
    assert_eq!(attempts(&bench, &summary, "far"), [(1, Some(Class::Code), Some("SIGSEGV".to_owned()))]);
}

#[test]
fn pauses_double_and_differ_by_attempt() {
    let retry = Retry { times: 9, backoff_seconds: 2.0 };
    for (number, least) in [(1, 1.0), (2, 2.0), (3, 4.0)] {
        let seconds = pause(retry, number, "attempt").as_secs_f64();
        assert!((least..=3.0 * least).contains(&seconds), "{number}: {seconds}");
    }
    assert_eq!(pause(retry, 1, "a"), pause(retry, 1, "a"));
    assert_ne!(pause(retry, 1, "a"), pause(retry, 1, "b"));
    assert_eq!(pause(retry, 40, "a"), LONGEST_PAUSE);
}

#[test]
fn a_failed_branch_does_not_stop_another_that_goes_on() {
    let bench = Bench::new();
    let nodes = || {
        vec![
            node("broken", "fail", json!({}), &[]),
            node("after", "gather", json!({}), &[0]),
            node("numbers", "count", json!({"n": 2}), &[]),
            node("scaled", "scale", json!({"by": 3}), &[2]),
        ]
    };
    let options = RunOptions { keep_going: true, jobs: Some(1), ..bench.options() };
    let (summary, _) = bench.run_with(&plan(nodes()), &options);
    let names = |ids: &[StageId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&summary.ran), ["numbers", "scaled"]);
    assert_eq!(names(&summary.skipped), ["after"]);
    assert_eq!((summary.failed.len(), summary.exit_code()), (1, 1));
    let again = bench.run(&plan(nodes()));
    assert_eq!((names(&again.hits), again.failed.len()), (vec!["numbers".to_owned(), "scaled".to_owned()], 1));
}

#[test]
fn a_cancelled_worker_is_asked_to_stop() {
    let bench = Bench::new();
    let cancel = AtomicBool::new(false);
    let on_event = |event| {
        if matches!(&event, Event::StageStarted { stage, .. } if stage.stage == "far") {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let marker = bench.home.path().join("asked");
    let text = format!("read line; test \"$line\" = cancel && touch {}; exit 75", marker.display());
    let summary = run(&remote(1), &bench.store, &script(&bench, &text), &RUNNERS, &cancel, &on_event).expect("runs");
    assert_eq!(summary.exit_code(), 130);
    assert!(marker.exists());
}

#[test]
fn twenty_cached_stages_read_twenty_records_and_start_nothing() {
    let bench = Bench::new();
    let mut nodes = vec![node("s0", "count", json!({"n": 10}), &[])];
    nodes.extend((1..20).map(|i| node(&format!("s{i}"), "scale", json!({"by": i}), &[i - 1])));
    let plan = plan(nodes);
    bench.run(&plan);
    let summary = bench.run(&plan);
    assert_eq!((summary.hits.len(), summary.ran.len()), (20, 0));
    println!("20 cached stages took {:.1} ms", summary.seconds * 1e3);
}

mod remote;
