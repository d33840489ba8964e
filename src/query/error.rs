//! Why a query or a table failed, in the words of the query's author. What
//! DataFusion says is taken apart here and nowhere else.

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use fuseline_contract::StageError;
use fuseline_contract::table::TableError;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A line and a column in an SQL text, both from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not SQL.
    #[error("SQL{}: {message}", at(place))]
    Syntax {
        /// Where, if known.
        place: Option<Place>,
        /// What was expected and what was found.
        message: String,
    },
    /// The statement would change something, or is one that has no result.
    #[error("only queries can be run here, found {found}")]
    ReadOnly {
        /// How the statement begins.
        found: String,
    },
    /// No such table.
    #[error("SQL: there is no table {name:?}; {}", choose(nearest, known, "tables"))]
    UnknownTable {
        /// The name as written.
        name: String,
        /// The most similar names.
        nearest: Vec<String>,
        /// All names.
        known: Vec<String>,
    },
    /// No such column.
    #[error("SQL{}: there is no column {name:?}; {}", at(place), choose(nearest, known, "columns"))]
    UnknownColumn {
        /// Where, if known.
        place: Option<Place>,
        /// The name as written.
        name: String,
        /// The most similar names.
        nearest: Vec<String>,
        /// All names.
        known: Vec<String>,
    },
    /// The query means nothing.
    #[error("SQL{}: {message}", at(place))]
    Meaning {
        /// Where, if known.
        place: Option<Place>,
        /// What is wrong.
        message: String,
    },
    /// The query failed while it ran.
    #[error("the query failed: {message}")]
    Failed {
        /// What happened.
        message: String,
    },
    /// Memory or disk ran out.
    #[error("the query needs more memory or disk than there is: {message}")]
    Resources {
        /// What happened.
        message: String,
    },
    /// The query was broken off.
    #[error("interrupted")]
    Cancelled,
    /// What a name stands for could not be had.
    #[error("{0}")]
    Stage(StageError),
    /// A file could not be read as Parquet.
    #[error("table {table:?}: {message}")]
    File {
        /// The table that the file belongs to.
        table: String,
        /// What is wrong with the file.
        message: String,
    },
    /// Two files of a table do not fit together.
    #[error("table {table:?}: column {column:?} is {first} in one file and {second} in {path}")]
    UnequalFiles {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type in the files before.
        first: DataType,
        /// Its type here.
        second: String,
        /// Here.
        path: String,
    },
    /// Several values belong in one cell.
    #[error(
        "row {row:?}, column {column:?} has {n} values: average them in the SQL, or say `spread: stddev` for their mean and deviation"
    )]
    NotUnique {
        /// The row's label.
        row: String,
        /// The column's heading.
        column: String,
        /// How many values.
        n: usize,
    },
    /// A cell has p-values that differ.
    #[error(
        "row {row:?}, column {column:?} has the p-values {one} and {other}: give every row of the cell the same one"
    )]
    SeveralTests {
        /// The row's label.
        row: String,
        /// The column's heading.
        column: String,
        /// A p-value.
        one: f64,
        /// Another.
        other: f64,
    },
    /// A p-value is none.
    #[error("column {column:?} holds {value}, which is no p-value: expected a number from 0 to 1")]
    NotProbability {
        /// The column.
        column: String,
        /// The value.
        value: f64,
    },
    /// A cell that should be a number is not.
    #[error("row {row:?}, column {column:?} is not a number, so {option:?} has no meaning there")]
    NotNumber {
        /// The row's label.
        row: String,
        /// The column's heading.
        column: String,
        /// The option that needs numbers.
        option: &'static str,
    },
    /// A row or column that the pivot names, or that a cell is asked for by, is not there.
    #[error("{option} {name:?}: no such {what}; {}", choose(nearest, known, "labels"))]
    UnknownLabel {
        /// The option that names it.
        option: &'static str,
        /// The name as written.
        name: String,
        /// `row` or `column`.
        what: &'static str,
        /// The most similar labels.
        nearest: Vec<String>,
        /// All labels.
        known: Vec<String>,
    },
    /// A table of cells that was not written by this program.
    #[error("not a table of cells: {message}")]
    NotCells {
        /// What is wrong.
        message: String,
    },
    /// A table does not hold what it should.
    #[error(transparent)]
    Table(#[from] TableError),
    /// DataFusion contradicts itself, or we do.
    #[error("internal error of the query engine: {message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

fn at(place: &Option<Place>) -> String {
    place.map(|place| format!(", {place}")).unwrap_or_default()
}

/// `did you mean …?`, or what there is.
fn choose(nearest: &[String], known: &[String], what: &str) -> String {
    /// More than this many names help nobody.
    const MOST: usize = 20;
    if let [nearest @ .., last] = nearest {
        let others: String = nearest.iter().map(|name| format!("{name:?} or ")).collect();
        return format!("did you mean {others}{last:?}?");
    }
    match known {
        [] => format!("there are no {what}"),
        _ if known.len() > MOST => format!("the {what} are {}, …", known[..MOST].join(", ")),
        _ => format!("the {what} are {}", known.join(", ")),
    }
}

/// The names most similar to a wrong one, best first, at most three.
pub fn nearest<S: AsRef<str>>(name: &str, known: impl IntoIterator<Item = S>) -> Vec<String> {
    /// Below this Jaro–Winkler similarity a name is no likely slip.
    const SIMILAR: f64 = 0.82;
    let wrong = name.to_lowercase();
    let mut scored: Vec<(f64, String)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong, &name.as_ref().to_lowercase()), name.as_ref().to_owned()))
        .filter(|(score, _)| *score >= SIMILAR)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name).collect()
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        convert(error, None)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Table(TableError::Arrow(error))
    }
}

fn convert(error: DataFusionError, place: Option<Place>) -> Error {
    use DataFusionError as D;
    match error {
        D::Context(_, inner) => convert(*inner, place),
        D::Diagnostic(diagnostic, inner) => {
            let found = diagnostic.span.map(|span| Place { line: span.start.line, column: span.start.column });
            convert(*inner, found.filter(|place| place.line > 0).or(place))
        }
        D::Collection(mut errors) if !errors.is_empty() => convert(errors.swap_remove(0), place),
        D::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => convert(inner, place),
            Err(shared) => Error::Failed { message: bare(&shared.to_string()) },
        },
        D::SQL(error, _) => syntax(&error),
        D::SchemaError(error, _) => match *error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
                let qualified = match &field.relation {
                    Some(relation) => format!("{relation}.{}", field.name),
                    None => field.name.clone(),
                };
                Error::UnknownColumn { place, nearest: nearest(&field.name, &known), name: qualified, known }
            }
            other => Error::Meaning { place, message: bare(&other.to_string()) },
        },
        D::Plan(message) | D::NotImplemented(message) | D::Configuration(message) => {
            Error::Meaning { place, message: bare(&message) }
        }
        D::Execution(message) => Error::Failed { message: bare(&message) },
        D::ArrowError(error, _) => Error::Failed { message: error.to_string() },
        D::ResourcesExhausted(message) => Error::Resources { message: bare(&message) },
        D::IoError(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Error::Resources { message: error.to_string() }
        }
        D::Internal(message) => Error::Internal { message: bare(&message) },
        other => Error::Failed { message: bare(&other.to_string()) },
    }
}

/// Without backtraces, requests for bug reports and the engine's prefixes.
fn bare(message: &str) -> String {
    let mut message = message.split("\n\nbacktrace:").next().unwrap_or(message);
    message = message.split("\nThis issue was likely caused by a bug in DataFusion").next().unwrap_or(message);
    for prefix in
        ["Error during planning: ", "Schema error: ", "Execution error: ", "Arrow error: ", "External error: "]
    {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    message.trim_end_matches(['.', '\n', ' ']).to_owned()
}

/// Takes `… at Line: 1, Column: 8` apart.
fn syntax(error: &ParserError) -> Error {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "the query is nested too deeply",
    };
    let split = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Place { line: line.parse().ok()?, column: column.parse().ok()? }))
    });
    let (message, place) = match split {
        Some((message, place)) => (message, Some(place)),
        None => (text, None),
    };
    let message = message.replace("Expected: ", "expected ").replace("found: EOF", "found the end");
    Error::Syntax { place, message: message.replace("found: ", "found ") }
}

impl From<Error> for StageError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Resources { .. } => {
                Self::environment(message).hint("select fewer columns or rows, or give it more memory or disk")
            }
            Error::Internal { .. } => Self::bug(message),
            Error::Cancelled => Self::interrupted(),
            Error::Stage(error) => error,
            _ => Self::input(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("promts", ["prompts", "scored", "pairs"]), ["prompts"]);
        assert_eq!(nearest("MODEL", ["model"]), ["model"]);
        assert!(nearest("xyz", ["prompts", "scored"]).is_empty());
    }

    #[test]
    fn what_there_is_is_said() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(choose(&list(&["a"]), &[], "tables"), "did you mean \"a\"?");
        assert_eq!(choose(&list(&["a", "b"]), &[], "tables"), "did you mean \"a\" or \"b\"?");
        assert_eq!(choose(&[], &list(&["a", "b"]), "tables"), "the tables are a, b");
        assert_eq!(choose(&[], &[], "tables"), "there are no tables");
    }
}
