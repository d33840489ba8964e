//! Rows that a model cannot answer: which and how many may be left out, and what
//! is said of them. Must not know models.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::Field;
use fuseline_contract::rows::Cell;
use fuseline_contract::{Cause, Kind, Output, StageError, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The output in which rows that were left out are listed.
pub const OUTPUT: &str = "failed";
/// How many failures an error names.
const NAMED: usize = 3;

/// What becomes of a row with more tokens than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// It fails, as other rows that cannot be computed.
    #[default]
    Error,
    /// Its first tokens are dropped.
    TruncateLeft,
    /// It is left out and listed in `failed`, however many there are.
    Skip,
}

/// The output with these columns, where any row may be left out. Without it results of before stay what they were.
pub fn output(max_failed_rows: u64, too_long: TooLong, columns: &'static str) -> Option<Output> {
    leaves_out(max_failed_rows, too_long).then(|| Output::new(OUTPUT, Kind::AnyTable, columns).of_failures())
}

/// Whether there is such an output.
pub fn leaves_out(max_failed_rows: u64, too_long: TooLong) -> bool {
    max_failed_rows > 0 || too_long == TooLong::Skip
}

/// Why something that was asked cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub reason: String,
    /// Whether it was to be left out, so that it does not count as failed.
    pub skipped: bool,
}

/// Why each thing that was asked cannot be answered, by its place.
#[derive(Default)]
pub struct Failures(BTreeMap<usize, Failure>);

impl Failures {
    /// Takes what is the fault of one row down as such; any other failure is the stage's.
    pub fn catch<T>(&mut self, place: usize, tried: Result<T, StageError>) -> Result<Option<T>, StageError> {
        match tried {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.cause == Cause::Input => {
                self.0.insert(place, Failure { reason: error.message, skipped: false });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same for all places that would have it.
    pub fn catch_all<T>(
        &mut self,
        places: Range<usize>,
        tried: Result<T, StageError>,
    ) -> Result<Option<T>, StageError> {
        let done = self.catch(places.start, tried)?;
        if let (None, Some(failure)) = (&done, self.0.get(&places.start).cloned()) {
            self.0.extend(places.map(|place| (place, failure.clone())));
        }
        Ok(done)
    }

    /// Takes down why a place has nothing.
    pub fn add(&mut self, place: usize, reason: String) {
        self.0.insert(place, Failure { reason, skipped: false });
    }

    /// Takes down that places are left out, as was asked for.
    pub fn skip(&mut self, places: Range<usize>, reason: &str) {
        self.0.extend(places.map(|place| (place, Failure { reason: reason.to_owned(), skipped: true })));
    }

    /// Why what stands at a place cannot be answered; nothing if it can.
    pub fn at(&self, place: usize) -> Option<&Failure> {
        self.0.get(&place)
    }

    /// The same in words.
    pub fn reason(&self, place: usize) -> Option<&str> {
        self.at(place).map(|failure| failure.reason.as_str())
    }
}

/// Fails if more rows failed than may: by name, kind of row and reason of each.
pub fn allow(failed: &[(&str, &str)], what: &str, max_failed_rows: u64, n_rows: usize) -> Result<(), StageError> {
    if failed.len() as u64 <= max_failed_rows {
        return Ok(());
    }
    let mut named: Vec<(&str, &str)> = failed.to_vec();
    named.dedup();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let mut text: Vec<String> = named.iter().map(|(name, reason)| format!("{what} {name:?}: {reason}")).collect();
    text.extend((more > 0).then(|| format!("and {more} more")));
    let limit = if max_failed_rows > 0 { format!(", {max_failed_rows} may") } else { String::new() };
    let message = format!("{} of {n_rows} rows failed{limit}: {}", failed.len(), text.join("; "));
    Err(StageError::work(message).hint(format!(
        "mend them, or leave them out with max_failed_rows: {}; the other rows are computed and remembered",
        failed.len()
    )))
}

/// A column of texts.
pub fn texts(name: &str, values: Vec<&str>) -> Result<Table, StageError> {
    column(name, false, values.into_iter().map(str::to_owned).collect::<Vec<String>>())
}

/// A column of any cells.
pub fn column<T: Cell>(name: &str, nullable: bool, values: Vec<T>) -> Result<Table, StageError> {
    Ok(Table::of_columns(vec![(Field::new(name, T::data_type(), nullable), T::build(values.iter()))])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fail_the_stage_only_beyond_the_limit_and_the_first_are_named() {
        let failed = [("a", "x"), ("a", "x"), ("b", "y"), ("c", "y"), ("d", "z"), ("e", "z")];
        assert_eq!(allow(&failed, "prompt", 6, 9), Ok(()));
        let error = allow(&failed, "prompt", 5, 9).expect_err("one too many");
        let said = "6 of 9 rows failed, 5 may: prompt \"a\": x; prompt \"b\": y; prompt \"c\": y; and 2 more";
        assert_eq!((error.message.as_str(), error.cause), (said, Cause::Work));
        assert!(error.hint.is_some_and(|hint| hint.contains("max_failed_rows: 6;")));
        let error = allow(&failed[..1], "prompt", 0, 9).expect_err("none may");
        assert_eq!(error.message, "1 of 9 rows failed: prompt \"a\": x");
    }

    #[test]
    fn only_faults_of_a_row_are_its_own() {
        let mut failures = Failures::default();
        assert_eq!(failures.catch(0, Ok(5)), Ok(Some(5)));
        assert_eq!(failures.catch(1, Err::<(), _>(StageError::input("too long"))), Ok(None));
        assert!(failures.catch(2, Err::<(), _>(StageError::environment("no memory"))).is_err());
        failures.skip(3..4, "longer still");
        let found =
            [0, 1, 2, 3].map(|place| failures.at(place).map(|failure| (failure.reason.as_str(), failure.skipped)));
        assert_eq!(found, [None, Some(("too long", false)), None, Some(("longer still", true))]);
    }
}
