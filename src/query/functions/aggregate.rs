//! Figures of many rows: rates of wins, how sure a mean is, whether two models differ on the same rows, votes, BLEU of a
//! corpus.
//!
//! Nothing that is resampled or clustered depends on the order in which rows come: values are sorted first.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{ScalarValue, exec_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::physical_expr::expressions::Literal;
use fuseline_metrics::stats::{SmallSample, clustered_standard_error};

use super::choice::Majority;
use super::overlap::{CorpusBleu, N_COUNTS};

/// A figure of sorted values, or of the sorted differences of two columns, by a seed; none of no values.
pub(super) type Figure = fn(&[f64], u64) -> std::result::Result<Option<f64>, String>;

/// What is made of the rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    /// `win_rate(a, b)`.
    WinRate,
    /// `stderr_mean(x)`.
    StandardError,
    /// `(x[, seed])`.
    Values(Figure),
    /// `(a, b[, seed])`: of the differences a - b of rows that have both.
    Pairs(Figure),
    /// `clustered_stderr(x, cluster)`.
    Clustered,
    /// `corpus_bleu(text, reference)`.
    CorpusBleu,
    /// `majority(answer)`.
    Majority,
    /// `weighted_majority(answer, weight)`.
    WeightedMajority,
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
        use DataType::{Boolean, Float64, Int64, Utf8};
        let forms: &[&[DataType]] = match of {
            Of::WinRate => &[&[Float64, Float64]],
            Of::StandardError => &[&[Float64]],
            Of::Values(_) => &[&[Float64], &[Float64, Int64]],
            Of::Pairs(_) => {
                &[&[Boolean, Boolean], &[Float64, Float64], &[Boolean, Boolean, Int64], &[Float64, Float64, Int64]]
            }
            Of::Clustered => &[&[Float64, Utf8]],
            Of::CorpusBleu => &[&[Utf8, Utf8]],
            Of::Majority => &[&[Utf8]],
            Of::WeightedMajority => &[&[Utf8, Float64]],
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
        Ok(match self.of {
            Of::Majority | Of::WeightedMajority => DataType::Utf8,
            _ => DataType::Float64,
        })
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let numbers = ["a", "b", "c"].map(|name| (name, DataType::Float64));
        let fields = match self.of {
            Of::WinRate => numbers[..2].to_vec(),
            Of::StandardError => numbers.to_vec(),
            Of::Values(_) | Of::Pairs(_) => vec![("values", list_of(DataType::Float64))],
            Of::Clustered => vec![("values", list_of(DataType::Float64)), ("clusters", list_of(DataType::Utf8))],
            Of::Majority | Of::WeightedMajority => {
                vec![("answers", list_of(DataType::Utf8)), ("weights", list_of(DataType::Float64))]
            }
            Of::CorpusBleu => vec![("count", DataType::UInt64); N_COUNTS],
        };
        let name = |place: usize, part: &str| format!("{}[{part}{place}]", arguments.name);
        let fields = fields.into_iter().enumerate();
        Ok(fields.map(|(place, (part, kind))| Arc::new(Field::new(name(place, part), kind, true))).collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if arguments.is_distinct {
            return plan_err!("{} has no DISTINCT: take distinct rows in a subquery", self.name);
        }
        Ok(match self.of {
            Of::WinRate => Box::new(WinRate::default()),
            Of::StandardError => Box::new(StandardError::default()),
            Of::Values(figure) => Box::new(Values::new(self.name, figure, seed(self.name, 1, &arguments)?)),
            Of::Pairs(figure) => Box::new(Values::new(self.name, figure, seed(self.name, 2, &arguments)?)),
            Of::Clustered => Box::new(Clustered::default()),
            Of::CorpusBleu => Box::new(CorpusBleu::default()),
            Of::Majority | Of::WeightedMajority => Box::new(Majority::default()),
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn list_of(kind: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(kind, true)))
}

/// The argument at this place, which must be written out; zero if it is left out.
fn seed(name: &str, place: usize, arguments: &AccumulatorArgs) -> Result<u64> {
    let Some(given) = arguments.exprs.get(place) else { return Ok(0) };
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

/// All values, or differences of two columns, until the figure is wanted.
#[derive(Debug)]
struct Values {
    name: &'static str,
    values: Vec<f64>,
    seed: u64,
    figure: Figure,
}

impl Values {
    fn new(name: &'static str, figure: Figure, seed: u64) -> Self {
        Self { name, values: Vec::new(), seed, figure }
    }
}

/// A column of numbers or truths as numbers.
fn numbers(array: &ArrayRef) -> Result<Float64Array> {
    Ok(arrow::compute::cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

impl Accumulator for Values {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let first = numbers(&arrays[0])?;
        // A seed is no column of differences; both kinds of figure may end with one.
        match arrays.get(1).filter(|array| array.data_type() != &DataType::Int64) {
            None => self.values.extend(first.iter().flatten()),
            Some(second) => {
                let second = numbers(second)?;
                self.values.extend(first.iter().zip(&second).filter_map(|(a, b)| Some(a? - b?)));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_unstable_by(f64::total_cmp);
        let figure = (self.figure)(&self.values, self.seed);
        Ok(ScalarValue::Float64(figure.map_err(|error| exec_datafusion_err!("{}: {error}", self.name))?))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![number_list(&self.values)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        }
        Ok(())
    }
}

fn number_list(values: &[f64]) -> ScalarValue {
    let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values.iter().copied().map(Some))]);
    ScalarValue::List(Arc::new(list))
}

/// All values with their clusters, until the error is wanted.
#[derive(Debug, Default)]
struct Clustered {
    rows: Vec<(f64, String)>,
}

impl Accumulator for Clustered {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let (values, clusters) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_string::<i32>());
        let rows = values.iter().zip(clusters).filter_map(|(value, cluster)| Some((value?, cluster?.to_owned())));
        self.rows.extend(rows);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.rows.sort_unstable_by(|a, b| a.1.cmp(&b.1).then(a.0.total_cmp(&b.0)));
        let rows = self.rows.iter().map(|(value, cluster)| (*value, cluster.as_str()));
        Ok(ScalarValue::Float64(clustered_standard_error(rows, SmallSample::Corrected)))
    }

    fn size(&self) -> usize {
        let texts: usize = self.rows.iter().map(|(_, cluster)| cluster.capacity()).sum();
        size_of_val(self) + self.rows.capacity() * size_of::<(f64, String)>() + texts
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<f64> = self.rows.iter().map(|(value, _)| *value).collect();
        let clusters: Vec<ScalarValue> = self.rows.iter().map(|(_, cluster)| cluster.as_str().into()).collect();
        Ok(vec![number_list(&values), ScalarValue::List(ScalarValue::new_list_nullable(&clusters, &DataType::Utf8))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>().iter().zip(states[1].as_list::<i32>().iter());
        for (values, clusters) in lists.filter_map(|(values, clusters)| values.zip(clusters)) {
            self.update_batch(&[values, clusters])?;
        }
        Ok(())
    }
}
