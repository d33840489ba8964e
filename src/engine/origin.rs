//! Where a parameter got its value: a line of a pipeline file, an argument, or
//! the operator's default. For explanations; looks at the files as written.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use serde_json::Value as Json;

use crate::locate::{Part, locate};
use crate::plan::Node;
use crate::problem::Findings;
use crate::vars::names_in;
use crate::yaml;

/// The files of a pipeline as written, and what was said on the command line.
pub struct Origins {
    file: PathBuf,
    sets: Vec<String>,
    read: RefCell<HashMap<PathBuf, Option<Rc<Written>>>>,
}

/// A file as written.
struct Written {
    path: PathBuf,
    text: String,
    json: Json,
}

impl Origins {
    /// Of a pipeline file; files are read when they are asked for.
    pub fn of(file: &FilePath, sets: &[String]) -> Self {
        Self { file: file.to_owned(), sets: sets.to_vec(), read: RefCell::default() }
    }

    /// Where a parameter of an instance, `schedule.warmup` say, got its value:
    /// `file:line`, `--set NAME=VALUE` or `by default`.
    pub fn parameter(&self, node: &Node, parameter: &str) -> Option<String> {
        let written = self.written(node.file.as_deref().unwrap_or(&self.file))?;
        let mut path = written.parameters_of(node)?;
        let top = path.len();
        path.extend(parameter.split('.').map(str::to_owned));
        let ends = || (top + 1..=path.len()).rev();
        let argument = |end: usize| self.argument(&format!("{}.{}", node.id.stage, path[top..end].join(".")));
        if let Some(argument) = ends().find_map(argument) {
            return Some(argument);
        }
        for end in ends() {
            let Some(value) = written.get(&path[..end]) else { continue };
            if value.is_object() && end < path.len() {
                break;
            }
            let mut names = BTreeSet::new();
            if value.is_string() {
                names_in(value, &mut names);
            }
            // A name that is no variable is an axis, whose values stand with the stage.
            return match names.iter().find(|name| written.json["vars"].get(name.as_str()).is_some()) {
                Some(name) => {
                    let variable = || written.line(&["vars".to_owned(), name.clone()]);
                    // Arguments set the variables of the file that is run.
                    let argument = node.file.is_none().then(|| self.argument(name)).flatten();
                    argument.or_else(variable)
                }
                None => written.line(&path[..end]),
            };
        }
        Some("by default".to_owned())
    }

    /// The last argument that sets a name.
    fn argument(&self, name: &str) -> Option<String> {
        let named = |set: &&String| set.split('=').next().map(str::trim) == Some(name);
        self.sets.iter().rev().find(named).map(|argument| format!("--set {argument}"))
    }

    fn written(&self, path: &FilePath) -> Option<Rc<Written>> {
        let mut read = self.read.borrow_mut();
        read.entry(path.to_owned()).or_insert_with(|| Written::read(path).map(Rc::new)).clone()
    }
}

impl Written {
    fn read(path: &FilePath) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let json = yaml::parse(&text, &[], &mut Findings::default())?;
        Some(Self { path: path.to_owned(), text, json })
    }

    /// The path of the parameters of an instance's stage. In an included file
    /// the stage has its name without the file's prefix; its line tells which it is.
    fn parameters_of(&self, node: &Node) -> Option<Vec<String>> {
        let (section, name) = match node.id.stage.strip_prefix("tables.") {
            Some(table) => ("tables", table),
            None => ("stages", node.id.stage.as_str()),
        };
        let path = |name: &str| vec![section.to_owned(), name.to_owned()];
        let mut found = self.json[section].as_object()?.keys().filter(|local| {
            name == local.as_str()
                || (name.ends_with(&format!("_{local}"))
                    && locate(&self.text, &path(local), Part::Key).is_some_and(|(line, _)| line == node.line))
        });
        let mut path = path(found.next()?);
        if section == "stages" {
            path.push("with".to_owned());
        }
        Some(path)
    }

    fn line(&self, path: &[String]) -> Option<String> {
        let (line, _) = locate(&self.text, path, Part::Key).or_else(|| locate(&self.text, path, Part::Value))?;
        Some(format!("{}:{line}", self.path.display()))
    }

    fn get(&self, path: &[String]) -> Option<&Json> {
        path.iter().try_fold(&self.json, |value, step| match value {
            Json::Array(items) => items.get(step.parse::<usize>().ok()?),
            other => other.get(step),
        })
    }
}
