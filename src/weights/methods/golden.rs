//! Reading of the golden vectors of merging, for the tests of the methods. Must not know any method.

use serde_json::Value;

use super::Method;
use super::kernel::{Inputs, Values};
use crate::dtype::Float;

/// The files' own tolerance, absolute, in double precision.
const TOLERANCE: f64 = 1e-12;

/// The little-endian bytes of a case's tensors.
pub(super) struct Buffers {
    base: Option<Vec<u8>>,
    models: Vec<Vec<u8>>,
}

impl Buffers {
    pub(super) fn of(case: &Value) -> Self {
        let input = &case["input"];
        let base = (!input["base"].is_null()).then(|| flat(&input["base"]));
        let models: Vec<Vec<f64>> = input["tensors"].as_array().unwrap().iter().map(flat).collect();
        // Embeddings with unequal rows are cut to their common rows; columns are equal, so the flat prefix is it.
        let n = models.iter().map(Vec::len).min().unwrap();
        Self::new(base.as_deref(), &models.iter().map(|m| &m[..n]).collect::<Vec<_>>())
    }

    fn new(base: Option<&[f64]>, models: &[&[f64]]) -> Self {
        let bytes = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { base: base.map(bytes), models: models.iter().map(|m| bytes(m)).collect() }
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        let view = |bytes| Values::new(Float::F64, bytes);
        Inputs { base: self.base.as_deref().map(view), models: self.models.iter().map(|m| view(m)).collect() }
    }

    fn merge(&self, method: &Method) -> Result<Vec<f64>, String> {
        assert_eq!(method.check(), [] as [String; 0]);
        let settings = method.settings(self.models.len()).unwrap();
        let inputs = self.inputs();
        let kernel = (method.row().kernel)(&settings, &inputs)?;
        let mut merged = vec![0.0; inputs.n_elements()];
        // In two parts, so that the start index is used.
        let (left, right) = merged.split_at_mut(1);
        kernel(0, left);
        kernel(1, right);
        Ok(merged)
    }
}

pub(super) fn cases(text: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(text).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

/// The numbers of a nested list, in order.
pub(super) fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

pub(super) fn close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= TOLERANCE, "{got} is not {expected}");
    }
}

/// Merges plain values under the given settings (JSON).
pub(super) fn merge(method: &str, base: Option<&[f64]>, models: &[&[f64]]) -> Result<Vec<f64>, String> {
    Buffers::new(base, models).merge(&serde_json::from_str(method).unwrap())
}

/// Checks `expected` of every case of a file; `left_out` are parameters that mean nothing here.
pub(super) fn check(method: &str, text: &str, n_cases: usize, left_out: &[&str]) {
    let cases = cases(text);
    assert_eq!(cases.len(), n_cases);
    for case in cases {
        let mut params = case["params"].as_object().unwrap().clone();
        params.insert("method".to_owned(), method.into());
        if let Some(weight) = params.remove("weight") {
            params.insert("weights".to_owned(), weight);
        }
        // `is_embed` tells mergekit that the rows may differ; see `Buffers::of`.
        for name in left_out.iter().chain(&["is_embed"]) {
            params.remove(*name);
        }
        let method: Method = serde_json::from_value(Value::Object(params)).unwrap();
        close(&Buffers::of(&case).merge(&method).unwrap(), &flat(&case["expected"]));
    }
}
