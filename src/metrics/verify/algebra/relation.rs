//! Equations, inequalities and memberships: when they say the same.

use super::expr::{Constant, Expr};
use super::value::{Rules, Value};

/// What stands between the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Approximately,
    In,
}

impl Relation {
    fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            other => other,
        }
    }

    fn is_inequality(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }

    fn is_upwards(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual)
    }

    fn is_strict(self) -> bool {
        matches!(self, Self::Less | Self::Greater)
    }
}

/// Whether two chains such as `a < b < c` say the same, as they stand or read backwards.
pub fn same(gold: &[Value], gold_signs: &[Relation], answer: &[Value], signs: &[Relation], rules: &Rules) -> bool {
    if gold.len() != answer.len() {
        return false;
    }
    let links = |sides: &[Value], signs: &[Relation]| -> Vec<(Value, Relation, Value)> {
        sides.windows(2).zip(signs).map(|(pair, sign)| (pair[0].clone(), *sign, pair[1].clone())).collect()
    };
    let gold = links(gold, gold_signs);
    let answer = links(answer, signs);
    let backwards: Vec<_> = answer.iter().rev().map(|(a, sign, b)| (b.clone(), sign.flipped(), a.clone())).collect();
    [answer, backwards]
        .iter()
        .any(|answer| gold.iter().zip(answer).all(|(gold, answer)| same_link(gold, answer, rules)))
}

fn same_link(gold: &(Value, Relation, Value), answer: &(Value, Relation, Value), rules: &Rules) -> bool {
    let equal = |a: &Value, b: &Value| a.equals(b, rules);
    if gold.1 == answer.1 && equal(&gold.0, &answer.0) && equal(&gold.2, &answer.2) {
        return true;
    }
    let (Value::Scalar(a), Value::Scalar(b)) = (&gold.0, &gold.2) else { return false };
    let (Value::Scalar(c), Value::Scalar(d)) = (&answer.0, &answer.2) else { return false };
    let Some(factor) = a.minus(b).ratio(&c.minus(d)) else { return false };
    let sign = if factor < 0.0 { answer.1.flipped() } else { answer.1 };
    gold.1 == sign && a.minus(b).symbols().iter().any(|name| c.minus(d).symbols().contains(name))
}

/// The interval that an inequality of one variable describes: `1 < x \le 2` is (1, 2].
pub fn interval(sides: &[Value], signs: &[Relation]) -> Option<Value> {
    let is_variable = |value: &Value| matches!(value, Value::Scalar(Expr::Symbol(_)));
    if let ([variable, set], [Relation::In]) = (sides, signs) {
        return is_variable(variable).then(|| set.clone());
    }
    if !signs.iter().all(|sign| sign.is_inequality()) {
        return None;
    }
    let infinity = Expr::Constant(Constant::Infinity);
    let (low, low_strict, high, high_strict) = match (sides, signs) {
        ([a, x, b], [left, right]) if is_variable(x) && left.is_upwards() == right.is_upwards() => {
            if left.is_upwards() {
                (a.clone(), left.is_strict(), b.clone(), right.is_strict())
            } else {
                (b.clone(), right.is_strict(), a.clone(), left.is_strict())
            }
        }
        ([a, b], [sign]) => {
            let (sign, bound) = if is_variable(a) {
                (*sign, b)
            } else if is_variable(b) {
                (sign.flipped(), a)
            } else {
                return None;
            };
            if sign.is_upwards() {
                (Value::Scalar(infinity.negative()), true, bound.clone(), sign.is_strict())
            } else {
                (bound.clone(), sign.is_strict(), Value::Scalar(infinity), true)
            }
        }
        _ => return None,
    };
    let (open, close) = (if low_strict { '(' } else { '[' }, if high_strict { ')' } else { ']' });
    Some(Value::Tuple { open, close, items: vec![low, high] })
}
