//! `fuseline plan` and `fuseline check`: what would run and why, or only
//! whether the file is right.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use fuseline_engine::decide::Decision;
use fuseline_engine::graph::Graph;
use fuseline_engine::problem::Problems;
use serde_json::json;

use crate::args::Pipeline;
use crate::exit;
use crate::setting::Setting;

/// Prints what would become of every instance.
pub fn plan(store: &Path, pipeline: &Pipeline, targets: &[String], values: bool, as_json: bool) -> anyhow::Result<u8> {
    let setting = Setting::open(store, pipeline)?;
    let plan = &setting.plan;
    let graph = Graph::of(plan);
    let wanted: BTreeSet<usize> = match targets {
        [] => (0..plan.nodes.len()).collect(),
        targets => graph.upstream(&graph.select(targets)?),
    };
    let decisions = setting.decide();
    let mut text = String::new();
    let mut listed = Vec::new();
    let (mut hits, mut runs, mut maybes) = (0, 0, 0);
    let width = wanted.iter().map(|index| plan.nodes[*index].id.to_string().chars().count()).max().unwrap_or(0);
    for index in wanted {
        let node = &plan.nodes[index];
        let (state, why) = match &decisions[index] {
            Decision::Hit { .. } => ("cached", String::new()),
            Decision::Run { reason, .. } => ("run", reason.to_string()),
            Decision::Maybe { because } => ("maybe", format!("{} will run", plan.nodes[*because].id)),
            Decision::Blocked { error } => ("blocked", error.to_string()),
        };
        match state {
            "cached" => hits += 1,
            "maybe" => maybes += 1,
            _ => runs += 1,
        }
        let stage = node.id.to_string();
        writeln!(text, "{stage:width$}  {state:7}  {why}")?;
        if values {
            for (name, value) in node.resolved.params.as_object().into_iter().flatten() {
                writeln!(text, "{:width$}    {name}: {value}", "")?;
            }
            if node.entry.traits.uses_seed {
                writeln!(text, "{:width$}    seed: {}", "", node.seed)?;
            }
        }
        listed.push(json!({
            "stage": stage, "state": state, "why": why, "operator": node.entry.name, "line": node.line,
            "params": node.resolved.params, "seed": node.seed,
        }));
    }
    let notes: String = plan.notes.iter().map(|note| format!("note: {note}\n")).collect();
    if as_json {
        exit::print(&serde_json::to_string_pretty(&json!({"stages": listed, "notes": plan.notes}))?)?;
    } else {
        let trimmed: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        exit::print(&format!("{trimmed}{notes}{hits} cached, {runs} to run, {maybes} that may run\n"))?;
    }
    Ok(if runs + maybes > 0 { exit::WORK_FOUND } else { exit::DONE })
}

/// Says whether the file is right.
pub fn check(pipeline: &Pipeline, as_json: bool) -> anyhow::Result<u8> {
    match Setting::check_only(pipeline) {
        Ok(plan) if as_json => exit::print(&json!({"problems": [], "stages": plan.nodes.len()}).to_string()),
        Ok(plan) => exit::print(&format!("{}: {} stages, no problems", pipeline.path.display(), plan.nodes.len())),
        Err(error) => match error.downcast_ref::<Problems>() {
            Some(problems) if as_json => {
                exit::print(&serde_json::to_string_pretty(&json!({"problems": problems.to_json()}))?)?;
                Ok(fuseline_contract::Cause::Input.exit_code())
            }
            _ => Err(error),
        },
    }
}
