//! A SQL session over what a pipeline has made: every stage's tables under the
//! stage's name, and the ledger under `system`.

use std::collections::BTreeMap;

use fuseline_contract::Kind;
use fuseline_engine::decide::Decision;
use fuseline_engine::ledger;
use fuseline_query::{Part, Session};

use crate::setting::Setting;

/// Opens a session. Stages without a result are left out, and are named so that
/// a query for them can say why they are missing.
pub fn open(setting: &Setting) -> anyhow::Result<(Session, Vec<String>)> {
    let mut session = Session::new(fuseline_engine::resources::Machine::detect().cpus as usize)?;
    let decisions = setting.decide();
    let mut tables: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    let mut missing = Vec::new();
    for (node, decision) in setting.plan.nodes.iter().zip(&decisions) {
        let Decision::Hit { record, .. } = decision else {
            missing.push(node.id.to_string());
            continue;
        };
        for (index, output) in node.resolved.ports.outputs.iter().enumerate() {
            if output.kind == Kind::Model {
                continue;
            }
            let files = setting.store.files(&record.outputs[index].artifact)?;
            let part = Part { paths: files.into_iter().map(|(_, path)| path).collect(), axes: node.id.axes.clone() };
            if index == 0 {
                tables.entry(node.id.stage.clone()).or_default().push(part.clone());
            }
            tables.entry(format!("{}.{}", node.id.stage, output.name)).or_default().push(part);
        }
    }
    for (name, parts) in tables {
        session.register_files(&name, parts);
    }
    session.register_table("system.runs", ledger::runs(&setting.store)?);
    session.register_table("system.stages", ledger::stages(&setting.store, None)?);
    session.register_table("system.artifacts", ledger::artifacts(&setting.store)?);
    Ok((session, missing))
}
