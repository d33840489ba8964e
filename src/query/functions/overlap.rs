//! Functions of a text and its reference: BLEU, ROUGE, entities.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, ListBuilder, StringBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, Field, UInt64Type};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use fuseline_metrics::text::{self, BleuCounts, Entities, EntityRules};

use super::scalar::Scalar;

const TEXTS: &[&[DataType]] = &[&[DataType::Utf8, DataType::Utf8]];

/// `sentence_bleu(text, reference)`.
pub(super) fn sentence_bleu(name: &'static str) -> Scalar {
    of_texts(name, |arrays| each(arrays, |text, reference| BleuCounts::of(text, reference).sentence()))
}

/// `rouge_1(text, reference)`.
pub(super) fn rouge_1(name: &'static str) -> Scalar {
    of_texts(name, |arrays| each(arrays, |text, reference| text::rouge_n(text, reference, 1)))
}

/// `rouge_2(text, reference)`.
pub(super) fn rouge_2(name: &'static str) -> Scalar {
    of_texts(name, |arrays| each(arrays, |text, reference| text::rouge_n(text, reference, 2)))
}

/// `rouge_l(text, reference)`.
pub(super) fn rouge_l(name: &'static str) -> Scalar {
    of_texts(name, |arrays| each(arrays, text::rouge_l))
}

fn of_texts(name: &'static str, run: fn(&[ArrayRef]) -> Result<ArrayRef>) -> Scalar {
    Scalar::new(name, TEXTS, DataType::Float64, run)
}

fn each(arrays: &[ArrayRef], score: fn(&str, &str) -> f64) -> Result<ArrayRef> {
    let pairs = arrays[0].as_string::<i32>().iter().zip(arrays[1].as_string::<i32>());
    let scores = pairs.map(|(text, reference)| text.zip(reference).map(|(text, reference)| score(text, reference)));
    Ok(Arc::new(scores.collect::<Float64Array>()))
}

/// `find_entities(text, values, rules)`.
pub(super) fn find_entities(name: &'static str) -> Scalar {
    Scalar::of_any(name, 3, list_of_texts(), |arrays| {
        let cast = |array: &ArrayRef, to: &DataType| {
            compute::cast(array, to)
                .map_err(|_| exec_datafusion_err!("find_entities: {} is not {to}", array.data_type()))
        };
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let values = cast(&arrays[1], &list_of_texts())?;
        let rules = cast(&arrays[2], &DataType::Utf8)?;
        let rows = texts.as_string::<i32>().iter().zip(values.as_list::<i32>().iter()).zip(rules.as_string::<i32>());
        let mut found = ListBuilder::new(StringBuilder::new());
        // Most often one list of values serves all rows.
        let mut prepared: Option<(ArrayRef, EntityRules, Entities)> = None;
        for row in rows {
            let ((Some(text), Some(values)), Some(rules)) = row else {
                found.append_null();
                continue;
            };
            let rules: EntityRules = rules.parse().map_err(|error| exec_datafusion_err!("find_entities: {error}"))?;
            let kept = prepared.take().filter(|(own, of, _)| *of == rules && **own == *values);
            let (own, of, entities) = kept.unwrap_or_else(|| {
                let entities = Entities::new(values.as_string::<i32>().iter().flatten(), rules);
                (values, rules, entities)
            });
            found.append_value(entities.find(text).into_iter().map(Some));
            prepared = Some((own, of, entities));
        }
        Ok(Arc::new(found.finish()))
    })
}

fn list_of_texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// `corpus_bleu(text, reference)`: counts of all rows together; rows with a NULL are left out.
#[derive(Debug, Default)]
pub(super) struct CorpusBleu {
    counts: BleuCounts,
    rows: u64,
}

/// How many numbers its state has.
pub(super) const N_COUNTS: usize = 11;

impl CorpusBleu {
    fn numbers(&self) -> [u64; N_COUNTS] {
        let BleuCounts { matched: [a, b, c, d], total: [e, f, g, h], length, reference_length } = self.counts;
        [a, b, c, d, e, f, g, h, length, reference_length, self.rows]
    }
}

impl Accumulator for CorpusBleu {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let pairs = arrays[0].as_string::<i32>().iter().zip(arrays[1].as_string::<i32>());
        for (text, reference) in pairs.filter_map(|(text, reference)| text.zip(reference)) {
            self.counts.add(&BleuCounts::of(text, reference));
            self.rows += 1;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64((self.rows > 0).then(|| self.counts.corpus())))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(self.numbers().map(ScalarValue::from).to_vec())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let columns: Vec<_> = states.iter().map(|state| state.as_primitive::<UInt64Type>()).collect();
        for row in 0..columns[0].len() {
            let n = |column: usize| columns[column].value(row);
            self.counts.add(&BleuCounts {
                matched: [n(0), n(1), n(2), n(3)],
                total: [n(4), n(5), n(6), n(7)],
                length: n(8),
                reference_length: n(9),
            });
            self.rows += n(10);
        }
        Ok(())
    }
}
