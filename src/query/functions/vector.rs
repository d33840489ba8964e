//! Functions of lists of numbers: embeddings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;

use super::scalar::Scalar;

/// `cosine_similarity(a, b)`.
pub(super) fn cosine(name: &'static str) -> Scalar {
    Scalar::of_any(name, 2, DataType::Float64, |arrays| {
        let (left, right) = (lists("cosine_similarity", &arrays[0])?, lists("cosine_similarity", &arrays[1])?);
        let (left, right) = (left.as_list::<i32>(), right.as_list::<i32>());
        let cosines = left.iter().zip(right.iter()).map(|pair| match pair {
            (Some(a), Some(b)) => of_lists(&a, &b),
            _ => Ok(None),
        });
        Ok(Arc::new(cosines.collect::<Result<Float64Array>>()?))
    })
}

/// Brings a column to lists of `Float64`.
pub(super) fn lists(function: &str, array: &ArrayRef) -> Result<ArrayRef> {
    let wanted = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    let numbers = match array.data_type() {
        DataType::Null => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric() || item.data_type().is_null()
        }
        _ => false,
    };
    if !numbers {
        return exec_err!("{function}: {} is no list of numbers", array.data_type());
    }
    Ok(compute::cast(array, &wanted)?)
}

/// `Σ aᵢbᵢ / (√Σaᵢ² √Σbᵢ²)`, in -1..=1; none where a list is empty or all zeros, or holds a null.
fn of_lists(a: &ArrayRef, b: &ArrayRef) -> Result<Option<f64>> {
    if a.len() != b.len() {
        return Err(exec_datafusion_err!("cosine_similarity: lists of {} and {} numbers", a.len(), b.len()));
    }
    if a.null_count() + b.null_count() > 0 {
        return Ok(None);
    }
    let (a, b) = (a.as_primitive::<Float64Type>().values(), b.as_primitive::<Float64Type>().values());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    Ok((norms > 0.0).then(|| (dot(a, b) / norms).clamp(-1.0, 1.0)))
}
