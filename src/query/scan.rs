//! A table that lies in Parquet files of several stage instances: read one
//! after another, in order, with the axes that tell the instances apart as
//! columns behind the files' own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as EngineResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::object_store::{ObjectMeta, path::Path as ObjectPath};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::{Error, Result};

/// The files of one instance, with its axes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Parquet files, in row order.
    pub paths: Vec<PathBuf>,
    /// The value of each axis.
    pub axes: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gathered {
    format: ParquetFormat,
    schema: TableSchema,
    files: Vec<PartitionedFile>,
    /// Rows and bytes in all, by which the engine chooses the side of a join that it keeps in memory.
    statistics: Statistics,
}

impl Gathered {
    /// Opens the files' footers and brings their schemas together: columns in
    /// order of first appearance; null where a file lacks one.
    pub(crate) async fn open(table: &str, parts: &[Part], state: &dyn Session) -> Result<Self> {
        let format = ParquetFormat::new().with_options(state.table_options().parquet.clone());
        let store = state.runtime_env().object_store(ObjectStoreUrl::local_filesystem())?;
        let mut fields: Vec<Field> = Vec::new();
        let mut files = Vec::new();
        let (mut n_files, mut rows, mut bytes) = (0, Precision::Exact(0), 0);
        for part in parts {
            for path in &part.paths {
                let wrong = |message: String| Error::File { table: table.to_owned(), message };
                let meta = object(path).map_err(|message| wrong(format!("{}: {message}", path.display())))?;
                let schema =
                    format.infer_schema(state, &store, std::slice::from_ref(&meta)).await.map_err(|error| {
                        wrong(format!("{} is not a whole Parquet file: {}", path.display(), Error::from(error)))
                    })?;
                merge(&mut fields, &schema, n_files).map_err(|(column, first, second)| Error::UnequalFiles {
                    table: table.to_owned(),
                    column,
                    first,
                    second: second.to_string(),
                    path: path.display().to_string(),
                })?;
                n_files += 1;
                let statistics = format.infer_stats(state, &store, schema, &meta).await?;
                rows = rows.add(&statistics.num_rows);
                bytes += meta.size as usize;
                files.push((meta, part));
            }
        }
        if files.is_empty() {
            return Err(Error::File { table: table.to_owned(), message: "it has no files".to_owned() });
        }
        let axes = axes(parts, &fields);
        let files = files.into_iter().map(|(meta, part)| {
            let values = axes.iter().map(|axis| scalar(axis.data_type(), part.axes.get(axis.name())));
            PartitionedFile::new_from_meta(meta).with_partition_values(values.collect())
        });
        let files = files.collect();
        let schema = TableSchema::builder(Arc::new(Schema::new(fields))).with_table_partition_cols(axes).build();
        let statistics = Statistics::new_unknown(schema.table_schema())
            .with_num_rows(rows)
            .with_total_byte_size(Precision::Inexact(bytes));
        Ok(Self { format, schema, files, statistics })
    }
}

/// What the object store would say of a file, without asking it.
fn object(path: &Path) -> Result<ObjectMeta, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let size = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
    Ok(ObjectMeta {
        location: ObjectPath::from_absolute_path(&path).map_err(|error| error.to_string())?,
        // Artifacts never change; a fixed time keeps footers cached.
        last_modified: Default::default(),
        size,
        e_tag: None,
        version: None,
    })
}

/// Adds a file's columns to those of the files before it.
fn merge(fields: &mut Vec<Field>, schema: &Schema, n_before: usize) -> Result<(), (String, DataType, DataType)> {
    for field in schema.fields() {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            Some(known) if known.data_type() == field.data_type() => {
                known.set_nullable(known.is_nullable() || field.is_nullable());
            }
            Some(known) => {
                return Err((field.name().clone(), known.data_type().clone(), field.data_type().clone()));
            }
            None => {
                let nullable = field.is_nullable() || n_before > 0;
                fields.push(Field::new(field.name(), field.data_type().clone(), nullable));
            }
        }
    }
    for known in fields.iter_mut().filter(|known| schema.field_with_name(known.name()).is_err()) {
        known.set_nullable(true);
    }
    Ok(())
}

/// The axes that the files do not have as columns themselves. All values
/// integers make an integer column.
fn axes(parts: &[Part], fields: &[Field]) -> Vec<FieldRef> {
    let mut names: Vec<&String> = parts.iter().flat_map(|part| part.axes.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| fields.iter().all(|field| field.name() != *name));
    let column = |name: &String| {
        let mut values = parts.iter().filter_map(|part| part.axes.get(name));
        let integers = values.all(|value| value.parse::<i64>().is_ok_and(|int| int.to_string() == *value));
        let nullable = parts.iter().any(|part| !part.axes.contains_key(name));
        Arc::new(Field::new(name, if integers { DataType::Int64 } else { DataType::Utf8 }, nullable))
    };
    names.into_iter().map(column).collect()
}

fn scalar(data_type: &DataType, value: Option<&String>) -> ScalarValue {
    match data_type {
        DataType::Int64 => ScalarValue::Int64(value.and_then(|value| value.parse().ok())),
        _ => ScalarValue::Utf8(value.cloned()),
    }
}

#[async_trait]
impl TableProvider for Gathered {
    fn schema(&self) -> SchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let source = self.format.file_source(self.schema.clone());
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(vec![FileGroup::new(self.files.clone())])
            .with_statistics(self.statistics.clone())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        self.format.create_physical_plan(state, scan).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> EngineResult<Vec<TableProviderFilterPushDown>> {
        // Files and row groups are left out by what their footers say; the
        // filter itself still stands above the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
