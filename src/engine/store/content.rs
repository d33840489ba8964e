//! Digests of a table's logical content, which is what keys hold: its schema and
//! rows, whatever its batches and its file. So no new Parquet writer reruns
//! anything. (Models: see [`super::model`].)
//!
//! A column's digest is over its type and, in row order, per value: `00` for a
//! null; else `01` and the value. Integers, floats and times are little-endian
//! in their own width (every NaN is one NaN); a truth value is a byte; texts
//! and bytes have a u64 length before them, and so have lists; a structure is
//! its fields.

use std::ops::Range;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{self as types, DataType, Field, TimeUnit};
use fuseline_contract::hash::{self, Domain};
use fuseline_contract::value::Value;
use fuseline_contract::{Digest, Table};

use crate::error::{Error, Result};
use crate::store::manifest::ManifestColumn;

/// The content digest of a normalised table (its size is the number of rows)
/// and its columns with theirs.
pub fn table(table: &Table) -> Result<(Digest, Vec<ManifestColumn>)> {
    let rows = table.n_rows() as u64;
    let mut columns = Vec::new();
    for (index, field) in table.schema().fields().iter().enumerate() {
        let data_type = describe(field.data_type())
            .ok_or_else(|| Error::ColumnType { column: field.name().clone(), found: field.data_type().to_string() })?;
        let mut sink = Sink { hasher: Domain::Column.hasher(), buffer: Vec::with_capacity(2 * FLUSH) };
        sink.buffer.extend(Value::from(data_type.as_str()).encode());
        for batch in table.batches() {
            encode(batch.column(index), 0..batch.num_rows(), &mut sink);
        }
        let content = Digest { hash: sink.finish(), size: rows };
        columns.push(ManifestColumn { name: field.name().clone(), data_type, nullable: field.is_nullable(), content });
    }
    let schema = columns.iter().map(|column| {
        Value::List(vec![
            column.name.as_str().into(),
            column.data_type.as_str().into(),
            Value::Bool(column.nullable),
            column.content.into(),
        ])
    });
    Ok((hash::digest(Domain::TableContent, &Value::List(schema.collect()), rows), columns))
}

/// A name of the type that never changes with the library; nothing for types
/// that are not stored.
fn describe(data_type: &DataType) -> Option<String> {
    use DataType as D;
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    let field =
        |field: &Field| Some(format!("{}{}", describe(field.data_type())?, if field.is_nullable() { "?" } else { "" }));
    Some(match data_type {
        D::Boolean => "bool".to_owned(),
        D::Int8 => "int8".to_owned(),
        D::Int16 => "int16".to_owned(),
        D::Int32 => "int32".to_owned(),
        D::Int64 => "int64".to_owned(),
        D::UInt8 => "uint8".to_owned(),
        D::UInt16 => "uint16".to_owned(),
        D::UInt32 => "uint32".to_owned(),
        D::UInt64 => "uint64".to_owned(),
        D::Float16 => "float16".to_owned(),
        D::Float32 => "float32".to_owned(),
        D::Float64 => "float64".to_owned(),
        D::Utf8 => "utf8".to_owned(),
        D::Binary => "binary".to_owned(),
        D::Date32 => "date32".to_owned(),
        D::Date64 => "date64".to_owned(),
        D::Timestamp(of, zone) => format!("timestamp({}, {})", unit(of), zone.as_deref().unwrap_or("")),
        D::Decimal128(precision, scale) => format!("decimal128({precision}, {scale})"),
        D::List(item) => format!("list<{}>", field(item)?),
        D::FixedSizeList(item, length) => format!("list[{length}]<{}>", field(item)?),
        D::Struct(fields) => {
            let fields: Option<Vec<_>> =
                fields.iter().map(|f| Some(format!("{:?}: {}", f.name(), field(f)?))).collect();
            format!("struct<{}>", fields?.join(", "))
        }
        _ => return None,
    })
}

const FLUSH: usize = 1 << 16;

struct Sink {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Sink {
    fn flush_if_full(&mut self) {
        if self.buffer.len() >= FLUSH {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend((bytes.len() as u64).to_le_bytes());
        self.buffer.extend(bytes);
    }

    fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.buffer);
        *self.hasher.finalize().as_bytes()
    }
}

/// Appends the values of some rows. The type was described, so it is known.
fn encode(array: &dyn Array, rows: Range<usize>, sink: &mut Sink) {
    use DataType as D;
    macro_rules! values {
        ($array:expr, $put:expr) => {{
            let values = $array;
            for row in rows {
                if array.is_null(row) {
                    sink.buffer.push(0);
                } else {
                    sink.buffer.push(1);
                    #[allow(clippy::redundant_closure_call)]
                    ($put)(&mut *sink, values, row);
                }
                sink.flush_if_full();
            }
        }};
    }
    macro_rules! numbers {
        ($type:ty) => {
            values!(array.as_primitive::<$type>(), |sink: &mut Sink,
                                                    values: &arrow::array::PrimitiveArray<$type>,
                                                    row| {
                sink.buffer.extend(values.value(row).to_le_bytes());
            })
        };
    }
    macro_rules! floats {
        ($type:ty, $nan:expr) => {
            values!(array.as_primitive::<$type>(), |sink: &mut Sink,
                                                    values: &arrow::array::PrimitiveArray<$type>,
                                                    row| {
                let value = values.value(row);
                sink.buffer.extend(if value.is_nan() { $nan } else { value }.to_le_bytes());
            })
        };
    }
    match array.data_type() {
        D::Boolean => values!(array.as_boolean(), |sink: &mut Sink, values: &arrow::array::BooleanArray, row| {
            sink.buffer.push(values.value(row).into());
        }),
        D::Int8 => numbers!(types::Int8Type),
        D::Int16 => numbers!(types::Int16Type),
        D::Int32 => numbers!(types::Int32Type),
        D::Int64 => numbers!(types::Int64Type),
        D::UInt8 => numbers!(types::UInt8Type),
        D::UInt16 => numbers!(types::UInt16Type),
        D::UInt32 => numbers!(types::UInt32Type),
        D::UInt64 => numbers!(types::UInt64Type),
        D::Float16 => numbers!(types::Float16Type),
        D::Float32 => floats!(types::Float32Type, f32::NAN),
        D::Float64 => floats!(types::Float64Type, f64::NAN),
        D::Date32 => numbers!(types::Date32Type),
        D::Date64 => numbers!(types::Date64Type),
        D::Timestamp(TimeUnit::Second, _) => numbers!(types::TimestampSecondType),
        D::Timestamp(TimeUnit::Millisecond, _) => numbers!(types::TimestampMillisecondType),
        D::Timestamp(TimeUnit::Microsecond, _) => numbers!(types::TimestampMicrosecondType),
        D::Timestamp(TimeUnit::Nanosecond, _) => numbers!(types::TimestampNanosecondType),
        D::Decimal128(_, _) => numbers!(types::Decimal128Type),
        D::Utf8 => values!(array.as_string::<i32>(), |sink: &mut Sink, values: &arrow::array::StringArray, row| {
            sink.bytes(values.value(row).as_bytes());
        }),
        D::Binary => values!(array.as_binary::<i32>(), |sink: &mut Sink, values: &arrow::array::BinaryArray, row| {
            sink.bytes(values.value(row));
        }),
        D::List(_) => values!(array.as_list::<i32>(), |sink: &mut Sink, values: &arrow::array::ListArray, row| {
            let (start, end) = (values.value_offsets()[row] as usize, values.value_offsets()[row + 1] as usize);
            sink.buffer.extend(((end - start) as u64).to_le_bytes());
            encode(values.values(), start..end, sink);
        }),
        D::FixedSizeList(_, length) => {
            let length = *length as usize;
            values!(array.as_fixed_size_list(), |sink: &mut Sink, values: &arrow::array::FixedSizeListArray, row| {
                // A slice keeps its own view of the values, from its first row.
                let start = values.value_offset(row) as usize;
                encode(values.values(), start..start + length, sink);
            })
        }
        D::Struct(_) => values!(array.as_struct(), |sink: &mut Sink, values: &arrow::array::StructArray, row| {
            values.columns().iter().for_each(|column| encode(column, row..row + 1, sink));
        }),
        other => unreachable!("{other} was refused by describe"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeListArray, Float64Array, Int64Array, StructArray};
    use fuseline_contract::rows::RowType;

    use super::*;

    fn column(array: ArrayRef) -> Table {
        let field = Field::new("x", array.data_type().clone(), true);
        Table::of_columns(vec![(field, array)]).expect("a table")
    }

    fn digest(array: ArrayRef) -> Digest {
        table(&column(array)).expect("digested").0
    }

    #[test]
    fn every_value_validity_and_the_type_count() {
        let base = digest(Arc::new(Int64Array::from(vec![Some(1), None])));
        assert_ne!(base, digest(Arc::new(Int64Array::from(vec![Some(1), Some(0)]))));
        assert_ne!(base, digest(Arc::new(Int64Array::from(vec![None, Some(1)]))));
        assert_ne!(base, digest(Arc::new(Float64Array::from(vec![Some(1.0), None]))));
        assert_eq!(base, digest(Arc::new(Int64Array::from(vec![Some(0), Some(1), None]).slice(1, 2))));
    }

    #[test]
    fn slices_of_nested_columns_equal_whole_ones() {
        let pairs = |values: Vec<i64>| -> ArrayRef {
            let item = Arc::new(Field::new("item", DataType::Int64, false));
            Arc::new(FixedSizeListArray::new(item, 2, Arc::new(Int64Array::from(values)), None))
        };
        assert_eq!(digest(pairs(vec![1, 2, 3, 4, 5, 6]).slice(1, 2)), digest(pairs(vec![3, 4, 5, 6])));
        let records = |values: Vec<i64>| -> ArrayRef {
            let field = Arc::new(Field::new("a", DataType::Int64, false));
            Arc::new(StructArray::from(vec![(field, Arc::new(Int64Array::from(values)) as ArrayRef)]))
        };
        assert_eq!(digest(records(vec![1, 2, 3]).slice(1, 2)), digest(records(vec![2, 3])));
    }

    /// Every row type's columns with three rows, as JSON lines read by its schema.
    fn rows_of(kind: &RowType, edit: impl Fn(usize, &mut serde_json::Map<String, serde_json::Value>)) -> Digest {
        fn value(data_type: &DataType, row: usize) -> serde_json::Value {
            match data_type {
                DataType::Boolean => (row == 0).into(),
                kind if kind.is_numeric() => row.into(),
                DataType::List(item) => vec![value(item.data_type(), row)].into(),
                DataType::Struct(fields) => {
                    let fields = fields.iter().map(|field| (field.name().clone(), value(field.data_type(), row)));
                    serde_json::Value::Object(fields.collect())
                }
                _ => format!("text {row}").into(),
            }
        }
        let mut lines = String::new();
        for row in 0..3 {
            let columns =
                kind.columns().iter().map(|column| (column.name.to_owned(), value(column.field().data_type(), row)));
            let mut line: serde_json::Map<_, _> = columns.collect();
            edit(row, &mut line);
            lines.push_str(&format!("{}\n", serde_json::Value::Object(line)));
        }
        let schema = Arc::new(kind.schema());
        let reader = arrow::json::ReaderBuilder::new(schema.clone()).build(lines.as_bytes()).expect("a reader");
        let batches: Vec<_> = reader.map(|batch| batch.expect("rows")).collect();
        table(&Table::new(schema, batches)).expect("digested").0
    }

    #[test]
    fn ask_1_every_cell_of_every_row_type_counts() {
        for kind in fuseline_contract::rows::ALL {
            let base = rows_of(kind, |_, _| {});
            assert_eq!(base, rows_of(kind, |_, _| {}));
            for column in kind.columns() {
                for row in 0..3 {
                    let other = rows_of(kind, |at, line| {
                        if at == row {
                            let donor = if row == 0 { 1 } else { 0 };
                            let donor = match &line[column.name] {
                                serde_json::Value::Bool(truth) => (!truth).into(),
                                serde_json::Value::Number(_) => 9.into(),
                                text => serde_json::from_str(
                                    &text
                                        .to_string()
                                        .replace(&format!("text {row}"), &format!("text {donor}"))
                                        .replace("[1", "[7")
                                        .replace("[0", "[7")
                                        .replace("[2", "[7"),
                                )
                                .expect("JSON"),
                            };
                            line.insert(column.name.to_owned(), donor);
                        }
                    });
                    assert_ne!(base, other, "{kind}.{}, row {row}", column.name);
                }
                if column.nullable {
                    let null = rows_of(kind, |at, line| {
                        if at == 1 {
                            line.insert(column.name.to_owned(), serde_json::Value::Null);
                        }
                    });
                    assert_ne!(base, null, "{kind}.{} null", column.name);
                }
            }
        }
    }
}
