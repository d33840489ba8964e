//! YAML to JSON values, strictly: a key that stands twice, a tag other than
//! `!secret`, NaN and infinity are findings, all of them, not the first. Must not
//! know what the file means.

use std::cell::RefCell;
use std::fmt;

use fuseline_contract::secret;
use serde::de::{DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Value as Json, json};

use crate::locate::{Part, Path};
use crate::problem::{At, Findings};

/// Reads the text of the file whose top has the path `base`; `None` where it is
/// not YAML at all.
pub(crate) fn parse(text: &str, base: &[String], findings: &mut Findings) -> Option<Json> {
    let noted = RefCell::new(Vec::new());
    let seed = Seed { path: base.to_vec(), noted: &noted };
    match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(value) => {
            let noted = noted.into_inner();
            for (path, part, message) in &noted {
                findings.add(At::Path(path.clone(), *part), message, None);
            }
            for (path, ..) in noted.iter().filter(|(_, part, _)| *part == Part::Value) {
                findings.silence(path);
            }
            Some(value)
        }
        Err(error) => {
            let (at, message) = match error.location() {
                Some(place) => {
                    let suffix = format!(" at line {} column {}", place.line(), place.column());
                    (At::Spot(base.to_vec(), place.line(), place.column()), error.to_string().replacen(&suffix, "", 1))
                }
                None if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) => {
                    return Some(Json::Null);
                }
                None => (At::File(base.to_vec()), error.to_string()),
            };
            findings.add(at, format!("not valid YAML: {message}"), None);
            None
        }
    }
}

/// Reads the value of an argument such as `--set beta=0.1`.
pub(crate) fn parse_argument(text: &str) -> Result<Json, String> {
    if text.trim().is_empty() {
        return Ok(Json::String(String::new()));
    }
    let noted = RefCell::new(Vec::new());
    let value = Seed { path: Path::new(), noted: &noted }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| {
            let error = error.to_string();
            format!("the value is not valid YAML: {}", error.split(" at line ").next().unwrap_or(&error))
        })?;
    match noted.into_inner().into_iter().next() {
        Some((_, _, message)) => Err(message),
        None => Ok(value),
    }
}

/// What is found while reading: path, part, message.
type Noted = RefCell<Vec<(Path, Part, String)>>;

struct Seed<'n> {
    path: Path,
    noted: &'n Noted,
}

impl Seed<'_> {
    fn note(&self, part: Part, message: impl Into<String>) {
        self.noted.borrow_mut().push((self.path.clone(), part, message.into()));
    }

    fn below(&self, step: String) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self { path, noted: self.noted }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Json, E> {
        self.note(Part::Value, format!("{value} is out of range: an integer has 64 bits"));
        Ok(Json::Null)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Json, E> {
        self.note(Part::Value, format!("{value} is out of range: an integer has 64 bits"));
        Ok(Json::Null)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(serde_json::Number::from_f64(value).map_or_else(
            || {
                let name = if value.is_nan() { "NaN" } else { "infinity" };
                self.note(Part::Value, format!("{name} is not a value here, expected a finite number"));
                Json::Null
            },
            Json::Number,
        ))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below(list.len().to_string()))? {
            list.push(item);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let below = self.below(key.clone());
            if key == secret::TAG {
                below.note(Part::Key, "a secret is written `!secret NAME`, without a colon");
            }
            if map.contains_key(&key) {
                below.note(Part::KeyAgain, format!("{key:?} stands here for the second time"));
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            map.insert(key, entries.next_value_seed(below)?);
        }
        Ok(Json::Object(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Json, A::Error> {
        // Whether the tag's mark is part of it is the parser's choice.
        let (tag, value): (String, _) = data.variant()?;
        let tag = format!("!{}", tag.trim_start_matches('!'));
        if tag == secret::TAG {
            let name = value.newtype_variant_seed(self.below(tag.clone()))?;
            if name.as_str().is_some_and(secret::is_secret_name) {
                return Ok(json!({tag: name}));
            }
            let message =
                format!("expected the name of an environment variable after !secret, found {}", describe(&name));
            self.note(Part::Value, message);
            return Ok(Json::Null);
        }
        self.note(Part::Value, format!("the tag {tag} has no meaning here"));
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Json::Null)
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! keys {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: Error>(self, key: $type) -> Result<String, E> {
            Ok(key.to_string())
        })*
    };
}

impl<'de> Visitor<'de> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    keys!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }
}

/// A value in words, for messages: `the text "a"`, `3`, `a list`.
pub(crate) fn describe(value: &Json) -> String {
    match value {
        Json::Null => "nothing".to_owned(),
        secret if secret::of_json(secret).is_some() => "a secret".to_owned(),
        Json::String(text) => format!("the text {text:?}"),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "a map".to_owned(),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Source;

    #[test]
    fn plain_yaml_keeps_types_and_order() {
        let mut findings = Findings::default();
        let value = parse("b: [1, 1.0, 1e-5, yes, ~, 'x', 007]\na: {1: true}\n", &[], &mut findings);
        assert_eq!(
            value.map(|v| v.to_string()).as_deref(),
            Some(r#"{"b":[1,1.0,0.00001,"yes",null,"x","007"],"a":{"1":true}}"#)
        );
        assert!(findings.is_empty());
    }

    #[test]
    fn everything_that_is_not_plain_is_found() {
        let text = "a: .nan\nb: -.inf\nc: {x: 1, x: 2}\nd: !secrets KEY\na: 2\ne: 99999999999999999999\n";
        let mut findings = Findings::default();
        assert!(parse(text, &[], &mut findings).is_some());
        let problems = findings.locate(&Source::new(std::path::Path::new("p.yaml"), text));
        let heads: Vec<String> =
            problems.0.iter().map(|p| p.to_string().lines().next().unwrap_or_default().to_owned()).collect();
        assert_eq!(
            heads,
            [
                "error: p.yaml:1:4: NaN is not a value here, expected a finite number",
                "error: p.yaml:2:4: infinity is not a value here, expected a finite number",
                "error: p.yaml:3:11: \"x\" stands here for the second time",
                "error: p.yaml:4:4: the tag !secrets has no meaning here",
                "error: p.yaml:5:1: \"a\" stands here for the second time",
                "error: p.yaml:6:4: 99999999999999999999 is out of range: an integer has 64 bits",
            ]
        );
    }

    #[test]
    fn a_secret_is_a_name_and_nothing_else() {
        let said = |text: &str| {
            let mut findings = Findings::default();
            let value = parse(text, &[], &mut findings);
            let problems = findings.locate(&Source::new(std::path::Path::new("p"), text));
            (value.map(|value| value.to_string()), problems.0.into_iter().map(|p| p.message).collect::<Vec<_>>())
        };
        assert_eq!(said("a: !secret KEY\n"), (Some(r#"{"a":{"!secret":"KEY"}}"#.into()), vec![]));
        let expected = "expected the name of an environment variable after !secret, found ";
        assert_eq!(said("a: !secret sk-1\n").1, [format!("{expected}the text \"sk-1\"")]);
        assert_eq!(said("a: !secret [A]\n").1, [format!("{expected}a list")]);
        assert_eq!(said("a: {\"!secret\": A}\n").1, ["a secret is written `!secret NAME`, without a colon"]);
    }

    #[test]
    fn broken_yaml_has_a_place() {
        let text = "a: [1, 2\nb: 3\n";
        let mut findings = Findings::default();
        assert!(parse(text, &[], &mut findings).is_none());
        let problems = findings.locate(&Source::new(std::path::Path::new("p.yaml"), text));
        assert!(problems.to_string().starts_with("error: p.yaml:2:"), "{problems}");
    }
}
