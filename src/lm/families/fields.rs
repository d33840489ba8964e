//! Reads the fields of a `config.json` and says of each what was expected.
//!
//! It must not know any family; what is the same in all (sizes, rotary embedding, layer
//! types) is read here once.

use serde_json::{Map, Value};

use crate::arch::{Activation, Rope, RopeScaling};
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

    fn float(&self, field: &str) -> Result<f64> {
        self.optional_float(field)?.ok_or_else(|| self.missing(field, "a number"))
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

    /// Returns the gate's activation.
    pub fn activation(&self, field: &str, default: Activation) -> Result<Activation> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::String(name)) if name == "silu" || name == "swish" => Ok(Activation::Silu),
            Some(Value::String(name)) if name == "gelu_pytorch_tanh" || name == "gelu_new" => Ok(Activation::GeluTanh),
            Some(Value::String(name)) if name == "gelu" => Ok(Activation::Gelu),
            Some(found) => Err(self.wrong(field, found, "one of silu, gelu, gelu_pytorch_tanh")),
        }
    }

    /// Returns the rotary embedding from `rope_theta` and `rope_scaling`, or from
    /// `rope_parameters`, where newer configurations keep both.
    pub fn rope(&self, default_theta: f64) -> Result<Rope> {
        let theta = self.float_or("rope_theta", default_theta)?;
        for field in ["rope_parameters", "rope_scaling"] {
            match self.get(field) {
                None => continue,
                Some(Value::Object(map)) => {
                    let inner = Fields { map, prefix: format!("{}{field}.", self.prefix) };
                    return Ok(Rope { theta: inner.float_or("rope_theta", theta)?, scaling: inner.rope_scaling()? });
                }
                Some(found) => return Err(self.wrong(field, found, "an object")),
            }
        }
        Ok(Rope { theta, scaling: RopeScaling::Default })
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let field = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = match self.get(field) {
            None => return Ok(RopeScaling::Default),
            Some(found) => found,
        };
        match kind.as_str() {
            Some("default") => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear { factor: self.float("factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: self.float("factor")?,
                low_freq_factor: self.float("low_freq_factor")?,
                high_freq_factor: self.float("high_freq_factor")?,
                original_max_positions: self.float("original_max_position_embeddings")?,
            }),
            _ => Err(self.wrong(field, kind, "one of default, linear, llama3")),
        }
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
