//! What a shell understands besides SQL.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;
use fuseline_contract::StageError;
use fuseline_engine::ledger::DOC;
use fuseline_query::functions;

use super::{Next, Shell};
use crate::args::SqlFormat;

/// The commands, for `\?` and for completion.
pub(super) const ALL: &[(&str, &str)] = &[
    ("\\?", "this list"),
    ("\\d", "the tables; \\d TABLE: the columns of one"),
    ("\\df", "the functions that are not in every SQL"),
    ("\\format", "\\format text, csv, json or parquet: how results are written"),
    ("\\o", "\\o FILE: write what follows to a file; \\o: to the terminal again"),
    ("\\q", "leave"),
    ("\\timing", "say how long each query took, or no longer"),
];

impl Shell<'_> {
    /// Runs a command, given without its `\`.
    pub(super) fn command(&mut self, command: &str) -> anyhow::Result<Next> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim().trim_end_matches(';').trim_end();
        match (name, argument) {
            ("q" | "quit", "") => return Ok(Next::Quit),
            ("?" | "h" | "help", "") => {
                let lines = ALL.iter().map(|(name, doc)| (*name, *doc));
                self.answers.print(&table(lines))?;
            }
            ("d", "") => {
                let kind = |name: &str| if name.starts_with("system.") { "ledger" } else { "stage" };
                let names: Vec<&str> = self.session.names().collect();
                self.answers.print(&table(names.iter().map(|name| (*name, kind(name)))))?;
            }
            ("d", name) => {
                let schema = self.session.columns(name)?;
                let lines = schema.fields().iter().map(|field| {
                    let null = if field.is_nullable() { "" } else { " not null" };
                    let doc = field.metadata().get(DOC).map(|doc| format!(": {doc}")).unwrap_or_default();
                    (field.name().as_str(), format!("{}{null}{doc}", field.data_type()))
                });
                let lines: Vec<(&str, String)> = lines.collect();
                self.answers.print(&table(lines.iter().map(|(name, what)| (*name, what.as_str()))))?;
            }
            ("df", "") => {
                let lines = functions::ALL.iter().map(|function| (function.call, function.doc));
                self.answers.print(&table(lines))?;
            }
            ("o", "") => self.answers.redirect(None)?,
            ("o", file) => self.answers.redirect(Some(Path::new(file)))?,
            ("timing", "") => {
                self.timing = !self.timing;
                eprintln!("timing is {}", if self.timing { "on" } else { "off" });
            }
            ("format", format) => {
                self.answers.format = SqlFormat::from_str(format, true).map_err(|_| {
                    let names: Vec<String> = SqlFormat::value_variants()
                        .iter()
                        .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
                        .collect();
                    StageError::input(format!("{format:?} is no format")).hint(format!("one of {}", names.join(", ")))
                })?;
            }
            _ => {
                let error = StageError::input(format!("there is no command \\{command}"));
                return Err(error.hint("\\? lists the commands").into());
            }
        }
        Ok(Next::Go)
    }
}

/// Two columns.
fn table<'a>(lines: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> String {
    let width = lines.clone().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, what) in lines {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name:width$}  {what}");
    }
    text
}
