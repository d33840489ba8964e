//! The plan as a graph: order, cycles, what instances need and what needs them,
//! and drawings as text. Must not know keys or the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use fuseline_contract::StageId;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::plan::Plan;
use crate::problem::{Place, Problems, suggest};
use crate::reference::Reference;

/// Orders `n` nodes so that every edge `(from, to)` points forward, otherwise
/// as they are numbered; or gives cycles, each as its nodes in the direction of
/// the edges.
pub(crate) fn order(n: usize, edges: &[(usize, usize)]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let mut graph = DiGraph::<(), (), usize>::with_capacity(n, edges.len());
    (0..n).for_each(|_| {
        graph.add_node(());
    });
    for (from, to) in edges {
        graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), ());
    }
    let mut waits: Vec<usize> =
        graph.node_indices().map(|node| graph.edges_directed(node, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<usize>> = (0..n).filter(|node| waits[*node] == 0).map(Reverse).collect();
    let mut ordered = Vec::with_capacity(n);
    while let Some(Reverse(node)) = ready.pop() {
        ordered.push(node);
        for next in graph.neighbors(NodeIndex::new(node)) {
            waits[next.index()] -= 1;
            if waits[next.index()] == 0 {
                ready.push(Reverse(next.index()));
            }
        }
    }
    if ordered.len() == n {
        return Ok(ordered);
    }
    let mut cycles: Vec<Vec<usize>> = petgraph::algo::tarjan_scc(&graph)
        .into_iter()
        .filter_map(|component| {
            let start = component.iter().min()?.index();
            shortest_cycle(&graph, start)
        })
        .collect();
    cycles.sort();
    Err(cycles)
}

/// The shortest way from a node back to itself.
fn shortest_cycle(graph: &DiGraph<(), (), usize>, start: usize) -> Option<Vec<usize>> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(NodeIndex::new(node)).map(NodeIndex::index) {
            if next == start {
                let mut cycle = vec![node];
                while let Some(before) =
                    from.get(cycle.last().expect("never empty")).filter(|_| cycle.last() != Some(&start))
                {
                    cycle.push(*before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = from.entry(next) {
                entry.insert(node);
                queue.push_back(next);
            }
        }
    }
    None
}

/// A plan's edges in both directions.
pub struct Graph<'p> {
    plan: &'p Plan,
    dag: DiGraph<(), (), usize>,
}

impl<'p> Graph<'p> {
    /// The graph of a plan; an edge from each node to every consumer, once.
    pub fn of(plan: &'p Plan) -> Self {
        let mut dag = DiGraph::with_capacity(plan.nodes.len(), plan.nodes.len());
        plan.nodes.iter().for_each(|_| {
            dag.add_node(());
        });
        for (index, node) in plan.nodes.iter().enumerate() {
            let producers: BTreeSet<usize> = node.inputs.iter().flat_map(|bound| &bound.from).map(|s| s.node).collect();
            for producer in producers {
                dag.add_edge(NodeIndex::new(producer), NodeIndex::new(index), ());
            }
        }
        Self { plan, dag }
    }

    /// The nodes that a node takes from, ascending.
    pub fn producers(&self, node: usize) -> Vec<usize> {
        self.neighbors(node, Direction::Incoming)
    }

    /// The nodes that take from a node, ascending.
    pub fn consumers(&self, node: usize) -> Vec<usize> {
        self.neighbors(node, Direction::Outgoing)
    }

    fn neighbors(&self, node: usize, direction: Direction) -> Vec<usize> {
        let mut found: Vec<usize> =
            self.dag.neighbors_directed(NodeIndex::new(node), direction).map(NodeIndex::index).collect();
        found.sort_unstable();
        found
    }

    /// These nodes and all that they need, directly or not.
    pub fn upstream(&self, nodes: &BTreeSet<usize>) -> BTreeSet<usize> {
        self.closure(nodes, Direction::Incoming)
    }

    /// These nodes and all that need them, directly or not.
    pub fn downstream(&self, nodes: &BTreeSet<usize>) -> BTreeSet<usize> {
        self.closure(nodes, Direction::Outgoing)
    }

    fn closure(&self, nodes: &BTreeSet<usize>, direction: Direction) -> BTreeSet<usize> {
        let mut found = nodes.clone();
        let mut open: Vec<usize> = nodes.iter().copied().collect();
        while let Some(node) = open.pop() {
            for next in self.dag.neighbors_directed(NodeIndex::new(node), direction) {
                if found.insert(next.index()) {
                    open.push(next.index());
                }
            }
        }
        found
    }

    /// The stages as a Mermaid flow chart; instances of a stage are one box.
    pub fn mermaid(&self) -> String {
        let drawing = self.drawing();
        let mut text = String::from("flowchart LR\n");
        for (index, (stage, operator, instances)) in drawing.boxes.iter().enumerate() {
            text.push_str(&format!("  s{index}[\"{stage}{}<br/><i>{operator}</i>\"]\n", times(*instances)));
        }
        for ((from, to), outputs) in &drawing.arrows {
            let label = if outputs.is_empty() { String::new() } else { format!("|{outputs}|") };
            text.push_str(&format!("  s{from} -->{label} s{to}\n"));
        }
        text
    }

    /// The stages as a Graphviz drawing; instances of a stage are one box.
    pub fn dot(&self) -> String {
        let drawing = self.drawing();
        let mut text = format!("digraph {:?} {{\n  rankdir=LR;\n  node [shape=box];\n", self.plan.name);
        for (index, (stage, operator, instances)) in drawing.boxes.iter().enumerate() {
            text.push_str(&format!("  s{index} [label=\"{stage}{}\\n{operator}\"];\n", times(*instances)));
        }
        for ((from, to), outputs) in &drawing.arrows {
            let label = if outputs.is_empty() { String::new() } else { format!(" [label=\"{outputs}\"]") };
            text.push_str(&format!("  s{from} -> s{to}{label};\n"));
        }
        text.push_str("}\n");
        text
    }

    fn drawing(&self) -> Drawing<'p> {
        let mut boxes: Vec<(&str, &str, usize)> = Vec::new();
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &self.plan.nodes {
            let number = *numbers.entry(&node.id.stage).or_insert_with(|| {
                boxes.push((&node.id.stage, node.entry.name, 0));
                boxes.len() - 1
            });
            boxes[number].2 += 1;
        }
        let mut outputs: BTreeMap<(usize, usize), BTreeSet<&str>> = BTreeMap::new();
        for node in &self.plan.nodes {
            for source in node.inputs.iter().flat_map(|bound| &bound.from) {
                let producer = &self.plan.nodes[source.node];
                let names =
                    outputs.entry((numbers[producer.id.stage.as_str()], numbers[node.id.stage.as_str()])).or_default();
                if source.output > 0 {
                    names.insert(&producer.resolved.ports.outputs[source.output].name);
                }
            }
        }
        let arrows = outputs.into_iter().map(|(ends, names)| (ends, names.into_iter().collect::<Vec<_>>().join(", ")));
        Drawing { boxes, arrows: arrows.collect() }
    }
}

struct Drawing<'p> {
    /// Stage, operator, how many instances.
    boxes: Vec<(&'p str, &'p str, usize)>,
    /// From, to, outputs other than the first.
    arrows: Vec<((usize, usize), String)>,
}

fn times(instances: usize) -> String {
    if instances == 1 { String::new() } else { format!(" ×{instances}") }
}

/// The nodes that a reference names, or a message and help.
pub(crate) fn instances(plan: &Plan, reference: &Reference) -> Result<Vec<usize>, (String, Option<String>)> {
    let of_stage: Vec<usize> = (0..plan.nodes.len()).filter(|i| plan.nodes[*i].id.stage == reference.stage).collect();
    let Some(first) = of_stage.first() else {
        if let Some(left) = plan.left_out.iter().find(|left| left.id.stage == reference.stage) {
            return Err((format!("stage {:?} is left out: {}", reference.stage, left.why), None));
        }
        let stages: BTreeSet<&str> = plan.nodes.iter().map(|node| node.id.stage.as_str()).collect();
        return Err((format!("unknown stage {:?}", reference.stage), suggest(&reference.stage, stages)));
    };
    let axes = &plan.nodes[*first].id.axes;
    let mut left = of_stage;
    for (axis, value) in &reference.point {
        if !axes.contains_key(axis) {
            let help = suggest(axis, axes.keys().map(String::as_str));
            return Err((format!("stage {:?} has no axis {axis:?}", reference.stage), help));
        }
        let values: BTreeSet<&str> = left.iter().map(|i| plan.nodes[*i].id.axes[axis].as_str()).collect();
        let help = suggest(value, values);
        left.retain(|i| plan.nodes[*i].id.axes[axis] == *value);
        if left.is_empty() {
            let is_meant = |id: &StageId| {
                id.stage == reference.stage
                    && reference.point.iter().all(|(axis, value)| id.axes.get(axis) == Some(value))
            };
            if let Some(left) = plan.left_out.iter().find(|left| is_meant(&left.id)) {
                return Err((format!("{} is left out: {}", left.id, left.why), None));
            }
            return Err((format!("stage {:?} has no instance with {axis}={value}", reference.stage), help));
        }
    }
    Ok(left)
}

/// The outputs that `STAGE`, `STAGE[axis=value]` or `STAGE.OUTPUT` names, as
/// indices of nodes and of their output ports.
pub fn outputs(plan: &Plan, text: &str) -> Result<Vec<(usize, usize)>, Problems> {
    let problem = |message: String, help| Problems::one(Place::Argument(text.to_owned()), message, help);
    let reference: Reference = text.parse().map_err(|error| problem(format!("{error}"), None))?;
    let nodes = instances(plan, &reference).map_err(|(message, help)| problem(message, help))?;
    let output = |node: usize| {
        let outputs = &plan.nodes[node].resolved.ports.outputs;
        let Some(name) = &reference.output else { return Ok((node, 0)) };
        let index = outputs.iter().position(|output| output.name == *name).ok_or_else(|| {
            let help = suggest(name, outputs.iter().map(|output| output.name.as_str()));
            problem(format!("stage {:?} has no output {name:?}", reference.stage), help)
        })?;
        Ok((node, index))
    };
    nodes.into_iter().map(output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_keeps_the_numbering_where_it_can() {
        assert_eq!(order(4, &[(3, 0), (1, 2)]), Ok(vec![1, 2, 3, 0]));
    }

    #[test]
    fn every_cycle_is_given_once() {
        let edges = [(0, 1), (1, 2), (2, 0), (2, 3), (4, 4), (3, 5), (1, 0)];
        assert_eq!(order(6, &edges), Err(vec![vec![0, 1], vec![4]]));
    }
}
