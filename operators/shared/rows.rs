//! Row types as parameters, single columns of tables, conversations in keys of rows.

use fuseline_contract::rows::{self, Cell, Message, RowType};
use fuseline_contract::value::Value;
use fuseline_contract::{Table, table::TableError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A row type, as written in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowsName {
    /// Questions put to models.
    Prompt,
    /// Answers of models.
    Response,
    /// Answers with scores.
    Scored,
    /// Conversations with an answer to learn.
    Example,
    /// Preferred and dispreferred answers.
    Preference,
    /// Log-probabilities of answers.
    #[serde(rename = "logprob")]
    LogProb,
    /// Figures about models.
    Metric,
    /// Curves of training runs.
    Trace,
}

impl RowsName {
    /// The row type.
    pub fn row_type(self) -> &'static RowType {
        match self {
            Self::Prompt => &rows::PROMPT,
            Self::Response => &rows::RESPONSE,
            Self::Scored => &rows::SCORED,
            Self::Example => &rows::EXAMPLE,
            Self::Preference => &rows::PREFERENCE,
            Self::LogProb => &rows::LOGPROB,
            Self::Metric => &rows::METRIC,
            Self::Trace => &rows::TRACE,
        }
    }
}

/// A conversation as it stands in the key of a row.
pub fn conversation(messages: &[Message]) -> Value {
    let turn = |turn: &Message| Value::List(vec![turn.role.as_str().into(), turn.content.as_str().into()]);
    Value::List(messages.iter().map(turn).collect())
}

/// Reads one column.
pub fn column<T: Cell>(table: &Table, name: &str) -> Result<Vec<T>, TableError> {
    let mut values = Vec::with_capacity(table.n_rows());
    for batch in table.batches() {
        let array = batch.column_by_name(name).ok_or_else(|| TableError::MissingColumn {
            column: name.to_owned(),
            found: table.schema().fields().iter().map(|field| field.name().clone()).collect(),
        })?;
        // Inner fields of lists may differ in nullability from file to file.
        let array = if array.data_type() == &T::data_type() {
            array.clone()
        } else {
            arrow::compute::cast(array, &T::data_type()).map_err(|_| TableError::WrongType {
                column: name.to_owned(),
                found: array.data_type().clone(),
                expected: T::data_type(),
            })?
        };
        for row in 0..batch.num_rows() {
            values.push(T::read(&array, row).ok_or_else(|| TableError::Null {
                column: name.to_owned(),
                row: values.len(),
                expected: T::data_type(),
            })?);
        }
    }
    Ok(values)
}
