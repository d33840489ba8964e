//! As much of JSON Schema (draft 2020-12) as the schema of pipeline files uses.
//! A keyword that is not known here is a panic, never a silent yes.

use regex::Regex;
use serde_json::Value;

/// The deepest place where a value breaks a schema, with the reason; `None` if it fits.
pub fn refused(schema: &Value, value: &Value) -> Option<String> {
    let found = check(schema, schema, value, &mut Vec::new())?;
    Some(format!("{}: {}", found.place.join("."), found.what))
}

struct Refusal {
    place: Vec<String>,
    what: String,
}

/// Checks a value against a part of the schema `root`.
fn check(root: &Value, schema: &Value, value: &Value, place: &mut Vec<String>) -> Option<Refusal> {
    let schema = match schema {
        Value::Bool(true) => return None,
        Value::Bool(false) => return refuse(place, "is not allowed here".into()),
        schema => schema.as_object().expect("a schema is a map or a boolean"),
    };
    let fits = |schema: &Value| check(root, schema, value, &mut Vec::new()).is_none();
    for (keyword, wanted) in schema {
        let refusal = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" | "then" => None,
            "$ref" => {
                let path = wanted.as_str().and_then(|path| path.strip_prefix('#')).expect("a reference in this file");
                let target = root.pointer(path).unwrap_or_else(|| panic!("nothing is at {path}"));
                check(root, target, value, place)
            }
            "type" => {
                let types: Vec<&Value> = wanted.as_array().map_or(vec![wanted], |types| types.iter().collect());
                let fits = types.iter().any(|name| is_a(value, name.as_str().expect("a type's name")));
                if fits { None } else { refuse(place, format!("{value} is not of type {wanted}")) }
            }
            "const" if value == wanted => None,
            "enum" if list(wanted).contains(value) => None,
            "const" | "enum" => refuse(place, format!("{value} is not {wanted}")),
            "minimum" if value.as_f64() < wanted.as_f64() && value.is_number() => {
                refuse(place, format!("{value} is below {wanted}"))
            }
            "maximum" if value.as_f64() > wanted.as_f64() => refuse(place, format!("{value} is above {wanted}")),
            "minItems" if length(value.as_array()) < wanted.as_u64() => refuse(place, "has too few items".into()),
            "maxItems" if length(value.as_array()) > wanted.as_u64() => refuse(place, "has too many items".into()),
            "minProperties" if value.as_object().map(|map| map.len() as u64) < wanted.as_u64() && value.is_object() => {
                refuse(place, "has too few fields".into())
            }
            "minimum" | "maximum" | "minItems" | "maxItems" | "minProperties" => None,
            "pattern" => {
                let pattern = Regex::new(wanted.as_str().expect("a pattern")).expect("a regular expression");
                let fits = value.as_str().is_none_or(|text| pattern.is_match(text));
                if fits { None } else { refuse(place, format!("{value} does not match {wanted}")) }
            }
            "allOf" => list(wanted).iter().find_map(|schema| check(root, schema, value, place)),
            // Of several ways the one that came farthest tells most.
            "anyOf" | "oneOf" => {
                let ways = list(wanted);
                let fitting = ways.iter().filter(|schema| fits(schema)).count();
                if fitting == 1 || (fitting > 1 && keyword == "anyOf") {
                    None
                } else if fitting > 1 {
                    refuse(place, format!("{value} fits {fitting} of the ways"))
                } else {
                    let refusals = ways.iter().filter_map(|schema| check(root, schema, value, place));
                    refusals.max_by_key(|refusal| refusal.place.len())
                }
            }
            "if" if fits(wanted) => schema.get("then").and_then(|then| check(root, then, value, place)),
            "if" => None,
            "items" => {
                let mut items = value.as_array().into_iter().flatten().enumerate();
                items.find_map(|(index, item)| below(root, wanted, item, place, &index.to_string()))
            }
            "required" => {
                let missing = |name: &&Value| value.is_object() && value.get(name.as_str().expect("a name")).is_none();
                list(wanted).iter().find(missing).and_then(|name| refuse(place, format!("{name} is missing")))
            }
            "properties" => {
                let mut known = wanted.as_object().expect("a map of schemas").iter();
                known.find_map(|(name, schema)| below(root, schema, value.get(name)?, place, name))
            }
            "propertyNames" => {
                let mut names = value.as_object().into_iter().flat_map(|map| map.keys());
                names.find_map(|name| below(root, wanted, &Value::String(name.clone()), place, name))
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let other = |name: &&String| known.is_none_or(|known| !known.contains_key(*name));
                let fields = value.as_object().into_iter().flatten();
                fields.filter(|(name, _)| other(name)).find_map(|(name, field)| match wanted {
                    Value::Bool(false) => refuse(place, format!("the field {name:?} is not known")),
                    schema => below(root, schema, field, place, name),
                })
            }
            other => panic!("the keyword {other:?} is not known to this test"),
        };
        if refusal.is_some() {
            return refusal;
        }
    }
    None
}

fn below(root: &Value, schema: &Value, value: &Value, place: &mut Vec<String>, name: &str) -> Option<Refusal> {
    place.push(name.to_owned());
    let refusal = check(root, schema, value, place);
    place.pop();
    refusal
}

fn refuse(place: &[String], what: String) -> Option<Refusal> {
    Some(Refusal { place: place.to_vec(), what })
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn length(list: Option<&Vec<Value>>) -> Option<u64> {
    list.map(|list| list.len() as u64)
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other:?} is not known to this test"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keywords_refuse_and_accept() {
        let cases = [
            (json!({"type": ["integer", "null"], "minimum": 0}), json!(3), json!(-1)),
            (json!({"pattern": "^a"}), json!("ab"), json!("b")),
            (json!({"enum": ["x", "y"]}), json!("x"), json!("z")),
            (json!({"items": {"type": "string"}, "minItems": 1}), json!(["a"]), json!([1])),
            (json!({"minItems": 2, "maxItems": 2, "type": "array"}), json!([1, 2]), json!([1])),
            (json!({"properties": {"a": true}, "additionalProperties": false}), json!({"a": 1}), json!({"b": 1})),
            (json!({"required": ["a"]}), json!({"a": 1}), json!({})),
            (json!({"oneOf": [{"type": "string"}, {"const": 1}]}), json!(1), json!(2)),
            (json!({"oneOf": [{"type": "integer"}, {"const": 1}]}), json!(2), json!(1)),
            (json!({"if": {"const": 1}, "then": false}), json!(2), json!(1)),
            (json!({"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}}), json!(null), json!(0)),
            (json!({"propertyNames": {"pattern": "^a$"}}), json!({"a": 1}), json!({"b": 1})),
        ];
        for (schema, good, bad) in cases {
            assert_eq!(refused(&schema, &good), None, "{schema}");
            assert!(refused(&schema, &bad).is_some(), "{schema} takes {bad}");
        }
    }
}
