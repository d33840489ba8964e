//! `control_length`: win rates against one baseline, as they are and as they would be at equal lengths.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Field;
use fuseline_contract::rows::{self, Cell, Metric, Row};
use fuseline_contract::{Execute, Input, Kind, Operator, Output, Part, Ports, Run, StageError, Table};
use fuseline_metrics::judged;
use fuseline_metrics::judged::folds::Folds;
use fuseline_metrics::judged::length_control::{
    Annotation, Choices, Coefficients, Gamed, LengthControlled, Solver, length_controlled,
};
use fuseline_metrics::judged::win_rate::{WinRate, preference, win_rate};
use fuseline_metrics::stats::mean;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::rows::column;

/// The task of the metric rows unless another is named.
const TASK: &str = "alpaca_eval_2";

/// Parameters of `control_length`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How a row finds the difficulty of its instruction.
    #[serde(default)]
    pub difficulty: Difficulty,
    /// Which of NumPy's sorts the folds follow, where equal groups are left in an order that depends on the processor: `avx512` gives what the published program gives on most servers of today, `scalar` what stands on the leaderboard.
    #[serde(default)]
    pub folds: Folds,
    /// How the regression is solved: `liblinear` stops where the published program does, `exact` at the minimum, up to 0.1 points from there.
    #[serde(default)]
    pub solver: Solver,
    /// The model that all others are compared with; its own win rate is one half by definition.
    #[serde(default)]
    pub baseline: Option<String>,
    /// The task of the metric rows.
    #[serde(default = "task")]
    pub task: String,
}

fn task() -> String {
    TASK.to_owned()
}

/// How a row finds its difficulty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    /// By its position among the model's rows, as the published program does; where rows are missing, those behind get another instruction's.
    #[default]
    Position,
    /// By its `index`, which is sounder.
    Key,
}

/// See [`Operator::MANUAL`].
pub struct ControlLength;

impl Operator for ControlLength {
    const NAME: &'static str = "control_length";
    const VERSION: u32 = 1;
    const PARTS: &'static [Part] = &[Part { name: "metrics.judged", version: judged::VERSION }];
    const MANUAL: &'static str = "\
Gives win rates against a baseline, also length-controlled, as AlpacaEval 2 does.

`preferences` has a row a judged answer: `model`; `index`, which instruction; `preference`,
1 (the baseline's answer is better) to 2 (the model's is), 0 or 1.5 for a draw, null where
the judge gave none; `baseline_length` and `model_length` in code points. The order of a
model's rows counts, see `difficulty` and `folds`.

`gamed` has a row for each instruction and gamed baseline, the columns those of the
published `df_gamed.csv`: `preference` (0 to 1), `index`, `std_delta_len`,
`instruction_difficulty`. Each model is fitted alone with these rows, so models that are
on no leaderboard are measured like any other.

`metrics` has for each model `win_rate`, `discrete_win_rate` and
`length_controlled_win_rate`, fractions with their standard errors; rows without a
preference are left out of the first two. `fits` has the counts of wins, losses and
draws, mean lengths, the coefficients and the strength `c` that was chosen.

With `folds: scalar` figures are those of the leaderboard's later entries to the last
digits, with the default those of the published program run today on most servers.";
    const EXAMPLE: &'static str = "op: control_length\ninputs: {preferences: annotations, gamed: gamed}\n\
        with: {baseline: gpt4_1106_preview, difficulty: key}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports {
            inputs: vec![
                Input::one("preferences", Kind::AnyTable, "judged answers of any number of models"),
                Input::one("gamed", Kind::AnyTable, "preferences of the gamed baselines"),
            ],
            outputs: vec![
                Output::new("metrics", Kind::Rows(&rows::METRIC), "win rates a model"),
                Output::new("fits", Kind::AnyTable, "counts, lengths and coefficients a model"),
            ],
        }
    }
}

impl Execute for ControlLength {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let difficulties = Difficulties::read(&run.table("gamed")?)?;
        let models = read(&run.table("preferences")?)?;
        if models.is_empty() {
            return Err(StageError::input("the table bound to \"preferences\" has no rows"));
        }
        if let Some(baseline) = config.baseline.as_ref().filter(|baseline| !models.contains_key(*baseline)) {
            let found: Vec<&str> = models.keys().map(String::as_str).collect();
            run.note(format!("the baseline {baseline:?} has no rows of its own; there are {}", found.join(", ")));
        }
        let (mut metrics, mut fits) = (Vec::new(), Vec::new());
        for (model, rows) in models {
            run.check_cancelled()?;
            let fit = Fit::of(config, &difficulties, model, rows)?;
            metrics.extend(fit.metrics(&config.task));
            fits.push(fit);
        }
        run.write("fits", fits_table(&fits)?)?;
        run.write("metrics", Metric::table(&metrics)?)
    }
}

/// The gamed baselines, and each instruction's difficulty.
struct Difficulties {
    gamed: Vec<Gamed>,
    by_position: Vec<f64>,
    by_key: BTreeMap<i64, f64>,
}

impl Difficulties {
    fn read(table: &Table) -> Result<Self, StageError> {
        let indices: Vec<i64> = column(table, "index")?;
        let difficulties: Vec<f64> = column(table, "instruction_difficulty")?;
        let preferences: Vec<f64> = column(table, "preference")?;
        let lengths: Vec<f64> = column(table, "std_delta_len")?;
        let mut found = Self { gamed: Vec::new(), by_position: Vec::new(), by_key: BTreeMap::new() };
        for row in 0..indices.len() {
            let numbers = [preferences[row], lengths[row], difficulties[row]];
            if !(0.0..=1.0).contains(&preferences[row]) || !numbers.iter().all(|number| number.is_finite()) {
                return Err(StageError::input(format!(
                    "gamed row {row} (index {}) has preference {}, std_delta_len {} and instruction_difficulty {}; expected \
                     a preference between 0 and 1 and finite numbers",
                    indices[row], numbers[0], numbers[1], numbers[2]
                )));
            }
            found.gamed.push(Gamed {
                preference: preferences[row],
                length_difference: lengths[row],
                difficulty: difficulties[row],
            });
            // Both baselines have the same difficulties; the first row of an index counts.
            found.by_key.entry(indices[row]).or_insert_with(|| {
                found.by_position.push(difficulties[row]);
                difficulties[row]
            });
        }
        Ok(found)
    }
}

/// A judged answer as it stands in the table.
struct Judged {
    index: i64,
    preference: Option<f64>,
    baseline_length: f64,
    model_length: f64,
}

fn read(table: &Table) -> Result<BTreeMap<String, Vec<Judged>>, StageError> {
    let models: Vec<String> = column(table, "model")?;
    let indices: Vec<i64> = column(table, "index")?;
    let preferences: Vec<Option<f64>> = column(table, "preference")?;
    let (baseline, model): (Vec<f64>, Vec<f64>) = (column(table, "baseline_length")?, column(table, "model_length")?);
    let mut found: BTreeMap<String, Vec<Judged>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (row, name) in models.into_iter().enumerate() {
        let index = indices[row];
        let here = |message: String| StageError::input(format!("model {name:?}, index {index}: {message}"));
        if !seen.insert((name.clone(), index)) {
            return Err(here("two rows have this index".into())
                .hint("give each model one row an instruction, for example with an sql stage"));
        }
        for length in [baseline[row], model[row]] {
            if !(length >= 0.0 && length.is_finite()) {
                return Err(here(format!("the length {length} is no length")));
            }
        }
        found.entry(name).or_default().push(Judged {
            index,
            preference: preferences[row].and_then(preference),
            baseline_length: baseline[row],
            model_length: model[row],
        });
    }
    Ok(found)
}

/// What is known of a model in the end.
struct Fit {
    model: String,
    counts: WinRate,
    controlled: LengthControlled,
    n_rows: usize,
    mean_length: f64,
    mean_baseline_length: f64,
}

impl Fit {
    fn of(config: &Config, given: &Difficulties, model: String, rows: Vec<Judged>) -> Result<Self, StageError> {
        let here = |message: String| StageError::input(format!("model {model:?}: {message}"));
        let preferences: Vec<f64> = rows.iter().filter_map(|row| row.preference).collect();
        let counts = win_rate(&preferences).ok_or_else(|| here("no row has a preference".into()))?;
        let of = |value: fn(&Judged) -> f64| mean(&rows.iter().map(value).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        let controlled = if config.baseline.as_ref() == Some(&model) {
            let none = Coefficients { length: 0.0, difficulty: 0.0, model: 0.0 };
            LengthControlled { win_rate: 0.5, standard_error: Some(0.0), coefficients: none, c: f64::NAN }
        } else {
            let annotations = annotations(config.difficulty, given, &rows).map_err(&here)?;
            let choices = Choices { folds: config.folds, solver: config.solver };
            length_controlled(&annotations, &given.gamed, choices).map_err(|error| {
                here(error.to_string()).hint("if this is the baseline itself, name it: with: {baseline: NAME}")
            })?
        };
        Ok(Self {
            counts,
            controlled,
            n_rows: rows.len(),
            mean_length: of(|row| row.model_length),
            mean_baseline_length: of(|row| row.baseline_length),
            model,
        })
    }

    fn metrics(&self, task: &str) -> [Metric; 3] {
        let metric = |name: &str, value, stderr, n: usize| Metric {
            model: self.model.clone(),
            task: task.to_owned(),
            metric: name.to_owned(),
            value,
            stderr,
            n: Some(n as i64),
            seed: None,
        };
        let counts = &self.counts;
        [
            metric("win_rate", counts.win_rate, counts.standard_error, counts.n_total),
            metric("discrete_win_rate", counts.discrete_win_rate, counts.discrete_standard_error, counts.n_total),
            metric("length_controlled_win_rate", self.controlled.win_rate, self.controlled.standard_error, self.n_rows),
        ]
    }
}

fn annotations(difficulty: Difficulty, given: &Difficulties, rows: &[Judged]) -> Result<Vec<Annotation>, String> {
    let annotation = |(position, row): (usize, &Judged)| {
        let found = match difficulty {
            Difficulty::Position => given.by_position.get(position),
            Difficulty::Key => given.by_key.get(&row.index),
        };
        let difficulty = *found.ok_or_else(|| match difficulty {
            Difficulty::Position => {
                format!("it has more rows than there are difficulties ({})", given.by_position.len())
            }
            Difficulty::Key => format!("the gamed baselines have no row of index {}", row.index),
        })?;
        Ok(Annotation {
            preference: row.preference,
            baseline_length: row.baseline_length,
            model_length: row.model_length,
            difficulty,
        })
    };
    rows.iter().enumerate().map(annotation).collect()
}

fn fits_table(fits: &[Fit]) -> Result<Table, StageError> {
    let count = |name: &str, of: fn(&Fit) -> usize| {
        let values: Vec<i64> = fits.iter().map(|fit| of(fit) as i64).collect();
        (Field::new(name, i64::data_type(), false), i64::build(values.iter()))
    };
    let number = |name: &str, of: fn(&Fit) -> f64| {
        let values: Vec<Option<f64>> = fits.iter().map(of).map(|value| Some(value).filter(|v| !v.is_nan())).collect();
        (Field::new(name, <Option<f64>>::data_type(), true), <Option<f64>>::build(values.iter()))
    };
    let models = String::build(fits.iter().map(|fit| &fit.model));
    Ok(Table::of_columns(vec![
        (Field::new("model", String::data_type(), false), models),
        count("n_rows", |fit| fit.n_rows),
        count("n_judged", |fit| fit.counts.n_total),
        count("n_wins", |fit| fit.counts.n_wins),
        count("n_losses", |fit| fit.counts.n_wins_base),
        count("n_draws", |fit| fit.counts.n_draws),
        number("mean_length", |fit| fit.mean_length),
        number("mean_baseline_length", |fit| fit.mean_baseline_length),
        number("length_coefficient", |fit| fit.controlled.coefficients.length),
        number("difficulty_coefficient", |fit| fit.controlled.coefficients.difficulty),
        number("model_coefficient", |fit| fit.controlled.coefficients.model),
        number("c", |fit| fit.controlled.c),
    ])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: Vec<(&str, arrow::array::ArrayRef)>) -> Table {
        let field = |name: &str, array: &arrow::array::ArrayRef| Field::new(name, array.data_type().clone(), true);
        Table::of_columns(columns.into_iter().map(|(name, array)| (field(name, &array), array)).collect())
            .expect("columns of one length")
    }

    fn gamed(difficulties: &[f64]) -> Difficulties {
        let n = difficulties.len() as i64;
        let indices: Vec<i64> = (0..n).chain(0..n).map(|i| 100 + i).collect();
        let twice = [difficulties, difficulties].concat();
        let preferences: Vec<f64> = (0..2 * n).map(|i| if i < n { 0.6 } else { 0.3 }).collect();
        let lengths: Vec<f64> = (0..2 * n).map(|i| if i < n { -1.0 } else { 1.0 }).collect();
        Difficulties::read(&table(vec![
            ("index", i64::build(indices.iter())),
            ("instruction_difficulty", f64::build(twice.iter())),
            ("preference", f64::build(preferences.iter())),
            ("std_delta_len", f64::build(lengths.iter())),
        ]))
        .expect("a table of gamed rows")
    }

    fn judged(index: i64) -> Judged {
        Judged { index, preference: Some(0.5), baseline_length: 10.0, model_length: 20.0 + index as f64 }
    }

    #[test]
    fn a_missing_row_shifts_difficulties_by_position_and_not_by_key() {
        let given = gamed(&[0.1, 0.2, 0.3]);
        let rows = [judged(100), judged(102)];
        let of = |mode| -> Vec<f64> {
            annotations(mode, &given, &rows).expect("difficulties").iter().map(|row| row.difficulty).collect()
        };
        assert_eq!(of(Difficulty::Position), [0.1, 0.2]);
        assert_eq!(of(Difficulty::Key), [0.1, 0.3]);
        let error = annotations(Difficulty::Key, &given, &[judged(7)]).expect_err("no such instruction");
        assert_eq!(error, "the gamed baselines have no row of index 7");
        let many: Vec<Judged> = (0..4).map(judged).collect();
        assert!(annotations(Difficulty::Position, &given, &many).is_err());
    }

    #[test]
    fn rows_that_cannot_be_used_are_named() {
        let columns = |indices: [i64; 2], length: f64| {
            table(vec![
                ("model", String::build(["owl".to_owned(), "owl".to_owned()].iter())),
                ("index", i64::build(indices.iter())),
                ("preference", <Option<f64>>::build([Some(1.2), None].iter())),
                ("baseline_length", f64::build([10.0, 10.0].iter())),
                ("model_length", f64::build([12.0, length].iter())),
            ])
        };
        let said = |table: &Table| read(table).err().map(|error| error.message);
        assert_eq!(said(&columns([3, 3], 5.0)).as_deref(), Some("model \"owl\", index 3: two rows have this index"));
        assert_eq!(said(&columns([3, 4], -1.0)).as_deref(), Some("model \"owl\", index 4: the length -1 is no length"));
        let rows = read(&columns([3, 4], 5.0)).expect("two rows");
        assert_eq!(
            (rows["owl"][0].preference.map(|p| (p * 10.0).round()), rows["owl"][1].preference),
            (Some(2.0), None)
        );
    }

    #[test]
    fn the_baseline_is_a_half() {
        let config = Config {
            difficulty: Difficulty::Key,
            folds: Folds::Scalar,
            solver: Solver::Liblinear,
            baseline: Some("base".to_owned()),
            task: task(),
        };
        let same = || vec![Judged { model_length: 10.0, ..judged(100) }];
        let fit = Fit::of(&config, &gamed(&[0.0]), "base".to_owned(), same()).expect("by definition");
        assert_eq!((fit.controlled.win_rate, fit.counts.win_rate), (0.5, 0.5));
        let error = Fit::of(&config, &gamed(&[0.0]), "owl".to_owned(), same()).err().expect("nothing to control");
        assert!(error.message.starts_with("model \"owl\": lengths cannot be controlled for"), "{error}");
    }
}
