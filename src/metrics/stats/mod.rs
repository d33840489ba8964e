//! Figures about samples: how large, how spread, how sure. Pure functions of
//! numbers; they must not know what is measured.

mod bootstrap;
mod logistic;
mod summary;
mod wilson;

pub use bootstrap::{Interval, bootstrap_mean, quantile};
pub use logistic::{Features, Penalty, fit_logistic, sigmoid};
pub use summary::{mean, standard_deviation, standard_error};
pub use wilson::wilson;
