//! An HTML table with its caption and notes, to be put into any page: no style sheet, no script, nothing fetched.

use crate::cells::{Cell, Cells};

/// Writes a grid as a `figure`; its last character is a line break.
pub fn render(cells: &Cells) -> String {
    let mut out = String::from("<figure>\n<table>\n");
    if let Some(caption) = &cells.caption {
        out.push_str(&format!("<caption>{}</caption>\n", escaped(caption)));
    }
    let numeric: Vec<bool> = (0..cells.headings.len()).map(|column| cells.is_numeric(column)).collect();
    let aligned = |column: usize| if numeric[column] { " style=\"text-align: right\"" } else { "" };
    out.push_str("<thead>\n<tr>");
    cells.stubs.iter().for_each(|stub| out.push_str(&format!("<th scope=\"col\">{}</th>", escaped(stub))));
    for (column, heading) in cells.headings.iter().enumerate() {
        out.push_str(&format!("<th scope=\"col\"{}>{}</th>", aligned(column), escaped(heading)));
    }
    out.push_str("</tr>\n</thead>\n<tbody>\n");
    for row in &cells.rows {
        out.push_str("<tr>");
        row.labels.iter().for_each(|label| out.push_str(&format!("<th scope=\"row\">{}</th>", escaped(label))));
        for (column, cell) in row.cells.iter().enumerate() {
            out.push_str(&format!("<td{}>{}</td>", aligned(column), marked(cells, cell)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n");
    cells.notes.iter().for_each(|note| out.push_str(&format!("<p>Note: {}</p>\n", escaped(note))));
    out.push_str("</figure>\n");
    out
}

/// The mark is of the value; deviation and difference stay plain.
fn marked(cells: &Cells, cell: &Cell) -> String {
    let mut shown = cells.shown(cell);
    shown.value = escaped(&shown.value);
    if cell.bold {
        shown.value = format!("<strong>{}</strong>", shown.value);
    } else if cell.underline {
        shown.value = format!("<u>{}</u>", shown.value);
    }
    let stars = std::mem::take(&mut shown.stars);
    if !stars.is_empty() {
        shown.value.push_str(&format!("<sup>{stars}</sup>"));
    }
    shown.joined()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("<br>"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
