//! Markdown in an answer, counted as Arena-Hard's style control counts it (lmarena/arena-hard-auto, `add_markdown_info.py`):
//! code between triple backticks is left out first.

use std::sync::LazyLock;

use regex::Regex;

/// How often each mark occurs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Markdown {
    /// Headings of one to six levels.
    pub n_headers: usize,
    /// Items of numbered and unnumbered lists.
    pub n_list_items: usize,
    /// Bold passages.
    pub n_bold: usize,
}

static CODE: LazyLock<Regex> = LazyLock::new(|| pattern("```([^`]*)```"));
// Python's `\s` matches line ends, too, so an empty heading counts and the spaces before an item may be empty lines.
static HEADERS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^#{1,6}\s"));
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^\s*\d+\.\s"));
static UNNUMBERED: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^\s*[-*+]\s"));
static STARS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\*\*[^*\n]+\*\*"));
static UNDERSCORES: LazyLock<Regex> = LazyLock::new(|| pattern(r"__[^_\n]+__"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns are constants")
}

/// Counts the marks of an answer.
pub fn markdown(answer: &str) -> Markdown {
    let text = without_code(answer);
    let count = |pattern: &Regex| pattern.find_iter(&text).count();
    Markdown {
        n_headers: count(&HEADERS),
        n_list_items: count(&NUMBERED) + count(&UNNUMBERED),
        n_bold: count(&STARS) + count(&UNDERSCORES),
    }
}

/// The published program removes every occurrence of each block's *content* between the backticks, which it takes for the
/// block, so that the backticks stay, and so does this.
fn without_code(answer: &str) -> String {
    let mut text = answer.to_owned();
    for block in CODE.captures_iter(answer) {
        // Removing nothing from a text leaves it as it is.
        if !block[1].is_empty() {
            text = text.replace(&block[1], "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted() {
        let text = "# One\n## Two\n#no\n\n1. a\n2. b\n  - c\n* d\n-e\n**bold** and __this__ but not **\n**";
        assert_eq!(markdown(text), Markdown { n_headers: 2, n_list_items: 4, n_bold: 2 });
        assert_eq!(markdown(""), Markdown::default());
    }

    #[test]
    fn marks_in_code_do_not_count() {
        let text = "# Head\n```python\n# comment\n- not a list\n```\n- a list\n";
        assert_eq!(markdown(text), Markdown { n_headers: 1, n_list_items: 1, n_bold: 0 });
    }
}
