//! A LaTeX table with booktabs; the document needs `\usepackage{booktabs}`.

use crate::cells::{Cell, Cells, Content};

/// Writes a grid as a `table` environment; its last character is a line break.
pub fn render(cells: &Cells) -> String {
    let aligned = (0..cells.headings.len()).map(|column| if cells.is_numeric(column) { 'r' } else { 'l' });
    let columns: String = cells.stubs.iter().map(|_| 'l').chain(aligned).collect();
    let mut out = String::from("% needs \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n");
    if let Some(caption) = &cells.caption {
        out.push_str(&format!("  \\caption{{{}}}\n", escaped(caption)));
    }
    if let Some(label) = &cells.label {
        out.push_str(&format!("  \\label{{{label}}}\n"));
    }
    out.push_str(&format!("  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n"));
    let line =
        |texts: &mut dyn Iterator<Item = String>| format!("    {} \\\\\n", texts.collect::<Vec<_>>().join(" & "));
    out.push_str(&line(&mut cells.stubs.iter().chain(&cells.headings).map(|name| escaped(name))));
    out.push_str("    \\midrule\n");
    for row in &cells.rows {
        let labels = row.labels.iter().map(|label| escaped(label));
        out.push_str(&line(&mut labels.chain(row.cells.iter().map(|cell| marked(cells, cell)))));
    }
    out.push_str("    \\bottomrule\n  \\end{tabular}\n");
    out.extend(cells.notes.iter().map(|note| format!("\n  {{\\footnotesize Note: {}\\par}}\n", escaped(note))));
    out.push_str("\\end{table}\n");
    out
}

fn marked(cells: &Cells, cell: &Cell) -> String {
    let shown = cells.shown(cell);
    let mut text = match cell.content {
        Content::Text(_) | Content::Missing => escaped(&shown.value),
        _ => signed(&shown.value),
    };
    if cell.bold {
        text = format!("\\textbf{{{text}}}");
    } else if cell.underline {
        text = format!("\\underline{{{text}}}");
    }
    if !shown.stars.is_empty() {
        text.push_str(&format!("$^{{{}}}$", shown.stars));
    }
    if let Some(spread) = shown.spread {
        text.push_str(&format!(" $\\pm$ {}", signed(&spread)));
    }
    if let Some(difference) = shown.difference {
        text.push_str(&format!(" ({})", signed(&difference)));
    }
    text
}

/// A number whose sign is as wide as it should be.
fn signed(number: &str) -> String {
    match (number.strip_prefix('-'), number.strip_prefix('+')) {
        (Some(rest), _) => format!("$-${rest}"),
        (_, Some(rest)) => format!("$+${rest}"),
        _ => number.to_owned(),
    }
}

/// Text in which no character means anything to LaTeX. A cell never begins with
/// `[`, which would be taken as an argument of the row's end before it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            '"' => out.push_str("''"),
            '[' => out.push_str("{[}"),
            ']' => out.push_str("{]}"),
            '*' => out.push_str("{*}"),
            '–' => out.push_str("--"),
            '—' => out.push_str("---"),
            '±' => out.push_str("$\\pm$"),
            '×' => out.push_str("$\\times$"),
            '→' => out.push_str("$\\to$"),
            '−' => out.push_str("$-$"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
