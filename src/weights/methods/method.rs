//! The settings of a merge as a person writes them ([`Method`]) and as a method reads them ([`Settings`]). Must not
//! know how any method computes.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Row, TABLE};

/// arcee-ai/mergekit `merge_methods/generalized_task_arithmetic.py`: `density` 1.0.
const DEFAULT_DENSITY: f64 = 1.0;
/// arcee-ai/mergekit `merge_methods/generalized_task_arithmetic.py`: `lambda` 1.0.
const DEFAULT_LAMBDA: f64 = 1.0;
/// TIES, arXiv 2306.01708: the sign of the total.
const DEFAULT_CONSENSUS: Consensus = Consensus::Sum;
/// The code released with FuseChat-7B-v2.0.
const DEFAULT_VARIANT: Variant = Variant::Fuseai;
/// fanqiwan/FuseAI and arcee-ai/mergekit `sce.py`: `select_topk` 1.0; the published FuseChat-7B-v2.0 used 0.1.
const DEFAULT_SELECT_TOPK: f64 = 1.0;

/// A merging method with its parameters, as written in a pipeline file.
///
/// ```
/// let method: fuseline_weights::Method = serde_json::from_str(
///     r#"{"method": "ties", "weights": 0.2, "density": [0.6, 0.5]}"#,
/// ).unwrap();
/// assert!(method.check().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// The method's name.
    pub method: Name,
    /// The weight of each model: one number for all, or a list in the order of the models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PerModel>,
    /// The fraction of each model's difference that is kept, above 0 and up to 1 (1.0): one number or a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<PerModel>,
    /// Whether to divide by the sum of the weights (true; for task_arithmetic false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// The factor of the merged difference (1.0); 0 gives the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// What elects the sign of an element (sum).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus: Option<Consensus>,
    /// The reading of SCE (fuseai).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// The fraction of the varying elements that decide the shares in SCE, above 0 and up to 1 (1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select_topk: Option<f64>,
}

/// The name of a row of the table.
#[derive(Clone, Copy)]
pub struct Name(&'static Row);

/// A number for all models, or one for each, in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum PerModel {
    /// The same for all.
    All(f64),
    /// One for each.
    Each(Vec<f64>),
}

/// What elects the sign of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consensus {
    /// The sign of the sum of the weighted differences.
    Sum,
    /// The sign of the sum of their signs.
    Count,
}

/// The reading of SCE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The code released with the model: the selection decides the shares only.
    Fuseai,
    /// mergekit's: elements that are not selected keep the base's value.
    Mergekit,
    /// The paper as it is described: as mergekit's, and the weighted sum is not divided.
    Paper,
}

/// A [`Method`] with every default filled in, for a known number of models. Fields that the method does not take
/// hold their defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The weight of each model; 1 where the method takes none.
    pub weights: Vec<f64>,
    /// The fraction of each model's difference that is kept.
    pub density: Vec<f64>,
    /// Whether to divide by the sum of the weights.
    pub normalize: bool,
    /// The factor of the merged difference.
    pub lambda: f64,
    /// What elects the sign of an element.
    pub consensus: Consensus,
    /// The reading of SCE.
    pub variant: Variant,
    /// The fraction of the varying elements that decide the shares in SCE.
    pub select_topk: f64,
}

impl Method {
    /// Gives the method's row in the table.
    pub fn row(&self) -> &'static Row {
        self.method.0
    }

    /// Lists everything that is wrong whatever the number of models: parameters that the method does not take,
    /// missing ones, values out of range.
    pub fn check(&self) -> Vec<String> {
        let row = self.row();
        let mut problems = Vec::new();
        let given = self.given();
        for name in &given {
            if !row.parameters.iter().any(|parameter| parameter.name == *name) {
                let known: Vec<&str> = row.parameters.iter().map(|parameter| parameter.name).collect();
                problems.push(format!(
                    "the method \"{}\" has no parameter \"{name}\"; it takes {}",
                    row.name,
                    known.join(", ")
                ));
            }
        }
        for parameter in row.parameters.iter().filter(|parameter| parameter.default.is_none()) {
            if !given.contains(&parameter.name) {
                problems.push(format!("the method \"{}\" needs \"{}\": {}", row.name, parameter.name, parameter.doc));
            }
        }
        let mut range = |name: &str, value: f64, fits: bool, expected: &str| {
            if !fits {
                problems.push(format!("\"{name}\" is {value}, expected {expected}"));
            }
        };
        for &weight in self.weights.iter().flat_map(PerModel::values) {
            range("weights", weight, weight.is_finite(), "a finite number");
        }
        for &density in self.density.iter().flat_map(PerModel::values) {
            range("density", density, density > 0.0 && density <= 1.0, "a fraction above 0 and up to 1");
        }
        if let Some(lambda) = self.lambda {
            range("lambda", lambda, lambda.is_finite(), "a finite number");
        }
        if let Some(tau) = self.select_topk {
            range("select_topk", tau, tau > 0.0 && tau <= 1.0, "a fraction above 0 and up to 1");
        }
        problems
    }

    /// Writes out every default of a parameter that the method takes, so that leaving it out and giving it are one
    /// setting.
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        let row = self.row();
        let takes = |name: &str| row.parameters.iter().any(|parameter| parameter.name == name);
        if takes("density") {
            self.density.get_or_insert(PerModel::All(DEFAULT_DENSITY));
        }
        if takes("normalize") {
            self.normalize.get_or_insert(row.normalize);
        }
        if takes("lambda") {
            self.lambda.get_or_insert(DEFAULT_LAMBDA);
        }
        if takes("consensus") {
            self.consensus.get_or_insert(DEFAULT_CONSENSUS);
        }
        if takes("variant") {
            self.variant.get_or_insert(DEFAULT_VARIANT);
        }
        if takes("select_topk") {
            self.select_topk.get_or_insert(DEFAULT_SELECT_TOPK);
        }
        self
    }

    /// Fills in the defaults for `n_models` models.
    ///
    /// # Errors
    /// The problems of lists that do not have one value for each model.
    pub fn settings(&self, n_models: usize) -> Result<Settings, Vec<String>> {
        let mut problems = Vec::new();
        let mut each = |name: &str, given: &Option<PerModel>, default: f64| match given {
            None => vec![default; n_models],
            Some(PerModel::All(value)) => vec![*value; n_models],
            Some(PerModel::Each(values)) => {
                if values.len() != n_models {
                    problems.push(format!(
                        "\"{name}\" lists {} values for {n_models} models; give one for each, or one number for all",
                        values.len()
                    ));
                }
                values.clone()
            }
        };
        let weights = each("weights", &self.weights, 1.0);
        let density = each("density", &self.density, DEFAULT_DENSITY);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Settings {
            weights,
            density,
            normalize: self.normalize.unwrap_or(self.row().normalize),
            lambda: self.lambda.unwrap_or(DEFAULT_LAMBDA),
            consensus: self.consensus.unwrap_or(DEFAULT_CONSENSUS),
            variant: self.variant.unwrap_or(DEFAULT_VARIANT),
            select_topk: self.select_topk.unwrap_or(DEFAULT_SELECT_TOPK),
        })
    }

    /// The names of the parameters that were written.
    fn given(&self) -> Vec<&'static str> {
        [
            ("weights", self.weights.is_some()),
            ("density", self.density.is_some()),
            ("normalize", self.normalize.is_some()),
            ("lambda", self.lambda.is_some()),
            ("consensus", self.consensus.is_some()),
            ("variant", self.variant.is_some()),
            ("select_topk", self.select_topk.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect()
    }
}

impl Name {
    /// Finds a method by its name.
    pub fn find(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(Self)
    }

    /// Gives the name as it is written.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::find(&name).ok_or_else(|| {
            let known: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
            de::Error::custom(format!("unknown method \"{name}\", expected one of {}", known.join(", ")))
        })
    }
}

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MergeMethod".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        json_schema!({"type": "string", "enum": names})
    }
}

impl PerModel {
    /// The values as written.
    fn values(&self) -> &[f64] {
        match self {
            Self::All(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }
}

impl Serialize for PerModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(value) => value.serialize(serializer),
            Self::Each(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PerModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrList;
        impl<'de> Visitor<'de> for NumberOrList {
            type Value = PerModel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a list of numbers, one for each model")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<PerModel, E> {
                Ok(PerModel::All(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<PerModel, E> {
                Ok(PerModel::All(value as f64))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<PerModel, E> {
                Ok(PerModel::All(value as f64))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PerModel, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(PerModel::Each(values))
            }
        }
        deserializer.deserialize_any(NumberOrList)
    }
}

impl JsonSchema for PerModel {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NumberOrListPerModel".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Method, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn survives_a_round_trip() {
        for text in [
            r#"{"method":"linear","weights":[1.0,2.0]}"#,
            r#"{"method":"ties","weights":0.5,"density":0.6,"normalize":false,"lambda":0.7,"consensus":"count"}"#,
            r#"{"method":"sce","variant":"mergekit","select_topk":0.1}"#,
        ] {
            let method = parse(text).unwrap();
            assert_eq!(serde_json::to_string(&method).unwrap(), text);
            assert_eq!(method.check(), [] as [String; 0]);
        }
    }

    #[test]
    fn defaults_of_what_the_method_takes_are_written_out() {
        let filled = |text: &str| serde_json::to_string(&parse(text).unwrap().with_defaults()).unwrap();
        assert_eq!(
            filled(r#"{"method":"linear","weights":2}"#),
            r#"{"method":"linear","weights":2.0,"normalize":true}"#
        );
        assert_eq!(
            filled(r#"{"method":"ties","weights":1,"lambda":0.5}"#),
            r#"{"method":"ties","weights":1.0,"density":1.0,"normalize":true,"lambda":0.5,"consensus":"sum"}"#
        );
        assert_eq!(filled(r#"{"method":"sce"}"#), r#"{"method":"sce","variant":"fuseai","select_topk":1.0}"#);
    }

    #[test]
    fn unknown_words_are_named() {
        let message = parse(r#"{"method": "tise"}"#).unwrap_err();
        assert!(message.contains("unknown method \"tise\", expected one of linear, task_arithmetic"), "{message}");
        let message = parse(r#"{"method": "ties", "densty": 1}"#).unwrap_err();
        assert!(message.contains("unknown field `densty`"), "{message}");
        let message = parse(r#"{"method": "ties", "weights": "a"}"#).unwrap_err();
        assert!(message.contains("a number, or a list of numbers"), "{message}");
    }

    #[test]
    fn every_problem_is_listed() {
        let method = parse(r#"{"method": "linear", "density": [0.5, 0, 2], "select_topk": -1, "lambda": 1}"#).unwrap();
        let problems = method.check().join("\n");
        for expected in [
            "the method \"linear\" has no parameter \"density\"; it takes weights, normalize",
            "has no parameter \"select_topk\"",
            "has no parameter \"lambda\"",
            "needs \"weights\"",
            "\"density\" is 0, expected",
            "\"density\" is 2, expected",
            "\"select_topk\" is -1, expected",
        ] {
            assert!(problems.contains(expected), "{problems}");
        }
        assert_eq!(method.check().len(), 7);
    }

    #[test]
    fn lists_must_have_one_value_for_each_model() {
        let method = parse(r#"{"method": "ties", "weights": [1, 2], "density": [1]}"#).unwrap();
        let problems = method.settings(3).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("\"weights\" lists 2 values for 3 models"));
        let settings = parse(r#"{"method": "task_arithmetic", "weights": 0.3}"#).unwrap().settings(2).unwrap();
        assert_eq!((settings.weights, settings.normalize, settings.lambda), (vec![0.3, 0.3], false, 1.0));
    }
}
