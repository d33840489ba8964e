//! Completion: tables, the columns of those that the statement names, functions, keywords, commands.

use std::collections::BTreeSet;

use fuseline_query::Session;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::command;

const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "IS",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "SELECT",
    "SHOW",
    "TABLES",
    "THEN",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Completes what is typed.
pub(super) struct Completion<'s> {
    session: &'s Session<'s>,
    functions: Vec<String>,
    /// The lines of the statement before the one that is typed.
    pub before: String,
}

impl<'s> Completion<'s> {
    pub fn new(session: &'s Session<'s>) -> Self {
        Self { session, functions: session.functions(), before: String::new() }
    }

    /// Where the word before the cursor begins, and what it may become.
    fn candidates(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let typed = &line[..cursor];
        if self.before.trim().is_empty() && typed.starts_with('\\') && !typed.contains(' ') {
            let commands = command::ALL.iter().map(|(name, _)| (*name).to_owned());
            return (0, commands.filter(|name| name.starts_with(typed)).collect());
        }
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '"');
        let start = typed.char_indices().rev().take_while(|(_, c)| is_word(*c)).last().map_or(cursor, |(at, _)| at);
        let word = &typed[start..];
        let mut found: BTreeSet<String> =
            self.session.names().filter(|name| name.starts_with(word)).map(str::to_owned).collect();
        // Behind a point stands an output of a stage or a column of an alias.
        let (alias, column) = word.rsplit_once('.').map_or(("", word), |(alias, column)| (alias, column));
        let lead = if alias.is_empty() { String::new() } else { format!("{alias}.") };
        let columns = self.columns(&format!("{}{line}", self.before));
        found.extend(columns.into_iter().filter(|name| name.starts_with(column)).map(|name| format!("{lead}{name}")));
        if alias.is_empty() && !word.is_empty() && !typed.starts_with('\\') {
            let lower = word.to_lowercase();
            found.extend(self.functions.iter().filter(|name| name.starts_with(&lower)).map(|name| format!("{name}(")));
            let is_lower = word == lower;
            let keywords = KEYWORDS.iter().filter(|keyword| keyword.to_lowercase().starts_with(&lower));
            found.extend(keywords.map(|word| if is_lower { word.to_lowercase() } else { (*word).to_owned() }));
        }
        (start, found.into_iter().collect())
    }

    /// The columns of all tables that a text names.
    fn columns(&self, text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')));
        let tables: BTreeSet<&str> = words.filter(|word| self.session.has(word)).collect();
        // A table that cannot be opened has no columns to offer; the query will say why.
        let schemas = tables.into_iter().filter_map(|table| self.session.columns(table).ok());
        schemas
            .flat_map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>())
            .collect()
    }
}

impl Completer for Completion<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, found) = self.candidates(line, cursor);
        Ok((start, found.into_iter().map(|text| Pair { display: text.clone(), replacement: text }).collect()))
    }
}

impl Hinter for Completion<'_> {
    type Hint = String;
}

impl Highlighter for Completion<'_> {}

impl Validator for Completion<'_> {}

impl Helper for Completion<'_> {}

#[cfg(test)]
mod tests {
    use fuseline_contract::Table;
    use fuseline_contract::rows::{Metric, Row};

    use super::*;

    #[test]
    fn names_columns_functions_and_keywords() {
        let mut session = Session::new(1).expect("a session");
        for name in ["evaluated", "zebras", "zebras.dropped", "system.runs"] {
            let table: Table = Metric::table(&[]).expect("no rows");
            session.register_table(name, table);
        }
        let mut completion = Completion::new(&session);
        let at_end = |completion: &Completion<'_>, line: &str| completion.candidates(line, line.len());
        assert_eq!(at_end(&completion, "SELECT * FROM zeb"), (14, vec!["zebras".into(), "zebras.dropped".into()]));
        assert_eq!(at_end(&completion, "SELECT * FROM zebras.d"), (14, vec!["zebras.dropped".to_owned()]));
        assert_eq!(at_end(&completion, "SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(at_end(&completion, "sel"), (0, vec!["select".to_owned()]));
        assert_eq!(at_end(&completion, "SELECT win_r"), (7, vec!["win_rate(".to_owned()]));
        assert_eq!(at_end(&completion, "\\ti"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(at_end(&completion, "\\d eval"), (3, vec!["evaluated".to_owned()]));
        // Columns are those of the tables in the statement, also behind the cursor and in lines before.
        assert_eq!(completion.candidates("SELECT metr FROM evaluated", 11), (7, vec!["metric".to_owned()]));
        assert!(at_end(&completion, "SELECT metr").1.is_empty());
        completion.before = "SELECT * FROM evaluated e\n".to_owned();
        assert_eq!(at_end(&completion, "WHERE e.metr"), (6, vec!["e.metric".to_owned()]));
        assert_eq!(at_end(&completion, "WHERE größe").1, Vec::<String>::new());
    }
}
