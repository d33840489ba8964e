//! Tokens of LaTeX and of plain formulas. What has no meaning to a value is
//! left out here: spacing, `\left`, `\right`, dollar signs, degrees, fonts.

use super::parser::Reading;

/// A piece of a formula.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Digits, at most one point, no separators.
    Number(String),
    Letter(char),
    /// A run of letters, where words are read.
    Word(String),
    /// A command without its backslash.
    Command(String),
    /// What a command such as `\text` holds, trimmed.
    Text(String),
    /// An operator or a bracket; a line break of a matrix is `\n`.
    Sign(char),
}

/// Commands without a value.
const SPACING: &[&str] = &[
    "left",
    "right",
    "displaystyle",
    "textstyle",
    "quad",
    "qquad",
    "limits",
    "mleft",
    "mright",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "bigg",
    "Bigg",
    "circ",
    "degree",
    "nonumber",
    "notag",
    "hfill",
    "phantom",
    "rm",
    "bf",
    "it",
];
/// Commands whose argument is text.
const TEXTS: &[&str] = &[
    "text",
    "textbf",
    "textit",
    "textrm",
    "textnormal",
    "textsf",
    "mbox",
    "hbox",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "operatorname",
    "boldsymbol",
    "bm",
];
/// Other spellings.
const SYNONYMS: &[(&str, &str)] = &[
    ("dfrac", "frac"),
    ("tfrac", "frac"),
    ("cfrac", "frac"),
    ("dbinom", "binom"),
    ("tbinom", "binom"),
    ("leq", "le"),
    ("geq", "ge"),
    ("leqslant", "le"),
    ("geqslant", "ge"),
    ("neq", "ne"),
    ("lbrace", "{"),
    ("rbrace", "}"),
    ("lbrack", "["),
    ("rbrack", "]"),
    ("lvert", "|"),
    ("rvert", "|"),
    ("vert", "|"),
    ("ast", "*"),
    ("cdot", "*"),
    ("times", "*"),
    ("div", "/"),
    ("lt", "<"),
    ("gt", ">"),
    ("bigcup", "cup"),
    ("varnothing", "emptyset"),
    ("iff", "Leftrightarrow"),
    ("rightarrow", "to"),
];
/// Reads tokens; none where a sign has no meaning in a formula.
pub fn tokens(text: &str, reading: Reading) -> Option<Vec<Token>> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        match c {
            '\\' => at = command(&chars, at + 1, &mut tokens)?,
            '0'..='9' => at = number(&chars, at, reading.separators, &mut tokens),
            '.' if chars.get(at + 1).is_some_and(char::is_ascii_digit) => {
                at = number(&chars, at, reading.separators, &mut tokens)
            }
            _ if c.is_whitespace() || matches!(c, '$' | '~') => at += 1,
            'a'..='z' | 'A'..='Z' if reading.words => {
                let end = (at..chars.len()).find(|&end| !chars[end].is_ascii_alphabetic()).unwrap_or(chars.len());
                let word: String = chars[at..end].iter().collect();
                tokens.push(if end == at + 1 { Token::Letter(c) } else { Token::Word(word) });
                at = end;
            }
            'a'..='z' | 'A'..='Z' => {
                tokens.push(Token::Letter(c));
                at += 1;
            }
            '+' | '-' | '*' | '/' | '^' | '_' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '!' | ',' | ';' | ':'
            | '=' | '<' | '>' | '&' | '%' | '\'' => {
                tokens.push(Token::Sign(c));
                at += 1;
            }
            _ => return None,
        }
    }
    Some(tokens)
}

/// Reads what follows a backslash; returns where it ends.
fn command(chars: &[char], start: usize, tokens: &mut Vec<Token>) -> Option<usize> {
    let end = (start..chars.len()).find(|&end| !chars[end].is_ascii_alphabetic()).unwrap_or(chars.len());
    if end == start {
        match *chars.get(start)? {
            ',' | ';' | ':' | '!' | ' ' | '\n' | '$' | '>' | '(' | ')' => {}
            '\\' => tokens.push(Token::Sign('\n')),
            sign @ ('%' | '|' | '&') => tokens.push(Token::Sign(sign)),
            brace @ ('{' | '}') => tokens.push(Token::Command(brace.to_string())),
            _ => return None,
        }
        return Some(start + 1);
    }
    let name: String = chars[start..end].iter().collect();
    if TEXTS.contains(&name.as_str()) {
        let open = (end..chars.len()).find(|&open| !chars[open].is_whitespace())?;
        if chars[open] != '{' {
            return Some(end);
        }
        let close = closing(chars, open)?;
        let text: String = chars[open + 1..close].iter().collect();
        // A choice is the same with and without its brackets, a number the same in any font.
        let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
        let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        tokens.push(if is_number { Token::Number(text.to_owned()) } else { Token::Text(text.to_owned()) });
        return Some(close + 1);
    }
    if !SPACING.contains(&name.as_str()) {
        let name = SYNONYMS.iter().find(|(other, _)| *other == name).map_or(name.as_str(), |(_, usual)| usual);
        let sign = name.chars().next().filter(|_| matches!(name, "*" | "/" | "<" | ">" | "[" | "]" | "|"));
        tokens.push(sign.map_or_else(|| Token::Command(name.to_owned()), Token::Sign));
    } else if matches!(name.as_str(), "circ" | "degree") && tokens.last() == Some(&Token::Sign('^')) {
        tokens.pop();
    } else if name == "circ" && tokens.ends_with(&[Token::Sign('^'), Token::Sign('{')]) && chars.get(end) == Some(&'}')
    {
        tokens.truncate(tokens.len() - 2);
        return Some(end + 1);
    }
    Some(end)
}

/// Reads a number with its thousands separators; returns where it ends.
fn number(chars: &[char], start: usize, separators: bool, tokens: &mut Vec<Token>) -> usize {
    let digits = |from: usize| (from..chars.len()).find(|&end| !chars[end].is_ascii_digit()).unwrap_or(chars.len());
    let mut end = digits(start);
    let mut literal: String = chars[start..end].iter().collect();
    if separators && (1..=3).contains(&literal.len()) {
        while chars.get(end) == Some(&',') && digits(end + 1) == end + 4 {
            literal.extend(&chars[end + 1..end + 4]);
            end += 4;
        }
    }
    if chars.get(end) == Some(&'.') && chars.get(end + 1).is_some_and(char::is_ascii_digit) {
        let after = digits(end + 1);
        literal.extend(&chars[end..after]);
        end = after;
    }
    if literal.starts_with('.') {
        literal.insert(0, '0');
    }
    tokens.push(Token::Number(literal));
    end
}

/// Where the brace that opens at `open` closes.
fn closing(chars: &[char], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (position, c) in chars.iter().enumerate().skip(open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(position);
        }
    }
    None
}
