//! `load`: a file of rows from outside the store.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use fuseline_contract::rows::Message;
use fuseline_contract::{
    Execute, ExternalFile, Kind, Operator, Output, Ports, Problems, Run, StageError, Table, rows, table::TableError,
};
use fuseline_metrics::text::json_members;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use fuseline_remote::hub::{Kind as HubKind, Name};

use crate::shared::endpoint::stage_error;
use crate::shared::hub;
use crate::shared::rows::RowsName;

/// Parameters of `load`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file: Parquet (`.parquet`), JSON lines (`.jsonl`, `.ndjson`, also with `.gz`) or CSV with a header line (`.csv`, `.csv.gz`). Or a file or a whole dataset on the Hub: `hf://datasets/ORG/NAME@REVISION/FILE`, `hf://datasets/ORG/NAME@REVISION`.
    pub path: PathBuf,
    /// Of a whole dataset on the Hub: which part, such as `train` or `test`.
    #[serde(default)]
    pub split: Option<String>,
    /// Of a whole dataset on the Hub: which of its subsets, where it has several.
    #[serde(default)]
    pub subset: Option<String>,
    /// The row type to bring the rows to. Without it the columns stay as they are.
    #[serde(default, rename = "as")]
    pub rows: Option<RowsName>,
    /// Columns of JSON lines to keep as JSON text, because what stands in them differs from row to row.
    #[serde(default)]
    pub json: Vec<String>,
}

/// See [`Operator::MANUAL`].
pub struct Load;

impl Operator for Load {
    const NAME: &'static str = "load";
    const VERSION: u32 = 1;
    const ADDED: &'static [(&'static str, &'static str)] = &[("json", "[]"), ("split", "null"), ("subset", "null")];
    const MANUAL: &'static str = "\
Reads a file of rows from outside the store.

The file's content, not its path, decides whether later stages rerun. With
`as: prompt` a row needs `messages`, or a text column `prompt`, which becomes
one user turn; a missing `prompt_id` is derived from the messages. Rows that
cannot be used are an error that names the first of them. A column of JSON lines
has one type; `json: [NAME]` keeps a column of many as JSON text.

Of a dataset on the Hub only the files of the split are fetched: those with its
name as a word of theirs, or of their folder's (`data/train-00000-of-00002.parquet`,
`main/test-00000-of-00001.parquet`), in the order of their names. A revision that is no
commit is looked up when the stage runs; the commit is told and recorded. See
`import_model` for the environment variables.";
    const EXAMPLE: &'static str = "op: load\nwith: {path: datasets/skills/test.jsonl, as: prompt}\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let kind = config.rows.map_or(Kind::AnyTable, |rows| Kind::Rows(rows.row_type()));
        Ports { inputs: vec![], outputs: vec![Output::new("rows", kind, "the rows, in the file's order")] }
    }

    fn check(config: &Config, problems: &mut Problems) {
        let Some(text) = hub::name(&config.path) else {
            match Format::of(&config.path) {
                Err(message) => problems.add("path", message),
                Ok((format, _)) => {
                    problems.require(format == Format::JsonLines || config.json.is_empty(), "json", || {
                        "only JSON lines (.jsonl, .ndjson) have such columns".into()
                    })
                }
            }
            for (name, given) in [("split", &config.split), ("subset", &config.subset)] {
                problems.require(given.is_none(), name, || "belongs to a whole dataset: hf://datasets/ORG/NAME".into());
            }
            return;
        };
        let Some(name) = hub::check(text, HubKind::Dataset, "path", problems) else { return };
        let whole = name.path.is_empty();
        if !whole && let Err(message) = Format::of(Path::new(&name.path)) {
            problems.add("path", message);
        }
        problems.require(whole == config.split.is_some(), "split", || match whole {
            true => "is missing: which part of the dataset, such as train or test?".into(),
            false => "does not go with one file".into(),
        });
        problems.require(whole || config.subset.is_none(), "subset", || "does not go with one file".into());
    }

    fn files(config: &Config) -> Vec<ExternalFile> {
        let here = hub::name(&config.path).is_none();
        here.then(|| ExternalFile::new("path", &config.path)).into_iter().collect()
    }
}

impl Execute for Load {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let (table, shown) = match hub::name(&config.path) {
            None => {
                let path = run.file("path")?;
                (read_with(&path, &config.json)?, path.display().to_string())
            }
            Some(name) => (fetched(name, config, run)?, name.to_owned()),
        };
        if table.is_empty() {
            return Err(StageError::input(format!("{shown} has no rows")));
        }
        let table = match config.rows {
            Some(RowsName::Prompt) => as_prompts(table)?,
            _ => table,
        };
        run.write("rows", table)
    }
}

/// The rows of a file or of a split on the Hub.
fn fetched(name: &str, config: &Config, run: &dyn Run) -> Result<Table, StageError> {
    let named = Name::parse(name).map_err(stage_error)?;
    let choose = |paths: &[&str]| match &config.split {
        None => Ok(vec![named.path.clone()]),
        Some(split) => of_split(paths, split, config.subset.as_deref()),
    };
    // A file that is not there is told by its name when it is asked for.
    let (folder, paths) = hub::fetch(name, run, &choose)?;
    let missing = paths.iter().find(|path| !folder.join(path).exists());
    if let Some(path) = missing {
        return Err(StageError::input(format!("{name} has no file {path}")));
    }
    let tables = paths.iter().map(|path| read_with(&folder.join(path), &config.json)).collect::<Result<Vec<_>, _>>()?;
    Ok(Table::concat(&tables)?)
}

/// The files of a split, sorted.
fn of_split(paths: &[&str], split: &str, subset: Option<&str>) -> Result<Vec<String>, StageError> {
    let is_word =
        |text: &str, word: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|w| w == word);
    let candidates: Vec<&str> = paths.iter().copied().filter(|path| Format::of(Path::new(path)).is_ok()).collect();
    let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let in_subset = |path: &&str| {
        let (folder, stem) = (folder(path), path.rsplit('/').next().unwrap_or_default());
        subset.is_none_or(|subset| folder.split('/').any(|part| part == subset) || is_word(stem, subset))
    };
    let mut found: Vec<&str> =
        candidates.iter().copied().filter(in_subset).filter(|path| is_word(path, split)).collect();
    found.sort_unstable();
    let folders: std::collections::BTreeSet<String> = found.iter().map(|path| folder(path)).collect();
    if found.is_empty() {
        let some = candidates.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        let of = subset.map(|subset| format!(" of the subset {subset:?}")).unwrap_or_default();
        return Err(StageError::input(format!("the dataset has no file for the split {split:?}{of}")).hint(
            if some.is_empty() { "it has no Parquet, JSON lines or CSV".to_owned() } else { format!("it has {some}") },
        ));
    }
    if subset.is_none() && folders.len() > 1 {
        let names = folders.into_iter().collect::<Vec<_>>().join(", ");
        return Err(StageError::input(format!("the split {split:?} lies in several folders: {names}"))
            .hint("say which: subset: NAME"));
    }
    Ok(found.into_iter().map(str::to_owned).collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    JsonLines,
    Csv,
}

impl Format {
    /// The format and whether it is compressed, by the file's name.
    fn of(path: &Path) -> Result<(Self, bool), String> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let (stem, gzipped) = name.strip_suffix(".gz").map_or((name.as_str(), false), |stem| (stem, true));
        match stem.rsplit_once('.').map(|(_, extension)| extension) {
            Some("parquet") if !gzipped => Ok((Self::Parquet, false)),
            Some("jsonl" | "ndjson") => Ok((Self::JsonLines, gzipped)),
            Some("csv") => Ok((Self::Csv, gzipped)),
            _ => {
                Err(format!("{name:?} is not a .parquet, .jsonl, .ndjson or .csv file (the last three also with .gz)"))
            }
        }
    }
}

/// Reads a whole file as a table.
pub fn read(path: &Path) -> Result<Table, StageError> {
    read_with(path, &[])
}

/// Reads a whole file as a table, columns of these names as JSON text.
fn read_with(path: &Path, json: &[String]) -> Result<Table, StageError> {
    let (format, gzipped) = Format::of(path).map_err(StageError::input)?;
    let file = File::open(path).map_err(|error| StageError::io("open", path, &error))?;
    let broken = |error: &dyn std::fmt::Display| {
        StageError::input(format!("failed to read {}: {error}", path.display()))
            .hint("the file may be truncated or of another format: fetch it again, or check its extension")
    };
    if format == Format::Parquet {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()).map_err(|e| broken(&e))?;
        let schema = arrow::array::RecordBatchReader::schema(&reader);
        let batches = reader.collect::<Result<_, _>>().map_err(|e| broken(&e))?;
        return Ok(Table::new(schema, batches));
    }
    // Schema inference and decoding are two passes over the text.
    let mut text = Vec::new();
    let mut source: Box<dyn Read> =
        if gzipped { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    source.read_to_end(&mut text).map_err(|e| broken(&e))?;
    match format {
        Format::JsonLines => json_lines(&text, path, json),
        _ => csv(&text).map_err(|e| broken(&e)),
    }
}

fn json_lines(text: &[u8], path: &Path, json: &[String]) -> Result<Table, StageError> {
    let mut rewritten = Vec::new();
    // Lines are parsed one by one first, so that an error names its line.
    for (index, line) in BufReader::new(text).lines().enumerate() {
        let wrong = |what: String| StageError::input(format!("{}:{}: {what}", path.display(), index + 1));
        let line = line.map_err(|_| wrong("the line is not UTF-8".into()))?;
        if line.trim().is_empty() {
            continue;
        }
        let line = if json.is_empty() { line } else { keep_as_json(&line, json).map_err(wrong)? };
        if !json.is_empty() {
            rewritten.extend_from_slice(line.as_bytes());
            rewritten.push(b'\n');
        }
        match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(serde_json::Value::Object(_)) => {}
            Ok(_) => return Err(wrong("the line is not a JSON object".into())),
            Err(error) => {
                // The parser saw one line only, and calls it the first.
                let place = format!(" at line 1 column {}", error.column());
                let what = error.to_string().replace(&place, "");
                return Err(wrong(format!("the line is not JSON: {what} in column {}", error.column())));
            }
        }
    }
    let text = if json.is_empty() { text } else { &rewritten };
    let wrong =
        |error: arrow::error::ArrowError| StageError::input(format!("failed to read {}: {error}", path.display()));
    let (schema, _) = arrow::json::reader::infer_json_schema(BufReader::new(text), None).map_err(wrong)?;
    let schema = Arc::new(schema);
    // Where values of a field are of several kinds, the schema has texts, and numbers among them become texts.
    let builder = arrow::json::ReaderBuilder::new(schema.clone()).with_coerce_primitive(true);
    let reader = builder.build(BufReader::new(text)).map_err(wrong)?;
    Ok(Table::new(schema, reader.collect::<Result<_, _>>().map_err(wrong)?))
}

/// A line whose members of these names are texts that hold what was written there, to the letter: numbers of any size, and
/// what only Python takes for JSON.
fn keep_as_json(line: &str, names: &[String]) -> Result<String, String> {
    let members = json_members(line).ok_or("the line is not a JSON object")?;
    let is_kept = |name: &str| serde_json::from_str::<String>(name).is_ok_and(|name| names.contains(&name));
    let n_kept = members.iter().filter(|(name, _)| is_kept(name)).count();
    if n_kept < names.len() {
        return Err(format!("the line does not have all of {names:?} to keep as JSON"));
    }
    let member = |(name, value): (&str, &str)| {
        let text = if is_kept(name) { serde_json::Value::from(value).to_string() } else { value.to_owned() };
        format!("{name}:{text}")
    };
    Ok(format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(",")))
}

fn csv(text: &[u8]) -> Result<Table, arrow::error::ArrowError> {
    let (schema, _) = arrow::csv::reader::Format::default().with_header(true).infer_schema(text, None)?;
    let schema = Arc::new(schema);
    let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_header(true).build(text)?;
    Ok(Table::new(schema, reader.collect::<Result<_, _>>()?))
}

/// Makes prompts of rows that have `messages` or a text column `prompt`, and
/// derives identities that are missing. Other columns stay.
pub fn as_prompts(table: Table) -> Result<Table, TableError> {
    let mut table = table;
    if !table.has("messages") && table.has("prompt") {
        let batch = table.one_batch()?;
        let prompts = arrow::compute::cast(batch.column_by_name("prompt").expect("checked above"), &DataType::Utf8)?;
        let texts: Vec<Vec<Message>> = (0..batch.num_rows())
            .map(|row| {
                let text = <String as rows::Cell>::read(&prompts, row).ok_or_else(|| TableError::Null {
                    column: "prompt".into(),
                    row,
                    expected: DataType::Utf8,
                })?;
                Ok(vec![Message::user(text)])
            })
            .collect::<Result<_, TableError>>()?;
        let field = rows::PROMPT.column("messages").expect("prompts have messages").field();
        let messages = Table::of_columns(vec![(field, <Vec<Message> as rows::Cell>::build(texts.iter()))])?;
        table = table.without("prompt")?.beside(&messages)?;
    }
    if !table.has("prompt_id") {
        let messages = crate::shared::rows::column::<Vec<Message>>(&table, "messages")?;
        let ids: Vec<String> = messages.iter().map(|messages| rows::prompt_id(messages)).collect();
        let field = rows::PROMPT.column("prompt_id").expect("prompts have an identity").field();
        table = table.beside(&Table::of_columns(vec![(field, <String as rows::Cell>::build(ids.iter()))])?)?;
    }
    if table.batches().is_empty() {
        return Ok(Table::empty(Arc::new(Schema::new(table.schema().fields().clone()))));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fuseline_contract::rows::{Prompt, Row};
    use std::io::Write;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
        (folder, path)
    }

    #[test]
    fn json_lines_become_prompts() {
        let (_folder, path) = file("a.jsonl", "{\"prompt\": \"1+1?\", \"reference\": \"2\"}\n{\"prompt\": \"2+2?\"}\n");
        let prompts = Prompt::read(&as_prompts(read(&path).expect("read")).expect("prompts")).expect("rows");
        assert_eq!(prompts[0].messages, [Message::user("1+1?")]);
        assert_eq!(prompts[0].reference.as_deref(), Some("2"));
        assert_eq!(prompts[1].reference, None);
        assert_ne!(prompts[0].prompt_id, prompts[1].prompt_id);
    }

    #[test]
    fn columns_of_many_types_are_kept_as_json() {
        let (_folder, path) = file(
            "a.jsonl",
            "{\"n\": 1, \"x\": [[1.50], \"a\", -Infinity, 99999999999999999999]}\n{\"n\": 2, \"x\": {\"b\": null}}\n",
        );
        let table = read_with(&path, &["x".into()]).expect("read");
        let texts = crate::shared::rows::column::<String>(&table, "x").expect("texts");
        assert_eq!(texts, ["[[1.50], \"a\", -Infinity, 99999999999999999999]", "{\"b\": null}"]);
        let error = read_with(&path, &["y".into()]).expect_err("no such column");
        assert!(error.message.contains("a.jsonl:1: the line does not have all of [\"y\"]"), "{error}");
    }

    #[test]
    fn broken_files_name_the_place() {
        let (_folder, path) = file("a.jsonl", "{\"prompt\": \"x\"}\n{\"prompt\": \n");
        let error = read(&path).expect_err("the second line is cut off");
        assert!(error.message.contains("a.jsonl:2: the line is not JSON"), "{error}");
        let (_folder, path) = file("a.parquet", "PAR1 no");
        assert!(read(&path).expect_err("no Parquet").message.contains("a.parquet"));
        assert!(read(Path::new("missing.csv")).expect_err("not there").message.contains("missing.csv"));
    }

    #[test]
    fn the_files_of_a_split_are_found_by_their_names() {
        let paths = [
            "README.md",
            "main/test-00000-of-00001.parquet",
            "main/train-00001-of-00002.parquet",
            "main/train-00000-of-00002.parquet",
            "socratic/train-00000-of-00001.parquet",
            "latest/pretrain.jsonl",
        ];
        let split = |split: &str, subset| of_split(&paths, split, subset).map_err(|error| error.to_string());
        assert_eq!(split("test", None), Ok(vec!["main/test-00000-of-00001.parquet".to_owned()]));
        let train = ["main/train-00000-of-00002.parquet", "main/train-00001-of-00002.parquet"].map(str::to_owned);
        assert_eq!(split("train", Some("main")), Ok(train.to_vec()));
        let several = split("train", None).expect_err("two subsets");
        assert_eq!(several, "the split \"train\" lies in several folders: main, socratic");
        assert!(split("validation", None).is_err() && split("test", Some("socratic")).is_err());
        let flat = ["train.csv", "test.jsonl.gz"];
        assert_eq!(of_split(&flat, "test", None).expect("found"), ["test.jsonl.gz"]);
        let folders = ["data/test/0.parquet", "data/test/1.parquet", "data/train/0.parquet"];
        assert_eq!(of_split(&folders, "test", None).expect("found").len(), 2);
    }

    #[test]
    fn values_of_several_kinds_are_texts() {
        let (_folder, path) = file("a.jsonl", "{\"n\": 1, \"pairs\": [[\"m\", -0.5]]}\n{\"n\": 2, \"pairs\": null}\n");
        let batch = read(&path).expect("read").one_batch().expect("a batch");
        assert_eq!(batch.column(0).data_type(), &DataType::Int64);
        let shown = arrow::util::display::array_value_to_string(batch.column(1), 0).expect("a list");
        assert_eq!(shown, "[[m, -0.5]]");
    }

    #[test]
    fn csv_has_typed_columns() {
        let (_folder, path) = file("a.csv", "name,n\nx,1\ny,2\n");
        let table = read(&path).expect("read");
        assert_eq!(table.schema().field(1).data_type(), &DataType::Int64);
        assert_eq!(table.n_rows(), 2);
    }
}
