//! What a reader of a result must be told of what it rests on: rows that failed
//! and were left out, and figures that were computed in several ways. Must not
//! know any operator.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Graph;
use crate::plan::{Node, Plan};
use crate::store::{Record, Store};

/// How many instances a footnote names.
const NAMED: usize = 4;

/// The footnotes of an instance's result; `records` has what every instance of the plan gave.
pub fn footnotes(plan: &Plan, store: &Store, records: &[Option<Record>], index: usize) -> Vec<String> {
    let tells = |node: &Node| node.entry.traits.numerics.is_some() || lists_failures(node);
    if !plan.nodes.iter().any(tells) {
        return Vec::new();
    }
    let behind = Graph::of(plan).upstream(&BTreeSet::from([index]));
    let known = behind.iter().filter_map(|index| Some((&plan.nodes[*index], records[*index].as_ref()?)));
    let mut notes: Vec<String> = known.clone().flat_map(|(node, record)| left_out(node, record)).collect();
    // What one operator gives should be comparable; that another one ran elsewhere mixes nothing.
    let mut classes: BTreeMap<&str, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (node, record) in known {
        if let Some(class) = numerics(store, node, record) {
            classes.entry(node.entry.name).or_default().entry(class).or_default().push(node.id.to_string());
        }
    }
    let mixed = classes.into_iter().filter(|(_, classes)| classes.len() > 1);
    notes.extend(mixed.map(|(operator, classes)| {
        let each = classes.into_iter().map(|(class, ids)| format!("{class} ({})", some(&ids)));
        format!("{operator} ran in several numerics classes: {}", each.collect::<Vec<_>>().join(", "))
    }));
    notes
}

fn lists_failures(node: &Node) -> bool {
    node.resolved.ports.outputs.iter().any(|port| port.lists_failures)
}

/// What an instance left out because it failed.
fn left_out(node: &Node, record: &Record) -> Vec<String> {
    let outputs = node.resolved.ports.outputs.iter().zip(&record.outputs).filter(|(port, _)| port.lists_failures);
    let counted = outputs.filter_map(|(port, output)| Some((port, output.rows.filter(|rows| *rows > 0)?)));
    let said = |rows| if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
    counted
        .map(|(port, rows)| format!("{} of {} failed and are left out ({})", said(rows), node.id, port.name))
        .collect()
}

/// The numerics class in which a result was made; an accepted one keeps its own.
fn numerics(store: &Store, node: &Node, record: &Record) -> Option<String> {
    let class = node.entry.traits.numerics?;
    let key = record.accepted.as_ref().map_or(record.key, |word| word.from);
    let recorded = store.key_parts(&key).and_then(|parts| Some(parts["numerics"].as_str()?.to_owned()));
    Some(recorded.unwrap_or_else(|| class.to_owned()))
}

fn some(ids: &[String]) -> String {
    let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
    format!("{}{more}", ids.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", "))
}
