//! The SQL shell: statements end with `;`, lines that begin with `\` are for the shell itself.
//!
//! On a terminal lines are edited, completed and remembered, and an error is shown and forgotten. From a pipe they are read
//! as they come, and the first error ends it.

mod command;
mod complete;

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use fuseline_contract::StageError;
use fuseline_query::{Session, first_statement};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::answers::Answers;
use crate::exit;
use complete::Completion;

const PROMPT: &str = "fuseline> ";
/// Before the further lines of a statement.
const MORE: &str = "      ...> ";
const GREETING: &str = "Statements end with ;  \\? lists commands, \\q leaves.";

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Quit,
}

/// What a shell is in the middle of.
struct Shell<'s> {
    session: &'s Session<'s>,
    answers: Answers,
    /// The statement so far.
    text: String,
    timing: bool,
}

/// Reads statements from a terminal.
pub fn attended(session: &Session<'_>, answers: Answers) -> anyhow::Result<u8> {
    let mut shell = Shell { session, answers, text: String::new(), timing: false };
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
    let failed = |error| StageError::environment(format!("failed to read from the terminal: {error}"));
    let mut editor: Editor<Completion<'_>, FileHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Completion::new(session)));
    let history = history_file();
    if let Some(path) = &history {
        // There is none before the first session.
        let _ = editor.load_history(path);
    }
    eprintln!("{GREETING}");
    loop {
        let begun = !shell.text.trim().is_empty();
        if let Some(helper) = editor.helper_mut() {
            helper.before.clone_from(&shell.text);
        }
        match editor.readline(if begun { MORE } else { PROMPT }) {
            Ok(line) => {
                let before = shell.text.clone();
                let next = shell.line(&line).unwrap_or_else(|error| {
                    eprint!("{}", exit::describe(error).0);
                    shell.text.clear();
                    Next::Go
                });
                let said = format!("{before}{line}");
                if shell.text.trim().is_empty() && !said.trim().is_empty() {
                    let _ = editor.add_history_entry(said.trim());
                }
                if next == Next::Quit {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => shell.text.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error).into()),
        }
    }
    if let Some(path) = &history
        && let Err(error) = save(&mut editor, path)
    {
        eprintln!("warning: {} was not written: {error}", path.display());
    }
    shell.answers.finish()?;
    Ok(exit::DONE)
}

/// Reads statements from a pipe or a file; the last one needs no `;`.
pub fn piped(session: &Session<'_>, answers: Answers) -> anyhow::Result<u8> {
    let mut shell = Shell { session, answers, text: String::new(), timing: false };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| StageError::input(format!("failed to read from stdin: {error}")))?;
        if shell.line(&line)? == Next::Quit {
            shell.text.clear();
            break;
        }
    }
    let last = std::mem::take(&mut shell.text);
    if !fuseline_query::is_blank(&last) {
        shell.ask(&last)?;
    }
    shell.answers.finish()?;
    Ok(exit::DONE)
}

impl Shell<'_> {
    /// Takes a line: a command, or a part of a statement.
    fn line(&mut self, line: &str) -> anyhow::Result<Next> {
        if self.text.trim().is_empty()
            && let Some(command) = line.trim().strip_prefix('\\')
        {
            return self.command(command);
        }
        self.text.push_str(line);
        self.text.push('\n');
        while let Some((statement, next)) = first_statement(&self.text) {
            let statement = statement.to_owned();
            self.text.drain(..next);
            if !fuseline_query::is_blank(&statement) {
                self.ask(&statement)?;
            }
        }
        Ok(Next::Go)
    }

    fn ask(&mut self, statement: &str) -> anyhow::Result<()> {
        let clock = Instant::now();
        let n_rows = self.answers.write(self.session.stream(statement)?)?;
        if self.timing {
            eprintln!("{n_rows} rows in {:.3} s", clock.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Where lines are remembered: in the user's state folder.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("fuseline/sql_history"))
}

fn save(editor: &mut Editor<Completion<'_>, FileHistory>, path: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path.parent().expect("a file in a folder"))?;
    // Other shells may have written meanwhile; a file that is not there is made.
    Ok(editor.append_history(path)?)
}
