//! The engine's side of [`fuseline_contract::Run`]: a stage's inputs out of the
//! store, its outputs into the attempt's folder, its reports upward.
//!
//! Must not know the plan, keys, or where in a pipeline the stage stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Float64Type};
use fuseline_contract::hash::Domain;
use fuseline_contract::rows::{METRIC, RowType};
use fuseline_contract::{
    Checkpoints, Class, Memo, Model, Progress, RowCounts, RowFunction, RowKey, Run, Secret, StageError, Table, Usage,
};

use crate::attempt::{InputSpec, MemoUse, PortKind, Report, SourceSpec, Spec, Spent};
use crate::error::At;
use crate::secrets::Vault;
use crate::store::Store;
use crate::store::memo::RowMemo;
use crate::store::staging::{self, Copies, Staged};

/// Reports of progress and of what was spent that come quicker than this are left out.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// What the names of outputs begin with in the attempt's folder.
const OUT: &str = "out-";
/// The folder for anything temporary.
const SCRATCH: &str = "scratch";

/// Removes what a failed attempt made. What tells of it stays for study: its
/// specification, events and logs.
pub(crate) fn discard(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(OUT) || name == SCRATCH {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// A running stage.
pub struct StageRun<'a> {
    store: &'a Store,
    spec: &'a Spec,
    folder: &'a Path,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    report: &'a (dyn Fn(Report) + Sync),
    staged: Mutex<BTreeMap<String, Staged>>,
    copies: Copies,
    reported: Mutex<Option<Instant>>,
    told_spent: Mutex<Option<Instant>>,
    vault: &'a Vault,
    resumed: Mutex<Option<u64>>,
    memos: Mutex<Vec<Arc<RowMemo>>>,
    reused: AtomicU64,
    fresh: AtomicU64,
    used: Mutex<Usage>,
    origins: Mutex<Vec<String>>,
}

impl<'a> StageRun<'a> {
    /// A stage whose outputs go into an attempt's folder, which is there.
    pub(crate) fn new(
        store: &'a Store,
        spec: &'a Spec,
        folder: &'a Path,
        cancelled: &'a (dyn Fn() -> bool + Sync),
        report: &'a (dyn Fn(Report) + Sync),
        vault: &'a Vault,
    ) -> Self {
        let (staged, copies, used, origins) = Default::default();
        let (reported, told_spent) = (Mutex::default(), Mutex::default());
        let (resumed, memos) = (Mutex::default(), Mutex::default());
        let (reused, fresh) = (AtomicU64::default(), AtomicU64::default());
        Self {
            store,
            spec,
            folder,
            cancelled,
            report,
            staged,
            copies,
            reported,
            told_spent,
            vault,
            resumed,
            memos,
            reused,
            fresh,
            used,
            origins,
        }
    }

    fn input(&self, port: &str) -> Result<&InputSpec, StageError> {
        let bound = self.spec.inputs.iter().find(|input| input.port == port);
        bound.filter(|input| !input.sources.is_empty()).ok_or_else(|| {
            StageError::bug(format!("operator {:?} asks for input {port:?}, which is not bound", self.spec.operator))
        })
    }

    fn output(&self, name: &str) -> Result<&PortKind, StageError> {
        let found = self.spec.outputs.iter().find(|(output, _)| output == name);
        found
            .map(|(_, kind)| kind)
            .ok_or_else(|| StageError::bug(format!("operator {:?} has no output {name:?}", self.spec.operator)))
    }

    /// Where a model output lies until it is published.
    fn out(&self, output: &str) -> PathBuf {
        self.folder.join(format!("{OUT}{output}"))
    }

    /// The same of a table. A stage on a thread, of which there may be thousands
    /// of short ones, needs no folder for it.
    fn table_file(&self, output: &str) -> PathBuf {
        if self.spec.attended { self.out(output) } else { self.store.temporary(output) }
    }

    /// What it took from outside.
    pub(crate) fn origins(&self) -> Vec<String> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The steps that an earlier attempt had done, if it goes on from there.
    pub(crate) fn resumed_at(&self) -> Option<u64> {
        *self.resumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports what was spent so far: rows where the row memo was used, tokens
    /// and money where the operator tells.
    pub(crate) fn tell_spent(&self) -> Spent {
        let (reused, fresh) = (self.reused.load(Ordering::Relaxed), self.fresh.load(Ordering::Relaxed));
        let rows = (reused + fresh > 0).then_some(RowCounts { reused, fresh });
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = (!used.is_nothing()).then_some(used);
        rows.into_iter().for_each(|rows| (self.report)(Report::Rows(rows)));
        usage.into_iter().for_each(|usage| (self.report)(Report::Usage(usage)));
        Spent { rows, usage, energy_joules: None }
    }

    /// All outputs in the order of the ports, complete. Every row that was
    /// remembered is on the disk by then.
    pub(crate) fn finish(self) -> Result<Vec<(String, Staged)>, StageError> {
        for memo in std::mem::take(&mut *self.memos.lock().unwrap_or_else(PoisonError::into_inner)) {
            memo.finish()?;
        }
        let mut staged = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        let mut outputs = Vec::new();
        for (name, kind) in &self.spec.outputs {
            let folder = self.out(name);
            let output = match (staged.remove(name), kind) {
                (Some(output), _) => output,
                (None, PortKind::Model) if folder.is_dir() => staging::stage_model(&folder, &self.copies)?,
                (None, _) => return Err(self.unwritten(name)),
            };
            if output.manifest.files.is_empty() {
                return Err(self.unwritten(name));
            }
            outputs.push((name.clone(), output));
        }
        Ok(outputs)
    }

    fn unwritten(&self, output: &str) -> StageError {
        StageError::bug(format!("operator {:?} did not write its output {output:?}", self.spec.operator))
            .of_class(Class::Contract)
    }
}

impl Drop for StageRun<'_> {
    /// What was written and will not be published.
    fn drop(&mut self) {
        for staged in self.staged.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            staged.paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
        }
    }
}

impl Run for StageRun<'_> {
    fn seed(&self) -> u64 {
        self.spec.seed
    }

    fn threads(&self) -> usize {
        self.spec.threads as usize
    }

    fn has(&self, port: &str) -> bool {
        self.spec.inputs.iter().any(|input| input.port == port && !input.sources.is_empty())
    }

    fn table(&self, port: &str) -> Result<Table, StageError> {
        let input = self.input(port)?;
        let mut tables = Vec::new();
        for source in &input.sources {
            let table = self.store.table(&source.artifact)?;
            tables.push(
                gather(table, source, &input.sources)
                    .map_err(|message| StageError::input(format!("input {port:?}: {message}")))?,
            );
        }
        let refuse = |error: fuseline_contract::table::TableError| {
            let from: Vec<_> = input.sources.iter().map(|source| source.from.to_string()).collect();
            StageError::input(format!("input {port:?} from {}: {error}", from.join(", ")))
        };
        let table = match tables.len() {
            1 => tables.remove(0),
            _ => Table::concat(&tables).map_err(refuse)?,
        };
        match input.kind.rows() {
            Some(rows) => table.conform(rows).map_err(refuse),
            None => Ok(table),
        }
    }

    fn models(&self, port: &str) -> Result<Vec<Model>, StageError> {
        if !self.has(port) {
            return Ok(Vec::new());
        }
        let model = |source: &SourceSpec| {
            let content = self.store.manifest(&source.artifact)?.content;
            Ok(Model {
                label: source.label.clone(),
                path: self.store.view(&source.artifact)?,
                endpoint: source.endpoint.clone(),
                content,
            })
        };
        self.input(port)?.sources.iter().map(model).collect()
    }

    fn file(&self, parameter: &str) -> Result<PathBuf, StageError> {
        let found = self.spec.files.iter().find(|file| file.parameter == parameter);
        found.map(|file| file.path.clone()).ok_or_else(|| {
            StageError::bug(format!("operator {:?} has no file parameter {parameter:?}", self.spec.operator))
        })
    }

    fn secret(&self, secret: &Secret) -> Result<String, StageError> {
        self.vault.get(&secret.name).map(str::to_owned)
    }

    fn write(&self, output: &str, table: Table) -> Result<(), StageError> {
        let kind = self.output(output)?;
        if *kind == PortKind::Model {
            return Err(StageError::bug(format!("output {output:?} is a model, not a table")));
        }
        let table = match kind.rows() {
            Some(rows) => {
                let table = table.conform(rows).map_err(|error| {
                    StageError::bug(format!("output {output:?}: {error}")).of_class(Class::Contract)
                })?;
                finite(&table, rows).map_err(|message| {
                    StageError::work(format!("output {output:?}: {message}")).of_class(Class::Contract)
                })?;
                table
            }
            None => table,
        };
        let mut all = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains_key(output) {
            return Err(StageError::bug(format!("output {output:?} is written twice")));
        }
        let file = self.table_file(output);
        let staged = staging::stage_table(&table, &file).inspect_err(|_| drop(std::fs::remove_file(&file)))?;
        all.insert(output.to_owned(), staged);
        Ok(())
    }

    fn model_folder(&self, output: &str) -> Result<PathBuf, StageError> {
        if *self.output(output)? != PortKind::Model {
            return Err(StageError::bug(format!("output {output:?} is a table, not a model")));
        }
        let folder = self.out(output);
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        Ok(folder)
    }

    fn copy_to_model(&self, output: &str, files: &[PathBuf]) -> Result<(), StageError> {
        Ok(self.copies.add_all(self.store, files, &self.model_folder(output)?)?)
    }

    fn scratch(&self) -> Result<PathBuf, StageError> {
        let folder = self.folder.join(SCRATCH);
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        Ok(folder)
    }

    fn checkpoints(&self) -> Checkpoints {
        Checkpoints { folder: self.store.checkpoint(&self.spec.key), identity: self.spec.key.to_string() }
    }

    fn resumed(&self, step: u64) {
        *self.resumed.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    fn memo(&self, function: &RowFunction) -> Result<Box<dyn Memo + '_>, StageError> {
        let memo = match self.spec.memo {
            MemoUse::Off => None,
            MemoUse::On | MemoUse::Renew => {
                let memo = Arc::new(RowMemo::open(self.store, function.name())?);
                self.memos.lock().unwrap_or_else(PoisonError::into_inner).push(memo.clone());
                Some(memo)
            }
        };
        Ok(Box::new(StageMemo { memo, run: self }))
    }

    fn progress(&self, progress: Progress) {
        if is_due(&self.reported) || progress.done == progress.total {
            (self.report)(Report::Progress(progress));
            self.tell_spent();
        }
    }

    fn used(&self, usage: Usage) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) += usage;
        if is_due(&self.told_spent) {
            self.tell_spent();
        }
    }

    fn origin(&self, what: String) {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn note(&self, text: String) {
        (self.report)(Report::Note(text));
    }

    fn cancelled(&self) -> bool {
        (self.cancelled)()
    }
}

/// Whether something may be reported again; if so, it counts as reported.
fn is_due(last: &Mutex<Option<Instant>>) -> bool {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let due = last.is_none_or(|then| then.elapsed() >= REPORT_EVERY);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// The row memo as a stage sees it: counted, told of, and salted as the stage's
/// own key is.
struct StageMemo<'a> {
    memo: Option<Arc<RowMemo>>,
    run: &'a StageRun<'a>,
}

impl StageMemo<'_> {
    fn salted(&self, key: &RowKey) -> RowKey {
        let salt = self.run.spec.salt.as_deref();
        salt.map_or(*key, |salt| {
            RowKey(*Domain::RowKey.hasher().update(&key.0).update(salt.as_bytes()).finalize().as_bytes())
        })
    }
}

impl Memo for StageMemo<'_> {
    fn get_many(&self, keys: &[RowKey], take: &mut dyn FnMut(usize, &[u8]) -> bool) -> Result<(), StageError> {
        let Some(memo) = self.memo.as_ref().filter(|_| self.run.spec.memo == MemoUse::On) else { return Ok(()) };
        let salted: Vec<RowKey> = keys.iter().map(|key| self.salted(key)).collect();
        let looked = memo.get_many(&salted, take)?;
        self.run.reused.fetch_add(looked.found as u64, Ordering::Relaxed);
        if looked.found > 0 {
            self.run.note(format!("{} of {} rows are remembered", looked.found, keys.len()));
        }
        if looked.damaged > 0 {
            self.run.note(format!("{} remembered rows are damaged and are computed again", looked.damaged));
        }
        Ok(())
    }

    fn put(&self, key: &RowKey, row: &[u8]) -> Result<(), StageError> {
        if let Some(memo) = &self.memo {
            memo.put(&self.salted(key), row, self.run.spec.memo == MemoUse::Renew)?;
        }
        self.run.fresh.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Adds a source's axes as columns: whole numbers where every value of the axis
/// is one, else text. A column that is there already must hold the value.
fn gather(table: Table, source: &SourceSpec, all: &[SourceSpec]) -> Result<Table, String> {
    let mut table = table;
    for (axis, value) in &source.axes {
        if table.has(axis) {
            holds(&table, axis, value, source)?;
            continue;
        }
        let whole = all.iter().all(|source| source.axes.get(axis).is_none_or(|value| value.parse::<i64>().is_ok()));
        let rows = table.n_rows();
        let column: ArrayRef = match value.parse::<i64>() {
            Ok(value) if whole => Arc::new(Int64Array::from_value(value, rows)),
            _ => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))),
        };
        let field = Field::new(axis, column.data_type().clone(), false);
        let column = Table::of_columns(vec![(field, column)]).map_err(|error| error.to_string())?;
        table = table.beside(&column).map_err(|error| error.to_string())?;
    }
    Ok(table)
}

fn holds(table: &Table, axis: &str, value: &str, source: &SourceSpec) -> Result<(), String> {
    let mut first = 0;
    for batch in table.batches() {
        let column = batch.column_by_name(axis).expect("the caller saw it");
        let texts = compute::cast(column, &DataType::Utf8).map_err(|error| error.to_string())?;
        let texts = texts.as_string::<i32>();
        let same = |text: &str| {
            text == value || matches!((text.parse::<f64>(), value.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
        };
        if let Some(row) = (0..texts.len()).find(|row| texts.is_null(*row) || !same(texts.value(*row))) {
            let found = if texts.is_null(row) { "null".to_owned() } else { format!("{:?}", texts.value(row)) };
            return Err(format!(
                "{} is gathered over the axis {axis:?} and has a column of that name, which holds {found} in row {} instead of {value:?}",
                source.from,
                first + row,
            ));
        }
        first += batch.num_rows();
    }
    Ok(())
}

/// A metric that is not a number must not reach a paper.
fn finite(table: &Table, rows: &RowType) -> Result<(), String> {
    if *rows != METRIC {
        return Ok(());
    }
    let mut first = 0;
    for batch in table.batches() {
        for column in rows.columns().iter().filter(|column| !column.nullable) {
            let Some(values) =
                batch.column_by_name(column.name).and_then(|array| array.as_primitive_opt::<Float64Type>())
            else {
                continue;
            };
            if let Some(row) = values.values().iter().position(|value| !value.is_finite()) {
                return Err(format!("row {}: column {:?} is {}", first + row, column.name, values.value(row)));
            }
        }
        first += batch.num_rows();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fuseline_contract::{Digest, StageId};

    use super::*;

    fn source(stage: &str, axes: &[(&str, &str)]) -> SourceSpec {
        SourceSpec {
            artifact: Digest::of_bytes(b""),
            from: StageId::plain(stage),
            label: None,
            axes: axes.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect(),
            endpoint: None,
        }
    }

    fn table(column: &str, values: &[&str]) -> Table {
        let array = Arc::new(StringArray::from(values.to_vec()));
        Table::of_columns(vec![(Field::new(column, DataType::Utf8, false), array)]).expect("a table")
    }

    #[test]
    fn axes_become_columns_of_numbers_only_if_all_are() {
        let numbers = [source("a", &[("round", "1")]), source("a", &[("round", "2")])];
        let gathered = gather(table("x", &["u", "v"]), &numbers[1], &numbers).expect("gathered");
        assert_eq!(gathered.schema().field(1).data_type(), &DataType::Int64);
        let mixed = [source("a", &[("round", "1")]), source("a", &[("round", "last")])];
        let gathered = gather(table("x", &["u"]), &mixed[0], &mixed).expect("gathered");
        assert_eq!(gathered.schema().field(1).data_type(), &DataType::Utf8);
        assert_eq!(gathered.n_rows(), 1);
    }

    #[test]
    fn a_column_of_the_axis_name_must_hold_its_value() {
        let owl = [source("sampled", &[("source", "owl")])];
        let same = gather(table("source", &["owl", "owl"]), &owl[0], &owl).expect("gathered");
        assert_eq!(same.schema().fields().len(), 1);
        let message = gather(table("source", &["owl", "fox"]), &owl[0], &owl).expect_err("differs");
        assert!(message.contains("\"fox\" in row 1 instead of \"owl\""), "{message}");
    }
}
