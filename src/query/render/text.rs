//! Aligned columns for a terminal or a log.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cells::{Cell, Cells};

/// What the terminal can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Style {
    /// Marks by ANSI codes; else the best has a `*` behind it and the second
    /// best a `_`.
    pub ansi: bool,
    /// The widest a column may be; longer texts are cut with `…`.
    pub max_width: Option<usize>,
}

const RESET: &str = "\x1b[0m";
const GAP: &str = "  ";

/// A text with the codes that go around it.
struct Piece {
    text: String,
    codes: &'static str,
}

/// Writes a grid; its last character is a line break.
pub fn render(cells: &Cells, style: &Style) -> String {
    let marked: Vec<bool> = (0..cells.headings.len())
        .map(|column| !style.ansi && cells.rows.iter().any(|row| row.cells[column].bold || row.cells[column].underline))
        .collect();
    let plain = |text: &str| Piece { text: fitted(text, style.max_width), codes: "" };
    let head: Vec<Piece> = cells.stubs.iter().chain(&cells.headings).map(|name| plain(name)).collect();
    let body: Vec<Vec<Piece>> = cells
        .rows
        .iter()
        .map(|row| {
            let labels = row.labels.iter().map(|label| plain(label));
            labels
                .chain(row.cells.iter().zip(&marked).map(|(cell, marked)| piece(cells, cell, *marked, style)))
                .collect()
        })
        .collect();
    let n_stubs = cells.stubs.len();
    let right: Vec<bool> = (0..head.len()).map(|i| i >= n_stubs && cells.is_numeric(i - n_stubs)).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|i| std::iter::once(&head).chain(&body).map(|line| line[i].text.width()).max().unwrap_or(0))
        .collect();

    let mut out = String::new();
    if let Some(caption) = &cells.caption {
        out.push_str(&fitted(caption, None));
        out.push_str("\n\n");
    }
    let line = |pieces: &[Piece]| {
        let padded = pieces.iter().enumerate().map(|(i, piece)| {
            let space = " ".repeat(widths[i] - piece.text.width());
            let text = match piece.codes {
                "" => piece.text.clone(),
                codes => format!("{codes}{}{RESET}", piece.text),
            };
            if right[i] { space + &text } else { text + &space }
        });
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    out.push_str(&line(&head));
    out.push_str(&(widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join(GAP) + "\n"));
    out.extend(body.iter().map(|pieces| line(pieces)));
    for (index, note) in cells.notes.iter().enumerate() {
        out.push_str(&format!("{}note: {}\n", if index == 0 { "\n" } else { "" }, fitted(note, None)));
    }
    out
}

fn piece(cells: &Cells, cell: &Cell, marked: bool, style: &Style) -> Piece {
    let mut text = fitted(&cells.shown(cell).joined(), style.max_width);
    let codes = match (style.ansi, cell.bold, cell.underline) {
        (true, true, _) => "\x1b[1m",
        (true, false, true) => "\x1b[4m",
        _ => "",
    };
    if marked {
        // A blank where there is no mark keeps the digits under each other.
        text.push(if cell.bold {
            '*'
        } else if cell.underline {
            '_'
        } else {
            ' '
        });
    }
    Piece { text, codes }
}

/// One line without control characters, cut to a width.
fn fitted(text: &str, max_width: Option<usize>) -> String {
    let line: String = text
        .chars()
        .map(|c| match c {
            '\n' => '↵',
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    match max_width {
        Some(max) if line.width() > max => {
            let mut room = max.saturating_sub(1);
            let mut cut: String = line
                .chars()
                .take_while(|c| {
                    let width = c.width().unwrap_or(0);
                    let fits = width <= room;
                    room = room.saturating_sub(width);
                    fits
                })
                .collect();
            cut.push('…');
            cut
        }
        _ => line,
    }
}
