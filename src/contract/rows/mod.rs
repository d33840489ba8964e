//! The row types that travel between operators. Their columns are fixed here,
//! once; a table may have more, which pass through.

use std::fmt;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

use crate::table::{Table, TableError};

mod cell;
mod example;
mod logprob;
mod metric;
mod preference;
mod prompt;
mod response;
mod scored;
mod trace;

pub use cell::Cell;
pub use example::{EXAMPLE, Example};
pub use logprob::{LOGPROB, LogProb, text_id};
pub use metric::{METRIC, Metric};
pub use preference::{PREFERENCE, Preference};
pub use prompt::{PROMPT, Prompt, prompt_id};
pub use response::{RESPONSE, Response};
pub use scored::{SCORED, Scored};
pub use trace::{TRACE, Trace};

/// Every row type; the reference page is generated from it.
pub const ALL: &[&RowType] = &[&PROMPT, &RESPONSE, &SCORED, &EXAMPLE, &PREFERENCE, &LOGPROB, &METRIC, &TRACE];

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }
}

/// A column of a row type.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Whether it may hold nulls, and may therefore be left out.
    pub nullable: bool,
    /// What it holds.
    pub doc: &'static str,
    data_type: fn() -> DataType,
}

impl Column {
    /// The Arrow field.
    pub fn field(&self) -> Field {
        Field::new(self.name, (self.data_type)(), self.nullable)
    }
}

/// A row type: a name and columns.
#[derive(Debug)]
pub struct RowType {
    /// Its name, as in `Prompt`.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    columns: fn() -> &'static [Column],
}

impl PartialEq for RowType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Display for RowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl RowType {
    /// The columns, in order.
    pub fn columns(&self) -> &'static [Column] {
        (self.columns)()
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns().iter().find(|column| column.name == name)
    }

    /// The Arrow schema.
    pub fn schema(&self) -> Schema {
        Schema::new(self.columns().iter().map(Column::field).collect::<Vec<_>>())
    }

    /// The first thing that `wanted` needs and this type does not promise.
    pub fn lacks(&self, wanted: &Self) -> Option<String> {
        wanted.columns().iter().filter(|column| !column.nullable).find_map(|needed| match self.column(needed.name) {
            None => Some(format!("column {:?} is missing", needed.name)),
            Some(made) if made.nullable => Some(format!("column {:?} may be null", needed.name)),
            Some(_) => None,
        })
    }
}

/// A row of a row type, as a struct.
pub trait Row: Sized {
    /// The row type.
    const TYPE: &'static RowType;
    /// Reads all rows.
    fn read(table: &Table) -> Result<Vec<Self>, TableError>;
    /// Makes a table of exactly these columns.
    fn table(rows: &[Self]) -> Result<Table, TableError>;
}

/// Reads one column of a batch; `row` is the batch's first row in the table.
fn read_column<T: Cell>(batch: &RecordBatch, name: &str, first_row: usize) -> Result<Vec<T>, TableError> {
    let array = batch.column_by_name(name).expect("the table was conformed");
    (0..batch.num_rows())
        .map(|row| {
            T::read(array, row).ok_or_else(|| TableError::Null {
                column: name.to_owned(),
                row: first_row + row,
                expected: array.data_type().clone(),
            })
        })
        .collect()
}

/// Declares a row type once: the struct, its columns with their docs, and the
/// conversions to and from tables.
macro_rules! row_type {
    (
        #[doc = $summary:literal]
        $(#[doc = $more:literal])*
        $constant:ident = $type:ident {
            $( #[doc = $doc:literal] $(#[doc = $rest:literal])* $field:ident: $rust:ty, )*
        }
    ) => {
        #[doc = $summary]
        $(#[doc = $more])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $type {
            $( #[doc = $doc] $(#[doc = $rest])* pub $field: $rust, )*
        }

        #[doc = concat!("The row type of [`", stringify!($type), "`].")]
        pub const $constant: $crate::rows::RowType = $crate::rows::RowType {
            name: stringify!($type),
            doc: concat!($summary $(, $more)*),
            columns: || {
                const COLUMNS: &[$crate::rows::Column] = &[$( $crate::rows::Column {
                    name: stringify!($field),
                    nullable: <$rust as $crate::rows::Cell>::NULLABLE,
                    doc: concat!($doc $(, $rest)*),
                    data_type: <$rust as $crate::rows::Cell>::data_type,
                }, )*];
                COLUMNS
            },
        };

        impl $crate::rows::Row for $type {
            const TYPE: &'static $crate::rows::RowType = &$constant;

            fn read(table: &$crate::table::Table) -> Result<Vec<Self>, $crate::table::TableError> {
                let table = table.conform(Self::TYPE)?;
                let mut rows = Vec::with_capacity(table.n_rows());
                for batch in table.batches() {
                    let first = rows.len();
                    $( let mut $field = $crate::rows::read_column::<$rust>(batch, stringify!($field), first)?.into_iter(); )*
                    for _ in 0..batch.num_rows() {
                        rows.push(Self { $( $field: $field.next().expect("a value a row"), )* });
                    }
                }
                Ok(rows)
            }

            fn table(rows: &[Self]) -> Result<$crate::table::Table, $crate::table::TableError> {
                use $crate::rows::Cell;
                $crate::table::Table::of_columns(vec![$( (
                    $constant.column(stringify!($field)).expect("declared above").field(),
                    <$rust as Cell>::build(rows.iter().map(|row| &row.$field)),
                ), )*])
            }
        }
    };
}
pub(crate) use row_type;

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts() -> Vec<Prompt> {
        (0..3)
            .map(|i| Prompt {
                prompt_id: format!("p{i}"),
                messages: vec![Message::user("a"); i],
                reference: (i > 0).then(|| "é".to_owned()),
                domain: None,
                meta: None,
            })
            .collect()
    }

    #[test]
    fn rows_survive_a_table() {
        let table = Prompt::table(&prompts()).expect("a table");
        assert_eq!(Prompt::read(&table).expect("rows"), prompts());
        assert_eq!(**table.schema(), PROMPT.schema());
        let twice = Table::concat(&[table.clone(), table]).expect("same schema");
        assert_eq!(Prompt::read(&twice).expect("rows").len(), 6);
    }

    #[test]
    fn optional_columns_may_be_left_out_and_others_pass_through() {
        let table = Prompt::table(&prompts()).expect("a table");
        let lean = table.without("reference").expect("dropped");
        assert_eq!(Prompt::read(&lean).expect("rows")[1].reference, None);
        let error = Prompt::read(&table.without("messages").expect("dropped")).expect_err("messages are needed");
        assert!(error.to_string().starts_with("column \"messages\" is missing"), "{error}");
        let extra =
            Table::of_columns(vec![(Field::new("extra", DataType::Int64, false), i64::build([1, 2, 3].iter()))])
                .expect("a column");
        let wide = table.beside(&extra).expect("same length").conform(&PROMPT).expect("conforms");
        assert!(wide.has("extra"));
    }

    #[test]
    fn a_wrong_type_names_the_column() {
        let column = Table::of_columns(vec![
            (Field::new("prompt_id", DataType::Int64, false), i64::build([1].iter())),
            (Field::new("messages", <Vec<Message>>::data_type(), false), <Vec<Message>>::build([vec![]].iter())),
        ])
        .expect("columns");
        let error = Prompt::read(&column).expect_err("a number is no text");
        assert_eq!(error.to_string(), "column \"prompt_id\" is Int64, expected Utf8");
    }
}
