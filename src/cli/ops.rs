//! `fuseline ops` and `fuseline schema`: the reference, generated from code.

use std::fmt::Write;

use fuseline_contract::{Arity, Entry, StageError, event};
use fuseline_operators::ALL;
use serde_json::Value;

use crate::exit;

/// Lists the operators, or prints the manual of one.
pub fn ops(name: Option<&str>) -> anyhow::Result<u8> {
    match name {
        None => exit::print(&list()?),
        Some(name) => match ALL.iter().find(|entry| entry.name == name) {
            Some(entry) => exit::print(&manual(entry)?),
            None => {
                let names = ALL.iter().map(|entry| entry.name);
                let hint = match fuseline_engine::problem::nearest(name, names) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "`fuseline ops` lists them all".to_owned(),
                };
                Err(StageError::input(format!("there is no operator {name:?}")).hint(hint).into())
            }
        },
    }
}

fn list() -> anyhow::Result<String> {
    let width = ALL.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for entry in ALL {
        writeln!(text, "{:width$}  {}", entry.name, entry.summary())?;
    }
    text.push_str("\n`fuseline ops NAME` prints the manual of one.\n");
    Ok(text)
}

/// The manual page: text, example, ports under the example, parameters.
fn manual(entry: &Entry) -> anyhow::Result<String> {
    let mut text = format!("{} (version {})\n\n{}\n", entry.name, entry.version, entry.manual.trim());
    write!(text, "\nExample:\n")?;
    for line in entry.example.lines() {
        writeln!(text, "    {line}")?;
    }
    if let Some(ports) = fuseline_engine::schema::example_ports(entry) {
        writeln!(text, "\nInputs and outputs of the example:")?;
        for input in &ports.inputs {
            let arity = match input.arity {
                Arity::One => "",
                Arity::Optional => " (optional)",
                Arity::Many => " (one or more)",
            };
            writeln!(text, "    in   {}: {}{arity}; {}", input.name, input.kind.describe(), input.doc)?;
        }
        for output in &ports.outputs {
            writeln!(text, "    out  {}: {}; {}", output.name, output.kind.describe(), output.doc)?;
        }
    }
    let schema = (entry.schema)();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object();
    if properties.is_some_and(|properties| !properties.is_empty()) {
        writeln!(text, "\nParameters:")?;
    }
    for (name, property) in properties.into_iter().flatten() {
        let default = match property.get("default") {
            Some(default) if !default.is_null() => format!(" Default: {default}."),
            _ if required.contains(&name.as_str()) => " Required.".to_owned(),
            _ => String::new(),
        };
        let doc = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let secret = if entry.secret.contains(&name.as_str()) { " Takes `!secret NAME`." } else { "" };
        writeln!(text, "    {name}: {doc}{default}{secret}")?;
    }
    Ok(text)
}

/// Prints the JSON Schema of the pipeline file, or that of a line of `run --json`.
pub fn schema(of_events: bool) -> anyhow::Result<u8> {
    let schema = if of_events { event::json_schema() } else { fuseline_engine::schema::json_schema(ALL) };
    exit::print(&serde_json::to_string_pretty(&schema)?)
}
