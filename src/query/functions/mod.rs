//! Functions of SQL that DataFusion lacks: what the field does to answers, texts, vectors and scores.
//!
//! Stages are made of their results, so a function never changes what it gives: a better one takes a new name; what rests on
//! the verifiers changes with their version, which is in the keys of the operators that run SQL. Functions must not know what
//! the texts and counts mean.

mod aggregate;
mod interval;
mod scalar;
mod text;
mod vector;

use datafusion::prelude::SessionContext;

use aggregate::{Aggregate, Of};
use scalar::Scalar;
pub use text::hash_fraction;

/// A function as it is listed.
#[derive(Debug)]
pub struct Function {
    /// How it is called: `win_rate(a, b)`.
    pub call: &'static str,
    /// What it gives.
    pub doc: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(fn(&'static str) -> Scalar),
    Aggregate(Of),
}

impl Function {
    /// Its name alone.
    pub fn name(&self) -> &'static str {
        self.call.split('(').next().unwrap_or(self.call)
    }

    /// Whether it makes one value of many rows.
    pub fn is_aggregate(&self) -> bool {
        matches!(self.kind, Kind::Aggregate(_))
    }
}

const fn scalar(call: &'static str, doc: &'static str, make: fn(&'static str) -> Scalar) -> Function {
    Function { call, doc, kind: Kind::Scalar(make) }
}

const fn aggregate(call: &'static str, doc: &'static str, of: Of) -> Function {
    Function { call, doc, kind: Kind::Aggregate(of) }
}

/// Every function, by name.
pub const ALL: &[Function] = &[
    aggregate(
        "bootstrap_mean_high(x[, seed])",
        "upper end of the 95 % percentile bootstrap interval of the mean, 1000 resamples",
        Of::Bootstrap(|interval| interval.high),
    ),
    aggregate(
        "bootstrap_mean_low(x[, seed])",
        "lower end of the 95 % percentile bootstrap interval of the mean, 1000 resamples",
        Of::Bootstrap(|interval| interval.low),
    ),
    scalar("cosine_similarity(a, b)", "cosine of the angle between two lists of numbers of one length", vector::cosine),
    scalar("edit_distance(a, b)", "fewest insertions, deletions and substitutions of characters", text::edit_distance),
    scalar("edit_similarity(a, b)", "1 - edit_distance over the longer text's length", text::edit_similarity),
    scalar(
        "extract_answer(text[, method])",
        "the answer that `verify` finds in a text by this method, `numeric` if none is given; NULL where there is none",
        text::extract_answer,
    ),
    scalar(
        "hash_fraction(text)",
        "a number in [0, 1) that depends on the text alone, evenly spread and the same for ever",
        text::hash_fraction_function,
    ),
    scalar("ngram_jaccard(a, b, n)", "runs of n words in both texts over those in either", text::ngram_jaccard),
    scalar("ngram_overlap(a, b, n)", "share of a's runs of n words that b has too", text::ngram_overlap),
    aggregate(
        "stderr_mean(x)",
        "standard error of the mean, s / sqrt(n); NULL for fewer than two values",
        Of::StandardError,
    ),
    scalar("wilson_high(k, n)", "upper end of Wilson's 95 % interval of the rate k / n", interval::wilson_high),
    scalar("wilson_low(k, n)", "lower end of Wilson's 95 % interval of the rate k / n", interval::wilson_low),
    aggregate(
        "win_rate(a, b)",
        "share of rows with a > b, a tie counting half; rows with a NULL are left out",
        Of::WinRate,
    ),
];

/// Makes the functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    for function in ALL {
        match &function.kind {
            Kind::Scalar(make) => context.register_udf(make(function.name()).into()),
            Kind::Aggregate(of) => context.register_udaf(Aggregate::new(function.name(), *of).into()),
        }
    }
}

#[cfg(test)]
mod tests;
