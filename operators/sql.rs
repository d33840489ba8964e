//! `sql`: a table made from tables by a query.

use std::cell::RefCell;

use fuseline_contract::{Execute, Input, Kind, Operator, Output, Part, Ports, Problems, Run, StageError, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::rows::RowsName;

/// Parameters of `sql`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One SELECT over stages, by name: `scored`, `pairs.dropped`.
    pub sql: String,
    /// The row type to bring the result to. Without it the columns stay as they are.
    #[serde(default, rename = "as")]
    pub rows: Option<RowsName>,
}

/// Shared code that functions of SQL rest on.
pub const PARTS: &[Part] = &[Part { name: "metrics.verify", version: fuseline_metrics::verify::VERSION }];

/// See [`Operator::MANUAL`].
pub struct Sql;

impl Operator for Sql {
    const NAME: &'static str = "sql";
    const VERSION: u32 = 2;
    const PARTS: &'static [Part] = PARTS;
    const MANUAL: &'static str = "\
Makes a table from tables by a query.

The query is one SELECT in DataFusion's dialect. A table in it is the stage of
that name, or what `inputs` binds to that name. Rows keep the order of the
query's ORDER BY; without one they are sorted by all columns, so that the
result does not depend on threads.

Beside DataFusion's functions there are
* `bootstrap_mean_low(x[, seed])`, `bootstrap_mean_high(x[, seed])`, `stderr_mean(x)`,
  `clustered_stderr(x, cluster)`: how sure a mean is, over the rows of a group.
* `win_rate(a, b)`: the share of a group's rows with a > b, a tie counting half.
* `mcnemar_p(a, b)`, `sign_flip_p(a, b[, seed])`, `paired_bootstrap_p(a, b[, seed])`,
  `paired_bootstrap_low(a, b[, seed])`, `paired_bootstrap_high(a, b[, seed])`: whether two
  models differ, from their verdicts or scores on the rows of a group.
* `holm(p)`, `benjamini_hochberg(p)`: p-values corrected for their number, as in
  `holm(p) OVER (PARTITION BY task)`.
* `wilson_low(k, n)`, `wilson_high(k, n)`, `clopper_pearson_low(k, n)`,
  `clopper_pearson_high(k, n)`: the ends of Wilson's and of the exact 95 % interval of the
  rate k / n, as fractions; NULL where n is 0.
* `mcnemar_exact(b, c)`, `mcnemar_corrected(b, c)`: McNemar's tests from counts;
  `minimum_detectable_difference(sd, n)`: how large a mean difference must be to be found.
* `judge_rating(text)`, `arena_verdict(text)`, `arena_score(label)`, `pair_verdict(text)`:
  what a judge decided; `count_markdown(text, what)`: style to control for;
  `reward_bench_section(subset)`, `reward_bench_weight(subset)`: RewardBench's sections.
* `majority(answer)`, `weighted_majority(answer, weight)`: what most of a group's
  answers say; the best of n is `first_value(answer ORDER BY reward DESC)`.
* `pass_at_k(n, c, k)`: the unbiased estimate that one of k answers passes.
* `best_choice(scores)`: the place of the greatest number of a list, from zero: of
  the choices' log-probabilities, plain or divided by their lengths.
* `corpus_bleu(text, reference)` over a group's rows, `sentence_bleu(text, reference)`,
  `rouge_1(text, reference)`, `rouge_2(text, reference)`, `rouge_l(text, reference)`:
  as sacrebleu (0 to 100) and rouge_score (0 to 1) compute them.
* `find_entities(text, values, rules)`: the values of a knowledge base that a
  response names, from which Entity-F1 is counted (`camrest`, `smd`, `multiwoz`).
* `extract_answer(text[, method])`: the answer that `verify` finds in a text.
* `edit_distance(a, b)`, `edit_similarity(a, b)`, `ngram_overlap(a, b, n)`,
  `ngram_jaccard(a, b, n)`: how alike two texts are.
* `cosine_similarity(a, b)`: of two lists of numbers.
* `hash_fraction(text)`: a number in [0, 1) that depends on the text alone, evenly
  spread, NULL for NULL. `WHERE hash_fraction(prompt_id) < 0.1` holds out a tenth
  of the prompts, the same ones on every machine and for ever.

A conversation is a list of structs: with `as: prompt` or `as: response`,
`make_array(named_struct('role', 'user', 'content', question)) AS messages`.";
    const EXAMPLE: &'static str =
        "op: sql\nwith:\n  sql: SELECT source, avg(reward) AS reward FROM scored GROUP BY source ORDER BY source\n";
    type Config = Config;

    fn ports(config: &Config) -> Ports {
        let kind = config.rows.map_or(Kind::AnyTable, |rows| Kind::Rows(rows.row_type()));
        Ports { inputs: inputs(&config.sql), outputs: vec![Output::new("rows", kind, "the query's result")] }
    }

    fn check(config: &Config, problems: &mut Problems) {
        check(&config.sql, problems);
    }
}

thread_local! {
    /// The last query with its tables: a plan checks a query and then asks for its ports.
    static LAST: RefCell<(String, Result<Vec<String>, String>)> = const { RefCell::new((String::new(), Ok(Vec::new()))) };
}

/// The tables that a query names, or what is wrong with its text.
fn tables_of(sql: &str) -> Result<Vec<String>, String> {
    LAST.with_borrow_mut(|(text, names)| {
        if text != sql || sql.is_empty() {
            *names = fuseline_query::tables_of(sql).map_err(|error| error.to_string());
            sql.clone_into(text);
        }
        names.clone()
    })
}

/// A port a table that the query names. A text that is no query has none; `check` says why.
pub fn inputs(sql: &str) -> Vec<Input> {
    let names = tables_of(sql).unwrap_or_default();
    names.iter().map(|name| Input::one(name, Kind::AnyTable, "a table of the query").implicit()).collect()
}

/// Notes what is wrong with a query's text.
pub fn check(sql: &str, problems: &mut Problems) {
    if let Err(error) = tables_of(sql) {
        problems.add("sql", error);
    }
}

/// Reads the tables of a query.
pub fn tables(sql: &str, run: &dyn Run) -> Result<Vec<(String, Table)>, StageError> {
    inputs(sql).into_iter().map(|input| Ok((input.name.clone(), run.table(&input.name)?))).collect()
}

impl Execute for Sql {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let table = fuseline_query::sql_stage(&config.sql, tables(&config.sql, run)?).map_err(StageError::from)?;
        if table.is_empty() {
            run.note("the query gave no rows".to_owned());
        }
        run.write("rows", table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_function() {
        for function in fuseline_query::functions::ALL {
            assert!(Sql::MANUAL.contains(function.call), "{}", function.call);
        }
    }

    #[test]
    fn columns_become_a_conversation() {
        let sql = "SELECT 'p' AS prompt_id, make_array(named_struct('role', 'user', 'content', 'why?')) AS messages";
        let table = fuseline_query::sql_stage(sql, vec![]).expect("a query");
        let prompts = <fuseline_contract::rows::Prompt as fuseline_contract::rows::Row>::read(&table).expect("prompts");
        assert_eq!(prompts[0].messages, [fuseline_contract::rows::Message::user("why?")]);
    }
}
