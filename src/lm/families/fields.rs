//! Reads the fields of a `config.json` and says of each what was expected.
//!
//! It must not know any family; what is the same in all (activation, layer types) is read here
//! once, and the rotary embedding in `rope.rs`.

use serde_json::{Map, Value};

use crate::arch::Activation;
use crate::error::{Error, Result};

/// Standard deviation of fresh weights where a configuration names none; the default of
/// every family's configuration in `transformers`.
pub const INITIALIZER_RANGE: f64 = 0.02;

/// The fields of a `config.json`. A field that is null counts as absent.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    prefix: String,
}

impl<'a> Fields<'a> {
    /// Takes the top level of a configuration; refuses quantised models.
    pub fn new(config: &'a Value) -> Result<Self> {
        let Value::Object(map) = config else {
            return Err(Error::Field {
                field: "the top level".into(),
                found: short(config),
                expected: "an object".into(),
            });
        };
        let fields = Fields { map, prefix: String::new() };
        if let Some(found) = fields.get("quantization_config") {
            return Err(fields.wrong("quantization_config", found, "none: use the unquantised weights of the model"));
        }
        Ok(fields)
    }

    /// Returns the whole configuration.
    pub fn config(&self) -> Value {
        Value::Object(self.map.clone())
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn wrong(&self, field: &str, found: &Value, expected: impl Into<String>) -> Error {
        Error::Field { field: format!("{}{field}", self.prefix), found: short(found), expected: expected.into() }
    }

    /// Makes the error of a field whose value cannot be followed.
    pub fn unfit(&self, field: &str, expected: impl Into<String>) -> Error {
        self.wrong(field, self.map.get(field).unwrap_or(&Value::Null), expected)
    }

    fn missing(&self, field: &str, expected: &str) -> Error {
        Error::MissingField { field: format!("{}{field}", self.prefix), expected: expected.into() }
    }

    /// Returns a text that must be there; `known` says which are understood.
    pub fn required_text(&self, field: &str, known: &str) -> Result<&'a str> {
        let expected = format!("one of {known}");
        match self.get(field) {
            None => Err(self.missing(field, &expected)),
            Some(Value::String(text)) => Ok(text),
            Some(found) => Err(self.wrong(field, found, expected)),
        }
    }

    /// Returns a whole number that must be there.
    pub fn int(&self, field: &str) -> Result<i64> {
        self.optional_int(field)?.ok_or_else(|| self.missing(field, "a whole number"))
    }

    /// Returns a whole number, or the default where it is absent.
    pub fn int_or(&self, field: &str, default: i64) -> Result<i64> {
        Ok(self.optional_int(field)?.unwrap_or(default))
    }

    /// Returns a whole number if it is there.
    pub fn optional_int(&self, field: &str) -> Result<Option<i64>> {
        self.get(field)
            .map(|found| found.as_i64().ok_or_else(|| self.wrong(field, found, "a whole number")))
            .transpose()
    }

    /// Returns a number, or the default where it is absent.
    pub fn float_or(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.optional_float(field)?.unwrap_or(default))
    }

    /// Returns a number if it is there.
    pub fn optional_float(&self, field: &str) -> Result<Option<f64>> {
        self.get(field).map(|found| found.as_f64().ok_or_else(|| self.wrong(field, found, "a number"))).transpose()
    }

    /// Returns a whole number: the default where it is absent, none where it is null.
    pub fn int_unless_null(&self, field: &str, default: i64) -> Result<Option<i64>> {
        Ok(self.optional_int(field)?.or((!self.map.contains_key(field)).then_some(default)))
    }

    /// Returns a number: the default where it is absent, none where it is null.
    pub fn float_unless_null(&self, field: &str, default: f64) -> Result<Option<f64>> {
        Ok(self.optional_float(field)?.or((!self.map.contains_key(field)).then_some(default)))
    }

    /// Returns a count, a whole number of at least one, that must be there.
    pub fn count(&self, field: &str) -> Result<i64> {
        match self.int(field)? {
            count if count < 1 => Err(self.unfit(field, "a number of at least 1")),
            count => Ok(count),
        }
    }

    /// Returns a number that must be there and above zero.
    pub fn positive(&self, field: &str) -> Result<f64> {
        self.optional_positive(field)?.ok_or_else(|| self.missing(field, "a number above 0"))
    }

    /// Returns a number above zero if it is there.
    pub fn optional_positive(&self, field: &str) -> Result<Option<f64>> {
        match self.optional_float(field)? {
            Some(value) if value <= 0.0 => Err(self.unfit(field, "a number above 0")),
            found => Ok(found),
        }
    }

    /// Returns a list of so many numbers above zero, which must be there.
    pub fn numbers(&self, field: &str, count: i64) -> Result<Vec<f64>> {
        let expected = format!("a list of {count} numbers above 0");
        let Some(found) = self.get(field) else { return Err(self.missing(field, &expected)) };
        let numbers: Option<Vec<f64>> = found.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        match numbers {
            Some(list) if list.len() as i64 == count && list.iter().all(|&number| number > 0.0) => Ok(list),
            _ => Err(self.wrong(field, found, expected)),
        }
    }

    /// Returns a text, or the default where it is absent.
    pub fn text_or(&self, field: &str, default: &'static str) -> Result<&'a str> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(found) => Err(self.wrong(field, found, "a text")),
        }
    }

    /// Returns the fields of an object if it is there.
    pub fn object(&self, field: &str) -> Result<Option<Self>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, prefix: format!("{}{field}.", self.prefix) })),
            Some(found) => Err(self.wrong(field, found, "an object")),
        }
    }

    /// Says whether a field is there.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// Says whether there is no field at all.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Returns a truth value, or the default where it is absent.
    pub fn bool_or(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(found) => Err(self.wrong(field, found, "true or false")),
        }
    }

    /// Refuses a switch that is on; `expected` says why.
    pub fn refuse(&self, field: &str, expected: &str) -> Result<()> {
        match self.get(field) {
            Some(found) if found != &Value::Bool(false) => Err(self.wrong(field, found, expected)),
            _ => Ok(()),
        }
    }

    /// Refuses any value but one, which is also the default; `why` says so.
    pub fn only(&self, field: &str, value: &Value, why: &str) -> Result<()> {
        let same = |found: &Value| match (found.as_f64(), value.as_f64()) {
            (Some(found), Some(value)) => found == value,
            _ => found == value,
        };
        match self.get(field) {
            Some(found) if !same(found) => Err(self.wrong(field, found, format!("{value}: {why}"))),
            _ => Ok(()),
        }
    }

    /// Returns the activation.
    pub fn activation(&self, field: &str, default: Activation) -> Result<Activation> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::String(name)) if name == "silu" || name == "swish" => Ok(Activation::Silu),
            Some(Value::String(name)) if name == "gelu_pytorch_tanh" || name == "gelu_new" => Ok(Activation::GeluTanh),
            Some(Value::String(name)) if name == "gelu" => Ok(Activation::Gelu),
            Some(found) => Err(self.wrong(field, found, "one of silu, gelu, gelu_pytorch_tanh")),
        }
    }

    /// Returns the number of experts, for which two names are about.
    pub fn experts(&self, default: i64) -> Result<i64> {
        match self.optional_int("num_experts")? {
            Some(experts) => Ok(experts),
            None => self.int_or("num_local_experts", default),
        }
    }

    /// Returns per layer whether it has experts: every `decoder_sparse_step`th, except
    /// `mlp_only_layers`.
    pub fn sparse_layers(&self, n_layers: i64) -> Result<Vec<bool>> {
        let step = self.int_or("decoder_sparse_step", 1)?;
        if step < 1 {
            return Err(self.unfit("decoder_sparse_step", "a number of at least 1"));
        }
        let dense: Option<Vec<i64>> = match self.get("mlp_only_layers") {
            None => Some(Vec::new()),
            Some(found) => found.as_array().and_then(|list| list.iter().map(Value::as_i64).collect()),
        };
        let dense = dense.ok_or_else(|| self.unfit("mlp_only_layers", "a list of layers' numbers, from 0"))?;
        Ok((0..n_layers).map(|layer| (layer + 1) % step == 0 && !dense.contains(&layer)).collect())
    }

    /// Returns per layer the attention window: from `layer_types` where it is there, else
    /// as `default` says of a layer's number whether it slides.
    pub fn windows(
        &self,
        n_layers: i64,
        window: Option<i64>,
        default: impl Fn(i64) -> bool,
    ) -> Result<Vec<Option<i64>>> {
        let Some(found) = self.get("layer_types") else {
            return Ok((0..n_layers).map(|layer| window.filter(|_| default(layer))).collect());
        };
        let expected = format!("{n_layers} entries, each full_attention or sliding_attention (with sliding_window)");
        let list = found.as_array().filter(|list| list.len() as i64 == n_layers);
        let Some(list) = list else { return Err(self.wrong("layer_types", found, expected)) };
        list.iter()
            .map(|kind| match (kind.as_str(), window) {
                (Some("full_attention"), _) => Ok(None),
                (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
                _ => Err(self.wrong("layer_types", kind, expected.clone())),
            })
            .collect()
    }
}

/// Shows a value without filling the screen.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}
