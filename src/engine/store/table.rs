//! The only writer of Parquet files.
//!
//! Bytes depend on the rows alone, not on how they came in batches: rows are
//! cut anew into groups of exactly [`GROUP_ROWS`], each with one write and one
//! flush. Everything else that could leak into the file is pinned: the types
//! (no views, dictionaries or large offsets), compression, statistics and the
//! name of the writer.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use fuseline_contract::{Digest, Table};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::error::{At, Error, Result};

/// Rows of a row group; one page a column holds them.
pub const GROUP_ROWS: usize = 8192;

/// The file's name in a table artifact.
pub const FILE_NAME: &str = "data.parquet";

/// The one type in which values of a type are stored.
fn stored(data_type: &DataType) -> DataType {
    use DataType as D;
    let item = |field: &FieldRef| Arc::new(Field::new("item", stored(field.data_type()), field.is_nullable()));
    match data_type {
        D::Null | D::LargeUtf8 | D::Utf8View => D::Utf8,
        D::LargeBinary | D::BinaryView => D::Binary,
        D::Dictionary(_, values) => stored(values),
        D::RunEndEncoded(_, values) => stored(values.data_type()),
        D::List(field) | D::LargeList(field) | D::ListView(field) | D::LargeListView(field) => D::List(item(field)),
        D::FixedSizeList(field, length) => D::FixedSizeList(item(field), *length),
        D::Struct(fields) => D::Struct(Fields::from_iter(fields.iter().map(|field| stored_field(field)))),
        other => other.clone(),
    }
}

fn stored_field(field: &Field) -> Field {
    let nullable = field.is_nullable() || *field.data_type() == DataType::Null;
    Field::new(field.name(), stored(field.data_type()), nullable)
}

/// Brings a table to the types in which it is stored; drops schema metadata.
pub fn normalise(table: &Table) -> Result<Table> {
    let schema = stored_schema(table.schema())?;
    let batches = table.batches().iter().map(|batch| normal(batch, &schema)).collect::<Result<_>>()?;
    Ok(Table::new(schema, batches))
}

fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::new();
    for field in schema.fields() {
        if fields.iter().any(|known| known.name() == field.name()) {
            return Err(Error::ColumnTwice { column: field.name().clone() });
        }
        fields.push(stored_field(field));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn normal(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let cast = |(array, field): (&ArrayRef, &FieldRef)| {
        if array.data_type() == field.data_type() { Ok(array.clone()) } else { compute::cast(array, field.data_type()) }
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(cast).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Hashes what passes through.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("fuseline".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level")))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_bloom_filter_enabled(false)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(vec![KeyValue::new("fuseline.table".to_owned(), "1".to_owned())]))
        .build()
}

/// Writes a table and returns the digest of the file's bytes.
pub fn write(table: &Table, path: &Path) -> Result<Digest> {
    let mut writer = Writer::create(path, table.schema())?;
    table.batches().iter().try_for_each(|batch| writer.push(batch))?;
    writer.finish()
}

/// Writes a file from rows as they come.
pub struct Writer {
    path: PathBuf,
    schema: SchemaRef,
    inner: ArrowWriter<Hashing<BufWriter<File>>>,
    /// Rows that make no whole group yet.
    waiting: Vec<RecordBatch>,
    n_waiting: usize,
}

impl Writer {
    /// Begins a file, which must not exist. Its columns have the types in which they are stored (see [`normalise`]).
    pub fn create(path: &Path, schema: &Schema) -> Result<Self> {
        let schema = stored_schema(schema)?;
        let file = File::create_new(path).at("create", path)?;
        let sink = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new(), size: 0 };
        let inner = ArrowWriter::try_new(sink, schema.clone(), Some(properties())).map_err(|error| at(path, error))?;
        Ok(Self { path: path.to_owned(), schema, inner, waiting: Vec::new(), n_waiting: 0 })
    }

    /// Adds rows, cut anew into batches of exactly [`GROUP_ROWS`].
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = normal(batch, &self.schema)?;
        let mut start = 0;
        while start < batch.num_rows() {
            let n = (batch.num_rows() - start).min(GROUP_ROWS - self.n_waiting);
            self.waiting.push(batch.slice(start, n));
            (start, self.n_waiting) = (start + n, self.n_waiting + n);
            if self.n_waiting == GROUP_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let group = compute::concat_batches(&self.schema, &self.waiting)?;
        self.waiting.clear();
        self.n_waiting = 0;
        let written = self.inner.write(&group).and_then(|()| self.inner.flush());
        written.map_err(|error| at(&self.path, error))
    }

    /// Ends the file and gives the digest of its bytes.
    pub fn finish(mut self) -> Result<Digest> {
        if self.n_waiting > 0 {
            self.flush()?;
        }
        let path = self.path;
        let sink = self.inner.into_inner().map_err(|error| at(&path, error))?;
        let digest = Digest { hash: *sink.hasher.finalize().as_bytes(), size: sink.size };
        sink.inner.into_inner().map_err(|error| Error::io("write", &path, error.into_error()))?;
        Ok(digest)
    }
}

/// A full disk is the environment's, whoever writes.
fn at(path: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => Error::io("write", path, *error),
            Err(other) => Error::Parquet(ParquetError::External(other)),
        },
        other => Error::Parquet(other),
    }
}

/// Reads a file that [`write`] made.
pub fn read(path: &Path) -> Result<Table> {
    let file = File::open(path).at("read", path)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(GROUP_ROWS).build()?;
    let mut batches = Vec::new();
    let schema = Arc::new(Schema::new(arrow::array::RecordBatchReader::schema(&reader).fields().clone()));
    for batch in reader {
        batches.push(batch?.with_schema(schema.clone())?);
    }
    Ok(Table::new(schema, batches))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Int32Type, Int64Type};

    use super::*;
    use crate::store::content;

    pub(crate) fn rows(n: usize) -> Table {
        let texts: StringArray = (0..n).map(|i| (i % 7 != 3).then(|| format!("text {}", i % 501))).collect();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..n).map(|i| (i % 11 != 5).then(move || (0..i % 4).map(move |j| Some((i * j) as i64)))),
        );
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter_values(0..n as i64))),
            ("text", Arc::new(texts)),
            ("list", Arc::new(lists)),
            ("value", Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64 * 0.5)))),
        ];
        let columns = columns.into_iter().map(|(name, array)| {
            (Field::new(name, array.data_type().clone(), array.null_count() > 0 || name == "list"), array)
        });
        Table::of_columns(columns.collect()).expect("a table")
    }

    fn split(table: &Table, size: usize) -> Table {
        let batch = table.one_batch().expect("one");
        let starts = (0..batch.num_rows()).step_by(size);
        let batches = starts.map(|start| batch.slice(start, size.min(batch.num_rows() - start))).collect();
        Table::new(table.schema().clone(), batches)
    }

    #[test]
    fn bytes_and_content_do_not_depend_on_the_split() {
        let folder = tempfile::tempdir().expect("a folder");
        let table = rows(20_000);
        let mut digests = std::collections::BTreeSet::new();
        for size in [20_000, 8192, 8191, 1024, 333, 1000] {
            let table = normalise(&split(&table, size)).expect("normal");
            let file = write(&table, &folder.path().join(size.to_string())).expect("written");
            digests.insert((file, content::table(&table).expect("digested").0));
        }
        assert_eq!(digests.len(), 1);
    }

    #[test]
    fn tables_survive_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for n in [0, 1, 8192, 9000] {
            let table = rows(n);
            let path = folder.path().join(n.to_string());
            write(&normalise(&table).expect("normal"), &path).expect("written");
            let back = read(&path).expect("read");
            assert_eq!(back.schema(), table.schema());
            assert_eq!(back.one_batch().expect("one"), table.one_batch().expect("one"));
        }
    }

    #[test]
    fn views_and_dictionaries_are_stored_as_plain_text() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
        let view = compute::cast(&plain, &DataType::Utf8View).expect("a view");
        let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
        let dictionary: ArrayRef = Arc::new(dictionary);
        let contents: std::collections::BTreeSet<_> = [plain, view, dictionary]
            .into_iter()
            .map(|array| {
                let field = Field::new("x", array.data_type().clone(), true);
                let table = Table::of_columns(vec![(field, array)]).expect("a table");
                content::table(&normalise(&table).expect("normal")).expect("digested").0
            })
            .collect();
        assert_eq!(contents.len(), 1);
    }

    #[test]
    fn a_column_that_appears_twice_is_refused() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let field = Field::new("x", DataType::Int64, false);
        let table = Table::of_columns(vec![(field.clone(), array.clone()), (field, array)]).expect("arrow allows it");
        assert!(matches!(normalise(&table), Err(Error::ColumnTwice { .. })));
    }
}
