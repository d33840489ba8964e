//! Digests of logical content, which is what keys hold: a table's schema and
//! rows whatever its batches and its file, a model's tensors whatever its
//! shards. So neither a new Parquet writer nor another sharding reruns anything.
//!
//! A column's digest is over its type and, in row order, per value: `00` for a
//! null; else `01` and the value. Integers, floats and times are little-endian
//! in their own width (every NaN is one NaN); a truth value is a byte; texts
//! and bytes have a u64 length before them, and so have lists; a structure is
//! its fields.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{self as types, DataType, Field, TimeUnit};
use fuseline_contract::hash::{self, Domain};
use fuseline_contract::value::Value;
use fuseline_contract::{Digest, Table};

use crate::error::{At, Error, Result};
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

/// Tells whether loading a model could read this file of its folder.
fn is_read_by_loading(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let lower = file.to_ascii_lowercase();
    !(lower.ends_with(".safetensors.index.json")
        || lower.starts_with("readme")
        || lower.starts_with("license")
        || matches!(lower.as_str(), ".gitattributes" | ".gitignore" | "notice"))
}

/// The content digest of a model folder, from its files (names with the paths
/// and digests of their bytes): tensors by name, type, shape and bytes, and the
/// other files that loading reads. Its size is the bytes of all tensors.
pub fn model<'a>(files: impl IntoIterator<Item = (&'a str, &'a Path, Digest)>) -> Result<Digest> {
    let mut tensors: BTreeMap<String, Value> = BTreeMap::new();
    let mut others: BTreeMap<String, Value> = BTreeMap::new();
    let mut size = 0;
    for (name, path, digest) in files {
        if let Some(stem) = name.strip_suffix(".safetensors") {
            for tensor in read_tensors(path)? {
                size += tensor.digest.size;
                let value =
                    Value::List(vec![tensor.dtype.into(), tensor.shape.into_iter().collect(), tensor.digest.into()]);
                let name = format!("{}/{}", without_shard(stem), tensor.name);
                if tensors.insert(name.clone(), value).is_some() {
                    let detail = format!("tensor {:?} is in two files", tensor.name);
                    return Err(Error::Safetensors { path: path.to_owned(), detail });
                }
            }
        } else if is_read_by_loading(name) {
            others.insert(name.to_owned(), digest.into());
        }
    }
    let value = Value::map([("tensors", Value::Map(tensors)), ("files", Value::Map(others))]);
    Ok(hash::digest(Domain::ModelContent, &value, size))
}

/// `model-00001-of-00003` → `model`.
fn without_shard(stem: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = stem.rsplitn(4, '-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(all), Some("of"), Some(one), Some(name)) if digits(all) && digits(one) => name,
        _ => stem,
    }
}

struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    digest: Digest,
}

/// Reads a safetensors file: u64 little-endian header length, JSON header of
/// `name → {dtype, shape, data_offsets}`, data.
fn read_tensors(path: &Path) -> Result<Vec<Tensor>> {
    let wrong = |detail: &str| Error::Safetensors { path: path.to_owned(), detail: detail.to_owned() };
    let mut file = File::open(path).at("read", path)?;
    let size = file.metadata().at("read", path)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| wrong("it is shorter than its header"))?;
    let length = u64::from_le_bytes(length);
    let data =
        length.checked_add(8).filter(|data| *data <= size).ok_or_else(|| wrong("it is shorter than its header"))?;
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).at("read", path)?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|error| wrong(&format!("its header is no JSON: {error}")))?;
    let mut tensors = Vec::new();
    let mut chunk = vec![0; 1 << 20];
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let numbers = |value: &serde_json::Value| -> Option<Vec<u64>> {
            value.as_array()?.iter().map(serde_json::Value::as_u64).collect()
        };
        let parsed = (|| {
            let offsets = numbers(&entry["data_offsets"])?;
            let (start, end) = (*offsets.first()?, *offsets.get(1)?);
            (start <= end && data.checked_add(end)? <= size).then_some(())?;
            Some((entry["dtype"].as_str()?.to_owned(), numbers(&entry["shape"])?, start, end))
        })();
        let Some((dtype, shape, start, end)) = parsed else {
            return Err(wrong(&format!("the entry of tensor {name:?} leads outside the file")));
        };
        file.seek(SeekFrom::Start(data + start)).at("read", path)?;
        let mut hasher = blake3::Hasher::new();
        let mut left = (end - start) as usize;
        while left > 0 {
            let n = left.min(chunk.len());
            file.read_exact(&mut chunk[..n]).at("read", path)?;
            hasher.update(&chunk[..n]);
            left -= n;
        }
        let digest = Digest { hash: *hasher.finalize().as_bytes(), size: end - start };
        tensors.push(Tensor { name, dtype, shape, digest });
    }
    Ok(tensors)
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

    pub(crate) fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, bytes) in tensors {
            let start = data.len();
            data.extend(*bytes);
            let entry = serde_json::json!({"dtype": "U8", "shape": [bytes.len()], "data_offsets": [start, data.len()]});
            header.insert((*name).to_owned(), entry);
        }
        let header = serde_json::Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
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

    #[test]
    fn ask_1_every_file_that_a_model_is_loaded_from_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = |files: &[(&str, Vec<u8>)]| {
            let paths: Vec<_> = files
                .iter()
                .map(|(name, bytes)| {
                    let path = folder.path().join(name.replace('/', "_"));
                    std::fs::write(&path, bytes).expect("written");
                    (*name, path, Digest::of_bytes(bytes))
                })
                .collect();
            model(paths.iter().map(|(name, path, digest)| (*name, path.as_path(), *digest))).expect("digested")
        };
        let names = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "vocab.json",
            "merges.txt",
            "anything_else.bin",
        ];
        let weights = |tensors: &[(&str, &[u8])]| ("model.safetensors", safetensors(tensors));
        let plain = |changed: Option<&str>| -> Vec<(&str, Vec<u8>)> {
            let bytes = |name: &str| if changed == Some(name) { b"{ }".to_vec() } else { b"{}".to_vec() };
            names.iter().map(|name| (*name, bytes(name))).collect()
        };
        let tensors: [(&str, &[u8]); 2] = [("a", b"xx"), ("b", b"y")];
        let base = digest(&[plain(None), vec![weights(&tensors)]].concat());
        for name in names {
            assert_ne!(base, digest(&[plain(Some(name)), vec![weights(&tensors)]].concat()), "{name} changed");
            let without: Vec<_> = plain(None).into_iter().filter(|(other, _)| *other != name).collect();
            assert_ne!(base, digest(&[without, vec![weights(&tensors)]].concat()), "{name} left out");
        }
        for (what, tensors) in [
            ("a value", [("a", &b"xz"[..]), ("b", b"y")]),
            ("a name", [("a", b"xx"), ("c", b"y")]),
            ("a shape", [("a", b"x"), ("b", b"xy")]),
            ("values swapped", [("b", b"xx"), ("a", b"y")]),
        ] {
            assert_ne!(base, digest(&[plain(None), vec![weights(&tensors)]].concat()), "{what} of the weights");
        }
    }

    #[test]
    fn sharding_is_left_out_and_configuration_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = |files: &[(&str, Vec<u8>)]| {
            let paths: Vec<_> = files
                .iter()
                .map(|(name, bytes)| {
                    let path = folder.path().join(name);
                    std::fs::write(&path, bytes).expect("written");
                    (*name, path, Digest::of_bytes(bytes))
                })
                .collect();
            model(paths.iter().map(|(name, path, digest)| (*name, path.as_path(), *digest)))
        };
        let config = ("config.json", b"{}".to_vec());
        let whole = digest(&[config.clone(), ("model.safetensors", safetensors(&[("a", b"xx"), ("b", b"y")]))]);
        let whole = whole.expect("digested");
        let sharded = digest(&[
            config.clone(),
            ("model-00001-of-00002.safetensors", safetensors(&[("b", b"y")])),
            ("model-00002-of-00002.safetensors", safetensors(&[("a", b"xx")])),
            ("model.safetensors.index.json", b"{}".to_vec()),
            ("README.md", b"hello".to_vec()),
        ]);
        assert_eq!(whole, sharded.expect("digested"));
        assert_eq!(whole.size, 3);
        let other = ("config.json", b"{ }".to_vec());
        let weights = ("model.safetensors", safetensors(&[("a", b"xx"), ("b", b"y")]));
        assert_ne!(whole, digest(&[other, weights]).expect("digested"));
        let twice = digest(&[
            ("model.safetensors", safetensors(&[("a", b"x")])),
            ("model-00001-of-00001.safetensors", safetensors(&[("a", b"x")])),
        ]);
        assert!(twice.is_err());
        assert!(digest(&[("model.safetensors", b"short".to_vec())]).is_err());
    }
}
