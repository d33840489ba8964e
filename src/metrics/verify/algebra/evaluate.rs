//! Values of expressions at points, and whether two expressions are equal.

use super::complex::Complex;
use super::expr::{Constant, Expr, Function};
use super::field::Element;
use super::{N_POINTS, TOLERANCE};
use crate::rng::Rng;

/// What rounding leaves of a value that is zero.
const ZERO: f64 = 1e-13;
/// The largest argument of a factorial or a binomial coefficient that is worked out exactly.
const MAX_FACTORIAL: u64 = 1000;

impl Expr {
    /// Whether the two are the same function of their variables, see [`super`].
    pub fn equals(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match exact(self, other) {
            Some(equal) => equal,
            None => agree(self, other, |a, b| (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(ZERO)),
        }
    }

    /// Its value where it has no variables and is real.
    pub fn real(&self) -> Option<f64> {
        let value = self.at(None)?;
        (value.is_real() && !value.re.is_nan()).then_some(value.re)
    }

    /// The constant that `self` is `other` times, where there is one (other than zero).
    pub fn ratio(&self, other: &Self) -> Option<f64> {
        let mut ratios = (0..N_POINTS + 2).filter_map(|point| {
            let ratio = self.at(Some(point))? / other.at(Some(point))?;
            ratio.is_finite().then_some(ratio)
        });
        let first = ratios.next().filter(|ratio| ratio.is_real() && ratio.re != 0.0)?;
        let mut n_more = 0;
        for ratio in ratios {
            if (ratio - first).abs() > TOLERANCE * first.abs() {
                return None;
            }
            n_more += 1;
        }
        (n_more > 0).then_some(first.re)
    }

    /// Its value in floating point; variables have random values that differ from point to point, none without a point.
    fn at(&self, point: Option<u64>) -> Option<Complex> {
        Some(match self {
            Self::Number(literal) => Complex::real(literal.parse().ok()?),
            Self::Symbol(name) => Complex::real(value_of(name, point?)),
            Self::Constant(Constant::Pi) => Complex::real(std::f64::consts::PI),
            Self::Constant(Constant::E) => Complex::real(std::f64::consts::E),
            Self::Constant(Constant::I) => Complex::I,
            Self::Constant(Constant::Infinity) => Complex::real(f64::INFINITY),
            Self::Sum(parts) => parts.iter().try_fold(Complex::ZERO, |sum, part| Some(sum + part.at(point)?))?,
            Self::Product(parts) => parts.iter().try_fold(Complex::ONE, |all, part| Some(all * part.at(point)?))?,
            Self::Negative(inner) => -inner.at(point)?,
            Self::Percent(inner) => inner.at(point)? / Complex::real(100.0),
            Self::Quotient(above, below) => above.at(point)? / below.at(point)?,
            Self::Power(base, exponent) => base.at(point)?.pow(exponent.at(point)?),
            Self::Call(function, arguments) => call(*function, arguments, point)?,
        })
    }

    /// Its value in the prime field, where it is a rational function.
    fn element(&self, point: u64) -> Option<Element> {
        Some(match self {
            Self::Number(literal) => Element::decimal(literal)?,
            Self::Symbol(name) => Element::new(hash(name, point)),
            // No rational relation holds of π, so that it can be any point.
            Self::Constant(Constant::Pi) => Element::new(hash("\u{0}pi", point)),
            Self::Constant(_) => return None,
            Self::Sum(parts) => parts.iter().try_fold(Element::ZERO, |sum, part| Some(sum + part.element(point)?))?,
            Self::Product(parts) => {
                parts.iter().try_fold(Element::ONE, |all, part| Some(all * part.element(point)?))?
            }
            Self::Negative(inner) => -inner.element(point)?,
            Self::Percent(inner) => inner.element(point)? * Element::new(100).inverse()?,
            Self::Quotient(above, below) => above.element(point)? * below.element(point)?.inverse()?,
            Self::Power(base, exponent) => {
                let exponent = exponent.integer()?;
                let power = base.element(point)?.power(exponent.unsigned_abs());
                if exponent < 0 { power.inverse()? } else { power }
            }
            Self::Call(Function::Factorial, arguments) => {
                let n = u64::try_from(arguments.first()?.integer()?).ok().filter(|n| *n <= MAX_FACTORIAL)?;
                (1..=n).fold(Element::ONE, |product, factor| product * Element::new(factor))
            }
            Self::Call(Function::Binomial, arguments) => {
                let [n, k] = arguments.as_slice() else { return None };
                let n = u64::try_from(n.integer()?).ok().filter(|n| *n <= MAX_FACTORIAL)?;
                let k = u64::try_from(k.integer()?).ok()?;
                if k > n {
                    return Some(Element::ZERO);
                }
                (0..k).try_fold(Element::ONE, |product, i| {
                    Some(product * Element::new(n - i) * Element::new(i + 1).inverse()?)
                })?
            }
            Self::Call(..) => return None,
        })
    }

    /// Its value where that is a whole number of moderate size.
    fn integer(&self) -> Option<i64> {
        let value = self.real()?;
        (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
    }
}

/// Decides the equality of two rational functions; none where one of them is something else.
fn exact(a: &Expr, b: &Expr) -> Option<bool> {
    for point in 0..N_POINTS {
        if a.element(point)? != b.element(point)? {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether two expressions without variables have values whose relative difference is at most `tolerance`.
pub fn close(a: &Expr, b: &Expr, tolerance: f64) -> bool {
    match (a.real(), b.real()) {
        (Some(a), Some(b)) => {
            a == b || (a.is_finite() && b.is_finite() && (a - b).abs() <= tolerance * a.abs().max(b.abs()))
        }
        _ => false,
    }
}

/// Whether two expressions give values that are alike at all points where either has one, and have one somewhere.
fn agree(a: &Expr, b: &Expr, alike: impl Fn(Complex, Complex) -> bool) -> bool {
    let mut n_compared = 0;
    for point in 0..N_POINTS + 2 {
        let (Some(a), Some(b)) = (a.at(Some(point)), b.at(Some(point))) else { return false };
        match (a.is_finite(), b.is_finite()) {
            (true, true) if alike(a, b) => n_compared += 1,
            (false, false) if a == b => n_compared += 1,
            (false, false) => {}
            _ => return false,
        }
    }
    n_compared > 0
}

/// Random bits for a variable at a point.
fn hash(name: &str, point: u64) -> u64 {
    Rng::labelled(point, name).bits()
}

/// A value between 0.5 and 2.5, of either sign.
fn value_of(name: &str, point: u64) -> f64 {
    let bits = hash(name, point);
    let size = 0.5 + 2.0 * (bits >> 11) as f64 / (1_u64 << 53) as f64;
    if bits & 1 == 0 { size } else { -size }
}

fn call(function: Function, arguments: &[Expr], point: Option<u64>) -> Option<Complex> {
    let x = arguments.first()?.at(point)?;
    let second = || arguments.get(1)?.at(point);
    let one = Complex::ONE;
    let of_real = |f: fn(f64) -> f64| if x.is_real() { Some(Complex::real(f(x.re))) } else { None };
    Some(match function {
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
        Function::Tan => x.sin() / x.cos(),
        Function::Cot => x.cos() / x.sin(),
        Function::Sec => one / x.cos(),
        Function::Csc => one / x.sin(),
        Function::Arcsin => of_real(f64::asin)?,
        Function::Arccos => of_real(f64::acos)?,
        Function::Arctan => of_real(f64::atan)?,
        Function::Sinh => of_real(f64::sinh)?,
        Function::Cosh => of_real(f64::cosh)?,
        Function::Tanh => of_real(f64::tanh)?,
        Function::Exp => x.exp(),
        Function::Log if arguments.len() > 1 => x.ln() / second()?.ln(),
        Function::Log => x.ln(),
        Function::Root if arguments.len() > 1 => x.pow(one / second()?),
        Function::Root => x.sqrt(),
        Function::Abs => Complex::real(x.abs()),
        Function::Floor => of_real(f64::floor)?,
        Function::Ceiling => of_real(f64::ceil)?,
        Function::Factorial => {
            let n = x.re;
            if !x.is_real() || n < 0.0 || n.fract() != 0.0 || n > 170.0 {
                return None;
            }
            Complex::real((1..=n as u64).map(|factor| factor as f64).product())
        }
        Function::Binomial => {
            let (n, k) = (x, second()?);
            if !n.is_real() || !k.is_real() || k.re < 0.0 || k.re.fract() != 0.0 || k.re > 1000.0 {
                return None;
            }
            Complex::real((0..k.re as u64).map(|i| (n.re - i as f64) / (i as f64 + 1.0)).product())
        }
    })
}
