//! A table as operators hold it: Arrow batches of one schema, in a stable row
//! order. Columns that an operator does not know pass through it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::rows::RowType;

/// Why a table could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A column is not there.
    #[error("column {column:?} is missing; there are {}", found.join(", "))]
    MissingColumn {
        /// The column.
        column: String,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// A column has another type.
    #[error("column {column:?} is {found}, expected {expected}")]
    WrongType {
        /// The column.
        column: String,
        /// Its type.
        found: DataType,
        /// The type that was expected.
        expected: DataType,
    },
    /// A value is missing where there must be one.
    #[error("column {column:?}, row {row}: the value is null, expected {expected}")]
    Null {
        /// The column.
        column: String,
        /// The row, from zero.
        row: usize,
        /// The type that was expected.
        expected: DataType,
    },
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Record batches of one schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// A table from batches, which must all have the schema.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        debug_assert!(batches.iter().all(|batch| batch.schema_ref().fields() == schema.fields()));
        Self { schema, batches }
    }

    /// A table without rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new() }
    }

    /// A table of one batch made of columns, all nullable as declared.
    pub fn of_columns(columns: Vec<(Field, ArrayRef)>) -> Result<Self, TableError> {
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { batches: vec![RecordBatch::try_new(schema.clone(), arrays)?], schema })
    }

    /// The schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batches, in row order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// How many rows there are.
    pub fn n_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.n_rows() == 0
    }

    /// Whether there is a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.schema.column_with_name(column).is_some()
    }

    /// Puts one table after another. Columns are those of the first; a column
    /// that another lacks is null there, one that only another has is added.
    pub fn concat(tables: &[Self]) -> Result<Self, TableError> {
        let mut fields: Vec<Field> = Vec::new();
        for field in tables.iter().flat_map(|table| table.schema.fields()) {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone()),
                Some(known) if known.data_type() == field.data_type() => {
                    known.set_nullable(known.is_nullable() || field.is_nullable());
                }
                Some(known) => {
                    return Err(TableError::WrongType {
                        column: field.name().clone(),
                        found: field.data_type().clone(),
                        expected: known.data_type().clone(),
                    });
                }
            }
        }
        for field in &mut fields {
            if tables.iter().any(|table| !table.has(field.name())) {
                field.set_nullable(true);
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let mut batches = Vec::new();
        for batch in tables.iter().flat_map(Self::batches) {
            let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
                Some(array) => array.clone(),
                None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
            };
            batches.push(RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect())?);
        }
        Ok(Self { schema, batches })
    }

    /// All rows in one batch.
    pub fn one_batch(&self) -> Result<RecordBatch, TableError> {
        Ok(compute::concat_batches(&self.schema, &self.batches)?)
    }

    /// The rows at these indices, in this order; an index may repeat.
    pub fn take(&self, rows: &[usize]) -> Result<Self, TableError> {
        let batch = self.one_batch()?;
        let indices = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        let taken = compute::take_record_batch(&batch, &indices)?;
        Ok(Self { schema: self.schema.clone(), batches: vec![taken] })
    }

    /// Adds the columns of `other` (same number of rows) behind these; a column
    /// of a name that is there already is replaced in its place.
    pub fn beside(&self, other: &Self) -> Result<Self, TableError> {
        let (left, right) = (self.one_batch()?, other.one_batch()?);
        let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
        for batch in [&left, &right] {
            for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                let column = (field.as_ref().clone(), array.clone());
                match columns.iter_mut().find(|(known, _)| known.name() == field.name()) {
                    Some(known) => *known = column,
                    None => columns.push(column),
                }
            }
        }
        Self::of_columns(columns)
    }

    /// Leaves out a column, if it is there.
    pub fn without(&self, column: &str) -> Result<Self, TableError> {
        let kept: Vec<usize> =
            (0..self.schema.fields().len()).filter(|i| self.schema.field(*i).name() != column).collect();
        let schema = Arc::new(self.schema.project(&kept)?);
        let batches = self.batches.iter().map(|batch| batch.project(&kept)).collect::<Result<_, _>>()?;
        Ok(Self { schema, batches })
    }

    /// Brings a table to a row type: its columns first, in its order and with
    /// its types; optional ones that are missing are null; others follow.
    ///
    /// Types are cast where nothing is lost (`Int32` to `Int64`, `LargeUtf8` to
    /// `Utf8`), and a null in a column that forbids it is an error.
    pub fn conform(&self, rows: &'static RowType) -> Result<Self, TableError> {
        let mut fields: Vec<Arc<Field>> = Vec::new();
        for column in rows.columns() {
            if !self.has(column.name) && !column.nullable {
                return Err(TableError::MissingColumn {
                    column: column.name.to_owned(),
                    found: self.schema.fields().iter().map(|field| field.name().clone()).collect(),
                });
            }
            fields.push(Arc::new(column.field()));
        }
        fields.extend(self.schema.fields().iter().filter(|field| rows.column(field.name()).is_none()).cloned());
        let schema = Arc::new(Schema::new(fields));
        let mut batches = Vec::new();
        let mut row = 0;
        for batch in &self.batches {
            let mut arrays = Vec::new();
            for field in schema.fields() {
                let array = match batch.column_by_name(field.name()) {
                    None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
                    Some(array) => cast(array, field)?,
                };
                if let (false, Some(nulls)) =
                    (field.is_nullable(), array.logical_nulls().filter(|n| n.null_count() > 0))
                {
                    let first = (0..nulls.len()).find(|i| nulls.is_null(*i)).unwrap_or(0);
                    return Err(TableError::Null {
                        column: field.name().clone(),
                        row: row + first,
                        expected: field.data_type().clone(),
                    });
                }
                arrays.push(array);
            }
            row += batch.num_rows();
            batches.push(RecordBatch::try_new(schema.clone(), arrays)?);
        }
        Ok(Self { schema, batches })
    }
}

/// Casts where the types differ only in width or layout.
fn cast(array: &ArrayRef, field: &Field) -> Result<ArrayRef, TableError> {
    if array.data_type() == field.data_type() {
        return Ok(array.clone());
    }
    let wrong = || TableError::WrongType {
        column: field.name().clone(),
        found: array.data_type().clone(),
        expected: field.data_type().clone(),
    };
    let (from, to) = (array.data_type(), field.data_type());
    let widening = match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _), DataType::Utf8) => {
            true
        }
        (from, DataType::Int64 | DataType::Float64) => {
            from.is_integer() || matches!(from, DataType::Float32 | DataType::Float16)
        }
        (from, DataType::Float32) => matches!(from, DataType::Float16),
        // Nested types differ in the names and nullability of inner fields.
        (from, to) => from.is_nested() && to.is_nested(),
    };
    if !widening || (from.is_floating() && to.is_integer()) {
        return Err(wrong());
    }
    let strict = compute::CastOptions { safe: false, ..Default::default() };
    compute::cast_with_options(array, to, &strict).map_err(|_| wrong())
}
