//! Tests from the columns of a table, as benchmarks hold them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use fuseline_contract::rows::Response;
use fuseline_contract::{StageError, Table};
use fuseline_metrics::code::{Plus, Suite};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the tests are and how a program meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// HumanEval: the answer goes on after `prompt`, `test` defines `check`, which is called with `entry_point`.
    Humaneval,
    /// MBPP: the answer is a program, `test_list` are assertions.
    Mbpp,
    /// HumanEval+ and MBPP+: calls of `entry_point` beside those of `canonical_solution`.
    Evalplus,
    /// Programs that read `inputs` and print `outputs`, a run each.
    Stdio,
}

impl Method {
    /// Its name in pipelines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Humaneval => "humaneval",
            Self::Mbpp => "mbpp",
            Self::Evalplus => "evalplus",
            Self::Stdio => "stdio",
        }
    }
}

/// What one answer is put to.
pub struct Task {
    /// The code before the answer.
    pub before: String,
    /// The code after it, which the tests rest on.
    pub after: String,
    pub suite: Suite,
}

/// The task of every response.
pub fn read(method: Method, table: &Table, responses: &[Response]) -> Result<Vec<Task>, StageError> {
    let batch = table.one_batch()?;
    let columns = Columns { batch: &batch, method };
    let tasks: Vec<Result<Task, String>> = match method {
        Method::Humaneval => {
            let [prompts, tests, names] =
                [columns.texts("prompt")?, columns.texts("test")?, columns.texts("entry_point")?];
            let task = |row: usize| {
                let test = format!("{}\ncheck({})", tests.get(row)?, names.get(row)?);
                Ok(Task { before: prompts.get(row)?, after: String::new(), suite: Suite::Snippets(vec![test]) })
            };
            (0..responses.len()).map(task).collect()
        }
        Method::Mbpp => {
            let tests = columns.lists("test_list")?;
            let setup = columns.has("test_setup_code").then(|| columns.texts("test_setup_code")).transpose()?;
            let imports = columns.has("test_imports").then(|| columns.lists("test_imports")).transpose()?;
            let task = |row: usize| {
                let imports = imports.as_ref().and_then(|imports| imports.get(row).ok()).unwrap_or_default();
                let before: String = imports.iter().map(|line| format!("{line}\n")).collect();
                // It may use what the program defines.
                let setup = setup.as_ref().and_then(|setup| setup.get(row).ok()).unwrap_or_default();
                let after = if setup.is_empty() { setup } else { format!("\n{setup}") };
                let tests = tests.get(row)?;
                if tests.is_empty() {
                    return Err("\"test_list\" is empty, so that any program would pass".to_owned());
                }
                Ok(Task { before, after, suite: Suite::Snippets(tests) })
            };
            (0..responses.len()).map(task).collect()
        }
        Method::Evalplus => {
            let [tasks, prompts] = [columns.texts("task_id")?, columns.texts("prompt")?];
            let [solutions, names] = [columns.texts("canonical_solution")?, columns.texts("entry_point")?];
            let [base, plus] = [columns.texts("base_input")?, columns.texts("plus_input")?];
            let tolerances = columns.numbers("atol")?;
            let task = |row: usize| {
                let before = prompts.get(row)?;
                let suite = Suite::Plus(Plus {
                    task: tasks.get(row)?,
                    reference: format!("{before}{}", solutions.get(row)?),
                    entry_point: names.get(row)?,
                    inputs: vec![base.get(row)?, plus.get(row)?],
                    atol: tolerances[row].unwrap_or(0.0),
                });
                Ok(Task { before, after: String::new(), suite })
            };
            (0..responses.len()).map(task).collect()
        }
        Method::Stdio => {
            let [inputs, outputs] = [columns.lists("inputs")?, columns.lists("outputs")?];
            let task = |row: usize| {
                let (inputs, outputs) = (inputs.get(row)?, outputs.get(row)?);
                if inputs.len() != outputs.len() || inputs.is_empty() {
                    return Err(format!("{} inputs stand beside {} outputs", inputs.len(), outputs.len()));
                }
                Ok(Task {
                    before: String::new(),
                    after: String::new(),
                    suite: Suite::Stdio(inputs.into_iter().zip(outputs).collect()),
                })
            };
            (0..responses.len()).map(task).collect()
        }
    };
    let of_row = |(response, task): (&Response, Result<Task, String>)| {
        task.map_err(|problem| StageError::input(format!("prompt {:?}: {problem}", response.prompt_id)))
    };
    responses.iter().zip(tasks).map(of_row).collect()
}

struct Columns<'b> {
    batch: &'b RecordBatch,
    method: Method,
}

/// A column of texts.
struct Texts {
    name: &'static str,
    array: ArrayRef,
}

/// A column of lists of texts.
struct Lists {
    name: &'static str,
    array: ArrayRef,
}

impl Columns<'_> {
    fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    fn of(&self, name: &'static str, wanted: &DataType, says: &str) -> Result<ArrayRef, StageError> {
        let Some(column) = self.batch.column_by_name(name) else {
            return Err(StageError::input(format!(
                "the responses have no column {name:?}, which the method {:?} reads",
                self.method.name()
            ))
            .hint("carry it along from the prompts: extra columns of prompts are passed through by `sample`"));
        };
        let wrong = || StageError::input(format!("{name:?} is {}, expected {says}", column.data_type()));
        let nested = |kind: &DataType| matches!(kind, DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_));
        if nested(column.data_type()) != nested(wanted) {
            return Err(wrong());
        }
        cast(column, wanted).map_err(|_| wrong())
    }

    fn texts(&self, name: &'static str) -> Result<Texts, StageError> {
        Ok(Texts { name, array: self.of(name, &DataType::Utf8, "a text")? })
    }

    fn lists(&self, name: &'static str) -> Result<Lists, StageError> {
        let wanted = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        Ok(Lists { name, array: self.of(name, &wanted, "a list of texts")? })
    }

    fn numbers(&self, name: &'static str) -> Result<Vec<Option<f64>>, StageError> {
        let array = self.of(name, &DataType::Float64, "a number")?;
        Ok(array.as_primitive::<Float64Type>().iter().collect())
    }
}

impl Texts {
    fn get(&self, row: usize) -> Result<String, String> {
        if self.array.is_null(row) {
            return Err(format!("{:?} is null", self.name));
        }
        Ok(self.array.as_string::<i32>().value(row).to_owned())
    }
}

impl Lists {
    fn get(&self, row: usize) -> Result<Vec<String>, String> {
        if self.array.is_null(row) {
            return Err(format!("{:?} is null", self.name));
        }
        let items = self.array.as_list::<i32>().value(row);
        Ok(items.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
    }
}
