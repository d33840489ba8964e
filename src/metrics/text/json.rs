//! What Python's `json.loads` takes: JSON, and besides it `NaN`, `Infinity`,
//! `-Infinity` and halves of surrogate pairs. Integers of more than 4,300 digits
//! are refused, as Python refuses to read them. Nothing is built, and no depth
//! is too deep, where the original ends with an error from about a thousand on.

/// Whether the text is one JSON value.
pub fn is_json(text: &str) -> bool {
    let mut reader = Reader { rest: text.as_bytes() };
    reader.document().is_some() && reader.rest.is_empty()
}

/// The members of an object, as they are written: names with their quotation marks, and values. None where the text is no
/// object.
pub fn json_members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut reader = Reader { rest: text.as_bytes() };
    let at = |reader: &Reader| text.len() - reader.rest.len();
    let mut members = Vec::new();
    reader.space();
    if !reader.skip(b"{") {
        return None;
    }
    reader.space();
    while !reader.skip(b"}") {
        if !members.is_empty() {
            reader.skip(b",").then_some(())?;
            reader.space();
        }
        let name_start = at(&reader);
        reader.string()?;
        let name = &text[name_start..at(&reader)];
        reader.space();
        reader.skip(b":").then_some(())?;
        let value_start = at(&reader);
        reader.document()?;
        members.push((name, text[value_start..at(&reader)].trim()));
    }
    reader.space();
    reader.rest.is_empty().then_some(members)
}

/// The greatest number of digits of an integer.
const MAX_DIGITS: usize = 4_300;

struct Reader<'t> {
    rest: &'t [u8],
}

/// What a value stands in.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Array,
    Object,
}

impl Reader<'_> {
    /// Reads a value with the space around it; what is left is not JSON.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<Within> = Vec::new();
        loop {
            // A value begins here.
            self.space();
            match *self.rest.first()? {
                b'[' => {
                    self.take(1);
                    self.space();
                    if !self.skip(b"]") {
                        open.push(Within::Array);
                        continue;
                    }
                }
                b'{' => {
                    self.take(1);
                    self.space();
                    if !self.skip(b"}") {
                        self.name()?;
                        open.push(Within::Object);
                        continue;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => self.word()?,
            }
            // A value ended here.
            loop {
                self.space();
                let Some(within) = open.last() else { return Some(()) };
                if self.skip(b",") {
                    if *within == Within::Object {
                        self.space();
                        self.name()?;
                    }
                    break;
                }
                if !self.skip(if *within == Within::Array { b"]" } else { b"}" }) {
                    return None;
                }
                open.pop();
            }
        }
    }

    fn take(&mut self, n: usize) {
        self.rest = &self.rest[n..];
    }

    fn skip(&mut self, word: &[u8]) -> bool {
        let found = self.rest.starts_with(word);
        if found {
            self.take(word.len());
        }
        found
    }

    fn space(&mut self) {
        let n = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.take(n);
    }

    /// A member's name and the colon.
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.space();
        self.skip(b":").then_some(())
    }

    fn word(&mut self) -> Option<()> {
        let words: [&[u8]; 5] = [b"null", b"true", b"false", b"NaN", b"Infinity"];
        words.into_iter().any(|word| self.skip(word)).then_some(())
    }

    fn string(&mut self) -> Option<()> {
        if !self.skip(b"\"") {
            return None;
        }
        loop {
            match *self.rest.first()? {
                b'"' => {
                    self.take(1);
                    return Some(());
                }
                b'\\' => match *self.rest.get(1)? {
                    b'u' => {
                        let digits = self.rest.get(2..6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.take(6);
                    }
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.take(2),
                    _ => return None,
                },
                0..=0x1f => return None,
                _ => self.take(1),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let n = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.take(n);
        n
    }

    /// A number; a fraction or exponent without digits is left, which then is no JSON.
    fn number(&mut self) -> Option<()> {
        if self.skip(b"-") && self.skip(b"Infinity") {
            return Some(());
        }
        let n_digits = if self.skip(b"0") { 1 } else { self.digits() };
        if n_digits == 0 {
            return None;
        }
        let mut whole = true;
        if self.rest.first() == Some(&b'.') && self.rest.get(1).is_some_and(u8::is_ascii_digit) {
            self.take(1);
            self.digits();
            whole = false;
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.rest.get(1), Some(b'+' | b'-')));
            if self.rest.get(1 + sign).is_some_and(u8::is_ascii_digit) {
                self.take(1 + sign);
                self.digits();
                whole = false;
            }
        }
        (!whole || n_digits <= MAX_DIGITS).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_reads_is_json() {
        // Each line was seen in Python 3.11.
        for text in [
            "{}",
            "[]",
            " [1, -2.5e+3, \"a\\u00e9\\ud800\", null, {\"a\": [true]}] ",
            "\"x\"",
            "0",
            "NaN",
            "-Infinity",
            "1e999",
            "{\"a\": 1, \"a\": 2}",
            "[\"\u{7f}\"]",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\": 1,}",
            "{'a': 1}",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "-",
            "[1 2]",
            "\"a\nb\"",
            "\"\\x\"",
            "{} {}",
            "True",
            "\u{feff}{}",
            "{\"a\"}",
            "{1: 2}",
            "[\"a\u{a0}\"\u{a0}]",
        ] {
            assert!(!is_json(text), "{text}");
        }
        assert!(
            !is_json(&"9".repeat(4_301)) && is_json(&"9".repeat(4_300)) && is_json(&format!("{}.0", "9".repeat(5_000)))
        );
    }

    #[test]
    fn members_are_as_they_are_written() {
        let text = " {\"a\": [1e400, 99999999999999999999, -Infinity] , \"b\\n\":{\"c\": \"}\"},\"d\":1}\n";
        let expected =
            [("\"a\"", "[1e400, 99999999999999999999, -Infinity]"), ("\"b\\n\"", "{\"c\": \"}\"}"), ("\"d\"", "1")];
        assert_eq!(json_members(text), Some(expected.to_vec()));
        assert_eq!(json_members("{}"), Some(vec![]));
        for wrong in ["[1]", "{\"a\": 1", "{\"a\": 1} x", "{\"a\" 1}", "{\"a\": 1,}", "{,}", "{\"a\": 1 \"b\": 2}"] {
            assert_eq!(json_members(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn any_depth_is_read() {
        let n = 1 << 20;
        assert!(is_json(&format!("{}{}", "[".repeat(n), "]".repeat(n))));
        assert!(!is_json(&"{\"a\":".repeat(n)));
    }
}
