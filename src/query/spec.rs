//! How a table of results is asked for: an SQL text, how its rows become a
//! grid, and what is marked. This is what stands under `tables:` in a pipeline
//! file.

use std::borrow::Cow;
use std::fmt;

use fuseline_contract::Problems;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::names::tables_of;

/// The most digits after the point that make sense for a 64-bit float.
const MOST_DIGITS: u8 = 15;
/// The heading of the column of means where `average: true` names none.
const AVERAGE: &str = "Average";

/// A table of results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// The query. Tables are stages (`evaluated`) and their outputs
    /// (`pairs.rejected`). Without ORDER BY its rows are sorted by all columns.
    pub sql: String,
    /// How the query's rows become a grid; left out, they are shown as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pivot: Option<Pivot>,
    /// Digits after the point of floats, without a pivot; left out, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<u8>,
    /// What the table shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// The LaTeX label, such as `tab:main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A grid made of a query's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pivot {
    /// The column, or columns, whose values label the rows.
    pub rows: Names,
    /// The column whose values head the columns; left out, the columns of
    /// `value` stand beside each other under their own names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<String>,
    /// The column that fills the cells; several only without `columns`.
    pub value: Names,
    /// Row labels in the order they shall stand in; others follow in the order
    /// of the query. One that the query does not give is a row of missing cells.
    /// With several `rows`, labels are joined by ` / `.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub row_order: Vec<String>,
    /// Column headings, in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub column_order: Vec<String>,
    /// Adds a last column with the unweighted mean over the columns; `true`, or
    /// its heading. A row that misses a cell has no mean.
    #[serde(default, deserialize_with = "average", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "average_schema")]
    pub average: Option<String>,
    /// Marks the best of each column. Values that look the same after rounding
    /// are equally good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bold: Option<Best>,
    /// Underlines the second best of each column; needs `bold`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub underline: bool,
    /// A row label: every other row shows its difference to that row, as
    /// `(+1.2)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Stars behind values whose difference is significant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub significance: Option<Significance>,
    /// What stands behind ± in a cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// Values are fractions and shown times 100 (deviations and differences too).
    #[serde(default, skip_serializing_if = "is_false")]
    pub percent: bool,
    /// Digits after the point; left out, 1 with `percent` and 3 without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<u8>,
}

/// Which value of a column is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Best {
    /// The greatest.
    Max,
    /// The least.
    Min,
}

/// Where a cell's deviation comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// A cell may have several values (seeds): their mean ± sample standard
    /// deviation (n − 1).
    Stddev,
    /// This column of the query holds it.
    Column(String),
}

/// Stars: one below 0.05, two below 0.01, three below 0.001, and a note below the table that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Significance {
    /// The column of the query that holds each cell's p-value, such as of `mcnemar_p`; null where
    /// nothing was tested.
    pub p: String,
    /// How p-values are corrected for the number of tests in the table.
    #[serde(default, skip_serializing_if = "is_default")]
    pub correction: Correction,
}

/// A correction for several tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Holm's: any false star is as rare as with one test.
    #[default]
    Holm,
    /// Benjamini and Hochberg's: the share of false stars is held.
    BenjaminiHochberg,
    /// None: the p-values are corrected already, or there is one test.
    None,
}

fn is_default(correction: &Correction) -> bool {
    *correction == Correction::default()
}

/// One name or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Names(pub Vec<String>);

impl From<&str> for Names {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column's name or a list of them")
            }
            fn visit_str<E>(self, name: &str) -> Result<Names, E> {
                Ok(name.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One name or several.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}

fn average<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Average;
    impl Visitor<'_> for Average {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or the column's heading")
        }
        fn visit_bool<E>(self, wanted: bool) -> Result<Option<String>, E> {
            Ok(wanted.then(|| AVERAGE.to_owned()))
        }
        fn visit_str<E>(self, heading: &str) -> Result<Option<String>, E> {
            Ok(Some(heading.to_owned()))
        }
    }
    deserializer.deserialize_any(Average)
}

fn average_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "boolean"}, {"type": "string"}]})
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(value: &bool) -> bool {
    !value
}

impl TableSpec {
    /// Notes everything that is wrong and can be known without data.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = tables_of(&self.sql) {
            problems.add("sql", error.to_string());
        }
        check_digits(self.digits, "digits", problems);
        let Some(pivot) = &self.pivot else { return };
        if self.digits.is_some() {
            problems.add("digits", "has no effect beside a pivot; write it under `pivot`");
        }
        pivot.check(problems);
    }
}

impl Pivot {
    fn check(&self, problems: &mut Problems) {
        check_digits(self.digits, "pivot.digits", problems);
        for (names, option) in [(&self.rows, "pivot.rows"), (&self.value, "pivot.value")] {
            problems.require(!names.0.is_empty(), option, || "expected at least one column".to_owned());
        }
        for (order, option) in [(&self.row_order, "pivot.row_order"), (&self.column_order, "pivot.column_order")] {
            for (i, label) in order.iter().enumerate() {
                problems.require(!order[..i].contains(label), option, || format!("{label:?} stands there twice"));
            }
        }
        if self.columns.is_some() {
            problems.require(self.value.0.len() <= 1, "pivot.value", || {
                "several columns have no place beside `columns`; name one".to_owned()
            });
        } else {
            let several = matches!(self.spread, Some(Spread::Column(_))) && self.value.0.len() > 1;
            problems.require(!several, "pivot.spread", || {
                "one column cannot be the deviation of several; name one value".to_owned()
            });
            problems.require(self.significance.is_none() || self.value.0.len() <= 1, "pivot.significance", || {
                "one column cannot hold the p-values of several; name one value".to_owned()
            });
        }
        problems.require(!self.underline || self.bold.is_some(), "pivot.underline", || {
            "needs `bold: max` or `bold: min` to know which is better".to_owned()
        });
    }

    /// Digits after the point.
    pub(crate) fn digits(&self) -> u8 {
        self.digits.unwrap_or(if self.percent { 1 } else { 3 })
    }
}

fn check_digits(digits: Option<u8>, option: &str, problems: &mut Problems) {
    problems.require(digits.is_none_or(|digits| digits <= MOST_DIGITS), option, || {
        format!("expected at most {MOST_DIGITS} digits")
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(spec: serde_json::Value) -> Vec<String> {
        let spec: TableSpec = serde_json::from_value(spec).expect("of the right types");
        let mut problems = Problems::default();
        spec.check(&mut problems);
        problems.0.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    }

    #[test]
    fn one_name_or_several_and_an_average_by_name_or_not() {
        let pivot: Pivot = serde_json::from_value(json!({"rows": "a", "value": ["b", "c"], "average": true})).unwrap();
        assert_eq!((pivot.rows, pivot.value.0.len()), ("a".into(), 2));
        assert_eq!(pivot.average.as_deref(), Some("Average"));
        let pivot: Pivot = serde_json::from_value(
            json!({"rows": "a", "value": "b", "average": "Mean", "spread": {"column": "stderr"}}),
        )
        .unwrap();
        assert_eq!(pivot.average.as_deref(), Some("Mean"));
        assert_eq!(pivot.spread, Some(Spread::Column("stderr".to_owned())));
        let again: Pivot = serde_json::from_value(serde_json::to_value(&pivot).unwrap()).unwrap();
        assert_eq!(again, pivot);
        assert!(serde_json::from_value::<Pivot>(json!({"rows": "a", "value": "b", "colour": 1})).is_err());
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let found = problems(json!({"sql": "SELEC 1", "digits": 3, "pivot": {"rows": [], "columns": "c",
            "value": ["a", "b"], "underline": true, "digits": 99, "row_order": ["x", "x"]}}));
        assert_eq!(found.len(), 7, "{found:#?}");
        assert!(found[0].starts_with("sql: SQL, line 1, column 1"), "{found:#?}");
        assert!(problems(json!({"sql": "SELECT 1", "pivot": {"rows": "a", "value": "b"}})).is_empty());
    }

    #[test]
    fn the_schema_describes_every_field() {
        let schema = schemars::schema_for!(TableSpec).to_value();
        for properties in [&schema["properties"], &schema["$defs"]["Pivot"]["properties"]] {
            for (name, property) in properties.as_object().expect("fields") {
                assert!(property.get("description").is_some(), "{name} has no description");
            }
        }
    }
}
