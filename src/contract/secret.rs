//! A secret by its name.
//!
//! Its value is known only to the process that needs it (see
//! [`crate::Run::secret`]); neither keys nor plans nor records hold it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The tag of a secret in YAML, and its one key where YAML has become JSON:
/// `!secret NAME` is `{"!secret": "NAME"}`.
pub const TAG: &str = "!secret";

/// A parameter's value that is a secret: its name, never its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a secret, written `!secret NAME`")]
pub struct Secret {
    /// The name: that of an environment variable.
    #[serde(rename = "!secret")]
    pub name: String,
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    /// Editors see a tagged text as a text.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A secret, written `!secret NAME`."})
    }
}

/// Whether a text may name a secret.
pub fn is_secret_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name of the secret that a value is, if it is one.
pub fn of_json(value: &serde_json::Value) -> Option<&str> {
    match value.as_object() {
        Some(map) if map.len() == 1 => map.get(TAG)?.as_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_its_name() {
        let json = json!({"!secret": "API_KEY"});
        let secret: Secret = serde_json::from_value(json.clone()).expect("a secret");
        assert_eq!((secret.name.as_str(), of_json(&json)), ("API_KEY", Some("API_KEY")));
        assert_eq!(serde_json::to_value(&secret).ok(), Some(json));
        let error = serde_json::from_value::<Secret>(json!("sk-1")).expect_err("a text is no secret");
        assert!(error.to_string().ends_with("expected a secret, written `!secret NAME`"), "{error}");
    }

    #[test]
    fn names_are_those_of_environment_variables() {
        assert!(["A", "_x1", "OPENAI_API_KEY"].into_iter().all(is_secret_name));
        assert!(!["", "1A", "A-B", "a b", "${X}"].into_iter().any(is_secret_name));
    }
}
