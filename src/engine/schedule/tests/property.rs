//! For random pipelines and random edits: what the plan says is what runs, and
//! the result of going on is the result of starting anew.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::{Settings, load_text};

/// Pipelines in a test; PROPTEST_CASES says otherwise.
const CASES: u32 = 24;

/// A stage as it is made up.
#[derive(Debug, Clone)]
struct Made {
    kind: usize,
    value: i64,
    note: i64,
    workers: i64,
    axis: usize,
    inputs: Vec<Index>,
    renamed: bool,
    uncacheable: bool,
    left_out: bool,
}

fn made() -> impl Strategy<Value = Made> {
    let inputs = proptest::collection::vec(any::<Index>(), 1..3);
    (0..4usize, 0..3i64, 0..2i64, 0..5usize, inputs, 0..12u8).prop_map(|(kind, value, note, axis, inputs, rare)| Made {
        kind,
        value,
        note,
        workers: 1,
        axis,
        inputs,
        renamed: false,
        uncacheable: rare == 0,
        left_out: rare == 1,
    })
}

/// One change of a pipeline.
#[derive(Debug, Clone)]
enum Edit {
    Value(Index, i64),
    Note(Index, i64),
    Workers(Index),
    Rename(Index),
    Input(Index, Index),
    Axis(Index, usize),
    Uncacheable(Index),
    LeaveOut(Index),
    Seed(u64),
    Add(Made),
    Drop,
    Reverse,
    Nothing,
}

fn edit() -> impl Strategy<Value = Edit> {
    let stage = any::<Index>;
    prop_oneof![
        (stage(), 0..3i64).prop_map(|(stage, value)| Edit::Value(stage, value)),
        (stage(), 0..3i64).prop_map(|(stage, note)| Edit::Note(stage, note)),
        stage().prop_map(Edit::Workers),
        stage().prop_map(Edit::Rename),
        (stage(), stage()).prop_map(|(stage, input)| Edit::Input(stage, input)),
        (stage(), 0..5usize).prop_map(|(stage, axis)| Edit::Axis(stage, axis)),
        stage().prop_map(Edit::Uncacheable),
        stage().prop_map(Edit::LeaveOut),
        (0..3u64).prop_map(Edit::Seed),
        made().prop_map(Edit::Add),
        Just(Edit::Drop),
        Just(Edit::Reverse),
        Just(Edit::Nothing),
    ]
}

#[derive(Debug, Clone)]
struct Pipeline {
    stages: Vec<Made>,
    seed: u64,
    reversed: bool,
}

impl Pipeline {
    fn apply(&mut self, edit: &Edit) {
        let at = |stages: &mut Vec<Made>, index: &Index| index.index(stages.len());
        let stages = &mut self.stages;
        match edit {
            Edit::Value(stage, value) => {
                let at = at(stages, stage);
                stages[at].value = *value
            }
            Edit::Note(stage, note) => {
                let at = at(stages, stage);
                stages[at].note = *note
            }
            Edit::Workers(stage) => {
                let at = at(stages, stage);
                stages[at].workers += 1
            }
            Edit::Rename(stage) => {
                let at = at(stages, stage);
                stages[at].renamed ^= true
            }
            Edit::Input(stage, input) => {
                let at = at(stages, stage);
                stages[at].inputs = vec![*input]
            }
            Edit::Axis(stage, axis) => {
                let at = at(stages, stage);
                stages[at].axis = *axis
            }
            Edit::Uncacheable(stage) => {
                let at = at(stages, stage);
                stages[at].uncacheable ^= true
            }
            Edit::LeaveOut(stage) => {
                let at = at(stages, stage);
                stages[at].left_out ^= true
            }
            Edit::Seed(seed) => self.seed = *seed,
            Edit::Add(made) => stages.push(made.clone()),
            Edit::Drop => drop((stages.len() > 1).then(|| stages.pop())),
            Edit::Reverse => self.reversed ^= true,
            Edit::Nothing => {}
        }
    }

    fn name(&self, stage: usize) -> String {
        format!("{}{stage}", if self.stages[stage].renamed { "renamed" } else { "s" })
    }

    /// The axes of a stage: mostly none.
    fn axes(&self, stage: usize) -> &'static str {
        ["", "", "", "k", "seed"][self.stages[stage].axis]
    }

    fn text(&self) -> String {
        let mut entries = Vec::new();
        for (at, stage) in self.stages.iter().enumerate() {
            let kind = if at == 0 { stage.kind % 2 } else { stage.kind };
            let (axes, mut text) = (self.axes(at), format!("  {}:\n", self.name(at)));
            let value = if axes == "k" { "'${k}'".to_owned() } else { stage.value.to_string() };
            let operator = ["count", "seeded", "scale", "scale"][kind];
            let parameter = ["n", "workers", "by", "by"][kind];
            writeln!(text, "    op: {operator}\n    uncacheable: {}\n    when: {}", stage.uncacheable, !stage.left_out)
                .expect("a text");
            if !axes.is_empty() {
                writeln!(text, "    matrix: {{{axes}: [1, {}]}}", stage.value + 2).expect("a text");
            }
            let workers = if parameter == "workers" { String::new() } else { format!(", workers: {}", stage.workers) };
            writeln!(text, "    with: {{{parameter}: {value}, note: 'n{}'{workers}}}", stage.note).expect("a text");
            if kind > 1 {
                writeln!(text, "    inputs: {{rows: [{}]}}", self.inputs(at).join(", ")).expect("a text");
            }
            entries.push(text);
        }
        if self.reversed {
            entries.reverse();
        }
        format!("name: made up\nseed: {}\nstages:\n{}", self.seed, entries.concat())
    }

    /// What a stage takes: one stage, or several that give the same columns.
    fn inputs(&self, at: usize) -> Vec<String> {
        let chosen: Vec<usize> = self.stages[at].inputs.iter().map(|input| input.index(at)).collect();
        let gathered = |from: usize| if self.axes(from) == self.axes(at) { "" } else { self.axes(from) };
        // An axis that is matched must have the same values.
        let fits = |from: &&usize| {
            gathered(**from) == gathered(chosen[0])
                && (self.axes(**from) != self.axes(at)
                    || self.axes(at).is_empty()
                    || self.stages[**from].value == self.stages[at].value)
        };
        let kept: Vec<String> = chosen.iter().filter(fits).map(|from| self.name(*from)).collect();
        if kept.is_empty() { vec![format!("'{}{}'", self.name(chosen[0]), self.first_point(chosen[0]))] } else { kept }
    }

    fn first_point(&self, stage: usize) -> String {
        let axes = self.axes(stage);
        if axes.is_empty() { String::new() } else { format!("[{axes}=1]") }
    }

    fn plan(&self) -> Plan {
        let text = self.text();
        load_text(&text, Path::new("p.yaml"), &ENTRIES, &Settings::default())
            .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    }
}

/// What each instance gave: content and bytes of every output.
fn results(plan: &Plan, summary: &RunSummary) -> BTreeMap<String, Vec<(Digest, Digest)>> {
    let of = |index: usize| {
        let record = summary.records[index].as_ref().expect("all went well");
        record.outputs.iter().map(|output| (output.content, output.artifact)).collect()
    };
    plan.nodes.iter().enumerate().map(|(index, node)| (node.id.to_string(), of(index))).collect()
}

/// Runs a plan and holds it against what was decided before.
fn run_as_planned(bench: &Bench, plan: &Plan) -> Result<RunSummary, TestCaseError> {
    let decisions = decide(plan, &bench.store);
    let summary = bench.run(plan);
    prop_assert_eq!(summary.cause, None, "{:?}", summary.failed);
    let mut maybe = 0;
    for (node, decision) in plan.nodes.iter().zip(&decisions) {
        let ran = summary.ran.contains(&node.id);
        match decision {
            Decision::Hit { .. } => prop_assert!(!ran, "{} was planned as a hit, but ran", node.id),
            Decision::Run { .. } => prop_assert!(ran, "{} was planned to run, but did not", node.id),
            Decision::Maybe { .. } => maybe += 1,
            Decision::Accept { .. } => prop_assert!(false, "nobody accepted {}", node.id),
            Decision::Blocked { error } => prop_assert!(false, "{}: {error}", node.id),
        }
    }
    let planned = decisions.iter().filter(|decision| matches!(decision, Decision::Run { .. })).count();
    prop_assert!(summary.ran.len() <= planned + maybe);
    Ok(summary)
}

#[test]
fn what_is_planned_runs_and_going_on_gives_what_starting_anew_gives() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Runs { cases, failure_persistence: None, ..Runs::default() }, random);
    let pipelines = (proptest::collection::vec(made(), 1..7), proptest::collection::vec(edit(), 1..5));
    let result = runner.run(&pipelines, |(stages, edits)| {
        let bench = Bench::new();
        let mut pipeline = Pipeline { stages, seed: 1, reversed: false };
        run_as_planned(&bench, &pipeline.plan())?;
        for edit in &edits {
            pipeline.apply(edit);
            let plan = pipeline.plan();
            let summary = run_as_planned(&bench, &plan)?;
            let anew = Bench::new().run(&plan);
            prop_assert_eq!(results(&plan, &summary), results(&plan, &anew), "after {:?}:\n{}", edit, pipeline.text());
            // Nothing changed since: nothing runs but what always does.
            let again = run_as_planned(&bench, &plan)?;
            let always = plan.nodes.iter().filter(|node| node.uncacheable).count();
            prop_assert_eq!(again.ran.len(), always, "the second run of\n{}", pipeline.text());
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
