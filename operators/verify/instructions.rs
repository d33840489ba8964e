//! The method `ifeval`: instructions and their arguments from the columns of a
//! table, verdicts as columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, ListBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use fuseline_contract::rows::Response;
use fuseline_contract::{StageError, Table};
use fuseline_metrics::ifeval::{Arguments, Followed, Instructions};
use fuseline_metrics::verify::Verdict;

const KINDS: &str = "instruction_id_list";
const ARGUMENTS: &str = "kwargs";

/// A verdict a response, and the columns that say more.
pub fn judge(table: &Table, responses: &[Response]) -> Result<(Vec<Verdict>, Vec<(Field, ArrayRef)>), StageError> {
    let batch = table.one_batch()?;
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            StageError::input(format!("the responses have no column {name:?}, which the method \"ifeval\" reads"))
                .hint("carry it along from the prompts: extra columns of prompts are passed through by `sample`")
        })
    };
    let kinds = texts(column(KINDS)?)?;
    let arguments = json(column(ARGUMENTS)?)?;
    let mut followed = Vec::with_capacity(responses.len());
    for ((response, kinds), arguments) in responses.iter().zip(kinds).zip(arguments) {
        let instructions =
            arguments.and_then(|arguments| Instructions::read(&kinds, &arguments).map_err(|error| error.to_string()));
        let instructions =
            instructions.map_err(|error| StageError::input(format!("prompt {:?}: {error}", response.prompt_id)))?;
        followed.push(instructions.judge(&response.text));
    }
    let verdict = |followed: &Followed| Verdict { extracted: None, correct: followed.all_strict() };
    let verdicts = followed.iter().map(verdict).collect();
    let all_loose: BooleanArray = followed.iter().map(|followed| Some(followed.all_loose())).collect();
    Ok((
        verdicts,
        vec![
            list("follow_instruction_list_strict", followed.iter().map(|followed| followed.strict.as_slice())),
            list("follow_instruction_list_loose", followed.iter().map(|followed| followed.loose.as_slice())),
            (Field::new("follow_all_loose", DataType::Boolean, true), Arc::new(all_loose)),
        ],
    ))
}

fn list<'f>(name: &str, lists: impl Iterator<Item = &'f [bool]>) -> (Field, ArrayRef) {
    let mut builder = ListBuilder::new(BooleanBuilder::new());
    for list in lists {
        builder.append_value(list.iter().copied().map(Some));
    }
    let array = builder.finish();
    (Field::new(name, array.data_type().clone(), true), Arc::new(array))
}

/// A column of lists of texts; a null is no text.
fn texts(column: &ArrayRef) -> Result<Vec<Vec<String>>, StageError> {
    let wanted = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let is_list =
        matches!(column.data_type(), DataType::List(item) | DataType::LargeList(item) if item.data_type().is_string());
    if !is_list {
        return Err(StageError::input(format!("{KINDS:?} is {}, expected a list of texts", column.data_type())));
    }
    let lists = arrow::compute::cast(column, &wanted).map_err(|error| StageError::bug(error.to_string()))?;
    let texts = |row: Option<ArrayRef>| {
        row.map(|items| items.as_string::<i32>().iter().flatten().map(str::to_owned).collect()).unwrap_or_default()
    };
    Ok(lists.as_list::<i32>().iter().map(texts).collect())
}

/// A column of lists of arguments, however they are held; an error is of one row.
fn json(column: &ArrayRef) -> Result<Vec<Result<Vec<Arguments>, String>>, StageError> {
    let bug = |error: arrow::error::ArrowError| StageError::bug(error.to_string());
    let schema = Schema::new(vec![Field::new(ARGUMENTS, column.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![column.clone()]).map_err(bug)?;
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(&batch).and_then(|()| writer.finish()).map_err(bug)?;
    let lines = writer.into_inner();
    let rows = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(rows.map(|line| arguments(serde_json::from_slice(line).unwrap_or_default())).collect())
}

/// The arguments of a row `{"kwargs": …}`: a list of objects or of their JSON, or the JSON of such a list.
fn arguments(row: serde_json::Value) -> Result<Vec<Arguments>, String> {
    use serde_json::Value;
    let parse = |text: &str| {
        serde_json::from_str::<Value>(text)
            .map_err(|error| format!("{ARGUMENTS:?} holds {text:?}, which is no JSON: {error}"))
    };
    let list = match row.get(ARGUMENTS) {
        None | Some(Value::Null) => return Ok(vec![]),
        Some(Value::String(text)) => parse(text)?,
        Some(list) => list.clone(),
    };
    let Value::Array(items) = list else { return Err(format!("{ARGUMENTS:?} is no list")) };
    let one = |item: Value| {
        let item = if let Value::String(text) = &item { parse(text)? } else { item };
        match item {
            Value::Object(arguments) => Ok(arguments),
            Value::Null => Ok(Arguments::new()),
            other => Err(format!("{ARGUMENTS:?} holds {other}, expected an object")),
        }
    };
    items.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_however_they_are_held() {
        let of = |json: &str| arguments(serde_json::from_str(json).expect("JSON"));
        let expected = Ok(vec![serde_json::from_str(r#"{"num_words": 3}"#).expect("JSON"), Arguments::new()]);
        assert_eq!(of(r#"{"kwargs": [{"num_words": 3}, {}]}"#), expected);
        assert_eq!(of(r#"{"kwargs": ["{\"num_words\": 3}", null]}"#), expected);
        assert_eq!(of(r#"{"kwargs": "[{\"num_words\": 3}, {}]"}"#), expected);
        assert_eq!(of(r#"{}"#), Ok(vec![]));
        for (json, part) in [
            (r#"{"kwargs": "[}"}"#, "no JSON"),
            (r#"{"kwargs": {"a": 1}}"#, "no list"),
            (r#"{"kwargs": [3]}"#, "holds 3"),
        ] {
            assert!(of(json).expect_err(json).contains(part));
        }
    }
}
