//! What a program is told of its inputs and outputs, and reading back what it made.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fuseline_contract::{Cause, Class, Model, Run, StageError, Table};
use fuseline_weights::Folder;
use parquet::arrow::ArrowWriter;
use serde_json::{Value as Json, json};

use super::{Config, Shape};
use crate::load;

/// The forms in which a table may be written.
const FORMATS: [&str; 3] = ["parquet", "jsonl", "csv"];

/// Something in braces within an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder<'a> {
    /// `{input.NAME}`
    Input(&'a str),
    /// `{output.NAME}`, or with a form behind it.
    Output(&'a str, &'a str),
    /// `{file.NAME}`
    File(&'a str),
    /// `{scratch}`
    Scratch,
    /// `{threads}`
    Threads,
    /// `{io}`
    Io,
}

/// The texts in braces that can be meant as placeholders; others are the program's own.
pub fn placeholders(argument: &str) -> impl Iterator<Item = &str> {
    let inner = argument.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(inner, _)| inner));
    inner.filter(|text| {
        let first = text.split('.').next().unwrap_or_default();
        ["scratch", "threads", "io"].contains(text)
            || (["input", "output", "file"].contains(&first) && text.contains('.'))
    })
}

impl<'a> Placeholder<'a> {
    /// What a text in braces means.
    pub fn of(text: &'a str, config: &Config) -> Result<Self, String> {
        let unknown = |what: &str, name: &str, known: Vec<&String>| {
            let known = if known.is_empty() {
                format!("`{what}s` has none")
            } else {
                format!("`{what}s` has {}", known.into_iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            };
            format!("{{{text}}} means the {what} {name:?}, and {known}")
        };
        match text.split_once('.') {
            None => Ok(match text {
                "scratch" => Self::Scratch,
                "threads" => Self::Threads,
                _ => Self::Io,
            }),
            Some(("input", name)) => match config.inputs.contains_key(name) {
                true => Ok(Self::Input(name)),
                false => Err(unknown("input", name, config.inputs.keys().collect())),
            },
            Some(("file", name)) => match config.files.contains_key(name) {
                true => Ok(Self::File(name)),
                false => Err(unknown("file", name, config.files.keys().collect())),
            },
            Some((_, rest)) => {
                let (name, format) = rest.split_once('.').unwrap_or((rest, FORMATS[0]));
                match config.outputs.get(name) {
                    None => Err(unknown("output", name, config.outputs.keys().collect())),
                    Some(Shape::Model) if rest != name => Err(format!("{{{text}}}: a model is a folder")),
                    Some(_) if !FORMATS.contains(&format) => {
                        Err(format!("{{{text}}}: expected {} behind the name", FORMATS.join(", ")))
                    }
                    Some(_) => Ok(Self::Output(name, format)),
                }
            }
        }
    }

    /// Several models are several arguments, so nothing may stand beside them.
    pub fn fits(self, argument: &str, config: &Config) -> Result<(), String> {
        match self {
            Self::Input(name) if config.inputs[name] == Shape::Models && argument != format!("{{input.{name}}}") => {
                Err(format!("{{input.{name}}} is several folders; it must stand alone in its argument"))
            }
            _ => Ok(()),
        }
    }
}

/// Where a program finds its inputs and leaves its outputs.
pub struct Exchange {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The file that says where everything is.
    pub io: PathBuf,
    /// Its working directory.
    pub scratch: PathBuf,
    /// For its temporary files.
    pub temporary: PathBuf,
    outputs: PathBuf,
}

enum Given {
    Table(PathBuf),
    Models(Vec<Model>),
}

impl Exchange {
    /// Writes tables, makes folders and the file that names them all.
    pub fn prepare(config: &Config, run: &dyn Run) -> Result<Self, StageError> {
        let scratch = run.scratch()?;
        let folder = |name: &str| {
            let folder = scratch.join(name);
            fs::create_dir_all(&folder).map_err(|error| StageError::io("create", &folder, &error))?;
            Ok::<_, StageError>(folder)
        };
        let inputs = folder("inputs")?;
        let mut given = BTreeMap::new();
        for (name, shape) in &config.inputs {
            let found = match shape {
                Shape::Model | Shape::Models => Given::Models(run.models(name)?),
                _ => {
                    let path = inputs.join(format!("{name}.parquet"));
                    write(&run.table(name)?, &path)?;
                    Given::Table(path)
                }
            };
            given.insert(name.as_str(), found);
        }
        let mut exchange = Self {
            program: run.file("program")?,
            args: Vec::new(),
            io: scratch.join("io.json"),
            scratch: folder("work")?,
            temporary: folder("tmp")?,
            outputs: folder("outputs")?,
        };
        for argument in &config.args {
            exchange.args.extend(exchange.argument(argument, config, run, &given)?);
        }
        let told = exchange.told(config, run, &given)?;
        let bytes = serde_json::to_vec_pretty(&told).expect("plain data");
        fs::write(&exchange.io, bytes).map_err(|error| StageError::io("write", &exchange.io, &error))?;
        Ok(exchange)
    }

    fn output(&self, name: &str, format: &str) -> PathBuf {
        self.outputs.join(format!("{name}.{format}"))
    }

    /// An argument with paths in place of its placeholders.
    fn argument(
        &self,
        argument: &str,
        config: &Config,
        run: &dyn Run,
        given: &BTreeMap<&str, Given>,
    ) -> Result<Vec<String>, StageError> {
        let mut filled = argument.to_owned();
        for text in placeholders(argument) {
            let value = match Placeholder::of(text, config).map_err(StageError::bug)? {
                Placeholder::Input(name) => match &given[name] {
                    Given::Table(path) => shown(path),
                    Given::Models(models) if config.inputs[name] == Shape::Models => {
                        return Ok(models.iter().map(|model| shown(&model.path)).collect());
                    }
                    Given::Models(models) => models.first().map(|model| shown(&model.path)).unwrap_or_default(),
                },
                Placeholder::Output(name, format) => match config.outputs[name] {
                    Shape::Model => shown(&run.model_folder(name)?),
                    _ => shown(&self.output(name, format)),
                },
                Placeholder::File(name) => shown(&run.file(&format!("files.{name}"))?),
                Placeholder::Scratch => shown(&self.scratch),
                Placeholder::Threads => run.threads().to_string(),
                Placeholder::Io => shown(&self.io),
            };
            filled = filled.replacen(&format!("{{{text}}}"), &value, 1);
        }
        Ok(vec![filled])
    }

    /// The content of the file that says where everything is.
    fn told(&self, config: &Config, run: &dyn Run, given: &BTreeMap<&str, Given>) -> Result<Json, StageError> {
        let kind = |shape: &Shape| serde_json::to_value(shape).expect("a word");
        let input = |(name, shape): (&String, &Shape)| {
            let told = match &given[name.as_str()] {
                Given::Table(path) => json!({"kind": kind(shape), "path": path}),
                Given::Models(models) if *shape == Shape::Models => {
                    let models = models.iter().map(|model| json!({"label": model.label, "path": model.path}));
                    json!({"kind": "models", "models": models.collect::<Vec<_>>()})
                }
                Given::Models(models) => json!({"kind": "model", "path": models.first().map(|model| &model.path)}),
            };
            (name.clone(), told)
        };
        let output = |(name, shape): (&String, &Shape)| {
            let told = match shape {
                Shape::Model => json!({"kind": "model", "path": run.model_folder(name)?}),
                _ => {
                    let forms = FORMATS.map(|format| (format.to_owned(), json!(self.output(name, format))));
                    let forms: serde_json::Map<_, _> = forms.into_iter().collect();
                    json!({"kind": kind(shape), "path": self.output(name, FORMATS[0]), "forms": forms})
                }
            };
            Ok((name.clone(), told))
        };
        let file = |name: &String| Ok((name.clone(), json!(run.file(&format!("files.{name}"))?)));
        let inputs: serde_json::Map<_, _> = config.inputs.iter().map(input).collect();
        let outputs = config.outputs.iter().map(output).collect::<Result<serde_json::Map<_, _>, StageError>>()?;
        let files = config.files.keys().map(file).collect::<Result<serde_json::Map<_, _>, StageError>>()?;
        let threads = run.threads();
        Ok(json!({"inputs": inputs, "outputs": outputs, "files": files, "scratch": self.scratch, "threads": threads}))
    }

    /// Checks what the program made and hands it on.
    pub fn collect(&self, config: &Config, run: &dyn Run) -> Result<(), StageError> {
        for (name, shape) in &config.outputs {
            if *shape == Shape::Model {
                let folder = run.model_folder(name)?;
                check_model(&folder).map_err(|what| promised(name, &what))?;
            } else {
                run.write(name, self.table(name, *shape)?)?;
            }
        }
        Ok(())
    }

    fn table(&self, name: &str, shape: Shape) -> Result<Table, StageError> {
        let written: Vec<PathBuf> =
            FORMATS.map(|format| self.output(name, format)).into_iter().filter(|path| path.is_file()).collect();
        let path = match &written[..] {
            [path] => path,
            [] => {
                let what = format!("the program did not write it; expected {}", shown(&self.output(name, FORMATS[0])));
                let hint = format!("write to {{output.{name}}}, {{output.{name}.jsonl}} or {{output.{name}.csv}}");
                return Err(promised(name, &what).hint(hint));
            }
            [one, two, ..] => {
                return Err(promised(name, &format!("the program wrote both {} and {}", shown(one), shown(two))));
            }
        };
        let empty = fs::metadata(path).map_err(|error| StageError::io("read", path, &error))?.len() == 0;
        let table = match (empty, shape.rows()) {
            (true, Some(rows)) => Table::empty(std::sync::Arc::new(rows.schema())),
            (true, None) => {
                return Err(promised(name, "the file is empty, so nothing tells its columns").hint("write Parquet"));
            }
            (false, _) => load::read(path).map_err(|error| blame(name, error))?,
        };
        let Some(rows) = shape.rows() else { return Ok(table) };
        let table = if shape == Shape::Prompt { load::as_prompts(table)? } else { table };
        table.conform(rows).map_err(|error| promised(name, &format!("they are no {rows} rows: {error}")))
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// An output that is not what was promised: the program's fault.
fn promised(output: &str, what: &str) -> StageError {
    StageError::work(format!("output {output:?}: {what}")).of_class(Class::Contract)
}

fn blame(output: &str, error: StageError) -> StageError {
    match error.cause {
        Cause::Input => promised(output, &error.message),
        _ => error,
    }
}

fn write(table: &Table, path: &Path) -> Result<(), StageError> {
    let file = File::create(path).map_err(|error| StageError::io("create", path, &error))?;
    let failed = |error: parquet::errors::ParquetError| {
        StageError::environment(format!("failed to write {}: {error}", path.display()))
    };
    let mut writer = ArrowWriter::try_new(file, table.schema().clone(), None).map_err(failed)?;
    for batch in table.batches() {
        writer.write(batch).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok(())
}

/// A folder that transformers would load: a configuration and weights.
fn check_model(folder: &Path) -> Result<(), String> {
    if !folder.join("config.json").is_file() {
        return Err("the folder has no config.json".to_owned());
    }
    let weights = Folder::open(folder).map_err(|error| error.to_string())?;
    if weights.names().len() == 0 {
        return Err("its weights have no tensor".to_owned());
    }
    Ok(())
}
