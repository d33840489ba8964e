//! Functions of several answers to one question: which choice a model finds
//! likeliest, what most answers say, how often one of k passes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use fuseline_metrics::code;

use super::scalar::Scalar;
use super::vector::lists;

/// `pass_at_k(n, c, k)`.
pub(super) fn pass_at_k(name: &'static str) -> Scalar {
    const COUNTS: &[&[DataType]] = &[&[DataType::Int64, DataType::Int64, DataType::Int64]];
    Scalar::new(name, COUNTS, DataType::Float64, |arrays| {
        let [n, c, k] = [0, 1, 2].map(|index| arrays[index].as_primitive::<Int64Type>());
        let of = |((n, c), k): ((Option<i64>, Option<i64>), Option<i64>)| {
            let (Some(n), Some(c), Some(k)) = (n, c, k) else { return Ok(None) };
            let counts = (u64::try_from(n).ok(), u64::try_from(c).ok(), u64::try_from(k).ok());
            let share = match counts {
                (Some(n), Some(c), Some(k)) => code::pass_at_k(n, c, k),
                _ => None,
            };
            let wrong = || exec_datafusion_err!("pass_at_k({n}, {c}, {k}): expected 0 <= c <= n and 1 <= k <= n");
            share.map(Some).ok_or_else(wrong)
        };
        Ok(Arc::new(n.iter().zip(c).zip(k).map(of).collect::<Result<Float64Array>>()?))
    })
}

/// `best_choice(scores)`.
pub(super) fn best_choice(name: &'static str) -> Scalar {
    Scalar::of_any(name, 1, DataType::Int64, |arrays| {
        let scores = lists("best_choice", &arrays[0])?;
        let best = |scores: Option<ArrayRef>| {
            let scores = scores?;
            let scores = scores.as_primitive::<Float64Type>();
            if scores.null_count() > 0 || scores.values().iter().any(|score| score.is_nan()) {
                return None;
            }
            // The first of equals.
            let better = |best: Option<usize>, index: usize| match best {
                Some(best) if scores.value(best) >= scores.value(index) => Some(best),
                _ => Some(index),
            };
            (0..scores.len()).fold(None, better).map(|index| index as i64)
        };
        Ok(Arc::new(scores.as_list::<i32>().iter().map(best).collect::<Int64Array>()))
    })
}

/// `majority(answer)` and `weighted_majority(answer, weight)`: the answer with the most rows, or the greatest sum of
/// weights; of equals the one that comes first in the order of bytes. Rows with a NULL are left out.
#[derive(Debug, Default)]
pub(super) struct Majority {
    /// Kept one by one, so that a sum does not depend on the order of rows.
    weights: BTreeMap<String, Vec<f64>>,
}

impl Accumulator for Majority {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let weights = arrays.get(1).map(|weights| weights.as_primitive::<Float64Type>());
        for (row, answer) in arrays[0].as_string::<i32>().iter().enumerate() {
            let weight = weights.map_or(Some(1.0), |weights| weights.is_valid(row).then(|| weights.value(row)));
            let (Some(answer), Some(weight)) = (answer, weight) else { continue };
            if weight.is_nan() {
                return Err(exec_datafusion_err!("weighted_majority: the weight of {answer:?} is NaN"));
            }
            self.weights.entry(answer.to_owned()).or_default().push(weight);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut best: Option<(&String, f64)> = None;
        for (answer, weights) in &mut self.weights {
            weights.sort_unstable_by(f64::total_cmp);
            let sum: f64 = weights.iter().sum();
            if best.is_none_or(|(_, most)| sum > most) {
                best = Some((answer, sum));
            }
        }
        Ok(ScalarValue::Utf8(best.map(|(answer, _)| answer.clone())))
    }

    fn size(&self) -> usize {
        let of = |(answer, weights): (&String, &Vec<f64>)| answer.capacity() + weights.capacity() * size_of::<f64>();
        size_of_val(self) + self.weights.iter().map(of).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut answers = ListBuilder::new(StringBuilder::new());
        let mut weights = Vec::new();
        for (answer, own) in &self.weights {
            for weight in own {
                answers.values().append_value(answer);
                weights.push(Some(*weight));
            }
        }
        answers.append(true);
        let weights = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(weights)]);
        Ok(vec![ScalarValue::List(Arc::new(answers.finish())), ScalarValue::List(Arc::new(weights))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (answers, weights) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (answers, weights) in answers.iter().zip(weights.iter()).filter_map(|(a, b)| a.zip(b)) {
            self.update_batch(&[answers, weights])?;
        }
        Ok(())
    }
}
