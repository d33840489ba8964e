//! DataFusion behind the names that a user knows. Registering touches no file:
//! a table is opened when the first query names it. Results come as a stream,
//! and what does not fit into the given memory goes through files.
//!
//! With one thread the rows of a query without ORDER BY come in the order of
//! the files, and sums of floats are always the same; with more threads queries
//! of large tables are faster and neither is promised.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use fuseline_contract::table::TableError;
use fuseline_contract::{StageError, Table};
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::error::{Error, Result, nearest};
use crate::functions;
use crate::memory;
use crate::names::{beginning, dotted, one_statement, references};
use crate::scan::Gathered;
pub use crate::scan::Part;

/// Where a bare name lives; never seen by a user.
const CATALOG: &str = "fuseline";
const SCHEMA: &str = "stages";

/// How often a query that may be cancelled looks whether it was.
const CANCEL_EVERY: Duration = Duration::from_millis(50);

/// What queries may use.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Threads, at least one.
    pub threads: usize,
    /// Bytes that sorts, groups and joins may hold; what is more goes through files. Unlimited if there is none.
    pub memory_bytes: Option<usize>,
    /// An existing folder for those files; the system's if there is none.
    pub spill: Option<PathBuf>,
    /// Set to break off what runs.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Contents {
    /// Parquet files of several stage instances.
    Files(Vec<Part>),
    /// A table in memory.
    Memory(Table),
}

/// Gives the contents of a name when a query asks for it.
type Open<'a> = Box<dyn Fn() -> Result<Contents, StageError> + 'a>;
/// Gives the contents of a name that is not listed; none if there is no such name.
type OpenUnlisted<'a> = Box<dyn Fn(&str) -> Option<Result<Contents, StageError>> + 'a>;

/// What runs queries.
struct Engine {
    context: SessionContext,
    runtime: Runtime,
}

/// Engines of one thread that nobody uses at this moment: making one costs more
/// than a small query.
static IDLE: Mutex<Vec<Arc<Engine>>> = Mutex::new(Vec::new());

/// Tables under names, and the engine that queries them.
pub struct Session<'a> {
    engine: Arc<Engine>,
    /// Whether the engine is left to others afterwards.
    lent: bool,
    sources: BTreeMap<String, Open<'a>>,
    unlisted: Option<OpenUnlisted<'a>>,
    /// Columns of what was opened.
    opened: RefCell<BTreeMap<String, SchemaRef>>,
    cancel: Option<Arc<AtomicBool>>,
}

impl Engine {
    fn new(limits: &Limits) -> Result<Self> {
        let threads = limits.threads.max(1);
        let mut config = SessionConfig::new()
            .with_target_partitions(threads)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_information_schema(false);
        let options = config.options_mut();
        // Names keep their case, as columns in files have theirs.
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        options.execution.parquet.schema_force_view_types = threads > 1;
        let mut environment = RuntimeEnvBuilder::new();
        if let Some(bytes) = limits.memory_bytes {
            let pool = memory::Shared::new(bytes);
            let reserved = &mut options.execution.sort_spill_reservation_bytes;
            *reserved = (*reserved).min(pool.set_aside(threads));
            environment = environment.with_memory_pool(Arc::new(pool));
        }
        if let Some(folder) = &limits.spill {
            let disk = DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![folder.clone()]))
                .with_max_temp_directory_size(u64::MAX);
            environment = environment.with_disk_manager_builder(disk);
        }
        let mut runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = runtime
            .worker_threads(threads)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|error| Error::Resources { message: format!("failed to start threads: {error}") })?;
        let context = SessionContext::new_with_config_rt(config, environment.build_arc()?);
        functions::register(&context);
        Ok(Self { context, runtime })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // After a panic nobody knows what state the engine is in.
        if self.lent && !std::thread::panicking() {
            for name in self.opened.get_mut().keys() {
                let _ = self.engine.context.deregister_table(reference(name));
            }
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self.engine.clone());
        }
    }
}

impl<'a> Session<'a> {
    /// A session without tables, whose queries use so many threads and all the memory they want.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with(Limits { threads, ..Limits::default() })
    }

    /// A session without tables.
    pub fn with(limits: Limits) -> Result<Self> {
        Ok(Self::of(Arc::new(Engine::new(&limits)?), false, limits.cancel))
    }

    /// A session of one thread for a short while: its engine was used before,
    /// and will be again.
    pub(crate) fn lent() -> Result<Self> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let engine = match idle {
            Some(engine) => engine,
            None => Arc::new(Engine::new(&Limits { threads: 1, ..Limits::default() })?),
        };
        Ok(Self::of(engine, true, None))
    }

    fn of(engine: Arc<Engine>, lent: bool, cancel: Option<Arc<AtomicBool>>) -> Self {
        let (sources, opened) = (BTreeMap::new(), RefCell::default());
        Self { engine, lent, sources, unlisted: None, opened, cancel }
    }

    /// Names the files of a table: `stage`, `stage.output`, `run.stage`,
    /// `run.stage.output` or `system.stages`. The rows of the parts follow each
    /// other in the given order; the axes are columns, `Int64` where all values
    /// are integers, else `Utf8`, unless the files have that column themselves.
    pub fn register_files(&mut self, name: &str, parts: Vec<Part>) {
        self.register(name, Box::new(move || Ok(Contents::Files(parts.clone()))));
    }

    /// Names a table that is in memory.
    pub fn register_table(&mut self, name: &str, table: Table) {
        self.register(name, Box::new(move || Ok(Contents::Memory(table.clone()))));
    }

    /// Names a table whose contents are asked for when a query needs them.
    pub fn register(&mut self, name: &str, open: Open<'a>) {
        if self.sources.insert(name.to_owned(), open).is_some() {
            self.opened.get_mut().remove(name);
            // It may have been opened under this name; an unopened one is no matter.
            let _ = self.engine.context.deregister_table(reference(name));
        }
    }

    /// Says what to make of names that are not listed.
    pub fn set_unlisted(&mut self, open: OpenUnlisted<'a>) {
        self.unlisted = Some(open);
    }

    /// All listed names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Whether a name is listed.
    pub fn has(&self, name: &str) -> bool {
        self.sources.contains_key(name)
    }

    /// The names of all functions, the engine's and ours.
    pub fn functions(&self) -> Vec<String> {
        let state = self.engine.context.state();
        let (scalar, aggregate, window) =
            (state.scalar_functions(), state.aggregate_functions(), state.window_functions());
        scalar.keys().chain(aggregate.keys()).chain(window.keys()).cloned().collect()
    }

    /// The columns of a table, which is opened for that.
    pub fn columns(&self, name: &str) -> Result<SchemaRef> {
        self.open(&reference(name))
    }

    /// Runs one statement that only reads: a query, `EXPLAIN`, `DESCRIBE name`
    /// or `SHOW TABLES`.
    pub fn sql(&self, sql: &str) -> Result<Table> {
        let rows = self.stream(sql)?;
        let schema = rows.schema().clone();
        Ok(Table::new(schema, rows.collect::<Result<_>>()?))
    }

    /// As [`Session::sql`], but rows come as they are made.
    pub fn stream(&self, sql: &str) -> Result<Rows<'_>> {
        let statement = one_statement(sql)?;
        if is_show_tables(&statement) {
            let table = self.show_tables()?;
            let schema = table.schema().clone();
            return Ok(Rows { schema, made: Made::Here(table.batches().to_vec().into_iter()), session: self });
        }
        if !only_reads(&statement) {
            return Err(Error::ReadOnly { found: beginning(&statement) });
        }
        self.begin(self.plan(statement)?)
    }

    /// Opens the tables that a statement names, and plans it.
    pub(crate) fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        // Giving contents may wait for something of its own, so it is not done inside the engine.
        for reference in references(&statement)? {
            self.open(&reference)?;
        }
        let state = self.engine.context.state_ref();
        let plan = self.engine.runtime.block_on(state.read().statement_to_plan(statement))?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(|_| Error::ReadOnly { found: "a statement that writes".to_owned() })?;
        Ok(plan)
    }

    /// Runs a plan. Types are plain in the result, whatever the engine made of them.
    pub(crate) fn execute(&self, plan: LogicalPlan) -> Result<Table> {
        let rows = self.begin(plan)?;
        let schema = rows.schema().clone();
        Ok(Table::new(schema, rows.collect::<Result<_>>()?))
    }

    fn begin(&self, plan: LogicalPlan) -> Result<Rows<'_>> {
        if let Some(cancel) = &self.cancel {
            cancel.store(false, Ordering::Relaxed);
        }
        let stream = self.engine.runtime.block_on(async {
            let frame = self.engine.context.execute_logical_plan(plan).await?;
            Ok::<_, Error>(frame.execute_stream().await?)
        })?;
        let fields: Vec<Field> = stream.schema().fields().iter().map(|field| plain_field(field)).collect();
        Ok(Rows { schema: Arc::new(Schema::new(fields)), made: Made::There(stream), session: self })
    }

    /// Opens a table and gives its columns.
    fn open(&self, wanted: &TableReference) -> Result<SchemaRef> {
        let name = dotted(wanted);
        if let Some(schema) = self.opened.borrow().get(&name) {
            return Ok(schema.clone());
        }
        let contents = match self.sources.get(&name) {
            Some(open) => open(),
            None => self.unlisted.as_ref().and_then(|open| open(&name)).ok_or_else(|| {
                let known: Vec<String> = self.sources.keys().cloned().collect();
                Error::UnknownTable { nearest: nearest(&name, &known), name: name.clone(), known }
            })?,
        };
        self.house(wanted)?;
        let provider: Arc<dyn TableProvider> = match contents.map_err(Error::Stage)? {
            Contents::Files(parts) => {
                Arc::new(self.engine.runtime.block_on(Gathered::open(&name, &parts, &self.engine.context.state()))?)
            }
            Contents::Memory(table) => {
                Arc::new(MemTable::try_new(table.schema().clone(), vec![table.batches().to_vec()])?)
            }
        };
        let schema = provider.schema();
        self.engine.context.register_table(wanted.clone(), provider)?;
        self.opened.borrow_mut().insert(name, schema.clone());
        Ok(schema)
    }

    /// Makes the schema, and the catalog, that a name with dots needs.
    fn house(&self, wanted: &TableReference) -> Result<()> {
        let catalog_name = wanted.catalog().unwrap_or(CATALOG);
        let catalog = match self.engine.context.catalog(catalog_name) {
            Some(catalog) => catalog,
            None => {
                let catalog: Arc<dyn datafusion::catalog::CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
                self.engine.context.register_catalog(catalog_name, catalog.clone());
                catalog
            }
        };
        let schema_name = wanted.schema().unwrap_or(SCHEMA);
        if catalog.schema(schema_name).is_none() {
            catalog.register_schema(schema_name, Arc::new(MemorySchemaProvider::new()))?;
        }
        Ok(())
    }

    fn show_tables(&self) -> Result<Table> {
        let names: ArrayRef = Arc::new(self.names().map(Some).collect::<StringArray>());
        Ok(Table::of_columns(vec![(Field::new("table", DataType::Utf8, false), names)])?)
    }
}

/// The reference that an unquoted name in SQL becomes.
fn reference(name: &str) -> TableReference {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [schema, table] => TableReference::partial(schema, table),
        [catalog, schema, table] => TableReference::full(catalog, schema, table),
        _ => TableReference::bare(name),
    }
}

fn is_show_tables(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(inner) if matches!(**inner, ast::Statement::ShowTables { .. }))
}

fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(inner) => matches!(
            **inner,
            ast::Statement::Query(_) | ast::Statement::ExplainTable { .. } | ast::Statement::Explain { .. }
        ),
        Statement::Explain(explain) => only_reads(&explain.statement),
        _ => false,
    }
}

/// The rows of a result as they are made.
pub struct Rows<'s> {
    schema: SchemaRef,
    made: Made,
    session: &'s Session<'s>,
}

enum Made {
    Here(std::vec::IntoIter<RecordBatch>),
    There(SendableRecordBatchStream),
}

impl Rows<'_> {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let (schema, session) = (self.schema.clone(), self.session);
        match &mut self.made {
            Made::Here(batches) => batches.next().map(Ok),
            Made::There(stream) => {
                let batch = session.engine.runtime.block_on(async {
                    let Some(cancel) = &session.cancel else { return Ok(stream.next().await) };
                    loop {
                        match tokio::time::timeout(CANCEL_EVERY, stream.next()).await {
                            Ok(batch) => return Ok(batch),
                            Err(_) if cancel.load(Ordering::Relaxed) => return Err(Error::Cancelled),
                            Err(_) => {}
                        }
                    }
                });
                match batch {
                    Ok(batch) => Some(batch?.map_err(Error::from).and_then(|batch| plain(&batch, schema))),
                    Err(error) => Some(Err(error)),
                }
            }
        }
    }
}

/// Brings a batch to plain types; what does not fit into them is an error.
fn plain(batch: &RecordBatch, schema: SchemaRef) -> Result<RecordBatch> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(array, field)| match array.data_type() == field.data_type() {
        true => Ok(array.clone()),
        false => compute::cast_with_options(array, field.data_type(), &strict)
            .map_err(|error| Error::Failed { message: format!("column {:?}: {error}", field.name()) }),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options).map_err(TableError::Arrow)?)
}

fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())
}

/// Views, large texts and dictionaries become `Utf8`, untyped nulls too; whole
/// numbers that the engine made `UInt64` or a decimal without places (a
/// `row_number()`, and what is computed with it) are `Int64`.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::UInt64 | DataType::Decimal128(_, 0) | DataType::Decimal256(_, 0) => DataType::Int64,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(Arc::new(plain_field(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field)).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
