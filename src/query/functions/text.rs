//! Functions of texts: hashes, answers, likeness.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use fuseline_metrics::{text, verify};

use super::scalar::Scalar;

/// Keeps the hash apart from every other use of BLAKE3; part of the function's definition.
const HASH_CONTEXT: &str = "fuseline 2026 sql hash_fraction v1";
/// How answers are found unless a query says otherwise.
const METHOD: &str = "numeric";

const TEXT: &[&[DataType]] = &[&[DataType::Utf8]];
const TEXTS: &[&[DataType]] = &[&[DataType::Utf8, DataType::Utf8]];
const TEXTS_AND_LENGTH: &[&[DataType]] = &[&[DataType::Utf8, DataType::Utf8, DataType::Int64]];

/// A text's place in [0, 1), evenly spread and the same for ever.
///
/// The first eight bytes of BLAKE3 in key-derivation mode (context `fuseline 2026 sql hash_fraction v1`) over the text's
/// UTF-8 bytes, big-endian; their upper 53 bits divided by 2^53, so that the quotient is exact and below 1.
pub fn hash_fraction(text: &str) -> f64 {
    let digest = blake3::derive_key(HASH_CONTEXT, text.as_bytes());
    let bytes = digest.first_chunk::<8>().expect("a digest has 32 bytes");
    (u64::from_be_bytes(*bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

/// `hash_fraction(text)`.
pub(super) fn hash_fraction_function(name: &'static str) -> Scalar {
    Scalar::new(name, TEXT, DataType::Float64, |arrays| {
        let texts = arrays[0].as_string::<i32>();
        Ok(Arc::new(texts.iter().map(|text| text.map(hash_fraction)).collect::<Float64Array>()))
    })
}

/// `extract_answer(text[, method])`.
pub(super) fn extract_answer(name: &'static str) -> Scalar {
    Scalar::new(name, &[TEXT[0], TEXTS[0]], DataType::Utf8, |arrays| {
        let texts = arrays[0].as_string::<i32>();
        let methods = arrays.get(1).map(|array| array.as_string::<i32>());
        let extract = |row: usize, text: Option<&str>| {
            let method = match methods {
                None => Some(METHOD),
                Some(methods) => methods.iter().nth(row).flatten(),
            };
            let (Some(text), Some(method)) = (text, method) else { return Ok(None) };
            let verifier = verify::find(method).map_err(|error| exec_datafusion_err!("extract_answer: {error}"))?;
            Ok((verifier.extract)(text))
        };
        let answers = texts.iter().enumerate().map(|(row, text)| extract(row, text));
        Ok(Arc::new(answers.collect::<Result<StringArray>>()?))
    })
}

/// `edit_distance(a, b)`.
pub(super) fn edit_distance(name: &'static str) -> Scalar {
    Scalar::new(name, TEXTS, DataType::Int64, |arrays| {
        let distances = pairs(arrays).map(|pair| pair.map(|(a, b)| text::edit_distance(a, b) as i64));
        Ok(Arc::new(distances.collect::<Int64Array>()))
    })
}

/// `edit_similarity(a, b)`.
pub(super) fn edit_similarity(name: &'static str) -> Scalar {
    Scalar::new(name, TEXTS, DataType::Float64, |arrays| {
        let shares = pairs(arrays).map(|pair| pair.map(|(a, b)| text::edit_similarity(a, b)));
        Ok(Arc::new(shares.collect::<Float64Array>()))
    })
}

/// `ngram_overlap(a, b, n)`.
pub(super) fn ngram_overlap(name: &'static str) -> Scalar {
    Scalar::new(name, TEXTS_AND_LENGTH, DataType::Float64, |arrays| runs("ngram_overlap", arrays, text::ngram_overlap))
}

/// `ngram_jaccard(a, b, n)`.
pub(super) fn ngram_jaccard(name: &'static str) -> Scalar {
    Scalar::new(name, TEXTS_AND_LENGTH, DataType::Float64, |arrays| runs("ngram_jaccard", arrays, text::ngram_jaccard))
}

fn runs(name: &str, arrays: &[ArrayRef], of: fn(&str, &str, usize) -> Option<f64>) -> Result<ArrayRef> {
    let lengths = arrays[2].as_primitive::<Int64Type>().iter();
    let row = |(pair, n): (Option<(&str, &str)>, Option<i64>)| match (pair, n) {
        (Some(_), Some(n)) if n < 1 => {
            Err(exec_datafusion_err!("{name}: n is {n}, expected a number of words, at least 1"))
        }
        (Some((a, b)), Some(n)) => Ok(of(a, b, usize::try_from(n).unwrap_or(usize::MAX))),
        _ => Ok(None),
    };
    Ok(Arc::new(pairs(arrays).zip(lengths).map(row).collect::<Result<Float64Array>>()?))
}

/// The rows of the first two arguments; none where one is null.
fn pairs(arrays: &[ArrayRef]) -> impl Iterator<Item = Option<(&str, &str)>> {
    arrays[0].as_string::<i32>().iter().zip(arrays[1].as_string::<i32>()).map(|(a, b)| a.zip(b))
}
