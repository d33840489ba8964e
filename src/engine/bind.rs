//! Inputs to artifacts: references looked up, the axis rule applied, row types
//! checked. What is left out afterwards, and what then is wrong with labels and
//! counts, is `settle`'s.
//!
//! The axis rule: an axis that producer and consumer share is matched by value;
//! one that the consumer lacks is gathered, sorted by its value. All indices
//! are built once for a pair of stages, so the work is linear in the edges.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use fuseline_contract::operator::Resolved;
use fuseline_contract::port::Input;
use serde_json::Value as Json;

use crate::expand::{Grid, SEED};
use crate::include::Pipeline;
use crate::plan::Source;
use crate::problem::{At, Findings, suggest, under};
use crate::reference::Reference;
use crate::repeat::Repeat;
use crate::resolve::Stage;
use crate::vars::names_in;
use crate::yaml::describe;

/// One reference in a stage's inputs, after substitution.
pub(crate) struct Written {
    /// Its key in a map of inputs.
    label: Option<String>,
    /// The text.
    pub(crate) text: String,
    /// Where it stands.
    pub(crate) at: At,
    /// Axes of the consumer that were substituted in it, outside of brackets.
    axes: Vec<usize>,
    /// The carried name that stood in its place, and the axis of turns.
    carried: Option<(String, String)>,
}

impl Written {
    /// Puts what a carried name stands for in a turn in its place.
    pub(crate) fn carry(&mut self, repeat: &Repeat, turn: usize) {
        if let Some(carried) = repeat.carried(turn, &self.text) {
            self.text = carried.text;
            self.at = carried.at;
            self.carried = Some((carried.name, carried.axis));
        }
    }
}

/// Reads what is bound to one port.
pub(crate) fn read_input(
    value: &Json,
    raw: &Json,
    grid: &Grid,
    path: &[String],
    findings: &mut Findings,
) -> Vec<Written> {
    let mut written = Vec::new();
    read(value, Some(raw), None, grid, path, &mut written, findings);
    written
}

fn read(
    value: &Json,
    raw: Option<&Json>,
    label: Option<&str>,
    grid: &Grid,
    path: &[String],
    written: &mut Vec<Written>,
    findings: &mut Findings,
) {
    match value {
        Json::String(text) => written.push(Written {
            label: label.map(str::to_owned),
            text: text.clone(),
            at: At::value(path),
            axes: raw.map(|raw| mentioned(raw, grid)).unwrap_or_default(),
            carried: None,
        }),
        Json::Array(items) if items.iter().all(Json::is_string) => {
            for (index, item) in items.iter().enumerate() {
                let raw = raw.and_then(|raw| raw.get(index));
                read(item, raw, label, grid, &under(path, index.to_string()), written, findings);
            }
        }
        Json::Object(map) if label.is_none() => {
            for (label, item) in map {
                read(
                    item,
                    raw.and_then(|raw| raw.get(label)),
                    Some(label),
                    grid,
                    &under(path, label),
                    written,
                    findings,
                );
            }
        }
        other => {
            let message =
                format!("expected a stage, a list of stages or a map from label to stages, found {}", describe(other));
            findings.add(At::value(path), message, None);
            findings.silence(path);
        }
    }
}

/// The axes that a reference mentions; those in brackets choose an instance,
/// whose own axes count.
fn mentioned(raw: &Json, grid: &Grid) -> Vec<usize> {
    let Json::String(text) = raw else { return Vec::new() };
    let outside = match (text.find('['), text.rfind(']')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", &text[..open], &text[close..]),
        _ => text.clone(),
    };
    let mut names = BTreeSet::new();
    names_in(&Json::String(outside), &mut names);
    names.iter().filter_map(|name| grid.axis(name)).collect()
}

/// How a reference leads from a consumer's point to instances.
struct Link {
    producer: usize,
    reference: Reference,
    /// Axes of the producer with one value for a consumer, by axis.
    constrained: Vec<Constraint>,
    /// Axes of the producer that the consumer lacks.
    gathered: Vec<usize>,
    /// Instances by their values on the constrained axes.
    instances: Rc<HashMap<Vec<usize>, Vec<usize>>>,
}

/// What says a value on a producer's axis.
struct Constraint {
    axis: usize,
    by: By,
}

enum By {
    /// The reference.
    Value(usize),
    /// The consumer's axis, through the index of each of its values.
    Axis(usize, Rc<Vec<Option<usize>>>),
}

type Translations = HashMap<(usize, usize, usize, usize), Rc<Vec<Option<usize>>>>;
type Instances = HashMap<(usize, Vec<usize>), Rc<HashMap<Vec<usize>, Vec<usize>>>>;

/// What is bound by the text of a stage's inputs, by port.
pub(crate) type Inputs = BTreeMap<String, Rc<Vec<Written>>>;

/// What one port of an instance is bound to, before anything is left out.
pub(crate) struct Draft {
    /// The port, by its number among the operator's inputs.
    pub(crate) port: usize,
    /// The references.
    pub(crate) written: Rc<Vec<Written>>,
    /// The artifacts in order, each with the number of the reference that leads
    /// to it; sources hold indices of instances over all stages.
    pub(crate) from: Vec<(usize, Source)>,
    /// Nothing is wrong with any reference.
    pub(crate) sound: bool,
}

/// Binds stages' inputs; keeps the indices.
pub(crate) struct Binder<'s> {
    pipeline: &'s Pipeline,
    stages: &'s [Stage<'s>],
    /// Stages by the name by which they are known outside of their file.
    names: HashMap<&'s str, usize>,
    translations: Translations,
    instances: Instances,
    /// Where a stage first names another, for the report of cycles.
    pub(crate) named_at: HashMap<(usize, usize), At>,
}

/// The instance whose inputs are bound.
#[derive(Clone, Copy)]
struct Consumer<'s> {
    stage: &'s Stage<'s>,
    grid: &'s Grid,
    point: &'s [usize],
    resolved: &'s Resolved,
}

impl<'s> Binder<'s> {
    /// A binder over all stages.
    pub(crate) fn new(pipeline: &'s Pipeline, stages: &'s [Stage<'s>]) -> Self {
        let names = stages.iter().enumerate().map(|(index, stage)| (stage.spec.full.as_str(), index)).collect();
        let (translations, instances, named_at) = Default::default();
        Self { pipeline, stages, names, translations, instances, named_at }
    }

    /// Binds all inputs of all instances of a stage.
    pub(crate) fn bind(&mut self, index: usize, findings: &mut Findings) -> Vec<Vec<Draft>> {
        let stage = &self.stages[index];
        let Some(grid) = &stage.grid else { return Vec::new() };
        // Instances whose inputs have the same text share their links.
        let mut links: Vec<BTreeMap<&str, Vec<Option<Link>>>> = Vec::new();
        for inputs in &stage.inputs.groups {
            let mut ports = BTreeMap::new();
            for (port, list) in inputs {
                let list = list.iter().map(|w| self.link(index, grid, &w.text, &w.at, findings)).collect();
                ports.insert(port.as_str(), list);
            }
            links.push(ports);
        }
        let mut implicit: HashMap<(&str, Option<usize>), (Rc<Vec<Written>>, Vec<Option<Link>>)> = HashMap::new();
        let mut all = Vec::with_capacity(grid.points.len());
        for (instance, point) in grid.points.iter().enumerate() {
            let mut drafts = Vec::new();
            if let Some(resolved) = stage.params.get(instance) {
                let consumer = Consumer { stage, grid, point, resolved };
                let written = stage.inputs.get(instance);
                refuse_unknown_ports(&consumer, written, findings);
                let links = &links[stage.inputs.of[instance]];
                for (number, port) in resolved.ports.inputs.iter().enumerate() {
                    let (written, links) = match written.get(&port.name) {
                        Some(written) => (written, &links[port.name.as_str()]),
                        None if port.implicit => {
                            let turn = stage.turn(point);
                            if !implicit.contains_key(&(port.name.as_str(), turn)) {
                                let (text, at) = (port.name.clone(), implicit_at(stage, &port.name));
                                let mut written = Written { label: None, text, at, axes: Vec::new(), carried: None };
                                if let (Some(repeat), Some(turn)) = (stage.repeat, turn) {
                                    written.carry(repeat, turn);
                                }
                                let link = self.link(index, grid, &written.text, &written.at, findings);
                                implicit.insert((&port.name, turn), (Rc::new(vec![written]), vec![link]));
                            }
                            let (written, links) = &implicit[&(port.name.as_str(), turn)];
                            (written, links)
                        }
                        None => (&Rc::default(), &Vec::new()),
                    };
                    let mut draft = Draft { port: number, written: written.clone(), from: Vec::new(), sound: true };
                    for (reference, link) in links.iter().enumerate() {
                        draft.sound &= link.as_ref().is_some_and(|link| {
                            self.follow(&consumer, port, reference, link, &mut draft, findings).is_some()
                        });
                    }
                    drafts.push(draft);
                }
            }
            all.push(drafts);
        }
        all
    }

    /// Looks a reference up; what is wrong with it is found once.
    fn link(&mut self, consumer: usize, grid: &Grid, text: &str, at: &At, findings: &mut Findings) -> Option<Link> {
        let reference: Reference = match text.parse() {
            Ok(reference) => reference,
            Err(error) => {
                findings.add(at.clone(), format!("{error}"), None);
                return None;
            }
        };
        let Some(producer) = self.stage(consumer, &reference.stage) else {
            let names = self.names_seen_by(consumer);
            let help = suggest(&reference.stage, names.iter().map(|name| name.as_ref()));
            findings.add(at.clone(), format!("unknown stage {:?}", reference.stage), help);
            return None;
        };
        self.named_at.entry((consumer, producer)).or_insert_with(|| at.clone());
        let made = self.stages[producer].grid.as_ref()?;
        let mut fixed = BTreeMap::new();
        for (axis, value) in &reference.point {
            let Some(index) = made.axis(axis) else {
                let help = suggest(axis, made.axes.iter().map(|axis| axis.name.as_str()));
                findings.add(at.clone(), format!("stage {:?} has no axis {axis:?}", reference.stage), help);
                return None;
            };
            let texts = &made.axes[index].texts;
            let Some(value) = texts.iter().position(|text| text == value) else {
                let help = suggest(value, texts.iter().map(String::as_str));
                findings.add(
                    at.clone(),
                    format!("stage {:?} has no instance with {axis}={value}", reference.stage),
                    help,
                );
                return None;
            };
            fixed.insert(index, value);
        }
        let mut constrained = Vec::new();
        let mut gathered = Vec::new();
        for (index, axis) in made.axes.iter().enumerate() {
            if let Some(value) = fixed.get(&index) {
                constrained.push(Constraint { axis: index, by: By::Value(*value) });
            } else if let Some(own) = grid.axis(&axis.name) {
                let translation = self.translation(producer, index, consumer, own, grid, made);
                constrained.push(Constraint { axis: index, by: By::Axis(own, translation) });
            } else {
                gathered.push(index);
            }
        }
        let instances = self.instances(producer, made, &constrained);
        Some(Link { producer, reference, constrained, gathered, instances })
    }

    /// The stage that a name means in the file of a consumer.
    fn stage(&self, consumer: usize, name: &str) -> Option<usize> {
        let file = self.stages[consumer].spec.file;
        let found = *self.names.get(self.pipeline.files[file].full(name).as_str())?;
        self.pipeline.sees(file, self.stages[found].spec.file).then_some(found)
    }

    /// The names of stages in the file of a consumer.
    fn names_seen_by(&self, consumer: usize) -> Vec<std::borrow::Cow<'s, str>> {
        let file = self.stages[consumer].spec.file;
        let seen = self.stages.iter().filter(|stage| self.pipeline.sees(file, stage.spec.file));
        let carried = self.stages[consumer].repeat.into_iter().flat_map(Repeat::names);
        seen.map(|stage| self.pipeline.files[file].local(&stage.spec.full)).chain(carried.map(Into::into)).collect()
    }

    /// Of each value of the consumer's axis, the index of the producer's.
    fn translation(
        &mut self,
        producer: usize,
        theirs: usize,
        consumer: usize,
        own: usize,
        grid: &Grid,
        made: &Grid,
    ) -> Rc<Vec<Option<usize>>> {
        let translate = || {
            let known: HashMap<&str, usize> =
                made.axes[theirs].texts.iter().enumerate().map(|(index, text)| (text.as_str(), index)).collect();
            Rc::new(grid.axes[own].texts.iter().map(|text| known.get(text.as_str()).copied()).collect())
        };
        self.translations.entry((producer, theirs, consumer, own)).or_insert_with(translate).clone()
    }

    /// A producer's instances by their values on some axes, each list sorted
    /// by the values on the others.
    fn instances(
        &mut self,
        producer: usize,
        made: &Grid,
        constrained: &[Constraint],
    ) -> Rc<HashMap<Vec<usize>, Vec<usize>>> {
        let axes: Vec<usize> = constrained.iter().map(|constraint| constraint.axis).collect();
        let index = || {
            let ranks: Vec<Vec<usize>> = made.axes.iter().map(crate::expand::Axis::ranks).collect();
            let mut sorted: Vec<usize> = (0..made.points.len()).collect();
            sorted.sort_by_cached_key(|i| {
                made.points[*i].iter().zip(&ranks).map(|(value, ranks)| ranks[*value]).collect::<Vec<_>>()
            });
            let mut found: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
            for instance in sorted {
                found.entry(axes.iter().map(|axis| made.points[instance][*axis]).collect()).or_default().push(instance);
            }
            Rc::new(found)
        };
        self.instances.entry((producer, axes.clone())).or_insert_with(index).clone()
    }

    /// Adds the artifacts that one reference leads to.
    fn follow(
        &self,
        consumer: &Consumer<'_>,
        port: &Input,
        reference: usize,
        link: &Link,
        draft: &mut Draft,
        findings: &mut Findings,
    ) -> Option<()> {
        let written = &draft.written[reference];
        let stage = &self.stages[link.producer];
        let made = stage.grid.as_ref().expect("a link leads to a stage with a grid");
        let mut values = Vec::with_capacity(link.constrained.len());
        for constraint in &link.constrained {
            let value = match &constraint.by {
                By::Value(value) => Some(*value),
                By::Axis(own, translation) => translation[consumer.point[*own]],
            };
            let Some(value) = value else {
                let axis = &made.axes[constraint.axis];
                let By::Axis(own, _) = &constraint.by else { return None };
                let wanted = &consumer.grid.axes[*own].texts[consumer.point[*own]];
                let message = format!("stage {:?} has no instance with {}={wanted}", stage.spec.name, axis.name);
                findings.add(written.at.clone(), message, suggest(wanted, axis.texts.iter().map(String::as_str)));
                return None;
            };
            values.push(value);
        }
        let Some(instances) = link.instances.get(&values) else {
            let axes = link.constrained.iter().zip(&values).map(|(constraint, value)| {
                let axis = &made.axes[constraint.axis];
                format!("{}={}", axis.name, axis.texts[*value])
            });
            let point = axes.collect::<Vec<_>>().join(",");
            let message = format!("stage {:?} has no instance with {point}", stage.spec.name);
            findings.add(written.at.clone(), message, Some("its matrix leaves it out".to_owned()));
            return None;
        };
        for instance in instances {
            let outputs = &stage.params.get(*instance).as_ref()?.ports.outputs;
            let output = match &link.reference.output {
                None => 0,
                Some(name) => outputs.iter().position(|output| output.name == *name).or_else(|| {
                    let help = suggest(name, outputs.iter().map(|output| output.name.as_str()));
                    findings.add(
                        written.at.clone(),
                        format!("stage {:?} has no output {name:?}", stage.spec.name),
                        help,
                    );
                    None
                })?,
            };
            if let Err(why) = outputs[output].kind.fits(port.kind) {
                let message = format!("{:?} does not fit the input {:?}: {why}", link.reference.to_string(), port.name);
                let help = outputs.iter().find(|other| other.kind.fits(port.kind).is_ok()).map(|other| {
                    format!(
                        "{:?} would",
                        Reference { output: Some(other.name.clone()), ..link.reference.clone() }.to_string()
                    )
                });
                let help = help.or_else(|| Some(format!("it takes {}", port.kind.describe())));
                findings.add(written.at.clone(), message, help);
                return None;
            }
            let point = &made.points[*instance];
            let text = |axis: usize| (made.axes[axis].name.clone(), made.axes[axis].texts[point[axis]].clone());
            let source = Source {
                node: stage.first + instance,
                output,
                label: if port.labelled { label(consumer, written, made, point) } else { None },
                axes: link.gathered.iter().map(|axis| text(*axis)).collect(),
            };
            draft.from.push((reference, source));
        }
        Some(())
    }
}

fn refuse_unknown_ports(consumer: &Consumer<'_>, written: &Inputs, findings: &mut Findings) {
    let ports = &consumer.resolved.ports.inputs;
    let spec = consumer.stage.spec;
    for port in written.keys().filter(|name| !ports.iter().any(|port| port.name == **name)) {
        let operator = spec.op.as_deref().unwrap_or_default();
        let help = suggest(port, ports.iter().map(|port| port.name.as_str()))
            .unwrap_or_else(|| format!("{operator:?} takes no input"));
        let at = At::key(&under(&under(&spec.path, "inputs"), port));
        findings.add(at, format!("unknown input {port:?} of operator {operator:?}"), Some(help));
    }
}

/// The label that follows from where an artifact is bound: its key in a map, or
/// the values of the axes through which it was bound, but the seed's and that of
/// turns that carry it, or else the name under which it is carried.
fn label(consumer: &Consumer<'_>, written: &Written, made: &Grid, point: &[usize]) -> Option<String> {
    if let Some(label) = &written.label {
        return Some(label.clone());
    }
    let own = written.axes.iter().map(|axis| {
        let known = &consumer.grid.axes[*axis];
        (known.name.as_str(), known.texts[consumer.point[*axis]].as_str())
    });
    let theirs = made.axes.iter().zip(point).map(|(axis, value)| (axis.name.as_str(), axis.texts[*value].as_str()));
    let mut values: BTreeMap<&str, &str> = own.chain(theirs).collect();
    values.remove(SEED);
    // The turn that it was carried from says nothing of whose answers these are.
    let carried = written.carried.as_ref().map(|(name, axis)| {
        values.remove(axis.as_str());
        name.clone()
    });
    if values.is_empty() { carried } else { Some(values.into_values().collect::<Vec<_>>().join("/")) }
}

/// Where a stage that is bound by its own name is named: in the first parameter
/// that holds the name, or else at the stage.
fn implicit_at(stage: &Stage<'_>, name: &str) -> At {
    let spec = stage.spec;
    let holds = |value: &Json| value.as_str().is_some_and(|text| text.contains(name));
    match spec.with.iter().find(|(_, value)| holds(value)) {
        Some((parameter, _)) => At::value(&under(&spec.with_path, parameter)),
        None => At::key(&spec.path),
    }
}
