//! A stage's `matrix` to its points: one instance for every combination of axis
//! values, without what `exclude` names, with what `include` adds.
//!
//! Points do not depend on the order of keys in the file: axes are taken by
//! name, values as listed. Must not know operators.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::{Map, Value as Json};

use crate::locate::Path;
use crate::problem::{At, Findings, suggest, under};
use crate::reference::is_name;
use crate::yaml::describe;

/// How many instances a pipeline may have.
pub(crate) const MAX_INSTANCES: usize = 100_000;

/// The axis that is the seed.
pub(crate) const SEED: &str = "seed";

/// An axis of a stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// Its name.
    pub(crate) name: String,
    /// Its values, typed, as listed.
    pub(crate) values: Vec<Json>,
    /// Its values as text, as in ids.
    pub(crate) texts: Vec<String>,
}

impl Axis {
    /// The rank of each value when sorted: as numbers where all are.
    pub(crate) fn ranks(&self) -> Vec<usize> {
        let numbers: Option<Vec<f64>> = self.values.iter().map(Json::as_f64).collect();
        let mut order: Vec<usize> = (0..self.texts.len()).collect();
        order.sort_by(|a, b| match &numbers {
            Some(numbers) => numbers[*a].partial_cmp(&numbers[*b]).unwrap_or(Ordering::Equal),
            None => self.texts[*a].cmp(&self.texts[*b]),
        });
        let mut ranks = vec![0; order.len()];
        for (rank, value) in order.into_iter().enumerate() {
            ranks[value] = rank;
        }
        ranks
    }
}

/// The axes of a stage, by name, and its points: an index into each axis' values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    /// The axes, by name.
    pub(crate) axes: Vec<Axis>,
    /// The points.
    pub(crate) points: Vec<Vec<usize>>,
}

impl Grid {
    /// The one point of a stage without axes.
    pub(crate) fn single() -> Self {
        Self { axes: Vec::new(), points: vec![Vec::new()] }
    }

    /// The index of an axis.
    pub(crate) fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|axis| axis.name == name)
    }
}

/// Expands a matrix whose variables are substituted; `room` instances are left.
pub(crate) fn grid(matrix: &Json, path: &[String], room: usize, findings: &mut Findings) -> Option<Grid> {
    let matrix = match matrix {
        Json::Object(matrix) => matrix,
        other => {
            let message = format!("expected a map of axes, each a list of values, found {}", describe(other));
            findings.add(At::value(path), message, None);
            return None;
        }
    };
    let mut axes = listed_axes(matrix, path, findings)?;
    let include = points(matrix, "include", path, findings)?;
    let exclude = points(matrix, "exclude", path, findings)?;
    if axes.is_empty() && include.is_empty() {
        findings.add(
            At::key(path),
            "the matrix has no axis",
            Some("give it one (`axis: [a, b]`), or leave it out".into()),
        );
        return None;
    }
    let listed = !axes.is_empty();
    if !listed {
        let first = &include[0].0;
        axes = first.keys().map(|name| Axis { name: name.clone(), values: vec![], texts: vec![] }).collect();
        axes.sort_by(|a, b| a.name.cmp(&b.name));
        for axis in &axes {
            check_axis_name(&axis.name, &under(&include[0].1, &axis.name), findings)?;
        }
    }
    let n_points =
        if listed { axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len())) } else { Some(0) };
    let n_points = n_points.filter(|n| *n <= room).ok_or_else(|| too_many(path, findings)).ok()?;
    let mut all = Vec::with_capacity(n_points);
    for number in 0..n_points {
        let mut left = number;
        let mut point = vec![0; axes.len()];
        for (index, axis) in axes.iter().enumerate().rev() {
            point[index] = left % axis.values.len();
            left /= axis.values.len();
        }
        all.push(point);
    }
    let mut left_out = HashSet::new();
    for (point, at) in &exclude {
        let wanted = wanted(point, &axes, at, findings)?;
        left_out.extend(all.iter().filter(|point| wanted.iter().all(|(axis, value)| point[*axis] == *value)).cloned());
    }
    all.retain(|point| !left_out.contains(point));
    let mut known: HashSet<Vec<usize>> = all.iter().cloned().collect();
    for (point, at) in &include {
        let point = included(point, &mut axes, at, findings)?;
        if known.insert(point.clone()) {
            all.push(point);
        }
    }
    if all.len() > room {
        too_many(path, findings);
        return None;
    }
    if all.is_empty() {
        findings.add(At::key(path), "the matrix has no combination left: `exclude` names them all", None);
        return None;
    }
    Some(Grid { axes, points: all })
}

fn too_many(path: &[String], findings: &mut Findings) {
    let message = format!("too many instances: a pipeline may have {MAX_INSTANCES}");
    findings.add(At::key(path), message, Some("shorten the matrix, or name points with `include` alone".into()));
}

fn check_axis_name(name: &str, path: &[String], findings: &mut Findings) -> Option<()> {
    if is_name(name) {
        return Some(());
    }
    let message = format!("{name:?} is not an axis' name, expected a lower-case letter, then letters, digits and _");
    findings.add(At::key(path), message, None);
    None
}

fn listed_axes(matrix: &Map<String, Json>, path: &[String], findings: &mut Findings) -> Option<Vec<Axis>> {
    let mut axes = Vec::new();
    let mut sound = true;
    for (name, values) in matrix.iter().filter(|(name, _)| *name != "include" && *name != "exclude") {
        let path = under(path, name);
        sound &= check_axis_name(name, &path, findings).is_some();
        let Json::Array(values) = values else {
            let message = format!("axis {name:?}: expected a list of values, found {}", describe(values));
            findings.add(At::value(&path), message, None);
            sound = false;
            continue;
        };
        if values.is_empty() {
            findings.add(At::key(&path), format!("axis {name:?} has no value"), None);
            sound = false;
        }
        let mut axis = Axis { name: name.clone(), values: vec![], texts: vec![] };
        let mut seen = HashSet::new();
        for (index, value) in values.iter().enumerate() {
            let at = under(&path, index.to_string());
            match axis_value(name, value, &at, findings) {
                Some(text) if !seen.insert(text.clone()) => {
                    findings.add(At::value(&at), format!("axis {name:?} has the value {text} twice"), None);
                    sound = false;
                }
                Some(text) => {
                    axis.texts.push(text);
                    axis.values.push(value.clone());
                }
                None => sound = false,
            }
        }
        axes.push(axis);
    }
    axes.sort_by(|a, b| a.name.cmp(&b.name));
    sound.then_some(axes)
}

/// A value's text, if it may be on an axis.
fn axis_value(axis: &str, value: &Json, path: &[String], findings: &mut Findings) -> Option<String> {
    let mut refuse = |message: String| {
        findings.add(At::value(path), message, None);
        None
    };
    if axis == SEED && value.as_u64().is_none() {
        return refuse(format!("axis \"seed\" takes integers from 0, found {}", describe(value)));
    }
    match value {
        Json::String(text)
            if text.is_empty()
                || text.trim() != text
                || text.contains(['[', ']', ',', '='])
                || text.contains(char::is_control) =>
        {
            refuse(format!(
                "axis {axis:?}: {text:?} cannot be in an instance's name, expected text without [ ] , = and outer spaces"
            ))
        }
        Json::String(text) => Some(text.clone()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        other => refuse(format!("axis {axis:?}: expected a text or a number, found {}", describe(other))),
    }
}

/// The points of `include` or `exclude`, each with its path.
fn points(
    matrix: &Map<String, Json>,
    field: &str,
    path: &[String],
    findings: &mut Findings,
) -> Option<Vec<(Map<String, Json>, Path)>> {
    let path = under(path, field);
    let list = match matrix.get(field) {
        None | Some(Json::Null) => return Some(Vec::new()),
        Some(Json::Array(list)) => list,
        Some(other) => {
            findings.add(At::value(&path), format!("expected a list of points, found {}", describe(other)), None);
            return None;
        }
    };
    let mut points = Vec::new();
    for (index, point) in list.iter().enumerate() {
        let path = under(&path, index.to_string());
        match point {
            Json::Object(point) if !point.is_empty() => points.push((point.clone(), path)),
            other => {
                let message = format!("expected a point such as {{axis: value}}, found {}", describe(other));
                findings.add(At::value(&path), message, None);
                return None;
            }
        }
    }
    Some(points)
}

fn unknown_axis(name: &str, axes: &[Axis], path: &[String], findings: &mut Findings) {
    let help = suggest(name, axes.iter().map(|axis| axis.name.as_str()));
    findings.add(At::key(&under(path, name)), format!("unknown axis {name:?}"), help);
}

/// An excluded point as indices of axes and values.
fn wanted(
    point: &Map<String, Json>,
    axes: &[Axis],
    path: &[String],
    findings: &mut Findings,
) -> Option<Vec<(usize, usize)>> {
    let mut wanted = Vec::new();
    for (name, value) in point {
        let Some(index) = axes.iter().position(|axis| axis.name == *name) else {
            unknown_axis(name, axes, path, findings);
            return None;
        };
        let at = under(path, name);
        let text = axis_value(name, value, &at, findings)?;
        let Some(value) = axes[index].texts.iter().position(|known| *known == text) else {
            let help = suggest(&text, axes[index].texts.iter().map(String::as_str));
            findings.add(At::value(&at), format!("axis {name:?} has no value {text}"), help);
            return None;
        };
        wanted.push((index, value));
    }
    Some(wanted)
}

/// An included point as indices of values, which are added where they are new.
fn included(
    point: &Map<String, Json>,
    axes: &mut [Axis],
    path: &[String],
    findings: &mut Findings,
) -> Option<Vec<usize>> {
    for name in point.keys() {
        if !axes.iter().any(|axis| axis.name == *name) {
            unknown_axis(name, axes, path, findings);
            return None;
        }
    }
    let mut indices = Vec::new();
    for axis in axes {
        let Some(value) = point.get(&axis.name) else {
            let message =
                format!("the point has no value of axis {:?}: an included point has one of every axis", axis.name);
            findings.add(At::value(path), message, None);
            return None;
        };
        let text = axis_value(&axis.name, value, &under(path, &axis.name), findings)?;
        let index = axis.texts.iter().position(|known| *known == text).unwrap_or_else(|| {
            axis.texts.push(text);
            axis.values.push(value.clone());
            axis.texts.len() - 1
        });
        indices.push(index);
    }
    Some(indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Source;
    use serde_json::json;

    fn ids(matrix: Json) -> Vec<String> {
        let mut findings = Findings::default();
        let grid = grid(&matrix, &["matrix".into()], 100, &mut findings);
        let Some(grid) = grid else {
            let problems = findings.locate(&Source::new(std::path::Path::new("p"), ""));
            return problems.0.into_iter().map(|problem| problem.message).collect();
        };
        let id = |point: &Vec<usize>| {
            let pairs =
                grid.axes.iter().zip(point).map(|(axis, value)| format!("{}={}", axis.name, axis.texts[*value]));
            pairs.collect::<Vec<_>>().join(",")
        };
        grid.points.iter().map(id).collect()
    }

    #[test]
    fn combinations_by_axis_name() {
        assert_eq!(ids(json!({"b": ["x", "y"], "a": [2, 1]})), ["a=2,b=x", "a=2,b=y", "a=1,b=x", "a=1,b=y"]);
    }

    #[test]
    fn include_and_exclude() {
        let matrix = json!({"a": [1, 2], "b": ["x", "y"], "exclude": [{"a": 1}, {"a": 2, "b": "x"}], "include": [{"b": "z", "a": 1}, {"a": 2, "b": "y"}]});
        assert_eq!(ids(matrix), ["a=2,b=y", "a=1,b=z"]);
        assert_eq!(ids(json!({"include": [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.25}]})), ["a=1,b=0.5", "a=2,b=0.25"]);
    }

    #[test]
    fn every_bad_matrix_has_its_message() {
        let cases = [
            (json!({}), "the matrix has no axis"),
            (json!({"a": []}), "axis \"a\" has no value"),
            (json!({"a": 1}), "axis \"a\": expected a list of values, found 1"),
            (json!({"a": [[1]]}), "axis \"a\": expected a text or a number, found a list"),
            (json!({"a": [1, 1]}), "axis \"a\" has the value 1 twice"),
            (json!({"seed": [1, 1.5]}), "axis \"seed\" takes integers from 0, found 1.5"),
            (
                json!({"a": ["x,y"]}),
                "axis \"a\": \"x,y\" cannot be in an instance's name, expected text without [ ] , = and outer spaces",
            ),
            (json!({"a": [1], "exclude": [{"b": 1}]}), "unknown axis \"b\""),
            (json!({"a": [1], "exclude": [{"a": 2}]}), "axis \"a\" has no value 2"),
            (json!({"a": [1], "exclude": [{"a": 1}]}), "the matrix has no combination left: `exclude` names them all"),
            (
                json!({"a": [1], "b": [1], "include": [{"a": 2}]}),
                "the point has no value of axis \"b\": an included point has one of every axis",
            ),
            (json!({"A": [1]}), "\"A\" is not an axis' name, expected a lower-case letter, then letters, digits and _"),
            (json!([1]), "expected a map of axes, each a list of values, found a list"),
        ];
        for (matrix, message) in cases {
            assert_eq!(ids(matrix), [message]);
        }
        let wide: Vec<usize> = (0..11).collect();
        assert_eq!(ids(json!({"a": wide, "b": wide})), ["too many instances: a pipeline may have 100000"]);
    }

    #[test]
    fn numbers_sort_as_numbers() {
        let axis = |values: Json| {
            let values = values.as_array().cloned().unwrap_or_default();
            let texts = values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            Axis { name: "a".into(), values, texts }.ranks()
        };
        assert_eq!(axis(json!([10, 9, 0.5])), [2, 1, 0]);
        assert_eq!(axis(json!(["10", "9"])), [0, 1]);
    }
}
