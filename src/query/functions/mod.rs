//! Functions of SQL that DataFusion lacks: what the field does to answers, texts, vectors and scores.
//!
//! Stages are made of their results, so a function never changes what it gives: a better one takes a new name; what rests on
//! the verifiers changes with their version, which is in the keys of the operators that run SQL. Functions must not know what
//! the texts and counts mean.

mod aggregate;
mod choice;
mod interval;
mod judged;
mod overlap;
mod resample;
mod scalar;
mod text;
mod vector;
mod window;

use datafusion::logical_expr::WindowUDF;
use datafusion::prelude::SessionContext;
use fuseline_metrics::stats::{benjamini_hochberg, holm};

use aggregate::{Aggregate, Of};
use scalar::Scalar;
pub use text::hash_fraction;
use window::{Correction, Window};

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
    Window(Correction),
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

const fn window(call: &'static str, doc: &'static str, correction: Correction) -> Function {
    Function { call, doc, kind: Kind::Window(correction) }
}

/// Every function, by name.
pub const ALL: &[Function] = &[
    scalar(
        "arena_score(label)",
        "1 where the label of arena_verdict says that answer A is better, 0.5 for a tie, 0 for B; NULL for another label",
        judged::arena_score,
    ),
    scalar(
        "arena_verdict(text)",
        "the one label such as A>>B that a judge's text has in [[ ]]; NULL where there is none or several",
        judged::arena_verdict,
    ),
    window(
        "benjamini_hochberg(p)",
        "p-values corrected so that the rate of false discoveries is held, over the rows of OVER (…)",
        benjamini_hochberg,
    ),
    scalar(
        "best_choice(scores)",
        "place of the greatest of a list of numbers from zero, the first of equals; NULL for an empty list or one with a NULL",
        choice::best_choice,
    ),
    aggregate(
        "bootstrap_mean_high(x[, seed])",
        "upper end of the 95 % percentile bootstrap interval of the mean, 1000 resamples",
        Of::Values(resample::mean_high),
    ),
    aggregate(
        "bootstrap_mean_low(x[, seed])",
        "lower end of the 95 % percentile bootstrap interval of the mean, 1000 resamples",
        Of::Values(resample::mean_low),
    ),
    scalar(
        "clopper_pearson_high(k, n)",
        "upper end of the exact 95 % interval of the rate k / n",
        interval::clopper_pearson_high,
    ),
    scalar(
        "clopper_pearson_low(k, n)",
        "lower end of the exact 95 % interval of the rate k / n",
        interval::clopper_pearson_low,
    ),
    aggregate(
        "clustered_stderr(x, cluster)",
        "standard error of the mean where rows of a cluster are alike; NULL for fewer than two clusters",
        Of::Clustered,
    ),
    aggregate(
        "corpus_bleu(text, reference)",
        "BLEU of all rows together, 0 to 100, as sacrebleu computes it by default; rows with a NULL are left out",
        Of::CorpusBleu,
    ),
    scalar("cosine_similarity(a, b)", "cosine of the angle between two lists of numbers of one length", vector::cosine),
    scalar(
        "count_markdown(text, what)",
        "how many 'bold', 'headers' or 'list_items' a text has outside of code",
        judged::count_markdown,
    ),
    scalar("edit_distance(a, b)", "fewest insertions, deletions and substitutions of characters", text::edit_distance),
    scalar("edit_similarity(a, b)", "1 - edit_distance over the longer text's length", text::edit_similarity),
    scalar(
        "extract_answer(text[, method])",
        "the answer that `verify` finds in a text by this method, `numeric` if none is given; NULL where there is none",
        text::extract_answer,
    ),
    scalar(
        "find_entities(text, values, rules)",
        "which of a list of values a response names, by the rules of Entity-F1 for `camrest`, `smd` or `multiwoz`",
        overlap::find_entities,
    ),
    scalar(
        "hash_fraction(text)",
        "a number in [0, 1) that depends on the text alone, evenly spread and the same for ever",
        text::hash_fraction_function,
    ),
    window(
        "holm(p)",
        "p-values corrected so that any false discovery is as rare as one test's, over the rows of OVER (…)",
        holm,
    ),
    scalar(
        "judge_rating(text)",
        "the number that a judge's text has in [[ ]], or else in [ ]; NULL where there is none",
        judged::judge_rating,
    ),
    aggregate(
        "majority(answer)",
        "the most frequent value, of equals the first in the order of bytes; rows with a NULL are left out",
        Of::Majority,
    ),
    scalar(
        "mcnemar_corrected(b, c)",
        "p-value of McNemar's test with continuity correction, of rows that only one model gets right, and only the other",
        interval::mcnemar_corrected_function,
    ),
    scalar("mcnemar_exact(b, c)", "p-value of McNemar's exact test of those counts", interval::mcnemar_exact_function),
    aggregate(
        "mcnemar_p(a, b)",
        "p-value of McNemar's exact test of two models' verdicts on the same rows",
        Of::Pairs(resample::mcnemar_p),
    ),
    scalar(
        "minimum_detectable_difference(sd, n)",
        "the mean of n paired differences of this deviation that is found at 5 % with a probability of 80 %",
        interval::minimum_detectable,
    ),
    scalar("ngram_jaccard(a, b, n)", "runs of n words in both texts over those in either", text::ngram_jaccard),
    scalar("ngram_overlap(a, b, n)", "share of a's runs of n words that b has too", text::ngram_overlap),
    scalar(
        "pair_verdict(text)",
        "A, B or, for a tie, C: what a judge's text has in [[ ]]; NULL where there is none",
        judged::pair_verdict,
    ),
    aggregate(
        "paired_bootstrap_high(a, b[, seed])",
        "upper end of the 95 % interval of the mean of a - b, 10,000 resamples of rows",
        Of::Pairs(resample::paired_high),
    ),
    aggregate(
        "paired_bootstrap_low(a, b[, seed])",
        "lower end of the 95 % interval of the mean of a - b, 10,000 resamples of rows",
        Of::Pairs(resample::paired_low),
    ),
    aggregate(
        "paired_bootstrap_p(a, b[, seed])",
        "two-sided p-value of the mean of a - b, 10,000 resamples of rows",
        Of::Pairs(resample::paired_p),
    ),
    scalar("pass_at_k(n, c, k)", "unbiased estimate that one of k answers passes, when c of n did", choice::pass_at_k),
    scalar(
        "reward_bench_section(subset)",
        "the section of a subset of RewardBench: Chat, Chat Hard, Safety or Reasoning; NULL for another",
        judged::reward_bench_section,
    ),
    scalar(
        "reward_bench_weight(subset)",
        "how many prompts a subset of RewardBench counts for in its section; NULL for another",
        judged::reward_bench_weight,
    ),
    scalar(
        "rouge_1(text, reference)",
        "ROUGE-1 as a harmonic mean, 0 to 1, as rouge_score computes it",
        overlap::rouge_1,
    ),
    scalar("rouge_2(text, reference)", "ROUGE-2, likewise", overlap::rouge_2),
    scalar("rouge_l(text, reference)", "ROUGE-L, likewise, of the whole text as one sentence", overlap::rouge_l),
    scalar(
        "sentence_bleu(text, reference)",
        "BLEU of one text, 0 to 100, as sacrebleu's sentence_bleu",
        overlap::sentence_bleu,
    ),
    aggregate(
        "sign_flip_p(a, b[, seed])",
        "two-sided p-value of the sign-flip permutation test of a - b, 10,000 flips, or all where few rows differ",
        Of::Pairs(resample::sign_flip_p),
    ),
    aggregate(
        "stderr_mean(x)",
        "standard error of the mean, s / sqrt(n); NULL for fewer than two values",
        Of::StandardError,
    ),
    aggregate(
        "weighted_majority(answer, weight)",
        "the value with the greatest sum of weights, of equals the first in the order of bytes; rows with a NULL are left out",
        Of::WeightedMajority,
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
            Kind::Window(correction) => {
                context.register_udwf(WindowUDF::new_from_impl(Window::new(function.name(), *correction)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
