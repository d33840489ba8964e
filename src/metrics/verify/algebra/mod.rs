//! Mathematical answers as values: LaTeX and plain formulas are read into
//! numbers, expressions, lists, intervals, matrices and relations, and two of
//! them are compared.
//!
//! Two expressions are equal where their difference vanishes. Rational
//! functions of the variables (and of π) are decided in the field of 2^61 − 1
//! elements at random points, exactly but for a chance below 10^-15 (J. T.
//! Schwartz, Journal of the ACM 27, 1980), however long their numbers are. All
//! else (roots, logarithms, angles) is computed in complex floating point at
//! [`N_POINTS`] random points and must agree to a relative [`TOLERANCE`].
//!
//! The work is bounded: texts over [`MAX_CHARS`] characters, nesting over
//! [`MAX_DEPTH`] and [`MAX_WRAPS`] and lists over [`MAX_ITEMS`] are not read.

mod complex;
mod evaluate;
mod expr;
mod field;
mod lexer;
mod parser;
mod relation;
mod value;

pub use evaluate::close;
pub use expr::Expr;
pub use parser::{LATEX, Reading, parse};
pub use value::{Rules, Value};

/// The longest text that is read as a formula, in characters.
pub const MAX_CHARS: usize = 4000;
/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 60;
/// How many divisions, powers and signs behind a value one formula may hold.
pub const MAX_WRAPS: usize = 100;
/// The longest list that is compared.
pub const MAX_ITEMS: usize = 100;
/// Relative difference of floating-point values that count as equal.
pub const TOLERANCE: f64 = 1e-11;
/// At how many random points two expressions must agree.
pub const N_POINTS: u64 = 4;

#[cfg(test)]
mod tests;
