//! The cases of one operator: configurations that can be resolved, and what
//! changing each parameter in them does to the key.

use std::collections::{BTreeMap, BTreeSet};

use fuseline_contract::operator::{Entry, Resolved};
use serde_json::Value;

use super::mutate::{Place, Schema, get, with, without};
use super::{key_of, node};
use crate::fuzz::Random;

/// How many configurations of one operator are looked at.
const BASES: usize = 240;

/// How many configurations are made up by chance, to find those that several
/// changes lead to.
const TRIES: usize = 20_000;

/// What changing every parameter of an operator does.
pub struct Matrix {
    /// The parameters of the example.
    pub example: Value,
    /// Named places in the parameters.
    pub places: usize,
    /// Configurations.
    pub bases: usize,
    /// Changes that were valid.
    pub changes: usize,
    /// Per execution parameter, the example with it changed.
    pub execution: BTreeMap<String, Value>,
    /// Places whose change is another key, and others whose change reaches the operator without that.
    pub effects: (BTreeSet<Place>, BTreeSet<Place>),
    /// What is wrong.
    pub failures: Vec<String>,
}

/// The parameters of an operator's example.
fn example(entry: &Entry) -> Value {
    let stage =
        fuseline_engine::schema::example(entry).unwrap_or_else(|| panic!("the example of {} is no YAML", entry.name));
    stage.get("with").filter(|with| !with.is_null()).cloned().unwrap_or_else(|| serde_json::json!({}))
}

/// Configurations of an operator: its example's, those that one change of a
/// choice leads to, and those that several changes by chance lead to.
pub fn bases(entry: &'static Entry) -> Vec<(Value, Resolved)> {
    let schema = Schema::of((entry.schema)(), entry.manual);
    let places = schema.places();
    let mut found = vec![(example(entry), resolve_example(entry))];
    let mut seen: BTreeSet<String> = found.iter().map(|(_, resolved)| shape(resolved)).collect();
    let mut next = 0;
    while next < found.len() && found.len() < BASES / 2 {
        let params = found[next].0.clone();
        next += 1;
        for (place, schemas) in &places {
            for value in schema.values(schemas, get(&params, place)) {
                // Another number is another case, not another configuration.
                if value.is_number() || found.len() >= BASES / 2 {
                    continue;
                }
                let Some(changed) = with(&params, place, value) else { continue };
                keep(entry, changed, &mut seen, &mut found);
            }
        }
    }
    // What a parameter was at least once; only something new is worth another configuration.
    let mut was: BTreeSet<(Place, String)> = BTreeSet::new();
    let news = |resolved: &Resolved| -> Vec<(Place, String)> {
        let at = |place: &Place| Some((place.clone(), outline(get(&resolved.params, place)?).to_string()));
        places.keys().filter_map(at).collect()
    };
    found.iter().for_each(|(_, resolved)| was.extend(news(resolved)));
    let choices: Vec<(&Place, Vec<Value>)> =
        places.iter().map(|(place, schemas)| (place, schema.values(schemas, get(&found[0].0, place)))).collect();
    let mut random = Random(1);
    for _ in 0..TRIES {
        if found.len() >= BASES || choices.is_empty() {
            break;
        }
        let mut params = found[random.below(found.len())].0.clone();
        for _ in 0..2 + random.below(3) {
            let (place, values) = &choices[random.below(choices.len())];
            let changed = match random.below(3) {
                0 => without(&params, place),
                _ if values.is_empty() => None,
                _ => with(&params, place, values[random.below(values.len())].clone()),
            };
            params = changed.unwrap_or(params);
        }
        let mut outcome = entry.resolve(&params);
        // A refusal names what else must change.
        for _ in 0..4 {
            let Err(problems) = &outcome else { break };
            let Some((place, values)) =
                problems.0.iter().find_map(|problem| choices.iter().find(|(place, _)| **place == problem.path))
            else {
                break;
            };
            let changed = match values.is_empty() || random.below(2) == 0 {
                true => without(&params, place),
                false => with(&params, place, values[random.below(values.len())].clone()),
            };
            params = changed.unwrap_or(params);
            outcome = entry.resolve(&params);
        }
        let Ok(resolved) = outcome else { continue };
        let new = news(&resolved);
        if new.iter().any(|value| !was.contains(value)) {
            was.extend(new);
            found.push((params, resolved));
        }
    }
    found
}

/// Keeps a configuration that can be resolved and is like no other.
fn keep(entry: &Entry, params: Value, seen: &mut BTreeSet<String>, found: &mut Vec<(Value, Resolved)>) {
    if let Ok(resolved) = entry.resolve(&params)
        && seen.insert(shape(&resolved))
    {
        found.push((params, resolved));
    }
}

/// What tells configurations apart: ports, and choices without numbers and texts
/// that only name something.
fn shape(resolved: &Resolved) -> String {
    let ports: Vec<&str> = resolved.ports.inputs.iter().map(|port| port.name.as_str()).collect();
    format!("{} {ports:?}", outline(&resolved.params))
}

/// A value without numbers and without texts that only name something.
fn outline(value: &Value) -> Value {
    match value {
        Value::Number(_) => Value::from(0),
        // A text that an operator knows is short and plain.
        Value::String(text) if text.contains([' ', '.', '/', '~']) || text.len() < 3 => Value::from(""),
        Value::Array(items) => items.iter().take(1).map(outline).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), outline(v))).collect()),
        other => other.clone(),
    }
}

fn resolve_example(entry: &Entry) -> Resolved {
    entry.resolve(&example(entry)).unwrap_or_else(|problems| panic!("the example of {}: {problems:?}", entry.name))
}

/// What a parameter is to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Semantic,
    Left,
    File,
}

/// The execution parameter that a place is, or belongs to.
fn left_out(entry: &Entry, place: &Place) -> Option<&'static str> {
    let dotted = place.join(".");
    entry.execution.iter().copied().find(|name| dotted == *name || dotted.starts_with(&format!("{name}.")))
}

/// Whether a place is declared to stay out of the key: for execution, a secret, or a file, whose content counts.
pub fn is_left_out(entry: &'static Entry, place: &Place) -> bool {
    let secret = entry.secret.contains(&place[0].as_str());
    secret
        || left_out(entry, place).is_some()
        || bases(entry).iter().any(|(_, found)| class(entry, place, [found; 2]) == Class::File)
}

/// Parameters without those that are left out of the key.
fn kept(entry: &Entry, params: &Value) -> Value {
    let mut params = params.clone();
    for name in entry.execution {
        let (group, last) = name.rsplit_once('.').unwrap_or(("", name));
        let pointer = if group.is_empty() { String::new() } else { format!("/{}", group.replace('.', "/")) };
        if let Some(Value::Object(group)) = params.pointer_mut(&pointer) {
            group.remove(last);
        }
    }
    params
}

fn class(entry: &Entry, place: &Place, resolved: [&Resolved; 2]) -> Class {
    let top = place[0].as_str();
    let dotted = place.join(".");
    let names_file = |resolved: &Resolved| {
        resolved.files.iter().any(|file| {
            let parameter = file.parameter.to_string();
            parameter == dotted
                || parameter.starts_with(&format!("{dotted}."))
                || dotted.starts_with(&format!("{parameter}."))
        })
    };
    if left_out(entry, place).is_some() || entry.secret.contains(&top) {
        Class::Left
    } else if resolved.into_iter().any(names_file) {
        Class::File
    } else {
        Class::Semantic
    }
}

impl Matrix {
    /// Changes every parameter of an operator in every configuration.
    pub fn of(entry: &'static Entry) -> Self {
        let schema = Schema::of((entry.schema)(), entry.manual);
        let places = schema.places();
        let bases = bases(entry);
        let mut matrix = Self {
            example: bases[0].0.clone(),
            places: places.len(),
            bases: bases.len(),
            changes: 0,
            execution: BTreeMap::new(),
            effects: Default::default(),
            failures: Vec::new(),
        };
        for (params, resolved) in &bases {
            let base = key_of(&node(entry, resolved));
            matrix.write_out(entry, params, resolved, &places);
            matrix.leave_out(entry, params, resolved, (&schema, &places));
            for (place, schemas) in &places {
                let mut values = schema.values(schemas, get(params, place).or_else(|| get(&resolved.params, place)));
                values.truncate(60);
                for value in values {
                    let Some(changed) = with(params, place, value) else { continue };
                    let Ok(other) = entry.resolve(&changed) else { continue };
                    if other.params == resolved.params {
                        continue;
                    }
                    matrix.changes += 1;
                    let follows = key_of(&node(entry, &other)) != base;
                    let effects = if follows { &mut matrix.effects.0 } else { &mut matrix.effects.1 };
                    effects.insert(place.clone());
                    match class(entry, place, [resolved, &other]) {
                        Class::Semantic if kept(entry, &other.params) == kept(entry, &resolved.params) => {}
                        Class::Semantic if !follows => {
                            matrix.fail(
                                entry,
                                format!("the key does not follow {:?}: {params} and {changed}", place.join(".")),
                            );
                        }
                        Class::Left if follows => {
                            matrix
                                .fail(entry, format!("the key follows {:?}: {params} and {changed}", place.join(".")));
                        }
                        Class::Left if params == &matrix.example => {
                            if let Some(name) = left_out(entry, place) {
                                matrix.execution.entry(name.to_owned()).or_insert(changed);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        let (in_key, besides) = &matrix.effects;
        let mut without_effect: BTreeSet<Place> =
            places.keys().filter(|place| !in_key.contains(*place) && !besides.contains(*place)).cloned().collect();
        // A secret is a tag, which JSON cannot write; `tests/command.rs` has those.
        without_effect.retain(|place| !entry.secret.contains(&place[0].as_str()));
        without_effect.retain(|place| !matrix.differs_between(entry, &bases, place));
        for place in without_effect {
            matrix.fail(
                entry,
                format!("no change of {:?} has any effect, or the generator cannot cover it", place.join(".")),
            );
        }
        matrix
    }

    /// Whether two configurations differ in a parameter, where no single change
    /// of it is valid: a choice that others follow.
    fn differs_between(&mut self, entry: &'static Entry, bases: &[(Value, Resolved)], place: &Place) -> bool {
        let (params, resolved) = &bases[0];
        let own = get(&resolved.params, place);
        let Some((other, found)) = bases.iter().find(|(_, found)| get(&found.params, place) != own) else {
            return false;
        };
        self.changes += 1;
        if class(entry, place, [resolved, found]) == Class::Semantic
            && key_of(&node(entry, found)) == key_of(&node(entry, resolved))
        {
            self.fail(entry, format!("the key does not follow {:?}: {params} and {other}", place.join(".")));
        }
        true
    }

    /// A parameter that is written out at its default is no change.
    fn write_out(
        &mut self,
        entry: &'static Entry,
        params: &Value,
        resolved: &Resolved,
        places: &BTreeMap<Place, Vec<&Value>>,
    ) {
        let base = key_of(&node(entry, resolved));
        for place in places.keys() {
            let (None, Some(default)) = (get(params, place), get(&resolved.params, place)) else { continue };
            let Some(written) = with(params, place, default.clone()) else { continue };
            match entry.resolve(&written) {
                Ok(same) if key_of(&node(entry, &same)) == base => {}
                Ok(_) => self
                    .fail(entry, format!("{:?} written out at its default is another key: {written}", place.join("."))),
                // A part of a group that is left out as a whole.
                Err(_) if place.len() > 1 && get(params, &place[..place.len() - 1]).is_none() => {}
                Err(problems) => {
                    self.fail(
                        entry,
                        format!("{:?} written out at its default is refused: {written}: {problems:?}", place.join(".")),
                    );
                }
            }
        }
    }

    /// A choice that is left out is filled in with one of its words, or it
    /// decides what is made; else one of them would be the same in another key.
    fn leave_out(
        &mut self,
        entry: &'static Entry,
        params: &Value,
        resolved: &Resolved,
        (schema, places): (&Schema, &BTreeMap<Place, Vec<&Value>>),
    ) {
        for (place, schemas) in places {
            if get(&resolved.params, place) != Some(&Value::Null) {
                continue;
            }
            for word in schema.closed(schemas) {
                let Some(written) = with(params, place, word) else { continue };
                if entry.resolve(&written).is_ok_and(|other| other.ports == resolved.ports) {
                    let place = place.join(".");
                    self.fail(entry, format!("{place:?} is left out and not filled in, but may be written: {written}"));
                    break;
                }
            }
        }
    }

    fn fail(&mut self, entry: &Entry, what: String) {
        let what = format!("{}: {what}", entry.name);
        if self.failures.len() < 20 && !self.failures.contains(&what) {
            self.failures.push(what);
        }
    }
}

/// Operators with one thing wrong each, to see that it is found.
pub mod planted {
    use fuseline_contract::{Kind, Operator, Output, Ports};
    use schemars::JsonSchema;
    use serde::{Deserialize, Deserializer, Serialize};

    macro_rules! planted {
        ($operator:ident, $name:literal, $example:literal, $(#[$attribute:meta])* $config:ident { $($(#[$field:meta])* $parameter:ident: $type:ty),* }) => {
            /// Its parameters.
            #[derive(Serialize, Deserialize, JsonSchema)]
            #[serde(deny_unknown_fields)]
            #[allow(dead_code)]
            pub struct $config { $($(#[$field])* $parameter: $type),* }
            /// A planted operator.
            pub struct $operator;
            impl Operator for $operator {
                const NAME: &'static str = $name;
                const VERSION: u32 = 1;
                const MANUAL: &'static str = "Planted.";
                const EXAMPLE: &'static str = $example;
                type Config = $config;
                fn ports(_: &$config) -> Ports {
                    Ports { inputs: vec![], outputs: vec![Output::new("out", Kind::AnyTable, "")] }
                }
            }
        };
    }

    planted!(Sound, "sound", "op: sound\nwith: {n: 1}\n", SoundConfig { n: u32, #[serde(default)] word: Option<String> });
    // It reads a parameter that its key never sees.
    planted!(
        Forgetful,
        "forgetful",
        "op: forgetful\nwith: {n: 1}\n",
        ForgetfulConfig {
            #[serde(skip_serializing)]
            n: u32
        }
    );
    // Left out and written at its default are two keys.
    planted!(Uneven, "uneven", "op: uneven\n", UnevenConfig { #[serde(default, deserialize_with = "some")] n: Option<u32> });
    // One of its words is what leaving it out means, and nobody says which.
    planted!(Silent, "silent", "op: silent\nwith: {n: 1}\n", SilentConfig { n: u32, #[serde(default)] how: Option<How> });

    /// A closed choice.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum How {
        /// One way.
        Up,
        /// The other.
        Down,
    }

    // It takes a word that nobody can guess.
    planted!(
        Closed,
        "closed",
        "op: closed\nwith: {word: abracadabra}\n",
        ClosedConfig {
            #[serde(deserialize_with = "magic")]
            word: String
        }
    );

    fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        Option::<u32>::deserialize(deserializer).map(|n| Some(n.unwrap_or(1)))
    }

    fn magic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == "abracadabra" { Ok(word) } else { Err(serde::de::Error::custom("no")) }
    }
}
