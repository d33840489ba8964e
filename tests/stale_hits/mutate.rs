//! Places in parameters and values for them, out of a JSON Schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A parameter or a field of one: names from the top, `0` for a list's item.
pub type Place = Vec<String>;

/// How deep schemas are followed.
const DEPTH: usize = 8;

/// A schema with the words that its author used.
pub struct Schema {
    root: Value,
    /// Words in backticks in the manual and in descriptions: texts to try.
    words: Vec<String>,
}

impl Schema {
    /// The schema of an operator's parameters.
    pub fn of(root: Value, manual: &str) -> Self {
        let mut words = BTreeSet::new();
        in_backticks(manual, &mut words);
        descriptions(&root, &mut words);
        words.extend(
            manual.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| word.len() > 3).map(str::to_owned),
        );
        Self { root, words: words.into_iter().collect() }
    }

    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        while let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            schema = self.root.pointer(&target[1..]).expect("a reference in the schema");
        }
        schema
    }

    /// A schema and all that it offers as alternatives.
    fn choices<'s>(&'s self, schema: &'s Value, depth: usize) -> Vec<&'s Value> {
        let schema = self.resolved(schema);
        let mut found = vec![schema];
        for keyword in ["anyOf", "oneOf", "allOf"] {
            for choice in schema.get(keyword).and_then(Value::as_array).into_iter().flatten().filter(|_| depth < DEPTH)
            {
                found.extend(self.choices(choice, depth + 1));
            }
        }
        found
    }

    /// Every named place, with the schemas of its value.
    pub fn places(&self) -> BTreeMap<Place, Vec<&Value>> {
        let mut found = BTreeMap::new();
        self.collect(&self.root, &Place::new(), &mut found);
        found
    }

    fn collect<'s>(&'s self, schema: &'s Value, place: &Place, found: &mut BTreeMap<Place, Vec<&'s Value>>) {
        if place.len() > DEPTH {
            return;
        }
        for choice in self.choices(schema, 0) {
            for (name, property) in choice.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let place = [place.clone(), vec![name.clone()]].concat();
                found.entry(place.clone()).or_default().push(property);
                self.collect(property, &place, found);
            }
            if let Some(items) = choice.get("items") {
                self.collect(items, &[place.clone(), vec!["0".to_owned()]].concat(), found);
            }
        }
    }

    /// Values to try where schemas hold, not all of them valid.
    pub fn values(&self, schemas: &[&Value], current: Option<&Value>) -> Vec<Value> {
        let mut found: Vec<Value> = current.map(near).unwrap_or_default();
        found.extend(schemas.iter().flat_map(|schema| self.of_schema(schema, 0)));
        let mut seen = BTreeSet::new();
        found.retain(|value| seen.insert(value.to_string()));
        found
    }

    /// The words of closed choices where schemas hold.
    pub fn closed(&self, schemas: &[&Value]) -> Vec<Value> {
        let choices = schemas.iter().flat_map(|schema| self.choices(schema, 0));
        let words = choices.flat_map(|choice| {
            let listed = choice.get("enum").and_then(Value::as_array).into_iter().flatten();
            choice.get("const").into_iter().chain(listed).cloned()
        });
        words.filter(Value::is_string).collect()
    }

    fn of_schema(&self, schema: &Value, depth: usize) -> Vec<Value> {
        let mut found = Vec::new();
        if depth > DEPTH {
            return found;
        }
        for choice in self.choices(schema, 0) {
            found.extend(choice.get("const").cloned());
            found.extend(choice.get("enum").and_then(Value::as_array).into_iter().flatten().cloned());
            let types: Vec<&str> = match choice.get("type") {
                Some(Value::String(one)) => vec![one],
                Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
                _ => vec![],
            };
            for kind in types {
                match kind {
                    "null" => found.push(Value::Null),
                    "boolean" => found.extend([json!(true), json!(false)]),
                    "integer" => found.extend([0, 1, 2, 3, 4, 7, 8, 16, 64, 100, 1000, 4096].map(Value::from)),
                    "number" => {
                        found.extend([0.0, 0.05, 0.1, 0.5, 0.75, 0.9, 1.0, 1.5, 2.0, 30.0, 1e-4].map(Value::from))
                    }
                    "string" => found.extend(self.texts(choice)),
                    "array" => {
                        let items =
                            choice.get("items").map(|items| self.of_schema(items, depth + 1)).unwrap_or_default();
                        found.push(json!([]));
                        found.extend(items.iter().take(12).map(|item| json!([item])));
                        found.extend(items.windows(2).take(4).map(|pair| json!(pair)));
                    }
                    "object" => found.extend(self.objects(choice, depth)),
                    _ => {}
                }
            }
        }
        found
    }

    fn texts(&self, schema: &Value) -> Vec<Value> {
        let mut own = BTreeSet::new();
        in_backticks(schema["description"].as_str().unwrap_or_default(), &mut own);
        let own = own.into_iter().chain([
            "x".to_owned(),
            "word".to_owned(),
            "SELECT 1 AS x".to_owned(),
            "a.jsonl".to_owned(),
        ]);
        own.chain(self.words.iter().cloned()).map(Value::from).collect()
    }

    /// Objects with what they require, each required field at several values.
    fn objects(&self, schema: &Value, depth: usize) -> Vec<Value> {
        let mut found = vec![json!({})];
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            let values = self.of_schema(values, depth + 1);
            let names = ["a", "b"].map(str::to_owned).into_iter().chain(self.words.iter().cloned());
            found.extend(names.take(40).map(|name| json!({name: values.first().cloned().unwrap_or_default()})));
            found.extend(values.iter().take(12).map(|value| json!({"a": value})));
        }
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let choices: Vec<Vec<Value>> =
            required.iter().map(|name| self.of_schema(&schema["properties"][*name], depth + 1)).collect();
        if !required.is_empty() {
            found.clear();
        }
        for (varied, values) in choices.iter().enumerate() {
            for value in values.iter().take(24) {
                let fields = required.iter().enumerate().map(|(at, name)| {
                    let value = if at == varied { Some(value) } else { choices[at].first() };
                    ((*name).to_owned(), value.cloned().unwrap_or_default())
                });
                found.push(Value::Object(fields.collect()));
            }
        }
        found
    }
}

/// Values near one that is known to be right.
fn near(current: &Value) -> Vec<Value> {
    match current {
        Value::Bool(truth) => vec![json!(!truth)],
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(n), _) => vec![json!(n + 1), json!(n.saturating_mul(2)), json!(n - 1)],
            (_, Some(x)) => vec![json!(x * 0.5), json!(x * 0.9), json!(x * 2.0)],
            _ => vec![],
        },
        Value::String(text) => vec![json!(format!("{text}~")), json!(format!("other/{text}"))],
        Value::Array(items) => {
            let mut found: Vec<Value> = items
                .iter()
                .enumerate()
                .flat_map(|(at, item)| near(item).into_iter().map(move |other| (at, other)))
                .map(|(at, other)| {
                    let mut items = items.clone();
                    items[at] = other;
                    Value::Array(items)
                })
                .collect();
            found.push(items.iter().rev().cloned().collect());
            found.push(items.iter().skip(1).cloned().collect());
            found
        }
        Value::Object(map) => {
            let changed = map.iter().flat_map(|(key, value)| near(value).into_iter().map(move |other| (key, other)));
            let mut found: Vec<Value> = changed
                .map(|(key, other)| {
                    let mut map = map.clone();
                    map.insert(key.clone(), other);
                    Value::Object(map)
                })
                .collect();
            for key in map.keys() {
                found.push(Value::Object(
                    map.iter().filter(|(other, _)| *other != key).map(|(k, v)| (k.clone(), v.clone())).collect(),
                ));
            }
            found
        }
        Value::Null => vec![],
    }
}

/// What stands at a place.
pub fn get<'v>(value: &'v Value, place: &[String]) -> Option<&'v Value> {
    place.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

/// The same with a value put at a place; nothing if there is no such list.
pub fn with(value: &Value, place: &[String], new: Value) -> Option<Value> {
    let Some((first, rest)) = place.split_first() else { return Some(new) };
    match value {
        Value::Array(items) => {
            let at: usize = first.parse().ok()?;
            let mut items = items.clone();
            let changed = with(items.get(at)?, rest, new)?;
            items[at] = changed;
            Some(Value::Array(items))
        }
        other => {
            let mut map = other.as_object().cloned().unwrap_or_else(Map::new);
            let inner = map.get(first).cloned().unwrap_or_default();
            map.insert(first.clone(), with(&inner, rest, new)?);
            Some(Value::Object(map))
        }
    }
}

/// The same without what stands at a place, if anything does.
pub fn without(value: &Value, place: &[String]) -> Option<Value> {
    let (last, parents) = place.split_last()?;
    let mut inner = get(value, parents)?.as_object()?.clone();
    inner.remove(last)?;
    with(value, parents, Value::Object(inner))
}

fn in_backticks(text: &str, words: &mut BTreeSet<String>) {
    words.extend(text.split('`').skip(1).step_by(2).filter(|word| !word.is_empty()).map(str::to_owned));
}

fn descriptions(schema: &Value, words: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            in_backticks(map.get("description").and_then(Value::as_str).unwrap_or_default(), words);
            map.values().for_each(|inner| descriptions(inner, words));
        }
        Value::Array(items) => items.iter().for_each(|inner| descriptions(inner, words)),
        _ => {}
    }
}
