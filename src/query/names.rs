//! What an SQL text refers to, known without running it. The plan reads the
//! inputs of a stage from here.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Error, Result};

/// How deep a query may nest.
const RECURSION_LIMIT: usize = 128;

/// The tables that a query refers to, sorted, each once: `stage` or
/// `stage.output` as written. Common table expressions, table functions and the
/// system tables are not among them.
pub fn tables_of(sql: &str) -> Result<Vec<String>> {
    let statement = query(sql)?;
    let names = references(&statement)?.into_iter().map(|reference| dotted(&reference));
    Ok(names.filter(|name| !name.starts_with("system.")).collect::<BTreeSet<_>>().into_iter().collect())
}

/// Parses one statement that must be a query.
pub(crate) fn query(sql: &str) -> Result<Statement> {
    let statement = one_statement(sql)?;
    match &statement {
        Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => Ok(statement),
        other => Err(Error::ReadOnly { found: beginning(other) }),
    }
}

/// Parses one statement of any kind.
pub(crate) fn one_statement(sql: &str) -> Result<Statement> {
    let mut parser = DFParserBuilder::new(sql).with_recursion_limit(RECURSION_LIMIT).build()?;
    let mut statements = parser.parse_statements()?;
    match (statements.pop_front(), statements.len()) {
        (None, _) => Err(Error::Syntax { place: None, message: "expected a query, found nothing".to_owned() }),
        (Some(statement), 0) => Ok(statement),
        (Some(_), more) => {
            Err(Error::Syntax { place: None, message: format!("expected one query, found {}", more + 1) })
        }
    }
}

/// The first statement of a text, without its `;`, and where the next one begins. None if no `;` ends it yet, though a text
/// that can never become a statement is taken whole, so that running it says why.
pub fn first_statement(text: &str) -> Option<(&str, usize)> {
    let mut tokens = Vec::new();
    let end = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut tokens);
    match tokens.iter().find(|token| token.token == Token::SemiColon) {
        Some(found) => {
            let at = offset(text, found.span.start.line, found.span.start.column);
            Some((&text[..at], at + 1))
        }
        // What is open may be closed by a later line.
        None if end.as_ref().is_err_and(|error| !is_open(&error.message)) => Some((text, text.len())),
        None => None,
    }
}

/// Whether what the tokenizer says is that a quote or a comment does not end.
fn is_open(message: &str) -> bool {
    message.starts_with("Unterminated") || message.contains("EOF") || message.starts_with("Expected close delimiter")
}

/// Whether a text is only white space and comments.
pub fn is_blank(text: &str) -> bool {
    Tokenizer::new(&GenericDialect {}, text)
        .tokenize()
        .is_ok_and(|tokens| tokens.iter().all(|token| matches!(token, Token::Whitespace(_))))
}

/// The byte at a line and a column, both from one.
fn offset(text: &str, line: u64, column: u64) -> usize {
    let start: usize = text.split_inclusive('\n').take(line as usize - 1).map(str::len).sum();
    text[start..].char_indices().nth(column as usize - 1).map_or(text.len(), |(byte, _)| start + byte)
}

/// The first two words of a statement.
pub(crate) fn beginning(statement: &Statement) -> String {
    statement.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Every table that a statement reads.
pub(crate) fn references(statement: &Statement) -> Result<Vec<TableReference>> {
    let (found, _) = resolve_table_references(statement, false)?;
    let functions = table_functions(statement);
    Ok(found.into_iter().filter(|reference| !functions.contains(&dotted(reference))).collect())
}

/// `stage.output`, without quotes.
pub(crate) fn dotted(reference: &TableReference) -> String {
    [reference.catalog(), reference.schema(), Some(reference.table())]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(".")
}

/// Names that stand before an argument list: `generate_series(1, 3)`.
fn table_functions(statement: &Statement) -> BTreeSet<String> {
    struct Functions(BTreeSet<String>);
    impl Visitor for Functions {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: Some(_), .. } = factor {
                self.0.insert(name.to_string());
            }
            ControlFlow::Continue(())
        }
    }
    let mut functions = Functions(BTreeSet::new());
    let inner = match statement {
        Statement::Explain(explain) => &explain.statement,
        other => other,
    };
    if let Statement::Statement(inner) = inner {
        // The visitor never breaks off.
        let _ = inner.visit(&mut functions);
    }
    functions.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_and_outputs_are_named_once_and_in_order() {
        let sql = "WITH best AS (SELECT * FROM scored) SELECT b.*, (SELECT max(n) FROM counts) FROM best b \
                   JOIN pairs.rejected r ON b.id = r.id JOIN scored s USING (id) WHERE id IN (SELECT id FROM keep)";
        assert_eq!(tables_of(sql).expect("SQL"), ["counts", "keep", "pairs.rejected", "scored"]);
    }

    #[test]
    fn system_tables_functions_and_values_are_no_stages() {
        let sql = "SELECT * FROM system.runs, generate_series(1, 3), (VALUES (1)) v(x), \"Odd\"";
        assert_eq!(tables_of(sql).expect("SQL"), ["Odd"]);
        assert!(tables_of("SELECT 1").expect("SQL").is_empty());
    }

    #[test]
    fn statements_end_at_a_semicolon_that_is_not_quoted() {
        let text = "SELECT ';' AS \"größe;\" -- no; end\nFROM a /* ; */; SELECT 2;";
        let (first, next) = first_statement(text).expect("ended");
        assert_eq!(first, "SELECT ';' AS \"größe;\" -- no; end\nFROM a /* ; */");
        assert_eq!(first_statement(&text[next..]), Some((" SELECT 2", 10)));
        for open in ["", "SELECT 1", "SELECT 'a;", "SELECT 1 /* ;", "SELECT \"x;\n"] {
            assert_eq!(first_statement(open), None, "{open}");
        }
        assert_eq!(first_statement(";"), Some(("", 1)));
        assert!(is_blank(" -- all\n /* done */ ") && !is_blank("-- now\nSELECT 1") && !is_blank("'"));
    }

    #[test]
    fn what_is_not_a_query_is_refused_with_its_place() {
        let message = |sql: &str| tables_of(sql).expect_err("refused").to_string();
        assert_eq!(message("SELECT *\nFROM a WHER x"), "SQL, line 2, column 13: expected end of statement, found x");
        assert_eq!(message(""), "SQL: expected a query, found nothing");
        assert_eq!(message("SELECT 1; SELECT 2"), "SQL: expected one query, found 2");
        assert_eq!(message("DROP TABLE a"), "only queries can be run here, found DROP TABLE");
        assert_eq!(message("COPY a TO 'b.parquet'"), "only queries can be run here, found COPY a");
    }
}
