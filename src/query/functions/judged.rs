//! Functions of a judge's texts, and of what is counted beside them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use fuseline_metrics::judged::{reward_bench, style, verdict};

use super::scalar::Scalar;

const TEXT: &[&[DataType]] = &[&[DataType::Utf8]];
const TEXTS: &[&[DataType]] = &[&[DataType::Utf8, DataType::Utf8]];

/// A function of one text that gives a number or NULL.
fn numbers(name: &'static str, run: fn(&[ArrayRef]) -> Result<ArrayRef>) -> Scalar {
    Scalar::new(name, TEXT, DataType::Float64, run)
}

fn each_number(arrays: &[ArrayRef], of: fn(&str) -> Option<f64>) -> Result<ArrayRef> {
    Ok(Arc::new(arrays[0].as_string::<i32>().iter().map(|text| text.and_then(of)).collect::<Float64Array>()))
}

fn each_text(arrays: &[ArrayRef], of: fn(&str) -> Option<&str>) -> Result<ArrayRef> {
    Ok(Arc::new(arrays[0].as_string::<i32>().iter().map(|text| text.and_then(of)).collect::<StringArray>()))
}

/// `judge_rating(text)`.
pub(super) fn judge_rating(name: &'static str) -> Scalar {
    numbers(name, |arrays| each_number(arrays, verdict::rating))
}

/// `arena_verdict(text)`.
pub(super) fn arena_verdict(name: &'static str) -> Scalar {
    Scalar::new(name, TEXT, DataType::Utf8, |arrays| each_text(arrays, verdict::arena_verdict))
}

/// `arena_score(label)`.
pub(super) fn arena_score(name: &'static str) -> Scalar {
    numbers(name, |arrays| each_number(arrays, verdict::arena_score))
}

/// `pair_verdict(text)`.
pub(super) fn pair_verdict(name: &'static str) -> Scalar {
    Scalar::new(name, TEXT, DataType::Utf8, |arrays| each_text(arrays, verdict::pair_verdict))
}

/// `reward_bench_section(subset)`.
pub(super) fn reward_bench_section(name: &'static str) -> Scalar {
    Scalar::new(name, TEXT, DataType::Utf8, |arrays| {
        each_text(arrays, |subset| reward_bench::find(subset).map(|subset| subset.section))
    })
}

/// `reward_bench_weight(subset)`.
pub(super) fn reward_bench_weight(name: &'static str) -> Scalar {
    numbers(name, |arrays| {
        each_number(arrays, |subset| reward_bench::find(subset).map(|subset| f64::from(subset.weight)))
    })
}

/// `count_markdown(text, what)`.
pub(super) fn count_markdown(name: &'static str) -> Scalar {
    Scalar::new(name, TEXTS, DataType::Int64, |arrays| {
        let (texts, marks) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let count = |(text, what): (Option<&str>, Option<&str>)| {
            let (Some(text), Some(what)) = (text, what) else { return Ok(None) };
            let found = style::markdown(text);
            match what {
                "bold" => Ok(Some(found.n_bold as i64)),
                "headers" => Ok(Some(found.n_headers as i64)),
                "list_items" => Ok(Some(found.n_list_items as i64)),
                _ => Err(exec_datafusion_err!("count_markdown: {what:?} is none of bold, headers, list_items")),
            }
        };
        Ok(Arc::new(texts.iter().zip(marks.iter()).map(count).collect::<Result<Int64Array>>()?))
    })
}
