//! Where the results of queries go, and as what: a terminal, a pipe or a file; text, CSV, JSON or Parquet.
//!
//! A file appears under its name when everything is in it, so a query that fails leaves none that is half written.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use fuseline_contract::{StageError, Table};
use fuseline_engine::store::table::Writer;
use fuseline_query::Rows;
use fuseline_query::render::{self, Format, RowFormat, Stream, Style};

use crate::args::SqlFormat;

/// Where the results of queries go.
pub struct Answers {
    /// How they are written.
    pub format: SqlFormat,
    file: Option<Part>,
}

/// A file that does not have its name yet.
struct Part {
    path: PathBuf,
    part: PathBuf,
    text: Option<BufWriter<File>>,
    has_parquet: bool,
}

impl Answers {
    /// To a file, or to stdout.
    pub fn new(format: SqlFormat, output: Option<&Path>) -> anyhow::Result<Self> {
        if format == SqlFormat::Parquet && output.is_none() {
            return Err(StageError::input("Parquet is not written to a terminal").hint("name a file with -o").into());
        }
        let mut answers = Self { format, file: None };
        answers.redirect(output)?;
        Ok(answers)
    }

    /// Finishes the file, if there is one; what follows goes to another, or to stdout.
    pub fn redirect(&mut self, output: Option<&Path>) -> anyhow::Result<()> {
        self.finish()?;
        if let Some(path) = output {
            if path.is_dir() {
                return Err(StageError::input(format!("{} is a folder, not a file", path.display())).into());
            }
            let mut part = path.as_os_str().to_owned();
            part.push(format!(".part-{}", std::process::id()));
            let (path, part) = (path.to_owned(), PathBuf::from(part));
            self.file = Some(Part { path, part, text: None, has_parquet: false });
        }
        Ok(())
    }

    /// Gives the file its name, if there is one and something was written.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        if let Some(text) = &mut file.text {
            text.flush().map_err(|error| StageError::io("write", &file.path, &error))?;
        }
        if file.text.is_some() || file.has_parquet {
            fs::rename(&file.part, &file.path).map_err(|error| StageError::io("write", &file.path, &error))?;
            // It is no longer there to be removed.
            file.part.clear();
        }
        Ok(())
    }

    /// Writes a result and says how many rows it has.
    pub fn write(&mut self, rows: Rows<'_>) -> anyhow::Result<usize> {
        match self.format {
            SqlFormat::Text => self.text(rows),
            SqlFormat::Csv => self.rows(RowFormat::Csv, rows),
            SqlFormat::Json => self.rows(RowFormat::Json, rows),
            SqlFormat::Parquet => self.parquet(rows),
        }
    }

    /// Writes text that is no result: what a shell command prints.
    pub fn print(&mut self, text: &str) -> anyhow::Result<()> {
        self.put(text).map(|_| ())
    }

    fn text(&mut self, rows: Rows<'_>) -> anyhow::Result<usize> {
        let schema = rows.schema().clone();
        let table = Table::new(schema, rows.collect::<Result<_, _>>()?);
        let style = Style { ansi: self.file.is_none() && io::stdout().is_terminal(), ..Style::default() };
        self.put(&render::table(&table, Format::Text, &style)?)?;
        Ok(table.n_rows())
    }

    fn rows(&mut self, format: RowFormat, rows: Rows<'_>) -> anyhow::Result<usize> {
        let (mut stream, head) = Stream::begin(format, rows.schema());
        let mut n_rows = 0;
        if !self.put(&head)? {
            return Ok(n_rows);
        }
        for batch in rows {
            let batch = batch?;
            n_rows += batch.num_rows();
            if !self.put(&stream.rows(&batch)?)? {
                return Ok(n_rows);
            }
        }
        self.put(stream.end())?;
        Ok(n_rows)
    }

    fn parquet(&mut self, rows: Rows<'_>) -> anyhow::Result<usize> {
        let file = self.file.as_mut().filter(|file| !file.has_parquet && file.text.is_none());
        let file = file.ok_or_else(|| {
            StageError::input("a Parquet file holds one result").hint("name the file of the next one with \\o FILE")
        })?;
        let mut writer = Writer::create(&file.part, rows.schema())?;
        let mut n_rows = 0;
        for batch in rows {
            let batch = batch?;
            n_rows += batch.num_rows();
            writer.push(&batch)?;
        }
        writer.finish()?;
        file.has_parquet = true;
        Ok(n_rows)
    }

    /// Writes text; says whether anybody still reads it.
    fn put(&mut self, text: &str) -> anyhow::Result<bool> {
        let written = match &mut self.file {
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            }
            Some(file) => {
                let open = match &mut file.text {
                    Some(open) => open,
                    None => {
                        let made =
                            File::create(&file.part).map_err(|error| StageError::io("write", &file.path, &error))?;
                        file.text.insert(BufWriter::new(made))
                    }
                };
                open.write_all(text.as_bytes())
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(StageError::environment(format!("failed to write the result: {error}")).into()),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.part.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.part);
        }
    }
}
