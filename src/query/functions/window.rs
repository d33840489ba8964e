//! Functions that see all rows of a partition and give a value for each: corrections of p-values.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

/// From the p-values of a partition to corrected ones, in their order.
pub(super) type Correction = fn(&[f64]) -> Vec<f64>;

/// A correction, used as `name(p) OVER (PARTITION BY …)`.
#[derive(Debug)]
pub(super) struct Window {
    name: &'static str,
    correction: Correction,
    signature: Signature,
}

impl Window {
    /// The function of a name.
    pub fn new(name: &'static str, correction: Correction) -> Self {
        Self { name, correction, signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

// A name stands for one function.
impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Window {}

impl Hash for Window {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl WindowUDFImpl for Window {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _arguments: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Partition { name: self.name, correction: self.correction }))
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(arguments.name(), DataType::Float64, true)))
    }
}

#[derive(Debug)]
struct Partition {
    name: &'static str,
    correction: Correction,
}

impl PartitionEvaluator for Partition {
    /// Rows without a p-value stay without, and do not count as tests.
    fn evaluate_all(&mut self, values: &[ArrayRef], _n_rows: usize) -> Result<ArrayRef> {
        let column = values[0].as_primitive::<Float64Type>();
        let p_values: Vec<f64> = column.iter().flatten().collect();
        if let Some(p) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return exec_err!("{}: {p} is no probability", self.name);
        }
        let mut corrected = (self.correction)(&p_values).into_iter();
        let of_row = (0..column.len()).map(|row| if column.is_valid(row) { corrected.next() } else { None });
        Ok(Arc::new(of_row.collect::<Float64Array>()))
    }
}
