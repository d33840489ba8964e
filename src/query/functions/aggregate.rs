//! Figures of many rows: rates of wins, and how sure a mean is.
//!
//! The interval of a mean does not depend on the order in which rows come: values are sorted before they are drawn from.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{ScalarValue, exec_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::physical_expr::expressions::Literal;
use fuseline_metrics::stats::{Interval, bootstrap_mean};

/// Share of the bootstrap's means that an interval spans.
const LEVEL: f64 = 0.95;
/// How many means it is made of.
const RESAMPLES: usize = 1000;

/// What is made of the rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    /// `win_rate(a, b)`.
    WinRate,
    /// `stderr_mean(x)`.
    StandardError,
    /// An end of the bootstrap's interval: `(x[, seed])`.
    Bootstrap(fn(Interval) -> f64),
}

/// A function of many rows.
#[derive(Debug)]
pub(super) struct Aggregate {
    name: &'static str,
    of: Of,
    signature: Signature,
}

impl Aggregate {
    /// The function of a name.
    pub fn new(name: &'static str, of: Of) -> Self {
        use DataType::{Float64, Int64};
        let forms: &[&[DataType]] = match of {
            Of::WinRate => &[&[Float64, Float64]],
            Of::StandardError => &[&[Float64]],
            Of::Bootstrap(_) => &[&[Float64], &[Float64, Int64]],
        };
        let forms = forms.iter().map(|types| TypeSignature::Exact(types.to_vec())).collect();
        Self { name, of, signature: Signature::one_of(forms, Volatility::Immutable) }
    }
}

// A name stands for one function.
impl PartialEq for Aggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Aggregate {}

impl Hash for Aggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let numbers = ["a", "b", "c"].map(|name| (name, DataType::Float64));
        let fields = match self.of {
            Of::WinRate => numbers[..2].to_vec(),
            Of::StandardError => numbers.to_vec(),
            Of::Bootstrap(_) => vec![("values", list_of_numbers())],
        };
        let name = |part: &str| format!("{}[{part}]", arguments.name);
        Ok(fields.into_iter().map(|(part, kind)| Arc::new(Field::new(name(part), kind, true))).collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if arguments.is_distinct {
            return plan_err!("{} has no DISTINCT: take distinct rows in a subquery", self.name);
        }
        Ok(match self.of {
            Of::WinRate => Box::new(WinRate::default()),
            Of::StandardError => Box::new(StandardError::default()),
            Of::Bootstrap(end) => Box::new(Bootstrap { values: Vec::new(), seed: seed(self.name, &arguments)?, end }),
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn list_of_numbers() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

/// The second argument, which must be written out; zero if it is left out.
fn seed(name: &str, arguments: &AccumulatorArgs) -> Result<u64> {
    let Some(given) = arguments.exprs.get(1) else { return Ok(0) };
    match given.downcast_ref::<Literal>().map(Literal::value) {
        Some(ScalarValue::Int64(Some(seed))) => Ok(*seed as u64),
        _ => plan_err!("{name}: the seed must be a whole number written out"),
    }
}

/// Wins and half the ties over the rows.
#[derive(Debug, Default)]
struct WinRate {
    wins: f64,
    rows: f64,
}

impl Accumulator for WinRate {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let (a, b) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
        for (a, b) in a.iter().zip(b).filter_map(|(a, b)| a.zip(b)) {
            self.rows += 1.0;
            self.wins += match a.partial_cmp(&b) {
                Some(std::cmp::Ordering::Greater) => 1.0,
                Some(std::cmp::Ordering::Equal) => 0.5,
                Some(std::cmp::Ordering::Less) => 0.0,
                None => return Err(exec_datafusion_err!("win_rate({a}, {b}): NaN is neither more nor less")),
            };
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64((self.rows > 0.0).then(|| self.wins / self.rows)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.wins.into(), self.rows.into()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (sum, array) in [&mut self.wins, &mut self.rows].into_iter().zip(states) {
            *sum += array.as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        }
        Ok(())
    }
}

/// Count, mean and squared deviations, merged as Chan, Golub and LeVeque do (Technical Report STAN-CS-79-773).
#[derive(Debug, Default)]
struct StandardError {
    n: f64,
    mean: f64,
    squares: f64,
}

impl StandardError {
    fn merge(&mut self, n: f64, mean: f64, squares: f64) {
        if n > 0.0 {
            let (all, delta) = (self.n + n, mean - self.mean);
            self.squares += squares + delta * delta * self.n * n / all;
            self.mean += delta * n / all;
            self.n = all;
        }
    }
}

impl Accumulator for StandardError {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        arrays[0].as_primitive::<Float64Type>().iter().flatten().for_each(|value| self.merge(1.0, value, 0.0));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let error = (self.n > 1.0).then(|| (self.squares / (self.n - 1.0) / self.n).sqrt());
        Ok(ScalarValue::Float64(error))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.n.into(), self.mean.into(), self.squares.into()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [n, mean, squares] = [0, 1, 2].map(|part| states[part].as_primitive::<Float64Type>());
        for row in 0..n.len() {
            self.merge(n.value(row), mean.value(row), squares.value(row));
        }
        Ok(())
    }
}

/// All values, until the interval is wanted.
#[derive(Debug)]
struct Bootstrap {
    values: Vec<f64>,
    seed: u64,
    end: fn(Interval) -> f64,
}

impl Accumulator for Bootstrap {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        self.values.extend(arrays[0].as_primitive::<Float64Type>().iter().flatten());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_unstable_by(f64::total_cmp);
        let interval = bootstrap_mean(&self.values, LEVEL, RESAMPLES, self.seed)
            .map_err(|error| exec_datafusion_err!("bootstrap: {error}"))?;
        Ok(ScalarValue::Float64(interval.map(self.end)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.values.iter().map(|value| Some(*value));
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values)]);
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        }
        Ok(())
    }
}
