//! `fuseline sql`: a question to a pipeline's tables.

use std::path::Path;

use fuseline_contract::StageError;
use fuseline_query::render::{self, Format, Style};

use crate::args::{Pipeline, SqlFormat};
use crate::setting::Setting;
use crate::{exit, session};

/// Answers a query.
pub fn sql(
    store: &Path,
    pipeline: &Pipeline,
    query: Option<&str>,
    file: Option<&Path>,
    format: SqlFormat,
    output: Option<&Path>,
) -> anyhow::Result<u8> {
    let query = match (query, file) {
        (Some(query), _) => query.to_owned(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| StageError::io("read", file, &error))?,
        (None, None) => return Err(StageError::input("there is no query").hint("give one, or a file with -f").into()),
    };
    let setting = Setting::open(store, pipeline)?;
    let (session, missing) = session::open(&setting)?;
    let result = session.sql(&query).map_err(|error| {
        let asked = fuseline_query::tables_of(&query).unwrap_or_default();
        let stage = |name: &String| name.split('[').next().unwrap_or_default().to_owned();
        match missing.iter().find(|id| asked.iter().any(|name| name.split('.').next() == Some(stage(id).as_str()))) {
            Some(id) => anyhow::Error::new(
                StageError::input(format!("stage {id} has no result yet"))
                    .hint(format!("fuseline run {}", pipeline.path.display())),
            ),
            None => error.into(),
        }
    })?;
    let format = match format {
        SqlFormat::Text => Format::Text,
        SqlFormat::Csv => Format::Csv,
        SqlFormat::Json => Format::Json,
    };
    exit::write(render::table(&result, format, &Style::default())?.as_bytes(), output)
}
