//! A GitHub-flavoured Markdown table.

use crate::cells::{Cell, Cells};

/// Writes a grid; its last character is a line break.
pub fn render(cells: &Cells) -> String {
    let mut out = String::new();
    if let Some(caption) = &cells.caption {
        out.push_str(&escaped(caption));
        out.push_str("\n\n");
    }
    let line = |texts: &mut dyn Iterator<Item = String>| format!("| {} |\n", texts.collect::<Vec<_>>().join(" | "));
    out.push_str(&line(&mut cells.stubs.iter().chain(&cells.headings).map(|name| escaped(name))));
    let rules = cells.headings.iter().enumerate();
    let rules = rules.map(|(column, _)| if cells.is_numeric(column) { "---:" } else { "---" }.to_owned());
    out.push_str(&line(&mut cells.stubs.iter().map(|_| "---".to_owned()).chain(rules)));
    for row in &cells.rows {
        let labels = row.labels.iter().map(|label| escaped(label));
        out.push_str(&line(&mut labels.chain(row.cells.iter().map(|cell| marked(cells, cell)))));
    }
    out.extend(cells.notes.iter().map(|note| format!("\nNote: {}\n", escaped(note))));
    out
}

/// The mark is of the value; deviation and difference stay plain.
fn marked(cells: &Cells, cell: &Cell) -> String {
    let mut shown = cells.shown(cell);
    shown.value = escaped(&shown.value);
    if cell.bold {
        shown.value = format!("**{}**", shown.value);
    } else if cell.underline {
        shown.value = format!("<u>{}</u>", shown.value);
    }
    if !shown.stars.is_empty() {
        shown.value.push_str(&format!("<sup>{}</sup>", escaped(&std::mem::take(&mut shown.stars))));
    }
    shown.joined()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '`' | '<' | '[' | ']' => out.extend(['\\', c]),
            '\n' => out.push_str("<br>"),
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}
