//! `repeat`: stages that are unrolled over an axis of turns, and what they carry
//! from one turn to the next. Must not know operators.
//!
//! In the inputs of repeated stages a carried name stands for its first
//! reference in the first turn, and for the turn before's of its second later.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::expand::{Axis, Grid, MAX_INSTANCES};
use crate::locate::Path;
use crate::problem::{At, Findings, suggest, under};
use crate::reference::{Reference, is_name};
use crate::spec::{REPEAT, StageSpec, bad_name, known_fields, map};
use crate::vars::{Scope, substitute};
use crate::yaml::describe;

/// Stages that are repeated.
pub(crate) struct Repeat {
    /// The axis of turns, numbered from one.
    pub(crate) axis: String,
    times: usize,
    carry: BTreeMap<String, Carry>,
}

/// What stands for a carried name.
struct Carry {
    path: Path,
    /// In the first turn.
    first: Reference,
    /// In later ones, of the turn before.
    next: Reference,
    used: Cell<bool>,
}

/// What a carried name stands for in one turn.
pub(crate) struct Carried {
    /// The name.
    pub(crate) name: String,
    /// The axis of turns.
    pub(crate) axis: String,
    /// The reference in its place.
    pub(crate) text: String,
    /// Where that stands.
    pub(crate) at: At,
}

/// Reads a file's `repeat` and notes at its stages which one repeats them.
pub(crate) fn read(
    repeat: &Json,
    scope: &dyn Scope,
    base: &[String],
    stages: &mut [StageSpec],
    findings: &mut Findings,
) -> Vec<Repeat> {
    let path = under(base, REPEAT);
    let repeat = substitute(repeat, scope, &path, findings);
    let Json::Object(repeat) = repeat else {
        let message = format!("expected a map of axes, such as {{round: {{…}}}}, found {}", describe(&repeat));
        findings.add(At::value(&path), message, None);
        return Vec::new();
    };
    let mut repeats = Vec::new();
    for (axis, body) in &repeat {
        let path = under(&path, axis);
        if !is_name(axis) {
            findings.add(At::key(&path), bad_name("an axis' name", axis), None);
            continue;
        }
        let Json::Object(body) = body else {
            let message = format!("expected \"times\", \"stages\" and \"carry\", found {}", describe(body));
            findings.add(At::value(&path), message, None);
            continue;
        };
        known_fields(body, &path, &["times", "stages", "carry"], "of `repeat`", findings);
        let names = repeated(body, &path, repeats.len(), stages, findings);
        let carry = carried(body, &path, &names, stages, findings);
        if let Some(times) = times(body, &path, findings) {
            repeats.push(Repeat { axis: axis.clone(), times, carry });
        } else {
            // Numbers of repeats count those that are kept.
            stages.iter_mut().filter(|stage| stage.repeat == Some(repeats.len())).for_each(|stage| stage.repeat = None);
        }
    }
    repeats
}

fn times(body: &Map<String, Json>, path: &[String], findings: &mut Findings) -> Option<usize> {
    let value = body.get("times").unwrap_or(&Json::Null);
    let times = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MAX_INSTANCES).contains(n));
    if times.is_none() {
        let message = format!("expected how many times, an integer from 1, found {}", describe(value));
        findings.add(At::value(&under(path, "times")), message, None);
    }
    times
}

/// The names of the stages to repeat.
fn repeated(
    body: &Map<String, Json>,
    path: &[String],
    number: usize,
    stages: &mut [StageSpec],
    findings: &mut Findings,
) -> Vec<String> {
    let path = under(path, "stages");
    let list = match body.get("stages") {
        Some(Json::Array(list)) if !list.is_empty() => list,
        other => {
            let message =
                format!("expected a list of stages to repeat, found {}", describe(other.unwrap_or(&Json::Null)));
            findings.add(At::value(&path), message, None);
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let at = At::value(&under(&path, index.to_string()));
        let Some(name) = item.as_str() else {
            findings.add(at, format!("expected a stage's name, found {}", describe(item)), None);
            continue;
        };
        let Some(stage) = stages.iter().position(|stage| stage.name == name && is_name(name)) else {
            let help = suggest(name, stages.iter().map(|stage| stage.name.as_str()).filter(|name| is_name(name)));
            findings.add(at, format!("unknown stage {name:?}"), help);
            continue;
        };
        if stages[stage].repeat.is_some() {
            findings.add(at, format!("stage {name:?} is repeated already"), None);
            continue;
        }
        stages[stage].repeat = Some(number);
        names.push(name.to_owned());
    }
    names
}

fn carried(
    body: &Map<String, Json>,
    path: &[String],
    names: &[String],
    stages: &[StageSpec],
    findings: &mut Findings,
) -> BTreeMap<String, Carry> {
    let path = under(path, "carry");
    let mut carry = BTreeMap::new();
    for (name, pair) in map(body, &path[..path.len() - 1], "carry", findings).into_iter().flatten() {
        let path = under(&path, name);
        if !is_name(name) {
            findings.add(At::key(&path), bad_name("a name to carry", name), None);
            continue;
        }
        if stages.iter().any(|stage| stage.name == *name) {
            let help = "choose another name for what is carried".to_owned();
            findings.add(At::key(&path), format!("{name:?} is a stage already"), Some(help));
            continue;
        }
        let reference = |json: &Json| json.as_str().and_then(|text| text.parse::<Reference>().ok());
        let (first, next) = match pair.as_array().map(Vec::as_slice) {
            Some([first, next]) => (reference(first), reference(next)),
            _ => (None, None),
        };
        let (Some(first), Some(next)) = (first, next) else {
            let message = format!("expected two stages, [FIRST, OF THE TURN BEFORE], found {}", describe(pair));
            findings.add(At::value(&path), message, None);
            continue;
        };
        if names.contains(&first.stage) {
            let message =
                format!("stage {:?} is repeated itself, so it cannot come before the first turn", first.stage);
            findings.add(At::value(&under(&path, "0")), message, None);
        } else if !names.contains(&next.stage) {
            let help = suggest(&next.stage, names.iter().map(String::as_str));
            findings.add(At::value(&under(&path, "1")), format!("stage {:?} is not repeated", next.stage), help);
        } else {
            carry.insert(name.clone(), Carry { path, first, next, used: Cell::new(false) });
        }
    }
    carry
}

impl Repeat {
    /// A stage's points, once for every turn; `None` if that is too many.
    pub(crate) fn unroll(&self, grid: Grid, room: usize) -> Option<Grid> {
        if grid.points.len().checked_mul(self.times).is_none_or(|n| n > room) {
            return None;
        }
        let turns = 1..=self.times;
        let axis = Axis {
            name: self.axis.clone(),
            values: turns.clone().map(Json::from).collect(),
            texts: turns.map(|turn| turn.to_string()).collect(),
        };
        let Grid { mut axes, points } = grid;
        let at = axes.partition_point(|other| other.name < axis.name);
        axes.insert(at, axis);
        let turn = |turn: usize| {
            points.iter().map(move |point| {
                let mut point = point.clone();
                point.insert(at, turn);
                point
            })
        };
        Some(Grid { axes, points: (0..self.times).flat_map(turn).collect() })
    }

    /// What a reference stands for in a turn, counted from zero, if it begins
    /// with a carried name.
    pub(crate) fn carried(&self, turn: usize, reference: &str) -> Option<Carried> {
        let reference: Reference = reference.parse().ok()?;
        let carry = self.carry.get(&reference.stage)?;
        carry.used.set(true);
        let (item, mut meant) = match turn {
            0 => ("0", carry.first.clone()),
            _ => ("1", carry.next.clone()),
        };
        if turn > 0 {
            meant.point.push((self.axis.clone(), turn.to_string()));
        }
        meant.point.extend(reference.point);
        meant.output = reference.output.or(meant.output);
        let at = At::value(&under(&carry.path, item));
        Some(Carried { name: reference.stage, axis: self.axis.clone(), text: meant.to_string(), at })
    }

    /// The names that repeated stages may use.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.carry.keys().map(String::as_str)
    }

    /// Says which names no stage takes.
    pub(crate) fn refuse_unused(&self, findings: &mut Findings) {
        for (name, carry) in self.carry.iter().filter(|(_, carry)| !carry.used.get()) {
            let help = "take it as an input, or leave it out".to_owned();
            findings.add(At::key(&carry.path), format!("no repeated stage takes {name:?}"), Some(help));
        }
    }
}
