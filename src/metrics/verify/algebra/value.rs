//! What an answer can be, and when two answers are the same.

use super::MAX_ITEMS;
use super::expr::{Constant, Expr};
use super::relation::{self, Relation};

/// A value of any shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(Expr),
    /// Items with commas between them and no brackets around.
    List(Vec<Value>),
    /// Items in braces.
    Set(Vec<Value>),
    /// Items in round or square brackets; two of them may be an interval.
    Tuple {
        open: char,
        close: char,
        items: Vec<Value>,
    },
    Union(Vec<Value>),
    Matrix(Vec<Vec<Expr>>),
    /// A chain of sides with a sign between each two.
    Relation {
        sides: Vec<Value>,
        signs: Vec<Relation>,
    },
}

/// What differs between graders.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// When two scalars are equal.
    pub scalar: fn(gold: &Expr, answer: &Expr) -> bool,
    /// Whether items of a set may stand in any order in the answer.
    pub unordered: bool,
    /// Whether relations are solved, turned round and taken for the value that they give.
    pub rearranged: bool,
}

impl Value {
    /// Whether an answer is this value. The reference decides what is asked: of `x = 3` an answer `3` is enough, and the other way round.
    pub fn equals(&self, answer: &Self, rules: &Rules) -> bool {
        match (self, answer) {
            (Self::Scalar(gold), Self::Scalar(answer)) => (rules.scalar)(gold, answer) || same_word(gold, answer),
            (Self::Matrix(gold), Self::Matrix(answer)) => same_matrix(gold, answer, rules),
            (Self::Relation { sides, signs }, Self::Relation { sides: answer_sides, signs: answer_signs }) => {
                if !rules.rearranged {
                    return signs == answer_signs && same_list(sides, answer_sides, rules);
                }
                let (gold, gold_signs) = shortened(sides, signs);
                let (answer, answer_signs) = shortened(answer_sides, answer_signs);
                relation::same(&gold, &gold_signs, &answer, &answer_signs, rules)
                    || match (relation::interval(&gold, &gold_signs), relation::interval(&answer, &answer_signs)) {
                        (Some(gold), Some(answer)) => gold.equals(&answer, rules),
                        _ => false,
                    }
            }
            (Self::Relation { .. }, _) | (_, Self::Relation { .. }) if !rules.rearranged => false,
            (Self::Relation { sides, signs }, other) => {
                // An equation of more than a name is asked for as such.
                let is_name = matches!(&sides[0], Self::Scalar(side) if word(side).is_some());
                let asked = value_of(sides, signs).filter(|_| is_name).or_else(|| relation::interval(sides, signs));
                asked.is_some_and(|gold| gold.equals(other, rules))
            }
            (other, Self::Relation { sides, signs }) => {
                value_of(sides, signs).is_some_and(|answer| other.equals(&answer, rules))
            }
            (Self::Union(gold), Self::Union(answer)) => same_set(gold, answer, rules),
            (
                Self::Tuple { open, close, items },
                Self::Tuple { open: other_open, close: other_close, items: answer },
            ) => (items.len() != 2 || (open, close) == (other_open, other_close)) && same_list(items, answer, rules),
            (Self::Tuple { open: '(', close: ')', items }, Self::List(answer) | Self::Set(answer)) => {
                same_list(items, answer, rules)
            }
            (Self::List(gold) | Self::Set(gold), Self::Tuple { open: '(', close: ')', items }) => {
                same_set(gold, items, rules)
            }
            (Self::List(gold) | Self::Set(gold), Self::List(answer) | Self::Set(answer)) => {
                if rules.unordered {
                    same_set(gold, answer, rules)
                } else {
                    same_list(gold, answer, rules)
                }
            }
            (Self::List(gold) | Self::Set(gold), Self::Scalar(_)) => {
                same_set(gold, std::slice::from_ref(answer), rules)
            }
            (Self::Scalar(_), Self::List(answer) | Self::Set(answer)) => {
                same_set(std::slice::from_ref(self), answer, rules)
            }
            _ => false,
        }
    }
}

/// An equation that goes on, `x = 2 + 1 = 3`, without its middle.
fn shortened(sides: &[Value], signs: &[Relation]) -> (Vec<Value>, Vec<Relation>) {
    match (sides, signs) {
        ([first, .., last], [Relation::Equal, ..]) if signs.iter().all(|sign| *sign == Relation::Equal) => {
            (vec![first.clone(), last.clone()], vec![Relation::Equal])
        }
        _ => (sides.to_vec(), signs.to_vec()),
    }
}

/// What a relation gives where a value is asked for: the right side of an equation, the set of a membership.
fn value_of(sides: &[Value], signs: &[Relation]) -> Option<Value> {
    let gives = matches!(signs, [Relation::In]) || signs.iter().all(|sign| *sign == Relation::Equal);
    sides.last().cloned().filter(|_| gives)
}

fn same_list(gold: &[Value], answer: &[Value], rules: &Rules) -> bool {
    gold.len() == answer.len()
        && gold.len() <= MAX_ITEMS
        && gold.iter().zip(answer).all(|(gold, answer)| gold.equals(answer, rules))
}

/// In any order; an item that stands twice counts once.
fn same_set(gold: &[Value], answer: &[Value], rules: &Rules) -> bool {
    gold.len() <= MAX_ITEMS
        && answer.len() <= MAX_ITEMS
        && gold.iter().all(|gold| answer.iter().any(|answer| gold.equals(answer, rules)))
        && answer.iter().all(|answer| gold.iter().any(|gold| gold.equals(answer, rules)))
}

fn same_matrix(gold: &[Vec<Expr>], answer: &[Vec<Expr>], rules: &Rules) -> bool {
    gold.len() == answer.len()
        && gold.iter().zip(answer).all(|(gold, answer)| {
            gold.len() == answer.len() && gold.iter().zip(answer).all(|(gold, answer)| (rules.scalar)(gold, answer))
        })
}

/// Whether one is a word and the other the same word, read letter by letter: `\text{east}` and `east`.
fn same_word(a: &Expr, b: &Expr) -> bool {
    match (a, b) {
        (Expr::Symbol(_), _) | (_, Expr::Symbol(_)) => word(a).zip(word(b)).is_some_and(|(a, b)| a == b),
        _ => false,
    }
}

fn word(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Symbol(name) => Some(name.to_lowercase()),
        Expr::Constant(Constant::E) => Some("e".into()),
        Expr::Constant(Constant::I) => Some("i".into()),
        Expr::Product(parts) => {
            let letters: Option<Vec<String>> = parts.iter().map(word).collect();
            letters.map(|letters| letters.concat().to_lowercase())
        }
        _ => None,
    }
}
