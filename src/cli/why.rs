//! `fuseline why`: the first cause of a rerun, or what a result was made of.

use std::fmt::Write;
use std::path::Path;

use fuseline_engine::decide::{Decision, key_parts};
use fuseline_engine::graph;

use crate::args::Pipeline;
use crate::exit;
use crate::setting::Setting;

/// Prints the state of a stage's instances, its cause, and the parts of its key.
pub fn why(store: &Path, pipeline: &Pipeline, stage: &str) -> anyhow::Result<u8> {
    let setting = Setting::open(store, pipeline)?;
    let plan = &setting.plan;
    let decisions = setting.decide();
    let mut text = String::new();
    for (index, _) in graph::outputs(plan, stage)? {
        let node = &plan.nodes[index];
        match &decisions[index] {
            Decision::Hit { key, record } => {
                let made = &record.made;
                writeln!(text, "{}: cached, key {}", node.id, key.short())?;
                writeln!(text, "  made in {:.1} s on {} by run {}", made.seconds, made.host, made.run)?;
            }
            Decision::Run { key, reason } => {
                writeln!(text, "{}: will run, key {}", node.id, key.short())?;
                writeln!(text, "  because {reason}")?;
                for change in reason.changes.iter().skip(1) {
                    writeln!(text, "  and {change}")?;
                }
            }
            Decision::Maybe { because } => {
                writeln!(text, "{}: may run", node.id)?;
                let first = match &decisions[*because] {
                    Decision::Run { reason, .. } => format!(", because {reason}"),
                    _ => String::new(),
                };
                writeln!(text, "  if {} gives another result; it will run{first}", plan.nodes[*because].id)?;
            }
            Decision::Blocked { error } => writeln!(text, "{}: cannot run: {error}", node.id)?,
        }
        if let Some(parts) = key_parts(plan, &setting.store, &decisions, index) {
            writeln!(text, "  what decides its result:")?;
            for line in serde_json::to_string_pretty(&parts.parts.to_json())?.lines() {
                writeln!(text, "    {line}")?;
            }
        }
        for bound in &node.inputs {
            for source in &bound.from {
                let producer = &plan.nodes[source.node];
                let output = &producer.resolved.ports.outputs[source.output].name;
                writeln!(text, "  input {}: {}.{output}", bound.port, producer.id)?;
            }
        }
    }
    exit::print(&text)
}
