//! Chat templates: messages to the text that a model was trained on, by the Jinja template of its folder, rendered as
//! transformers renders it (`huggingface/transformers` `utils/chat_template_utils.py`): blocks trimmed, loop controls,
//! `raise_exception`, `tojson` with Python's spacing, Python's methods on strings, lists and maps.
//!
//! It must not know models or tensors, and it never asks the clock: a template that wants today's date gets the one
//! it is given, so that a prompt is the same tomorrow.

use std::path::Path;

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tokenizer::{SpecialTokens, Tokenizer, read_json};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant` (what else there may be is the template's affair).
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A day, for templates that write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Date {
    /// Year of the Gregorian calendar.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// The chat formats that new models may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatStyle {
    /// `<|im_start|>role … <|im_end|>`, as qwen2 writes it, without its default system message.
    Chatml,
    /// `<|start_header_id|>role<|end_header_id|> … <|eot_id|>`, as llama 3 writes it, without trimming contents.
    Llama3,
    /// `<start_of_turn>user … <end_of_turn>`, as gemma writes it, without trimming contents; a system message is a turn
    /// of its own, where gemma's refuses it.
    Gemma,
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const LLAMA3: &str = "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";
const GEMMA: &str = "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";

impl ChatStyle {
    /// The template's text.
    pub fn template(self) -> &'static str {
        match self {
            Self::Chatml => CHATML,
            Self::Llama3 => LLAMA3,
            Self::Gemma => GEMMA,
        }
    }

    /// The special tokens that a vocabulary needs for it.
    pub fn special_tokens(self) -> SpecialTokens {
        let list = |tokens: &[&str]| tokens.iter().map(|token| token.to_string()).collect();
        match self {
            Self::Chatml => SpecialTokens {
                pad: Some("<|endoftext|>".into()),
                eos: "<|im_end|>".into(),
                bos: None,
                unk: None,
                additional: list(&["<|im_start|>"]),
            },
            Self::Llama3 => SpecialTokens {
                pad: Some("<|end_of_text|>".into()),
                eos: "<|eot_id|>".into(),
                bos: Some("<|begin_of_text|>".into()),
                unk: None,
                additional: list(&["<|start_header_id|>", "<|end_header_id|>"]),
            },
            Self::Gemma => SpecialTokens {
                pad: Some("<pad>".into()),
                eos: "<eos>".into(),
                bos: Some("<bos>".into()),
                unk: Some("<unk>".into()),
                additional: list(&["<start_of_turn>", "<end_of_turn>"]),
            },
        }
    }
}

/// A compiled chat template with the special tokens that it may write.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    tokens: Tokens,
    date: Option<Date>,
}

#[derive(Debug, Clone, Default)]
struct Tokens {
    bos: String,
    eos: String,
    pad: String,
    unk: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template; `bos_token` and `eos_token` are what it calls by these names.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(|out, state, value| match value.kind() {
            minijinja::value::ValueKind::None => write(out, "None"),
            minijinja::value::ValueKind::Bool => write(out, if value.is_true() { "True" } else { "False" }),
            _ => minijinja::escape_formatter(out, state, value),
        });
        environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
        });
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| Error::Template { problem: plain(&error) })?;
        Ok(Self {
            environment,
            source: source.to_string(),
            tokens: Tokens { bos: bos_token.to_string(), eos: eos_token.to_string(), ..Tokens::default() },
            date: None,
        })
    }

    /// The template of a model folder: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (its
    /// `default` where there are several); none where there is neither.
    pub fn load(dir: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let path = dir.join("chat_template.jinja");
        let source = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let config = read_json(&dir.join("tokenizer_config.json"))?;
                config.get("chat_template").and_then(template_text)
            }
            Err(source) => return Err(Error::Read { path, source }),
        };
        let Some(source) = source else {
            return Ok(None);
        };
        let text = |token: Option<&crate::tokenizer::SpecialToken>| {
            token.map(|token| token.content.clone()).unwrap_or_default()
        };
        let mut template = Self::new(&source, "", "").map_err(|error| match error {
            Error::Template { problem } => Error::Template { problem: format!("{}: {problem}", dir.display()) },
            other => other,
        })?;
        template.tokens = Tokens {
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
            pad: text(tokenizer.pad()),
            unk: text(tokenizer.unk()),
        };
        Ok(Some(template))
    }

    /// The day that the template writes as today's. Without one `strftime_now` is undefined, and templates fall back to
    /// a date of their own.
    pub fn with_date(mut self, date: Date) -> Self {
        self.date = Some(date);
        self
    }

    /// The template's text, as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation; `add_generation_prompt` adds the header of the assistant's next turn.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_value(Value::from_serialize(messages), None, add_generation_prompt)
    }

    /// [`Self::render`] for messages with more than role and content (tool calls, say), and for tools.
    pub fn render_json(
        &self,
        messages: &serde_json::Value,
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let tools = tools.map(Value::from_serialize);
        self.render_value(Value::from_serialize(messages), tools, add_generation_prompt)
    }

    fn render_value(&self, messages: Value, tools: Option<Value>, add_generation_prompt: bool) -> Result<String> {
        let template =
            self.environment.get_template(NAME).map_err(|error| Error::Template { problem: plain(&error) })?;
        let none = Value::from(());
        let base = context! {
            messages,
            tools => tools.unwrap_or_else(|| none.clone()),
            documents => none,
            add_generation_prompt,
            bos_token => self.tokens.bos,
            eos_token => self.tokens.eos,
            pad_token => self.tokens.pad,
            unk_token => self.tokens.unk,
        };
        let rendered = match self.date {
            Some(date) => {
                let now = Value::from_function(move |format: String| strftime(date, &format));
                template.render(context! { strftime_now => now, ..base })
            }
            None => template.render(base),
        };
        rendered.map_err(|error| match raised(&error) {
            Some(message) => Error::TemplateRefused { message },
            None => Error::Template { problem: plain(&error) },
        })
    }

    /// Ids of a prompt: the conversation with the header of the assistant's next turn.
    pub fn encode_prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        tokenizer.encode(&self.render(messages, true)?, false)
    }

    /// Ids of a prompt and of its completion with the token that ends the turn, for training and scoring.
    ///
    /// The prompt's ids are those of [`Self::encode_prompt`], which generation continues, whatever follows. The
    /// completion is the rest of the whole conversation's text up to its first stop token
    /// ([`Tokenizer::stop_ids`]), that one included; where the text has none, the end of text is added. Where a
    /// template renders a finished turn differently from header and text, text and end token follow the header.
    pub fn encode_chat(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        completion: &str,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let header = self.render(messages, true)?;
        let prompt = tokenizer.encode(&header, false)?;
        let mut whole = messages.to_vec();
        whole.push(Message::new("assistant", completion));
        let full = self.render(&whole, false)?;
        let rest = full.strip_prefix(header.as_str()).unwrap_or(completion);

        let together = tokenizer.encode(&format!("{header}{rest}"), false)?;
        let mut response = match together.strip_prefix(prompt.as_slice()) {
            Some(rest) => rest.to_vec(),
            None => tokenizer.encode(rest, false)?,
        };
        let stops = tokenizer.stop_ids();
        match response.iter().position(|id| stops.contains(id)) {
            Some(end) => response.truncate(end + 1),
            None => response.extend(self.end_of_turn(tokenizer)),
        }
        Ok((prompt, response))
    }

    /// The token that ends an assistant's turn: the first stop token after it in a rendered conversation, else the end
    /// of text.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let turns = [Message::new("user", "a"), Message::new("assistant", "b")];
        let stops = tokenizer.stop_ids();
        let written = self.render(&turns, false).ok().and_then(|text| {
            let header = self.render(&turns[..1], true).ok()?;
            let ids = tokenizer.encode(text.strip_prefix(header.as_str())?, false).ok()?;
            ids.into_iter().find(|id| stops.contains(id))
        });
        written.or_else(|| tokenizer.eos().map(|eos| eos.id))
    }
}

fn write(out: &mut minijinja::Output, text: &str) -> std::result::Result<(), minijinja::Error> {
    std::fmt::Write::write_str(out, text)
        .map_err(|_| minijinja::Error::new(ErrorKind::WriteFailure, "cannot write the rendered text"))
}

/// `chat_template` of `tokenizer_config.json`: a text, or a list of named ones.
fn template_text(value: &serde_json::Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_string());
    }
    let named = value.as_array()?;
    let text = |entry: &serde_json::Value| Some(entry.get("template")?.as_str()?.to_string());
    named
        .iter()
        .find(|entry| entry.get("name").and_then(|name| name.as_str()) == Some("default"))
        .or(named.first())
        .and_then(text)
}

/// What a template said by `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raised(error: &minijinja::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return Some(message.clone());
        }
        source = inner.source();
    }
    None
}

fn plain(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    format!("{}{line}{detail}", error.kind())
}

/// `{% generation %}` marks for trainers which tokens are the assistant's. It writes nothing, and minijinja does not
/// know it: a comment with the same trimming stands in its place.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let tag = &rest[start..];
        let Some(length) = tag.find("%}").map(|end| end + 2) else {
            break;
        };
        let inner = &tag[2..length - 2];
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..start]);
        if name == "generation" || name == "endgeneration" {
            let sign = |end: Option<char>| end.filter(|c| "-+".contains(*c)).map(String::from).unwrap_or_default();
            let (before, after) = (sign(inner.chars().next()), sign(inner.chars().last()));
            out.push_str(&format!("{{#{before} {after}#}}"));
        } else {
            out.push_str(&tag[..length]);
        }
        rest = &tag[length..];
    }
    out.push_str(rest);
    out
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=…)`, which is what transformers puts under this name.
fn tojson(value: &Value, options: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(value)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ if indent.is_some() => (",".to_string(), ": ".to_string()),
        _ => (", ".to_string(), ": ".to_string()),
    };
    let style = JsonStyle { indent, sort_keys: sort_keys.unwrap_or(false), ascii: ascii.unwrap_or(false), item, key };
    let mut out = String::new();
    style.write(&json, 0, &mut out);
    Ok(Value::from_safe_string(out))
}

struct JsonStyle {
    indent: Option<usize>,
    sort_keys: bool,
    ascii: bool,
    item: String,
    key: String,
}

impl JsonStyle {
    fn write(&self, value: &serde_json::Value, depth: usize, out: &mut String) {
        match value {
            serde_json::Value::Array(list) if !list.is_empty() => {
                out.push('[');
                for (index, item) in list.iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.line(depth, out);
                out.push(']');
            }
            serde_json::Value::Object(map) if !map.is_empty() => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| key.as_str());
                }
                out.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.text(key, out);
                    out.push_str(&self.key);
                    self.write(item, depth + 1, out);
                }
                self.line(depth, out);
                out.push('}');
            }
            serde_json::Value::String(text) => self.text(text, out),
            other => out.push_str(&other.to_string()),
        }
    }

    fn separate(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.item);
        }
        self.line(depth, out);
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    }

    fn text(&self, text: &str, out: &mut String) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            out.push_str(&quoted);
            return;
        }
        let mut units = [0; 2];
        for letter in quoted.chars() {
            if letter.is_ascii() {
                out.push(letter);
            } else {
                for unit in letter.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

/// The fields of C's `strftime` that concern days; hours, minutes and seconds are those of midnight.
fn strftime(date: Date, format: &str) -> std::result::Result<String, minijinja::Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Saturday", "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday"];
    let (year, month, day) = (date.year as i64, date.month as i64, date.day as i64);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{year}-{month}-{day} is not a day")));
    }
    // Zeller's congruence: 0 is Saturday; January and February count to the year before.
    let (zeller_year, zeller_month) = if month < 3 { (year - 1, month + 12) } else { (year, month) };
    let weekday = (day + 13 * (zeller_month + 1) / 5 + zeller_year + zeller_year / 4 - zeller_year / 100
        + zeller_year / 400)
        .rem_euclid(7) as usize;
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('b') => out.push_str(&month_name[..3]),
            Some('B') => out.push_str(month_name),
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('A') => out.push_str(DAYS[weekday]),
            Some('a') => out.push_str(&DAYS[weekday][..3]),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some('-') => match letters.next() {
                Some('d') => out.push_str(&day.to_string()),
                Some('m') => out.push_str(&month.to_string()),
                other => return Err(unknown_field(other)),
            },
            Some('%') => out.push('%'),
            other => return Err(unknown_field(other)),
        }
    }
    Ok(out)
}

fn unknown_field(letter: Option<char>) -> minijinja::Error {
    let letter = letter.map(String::from).unwrap_or_default();
    minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know %{letter}"))
}

#[cfg(test)]
#[path = "template/tests.rs"]
mod tests;
