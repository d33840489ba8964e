//! From results to exit codes and messages.

use std::io::Write;
use std::process::ExitCode;

use fuseline_contract::{Cause, StageError};
use fuseline_engine::problem::Problems;

/// Results were printed and there was nothing wrong.
pub const DONE: u8 = 0;
/// `plan` found work.
pub const WORK_FOUND: u8 = 5;

/// Prints an error, if there is one, and gives the exit code of its cause.
pub fn of(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let (text, cause) = describe(error);
            let _ = write!(std::io::stderr(), "{text}");
            ExitCode::from(cause.exit_code())
        }
    }
}

/// What to say of an error, and who can act.
pub fn describe(error: anyhow::Error) -> (String, Cause) {
    // A query's error knows who can act.
    let error =
        error.downcast::<fuseline_query::Error>().map_or_else(|other| other, |query| StageError::from(query).into());
    if let Some(problems) = error.downcast_ref::<Problems>() {
        (problems.to_string(), Cause::Input)
    } else if let Some(stage) = error.downcast_ref::<StageError>() {
        (with_hint(&stage.message, stage.hint.as_deref()), stage.cause)
    } else if let Some(engine) = error.downcast_ref::<fuseline_engine::error::Error>() {
        (with_hint(&engine.to_string(), engine.hint().as_deref()), engine.cause())
    } else {
        (with_hint(&format!("{error:#}"), None), Cause::Environment)
    }
}

fn with_hint(message: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("  help: {hint}\n")).unwrap_or_default();
    format!("error: {message}\n{hint}")
}

/// Prints a result to stdout. A reader that has gone away is not an error.
pub fn print(text: &str) -> anyhow::Result<u8> {
    let mut stdout = std::io::stdout().lock();
    let newline = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(StageError::environment(format!("failed to write to stdout: {error}")).into())
        }
        _ => Ok(DONE),
    }
}

/// Writes a result to a file, or to stdout where none is named.
pub fn write(text: &[u8], file: Option<&std::path::Path>) -> anyhow::Result<u8> {
    match file {
        None => print(&String::from_utf8_lossy(text)),
        Some(path) => {
            std::fs::write(path, text).map_err(|error| StageError::io("write", path, &error))?;
            Ok(DONE)
        }
    }
}
