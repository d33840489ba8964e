//! Benchmarks that a judge decides: what its words mean, and the figures that are made of many of its verdicts.
//!
//! * [`verdict`]: ratings and verdicts in a judge's text.
//! * [`win_rate`]: weighted and discrete win rates against one baseline, as AlpacaEval 2 counts them.
//! * [`length_control`]: the win rate that would be if the answers were as long as the baseline's.
//! * [`folds`]: the folds of a cross-validation as scikit-learn divides groups of one size.
//! * [`bradley_terry`]: ratings of any number of models from battles of two, with intervals and control of style.
//! * [`style`]: Markdown in an answer, counted.
//! * [`reward_bench`]: RewardBench's sections.
//!
//! What the models answered and who judged is not known here.

pub mod bradley_terry;
pub mod folds;
pub mod length_control;
pub mod reward_bench;
pub mod style;
pub mod verdict;
pub mod win_rate;

/// Raised whenever a result of this module changes.
pub const VERSION: u32 = 1;
