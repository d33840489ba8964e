//! DataFusion behind the names that a user knows. Registering touches no file:
//! a table is opened when the first query names it.
//!
//! With one thread the rows of a query without ORDER BY come in the order of
//! the files, and sums of floats are always the same; with more threads queries
//! of large tables are faster and neither is promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use fuseline_contract::Table;
use fuseline_contract::table::TableError;
use tokio::runtime::Runtime;

use crate::error::{Error, Result, nearest};
use crate::functions;
use crate::names::{beginning, dotted, one_statement, references};
use crate::scan::Gathered;
pub use crate::scan::Part;

/// Where a bare name lives; never seen by a user.
const CATALOG: &str = "fuseline";
const SCHEMA: &str = "stages";

/// What a name stands for.
enum Source {
    Files(Vec<Part>),
    Memory(Table),
}

/// Tables under names, and the engine that queries them.
pub struct Session {
    context: SessionContext,
    runtime: Runtime,
    sources: BTreeMap<String, Source>,
}

impl Session {
    /// A session without tables, whose queries use so many threads.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let mut config = SessionConfig::new()
            .with_target_partitions(threads)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_information_schema(false);
        let options = config.options_mut();
        // Names keep their case, as columns in files have theirs.
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        options.execution.parquet.schema_force_view_types = false;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|error| Error::Resources { message: format!("failed to start threads: {error}") })?;
        let context = SessionContext::new_with_config(config);
        functions::register(&context);
        Ok(Self { context, runtime, sources: BTreeMap::new() })
    }

    /// Names the files of a table: `stage`, `stage.output`, `run.stage`,
    /// `run.stage.output` or `system.stages`. The rows of the parts follow each
    /// other in the given order; the axes are columns, `Int64` where all values
    /// are integers, else `Utf8`, unless the files have that column themselves.
    pub fn register_files(&mut self, name: &str, parts: Vec<Part>) {
        self.set(name, Source::Files(parts));
    }

    /// Names a table that is in memory.
    pub fn register_table(&mut self, name: &str, table: Table) {
        self.set(name, Source::Memory(table));
    }

    fn set(&mut self, name: &str, source: Source) {
        if self.sources.insert(name.to_owned(), source).is_some() {
            // It may have been opened under this name; an unopened one is no matter.
            let _ = self.context.deregister_table(reference(name));
        }
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Runs one statement that only reads: a query, `EXPLAIN`, `DESCRIBE name`
    /// or `SHOW TABLES`.
    pub fn sql(&self, sql: &str) -> Result<Table> {
        let statement = one_statement(sql)?;
        if is_show_tables(&statement) {
            return self.show_tables();
        }
        if !only_reads(&statement) {
            return Err(Error::ReadOnly { found: beginning(&statement) });
        }
        let plan = self.plan(statement)?;
        self.execute(plan)
    }

    /// Opens the tables that a statement names, and plans it.
    pub(crate) fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        self.runtime.block_on(async {
            for reference in references(&statement)? {
                self.open(&reference).await?;
            }
            let plan = self.context.state().statement_to_plan(statement).await?;
            let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
            reading.verify_plan(&plan).map_err(|_| Error::ReadOnly { found: "a statement that writes".to_owned() })?;
            Ok(plan)
        })
    }

    /// Runs a plan. Text is `Utf8` in the result, whatever the engine made of it.
    pub(crate) fn execute(&self, plan: LogicalPlan) -> Result<Table> {
        self.runtime.block_on(async {
            let frame = self.context.execute_logical_plan(plan).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
            plain(&Table::new(schema, batches))
        })
    }

    async fn open(&self, wanted: &TableReference) -> Result<()> {
        let name = dotted(wanted);
        let Some(source) = self.sources.get(&name) else {
            let known: Vec<String> = self.sources.keys().cloned().collect();
            return Err(Error::UnknownTable { nearest: nearest(&name, &known), name, known });
        };
        self.house(wanted)?;
        if self.context.table_exist(wanted.clone())? {
            return Ok(());
        }
        let provider: Arc<dyn TableProvider> = match source {
            Source::Files(parts) => Arc::new(Gathered::open(&name, parts, &self.context.state()).await?),
            Source::Memory(table) => {
                Arc::new(MemTable::try_new(table.schema().clone(), vec![table.batches().to_vec()])?)
            }
        };
        self.context.register_table(wanted.clone(), provider)?;
        Ok(())
    }

    /// Makes the schema, and the catalog, that a name with dots needs.
    fn house(&self, wanted: &TableReference) -> Result<()> {
        let catalog_name = wanted.catalog().unwrap_or(CATALOG);
        let catalog = match self.context.catalog(catalog_name) {
            Some(catalog) => catalog,
            None => {
                let catalog: Arc<dyn datafusion::catalog::CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
                self.context.register_catalog(catalog_name, catalog.clone());
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

/// Views, large texts and dictionaries become `Utf8`, untyped nulls too, and
/// metadata of fields goes.
fn plain(table: &Table) -> Result<Table> {
    let fields: Vec<Field> = table.schema().fields().iter().map(|field| plain_field(field)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut batches = Vec::new();
    for batch in table.batches() {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(array, field)| match array.data_type() == field.data_type() {
            true => Ok(array.clone()),
            false => compute::cast(array, field.data_type()),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = arrow::array::RecordBatch::try_new_with_options(schema.clone(), columns, &options);
        batches.push(batch.map_err(TableError::Arrow)?);
    }
    Ok(Table::new(schema, batches))
}

fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::UInt64 => DataType::Int64,
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
