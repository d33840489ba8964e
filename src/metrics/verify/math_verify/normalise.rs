//! LaTeX without what has no bearing on its value: boxes, fonts, units, dollar
//! signs, quotation marks, other spellings.

use std::sync::LazyLock;

use regex::Regex;

/// Words behind an answer that are units, as Math-Verify lists them.
const UNITS: &[&str] = &[
    "integerpoint",
    "feet",
    "sue",
    "digit",
    "pound",
    "meal",
    "edge",
    "student",
    "children ticket",
    "multiple",
    "east",
    "degree",
    "mph",
    "kmph",
    "ft",
    "m square",
    " m east",
    "sq m",
    "deg",
    "mile",
    "q .",
    "monkey",
    "prime",
    "ratio",
    "profit of rs",
    "rd",
    "o",
    "gm",
    "p . m",
    "lb",
    "tile",
    "per",
    "dm",
    "lt",
    "gain",
    "ab",
    "way",
    "west",
    "a .",
    "b .",
    "c .",
    "d .",
    "e .",
    "f .",
    "g .",
    "h .",
    "t",
    "h",
    "no change",
    "men",
    "soldier",
    "pie",
    "bc",
    "excess",
    "st",
    "inches",
    "noon",
    "cent",
    "by",
    "gal",
    "kmh",
    "c",
    "acre",
    "rise",
    "a . m",
    "th",
    "π r 2",
    "sq",
    "mark",
    "l",
    "toy",
    "coin",
    "sq . m",
    "gallon",
    "° f",
    "profit",
    "minw",
    "yr",
    "women",
    "am",
    "pm",
    "hr",
    "cu cm",
    "square",
    "v â € ™",
    "are",
    "rupee",
    "rounds",
    "cubic",
    "cc",
    "mtr",
    "s",
    "ohm",
    "number",
    "kmph",
    "day",
    "hour",
    "minute",
    "min",
    "second",
    "man",
    "woman",
    "sec",
    "cube",
    "mt",
    "sq inch",
    "mp",
    "∏ cm ³",
    "hectare",
    "more",
    "unit",
    "cu . m",
    "cm 2",
    "rs .",
    "rs",
    "kg",
    "g",
    "month",
    "km",
    "m",
    "cm",
    "mm",
    "apple",
    "liter",
    "loss",
    "yard",
    "pure",
    "year",
    "increase",
    "decrease",
    "d",
    "less",
    "Surface",
    "litre",
    "pi sq m",
    "s .",
    "metre",
    "meter",
    "inch",
];

/// Patterns and what they become, in this order.
static REPLACEMENTS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\\math(?:rm|it|bf)\b", r"\text"),
        (r"\\text(?:normal|bf|it|rm)\b", r"\text"),
        (r"\\text\{th\}|\\!\s*|\\text\s*\{\s*\}|\\?\$|\\displaystyle", ""),
        (r"\s\.", " 0."),
        (r"\{\.", "{0."),
        (r"~=", r"\approx "),
        (r"\s*\{\s*,\s*\}", ","),
        (r",?\s*\\text\{\s*(?:and|or)\s*\}", ","),
        (r",?\s*\b(?:and|or)\b", ","),
        (r"(^|[^\\])\\\s", "${1} "),
        (r#"(^|[^\\])["']"#, "$1"),
        (r",?\\ldots", " "),
        (r"\\text\{(?:percentage|percent|pct)\}", r"\%"),
        (r"\s*\b(?:percentage|percent|pct)\b", r"\%"),
        (r"(^|[^\\a-zA-Z])inf(?:inity)?\b", r"${1}\infty "),
        ("π", r"\pi "),
        (r"[\n\t]", " "),
        (r"\\?sqrt\s?\((.*?)\)", r"\sqrt{$1}"),
        (r" sqrt", r"\sqrt"),
        (r"\^\s?\((.*?)\)", "^{$1}"),
    ]
    .map(|(pattern, meant)| (Regex::new(pattern).expect("a valid pattern"), meant))
    .to_vec()
});

/// A formula's normal form. Of several boxes all count where `all_boxes`, otherwise those that belong to the last one.
pub fn normalised(text: &str, all_boxes: bool) -> String {
    static UNIT_TEXT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\\(?:text|mbox)\{.*?\}(?:\^\d|\{\^\d\})?$").expect("a valid pattern"));
    static UNIT: LazyLock<Regex> = LazyLock::new(|| {
        let units: Vec<String> = UNITS.iter().map(|unit| unit.replace('.', r"\.")).collect();
        Regex::new(&format!(r"(\d|\}}|\s)\s*(?:{})(?:s|es)?\s*$", units.join("|"))).expect("a valid pattern")
    });
    static DOUBLED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\\\([a-zA-Z])").expect("a valid pattern"));

    let mut text = boxes(text, all_boxes);
    for (pattern, meant) in REPLACEMENTS.iter() {
        text = pattern.replace_all(&text, *meant).into_owned();
    }
    if !text.contains("matrix") {
        text = DOUBLED.replace_all(&text, r"\$1").into_owned();
    }
    let mut keep = |shorter: String| {
        if !shorter.is_empty() {
            text = shorter;
        }
        text.clone()
    };
    let mut current = keep(String::new());
    current = keep(UNIT_TEXT.replace(&current, "").trim().to_owned());
    for _ in 0..2 {
        current = keep(UNIT.replace(&current, "$1").into_owned());
    }
    current.trim().to_owned()
}

/// What the boxes of a text hold, with commas between, or the text itself where it has none.
fn boxes(text: &str, all: bool) -> String {
    static SEPARATOR: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:and|or)\b|,|;").expect("a valid pattern"));
    let mut found: Vec<&str> = Vec::new();
    // The part that is still to be searched, and where the box after it starts.
    let mut end = text.len();
    let mut next_start = None;
    while let Some((start, command)) = last_command(&text[..end]) {
        let inside = text[start + command..end].trim_start();
        let opens = end - inside.len();
        let Some(inside) = inside.strip_prefix('{') else {
            if found.is_empty() && !inside.is_empty() {
                found.push(inside);
            }
            break;
        };
        let Some(length) = closing(inside) else {
            if found.is_empty() {
                found.push(&text[opens..end]);
            }
            break;
        };
        let content = inside[..length].trim();
        if let (false, Some(next_start)) = (all, next_start) {
            let between = &text[opens + length + 2..next_start];
            let n_between = between.chars().count();
            let related =
                n_between < 10 || (found.last() != Some(&content) && n_between < 70 && SEPARATOR.is_match(between));
            if !related {
                break;
            }
        }
        if found.last() != Some(&content) {
            found.push(content);
        }
        end = start;
        next_start = Some(start);
    }
    if found.is_empty() {
        return text.to_owned();
    }
    found.reverse();
    found.join(",")
}

/// Where the last `\boxed` or `\fbox` starts, and how long the command is.
fn last_command(text: &str) -> Option<(usize, usize)> {
    let of = |command: &str| text.rfind(command).map(|start| (start, command.len()));
    of("\\boxed").max(of("\\fbox"))
}

/// Where the brace before `inside` closes.
pub fn closing(inside: &str) -> Option<usize> {
    let mut depth = 1;
    inside.char_indices().find_map(|(position, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(position)
    })
}
