//! Files to plan: operators looked up, parameters typed, ports checked, inputs
//! bound, instances ordered, those left out dropped. Every problem is collected.
//!
//! Work is done once for all instances that it is equal for: parameters are
//! typed once for each combination of the axis values that they mention.

use std::collections::{BTreeSet, HashMap};
use std::path::Path as FilePath;
use std::rc::Rc;
use std::sync::Arc;

use fuseline_contract::operator::Resolved;
use fuseline_contract::{Entry, ExternalFile, StageId};
use rayon::prelude::*;
use serde_json::Value as Json;

use crate::bind::{Binder, Inputs, read_input};
use crate::expand::{Grid, MAX_INSTANCES, SEED, grid};
use crate::graph;
use crate::include::{self, Pipeline};
use crate::parameters::{self, Wrong};
use crate::plan::{Node, Plan};
use crate::problem::{At, Findings, Origin, Place, Problems, nearest, nearest_file, under};
use crate::repeat::Repeat;
use crate::settings::{DEFAULT_SEED, Own, file_seed, own, pipeline_salt};
use crate::settle::{notes, settle};
use crate::spec::StageSpec;
use crate::vars::{Scope, Vars, names_in, substitute};

/// What a caller says besides the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `NAME=VALUE` and `STAGE.PARAM=VALUE`, the values as YAML.
    pub sets: Vec<String>,
    /// Whether the files and folders that parameters name must be there.
    pub check_files: bool,
}

/// Reads, expands and checks a pipeline file.
pub fn load(path: &FilePath, entries: &'static [Entry], settings: &Settings) -> Result<Plan, Problems> {
    let unreadable = |message: String, help: Option<&str>| {
        Problems::one(Place::File(path.to_owned()), message, help.map(str::to_owned))
    };
    let bytes = std::fs::read(path).map_err(|error| {
        unreadable(
            format!("failed to read the pipeline: {error}"),
            Some("give the path of a pipeline file, as in `fuseline plan pipelines/quickstart.yaml`"),
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("the file is not UTF-8 text".into(), None))?;
    load_text(&text, path, entries, settings)
}

/// As [`load`], from a text; `path` is its name in messages.
pub fn load_text(
    text: &str,
    path: &FilePath,
    entries: &'static [Entry],
    settings: &Settings,
) -> Result<Plan, Problems> {
    let mut findings = Findings::default();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (source, pipeline) = include::read(text, path, &settings.sets, &mut findings);
    let plan = pipeline.and_then(|pipeline| {
        Passes { pipeline: &pipeline, entries, check_files: settings.check_files }.plan(stem, &mut findings)
    });
    match plan {
        Some(plan) if findings.is_empty() => Ok(plan),
        _ => Err(findings.locate(&source)),
    }
}

/// Something computed once for each combination of the axis values it mentions.
pub(crate) struct Grouped<T> {
    /// The group of each instance.
    pub(crate) of: Vec<usize>,
    /// What was computed.
    pub(crate) groups: Vec<T>,
}

impl<T> Grouped<T> {
    /// What belongs to an instance.
    pub(crate) fn get(&self, instance: usize) -> &T {
        &self.groups[self.of[instance]]
    }

    fn compute(grid: &Grid, mentions: &BTreeSet<String>, mut compute: impl FnMut(&[usize]) -> T) -> Self {
        let axes: Vec<usize> = mentions.iter().filter_map(|name| grid.axis(name)).collect();
        let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut groups = Vec::new();
        let group = |point: &Vec<usize>| {
            *known.entry(axes.iter().map(|axis| point[*axis]).collect()).or_insert_with(|| {
                groups.push(compute(point));
                groups.len() - 1
            })
        };
        let of = grid.points.iter().map(group).collect();
        Self { of, groups }
    }
}

/// A stage with its instances; what is `None` had problems.
pub(crate) struct Stage<'s> {
    /// As written.
    pub(crate) spec: &'s StageSpec,
    /// Its axes and points.
    pub(crate) grid: Option<Grid>,
    /// What repeats it.
    pub(crate) repeat: Option<&'s Repeat>,
    /// The number of its first instance among all.
    pub(crate) first: usize,
    /// Parameters and ports, once they are typed.
    pub(crate) params: Grouped<Option<Arc<Resolved>>>,
    /// What is bound.
    pub(crate) inputs: Grouped<Inputs>,
    /// Whether it is there, seed, resources and tags.
    pub(crate) own: Grouped<Own>,
    entry: Option<&'static Entry>,
}

impl Stage<'_> {
    /// The turn of an instance of a repeated stage, counted from zero.
    pub(crate) fn turn(&self, point: &[usize]) -> Option<usize> {
        turn(self.repeat, self.grid.as_ref()?, point)
    }

    /// The id of an instance.
    pub(crate) fn id(&self, instance: usize) -> StageId {
        let mut id = StageId::plain(&self.spec.full);
        if let Some(grid) = &self.grid {
            let values = grid.axes.iter().zip(&grid.points[instance]);
            id.axes = values.map(|(axis, value)| (axis.name.clone(), axis.texts[*value].clone())).collect();
        }
        id
    }
}

fn turn(repeat: Option<&Repeat>, grid: &Grid, point: &[usize]) -> Option<usize> {
    Some(point[grid.axis(&repeat?.axis)?])
}

/// Variables, shadowed by the axis values of one instance.
struct InstanceScope<'a> {
    vars: &'a Vars,
    grid: &'a Grid,
    point: &'a [usize],
}

impl Scope for InstanceScope<'_> {
    fn get(&self, name: &str) -> Option<&Json> {
        match self.grid.axis(name) {
            Some(axis) => Some(&self.grid.axes[axis].values[self.point[axis]]),
            None => self.vars.get(name),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.grid.axes.iter().map(|axis| axis.name.as_str()).chain(self.vars.names()).collect()
    }

    fn is_broken(&self, name: &str) -> bool {
        self.grid.axis(name).is_none() && self.vars.is_broken(name)
    }
}

/// The parameters of a group of instances with all values in place.
struct Untyped {
    /// Which group of the stage's.
    group: usize,
    /// One of the instances.
    point: Vec<usize>,
    entry: &'static Entry,
    params: Json,
}

struct Passes<'s> {
    pipeline: &'s Pipeline,
    entries: &'static [Entry],
    check_files: bool,
}

impl<'s> Passes<'s> {
    fn plan(&self, stem: String, findings: &mut Findings) -> Option<Plan> {
        let top = &self.pipeline.files[0];
        let name = match &top.name {
            None => stem,
            Some(name) => match substitute(name, &top.vars, &["name".into()], findings) {
                Json::String(name) if !name.trim().is_empty() => name,
                other => {
                    let message = format!("expected the pipeline's name, found {}", crate::yaml::describe(&other));
                    findings.add(At::value(&["name".into()]), message, None);
                    stem
                }
            },
        };
        let salt = top.salt.as_ref().map(|salt| substitute(salt, &top.vars, &["salt".into()], findings));
        let salt = pipeline_salt(salt.as_ref(), findings);
        let seeds = self.seeds(findings);
        let mut stages = Vec::with_capacity(self.pipeline.stages.len());
        let (mut first, mut untyped) = (0, Vec::new());
        for spec in &self.pipeline.stages {
            let (stage, parameters) = self.stage(spec, first, seeds[spec.file], findings);
            untyped.extend(parameters.into_iter().map(|parameters| (stages.len(), parameters)));
            first += stage.grid.as_ref().map_or(0, |grid| grid.points.len());
            stages.push(stage);
        }
        self.type_parameters(&mut stages, untyped, findings);
        let mut binder = Binder::new(self.pipeline, &stages);
        let mut drafts = Vec::with_capacity(first);
        for index in 0..stages.len() {
            drafts.extend(binder.bind(index, findings));
        }
        let mut edges = Vec::new();
        for (consumer, inputs) in drafts.iter().enumerate() {
            edges.extend(inputs.iter().flat_map(|draft| &draft.from).map(|(_, source)| (source.node, consumer)));
        }
        let order = graph::order(drafts.len(), &edges).unwrap_or_else(|cycles| {
            report_cycles(&stages, &cycles, &binder.named_at, findings);
            (0..drafts.len()).collect()
        });
        self.pipeline.files.iter().flat_map(|file| &file.repeats).for_each(|repeat| repeat.refuse_unused(findings));
        let mut settled = settle(&stages, drafts, &order, findings);
        if self.check_files {
            self.check_files(&stages, &settled.bound, findings);
        }
        if !findings.is_empty() {
            return None;
        }
        let order: Vec<usize> = order.into_iter().filter(|number| settled.bound[*number].is_some()).collect();
        let mut place = vec![0; settled.bound.len()];
        order.iter().enumerate().for_each(|(position, number)| place[*number] = position);
        let mut nodes = Vec::with_capacity(order.len());
        for number in order {
            let stage = &stages[stages.partition_point(|stage| stage.first <= number) - 1];
            let instance = number - stage.first;
            let mut inputs = settled.bound[number].take()?;
            inputs.iter_mut().flat_map(|bound| &mut bound.from).for_each(|source| source.node = place[source.node]);
            let id = stage.id(instance);
            let own = stage.own.get(instance).clone();
            let file = &self.pipeline.files[stage.spec.file];
            nodes.push(Node {
                seed: id.axes.get(SEED).and_then(|seed| seed.parse().ok()).unwrap_or(own.seed),
                id,
                entry: stage.entry?,
                resolved: stage.params.get(instance).clone()?,
                inputs,
                resources: own.resources,
                retry: own.retry,
                tags: own.tags,
                uncacheable: own.uncacheable,
                memo: own.memo,
                file: file.parent.map(|_| file.path.clone()),
                line: stage.spec.line,
            });
        }
        Some(Plan { name, salt, nodes, notes: notes(&stages, &settled.left_out), left_out: settled.left_out })
    }

    /// The seed of each file: its own, or else that of the file that includes it.
    fn seeds(&self, findings: &mut Findings) -> Vec<u64> {
        let mut seeds: Vec<u64> = Vec::with_capacity(self.pipeline.files.len());
        for file in &self.pipeline.files {
            let above = file.parent.map_or(DEFAULT_SEED, |parent| seeds[parent]);
            seeds.push(file_seed(file.seed.as_ref(), &file.vars, &file.base, findings).unwrap_or(above));
        }
        seeds
    }

    fn vars(&self, spec: &StageSpec) -> &'s Vars {
        &self.pipeline.files[spec.file].vars
    }

    /// A stage with its parameters apart.
    fn stage(
        &self,
        spec: &'s StageSpec,
        first: usize,
        seed: u64,
        findings: &mut Findings,
    ) -> (Stage<'s>, Vec<Untyped>) {
        let entry = spec.op.as_ref().and_then(|op| {
            let found = self.entries.iter().find(|entry| entry.name == op);
            if found.is_none() {
                let near = nearest(op, self.entries.iter().map(|entry| entry.name));
                let near = near.map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
                let help = format!("{near}`fuseline ops` lists them all");
                findings.add(At::value(&under(&spec.path, "op")), format!("unknown operator {op:?}"), Some(help));
            }
            found
        });
        let grid = match &spec.matrix {
            None | Some(Json::Null) if first < MAX_INSTANCES => Some(Grid::single()),
            None | Some(Json::Null) => {
                findings.add(
                    At::key(&spec.path),
                    format!("too many instances: a pipeline may have {MAX_INSTANCES}"),
                    None,
                );
                None
            }
            Some(matrix) => {
                let path = under(&spec.path, "matrix");
                let matrix = substitute(matrix, self.vars(spec), &path, findings);
                if findings.is_silenced_below(&path) {
                    None
                } else {
                    grid(&matrix, &path, MAX_INSTANCES - first, findings)
                }
            }
        };
        let repeat = spec.repeat.map(|number| &self.pipeline.files[spec.file].repeats[number]);
        let grid = match repeat {
            Some(repeat) => grid.and_then(|grid| unroll(spec, repeat, grid, MAX_INSTANCES - first, findings)),
            None => grid,
        };
        let Some(points) = grid.as_ref() else {
            let empty = || BTreeSet::new();
            let none = Grid { axes: Vec::new(), points: Vec::new() };
            let stage = Stage {
                spec,
                first,
                params: Grouped::compute(&none, &empty(), |_| None),
                inputs: Grouped::compute(&none, &empty(), |_| Inputs::new()),
                own: Grouped::compute(&none, &empty(), |_| Own::default()),
                grid,
                repeat,
                entry,
            };
            return (stage, Vec::new());
        };
        let mut mentions = BTreeSet::new();
        spec.with.values().for_each(|value| names_in(value, &mut mentions));
        let mut untyped = Vec::new();
        let params = Grouped::compute(points, &mentions, |point| {
            let scope = InstanceScope { vars: self.vars(spec), grid: points, point };
            let params = spec
                .with
                .iter()
                .map(|(name, raw)| (name.clone(), substitute(raw, &scope, &under(&spec.with_path, name), findings)));
            let params = Json::Object(params.collect());
            untyped.extend(entry.map(|entry| Untyped { group: untyped.len(), point: point.to_vec(), entry, params }));
            None
        });
        let mut mentions = BTreeSet::new();
        spec.inputs.values().for_each(|value| names_in(value, &mut mentions));
        mentions.extend(repeat.map(|repeat| repeat.axis.clone()));
        let inputs = Grouped::compute(points, &mentions, |point| {
            let scope = InstanceScope { vars: self.vars(spec), grid: points, point };
            let mut inputs = Inputs::new();
            for (port, raw) in &spec.inputs {
                let path = under(&under(&spec.path, "inputs"), port);
                let value = substitute(raw, &scope, &path, findings);
                let mut written = read_input(&value, raw, points, &path, findings);
                if let (Some(repeat), Some(turn)) = (repeat, turn(repeat, points, point)) {
                    written.iter_mut().for_each(|written| written.carry(repeat, turn));
                }
                inputs.insert(port.clone(), Rc::new(written));
            }
            inputs
        });
        let mut mentions = BTreeSet::new();
        let own_fields =
            [&spec.when, &spec.seed, &spec.resources, &spec.retry, &spec.tags, &spec.uncacheable, &spec.memo];
        for value in own_fields.into_iter().flatten() {
            names_in(value, &mut mentions);
        }
        let own = Grouped::compute(points, &mentions, |point| {
            let scope = InstanceScope { vars: self.vars(spec), grid: points, point };
            own(spec, seed, &scope, findings)
        });
        (Stage { spec, first, params, inputs, own, grid, repeat, entry }, untyped)
    }

    /// Types all parameters, on all processors: an operator may have to parse a text.
    fn type_parameters(&self, stages: &mut [Stage<'s>], untyped: Vec<(usize, Untyped)>, findings: &mut Findings) {
        let typed = untyped.into_par_iter().map(|(stage, Untyped { group, point, entry, params })| {
            (stage, group, point, parameters::resolve(entry, params))
        });
        for (stage, group, point, (resolved, wrongs)) in typed.collect::<Vec<_>>() {
            let stage = &mut stages[stage];
            stage.params.groups[group] = resolved.map(Arc::new);
            let Some(grid) = &stage.grid else { continue };
            let scope = InstanceScope { vars: self.vars(stage.spec), grid, point: &point };
            wrongs.into_iter().for_each(|wrong| self.report(stage.spec, &scope, wrong, findings));
        }
    }

    /// Says which files are missing that stages name which are not left out.
    fn check_files<T>(&self, stages: &[Stage<'_>], bound: &[Option<T>], findings: &mut Findings) {
        for stage in stages {
            let Some(grid) = &stage.grid else { continue };
            let mut checked = BTreeSet::new();
            for (instance, point) in grid.points.iter().enumerate() {
                if bound[stage.first + instance].is_none() || !checked.insert(stage.params.of[instance]) {
                    continue;
                }
                let scope = InstanceScope { vars: self.vars(stage.spec), grid, point };
                for file in stage.params.get(instance).iter().flat_map(|resolved| &resolved.files) {
                    let path: Vec<String> = file.parameter.split('.').map(str::to_owned).collect();
                    self.check_file(stage.spec, &scope, &path, file, findings);
                }
            }
        }
    }

    fn report(&self, spec: &StageSpec, scope: &InstanceScope<'_>, wrong: Wrong, findings: &mut Findings) {
        let sets = &self.pipeline.sets;
        let typed = sets.iter().find(|((stage, path), _)| *stage == spec.full && wrong.path.starts_with(path));
        let full: Vec<String> = spec.with_path.iter().chain(&wrong.path).cloned().collect();
        let at = match typed {
            // Silenced paths count for arguments too.
            Some(_) if findings.is_silenced_below(&full) => return,
            Some((_, typed)) => At::Argument(typed.clone()),
            None if wrong.at_key => At::key(&full),
            None => At::value(&full),
        };
        let origin = self.origin(spec, scope, &wrong.path);
        findings.add_from(at, wrong.message, wrong.help, origin);
    }

    /// Where the value at a path of the parameters came from, if from a
    /// variable or an axis.
    fn origin(&self, spec: &StageSpec, scope: &InstanceScope<'_>, path: &[String]) -> Option<Origin> {
        let (first, rest) = path.split_first()?;
        let mut raw = spec.with.get(first)?;
        for step in rest {
            let next = match raw {
                Json::Array(items) => items.get(step.parse::<usize>().ok()?),
                other => other.get(step),
            };
            raw = match next {
                Some(next) => next,
                None => break,
            };
        }
        if !raw.is_string() {
            return None;
        }
        let mut names = BTreeSet::new();
        names_in(raw, &mut names);
        let name = names.into_iter().next()?;
        if scope.grid.axis(&name).is_some() {
            let value = crate::yaml::describe(scope.get(&name)?);
            return Some(Origin { text: format!("${{{name}}} is the axis' value, {value}"), at: None, variable: None });
        }
        self.vars(spec).origin(&name)
    }

    fn check_file(
        &self,
        spec: &StageSpec,
        scope: &InstanceScope<'_>,
        path: &[String],
        file: &ExternalFile,
        findings: &mut Findings,
    ) {
        let (hint, file) = (file.hint, &file.path);
        if file.exists() {
            return;
        }
        let help = match nearest_file(file) {
            Some(near) => format!("did you mean {:?}?", near.display().to_string()),
            None => {
                let variable = self.origin(spec, scope, path).and_then(|origin| origin.variable);
                let set = variable.filter(|_| spec.file == 0).map(|name| format!("set it with `--set {name}=VALUE`; "));
                let set = set.unwrap_or_default();
                let hint = hint.unwrap_or("relative paths are taken from the working directory");
                format!("{set}{hint}")
            }
        };
        let message = format!("{:?} does not exist", file.display().to_string());
        let wrong = Wrong { path: path.to_vec(), at_key: false, message, help: Some(help) };
        self.report(spec, scope, wrong, findings);
    }
}

/// A repeated stage's points in all turns.
fn unroll(spec: &StageSpec, repeat: &Repeat, grid: Grid, room: usize, findings: &mut Findings) -> Option<Grid> {
    if grid.axis(&repeat.axis).is_some() {
        let message = format!("stage {:?} is repeated over the axis {:?} already", spec.name, repeat.axis);
        findings.add(At::key(&under(&under(&spec.path, "matrix"), &repeat.axis)), message, None);
        return None;
    }
    let unrolled = repeat.unroll(grid, room);
    if unrolled.is_none() {
        findings.add(At::key(&spec.path), format!("too many instances: a pipeline may have {MAX_INSTANCES}"), None);
    }
    unrolled
}

/// Says every cycle once, by the names of its stages; where one stage needs
/// itself, by its instances.
fn report_cycles(
    stages: &[Stage<'_>],
    cycles: &[Vec<usize>],
    named_at: &HashMap<(usize, usize), At>,
    findings: &mut Findings,
) {
    let stage_of = |instance: usize| stages.partition_point(|stage| stage.first <= instance) - 1;
    let mut said: BTreeSet<BTreeSet<usize>> = BTreeSet::new();
    for cycle in cycles {
        let members: BTreeSet<usize> = cycle.iter().map(|instance| stage_of(*instance)).collect();
        if !said.insert(members.clone()) {
            continue;
        }
        let several = |stage: &usize| stages[*stage].grid.as_ref().is_some_and(|grid| grid.points.len() > 1);
        let by_instance = members.len() < cycle.len() || (members.len() == 1 && members.iter().all(several));
        let name = |instance: &usize| {
            let stage = &stages[stage_of(*instance)];
            if by_instance { stage.id(instance - stage.first).to_string() } else { stage.spec.full.clone() }
        };
        let names: Vec<String> = cycle.iter().chain(&cycle[..1]).map(name).collect();
        let (consumer, producer) = (stage_of(cycle[0]), stage_of(*cycle.last().expect("a cycle has a node")));
        let at = named_at.get(&(consumer, producer)).cloned().unwrap_or_else(|| At::key(&stages[consumer].spec.path));
        let help = "an input may not need, directly or not, the stage that takes it".to_owned();
        findings.add(at, format!("stages form a cycle: {}", names.join(" -> ")), Some(help));
    }
}

#[cfg(test)]
pub(crate) mod tests;
