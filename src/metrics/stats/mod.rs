//! Figures about samples: how large, how spread, how sure. Pure functions of
//! numbers; they must not know what is measured.

mod bootstrap;
mod cluster;
mod exact;
mod liblinear;
mod logistic;
mod paired;
mod power;
mod several;
mod special;
mod summary;
mod wilson;

pub use bootstrap::{Interval, bootstrap_mean, quantile};
pub use cluster::{SmallSample, clustered_standard_error};
pub use exact::{binomial_below, clopper_pearson};
pub use liblinear::{Classified, fit_liblinear};
pub use logistic::{Features, Penalty, fit_logistic, sigmoid};
pub use paired::{PairedBootstrap, mcnemar_corrected, mcnemar_exact, paired_bootstrap, sign_flip};
pub use power::minimum_detectable_difference;
pub use several::{benjamini_hochberg, holm};
pub use special::{beta_quantile, chi_square_tail, incomplete_beta, normal_quantile, normal_tail};
pub use summary::{mean, standard_deviation, standard_error};
pub use wilson::wilson;

#[cfg(test)]
mod tests;
