//! The expressions that answers are made of.

/// A formula with one value, once its variables have theirs.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// An unsigned decimal literal, digits and at most one point.
    Number(String),
    /// A variable, a word, or anything else that only equals itself.
    Symbol(String),
    Constant(Constant),
    Sum(Vec<Expr>),
    Product(Vec<Expr>),
    Negative(Box<Expr>),
    Quotient(Box<Expr>, Box<Expr>),
    Power(Box<Expr>, Box<Expr>),
    /// A number of hundredths.
    Percent(Box<Expr>),
    Call(Function, Vec<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constant {
    Pi,
    E,
    I,
    Infinity,
}

/// Functions of one argument, or of two where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
    Exp,
    /// Natural, or to the base that the second argument is.
    Log,
    /// Square root, or the root whose degree the second argument is.
    Root,
    Abs,
    Floor,
    Ceiling,
    Factorial,
    /// Of the first argument over the second.
    Binomial,
}

impl Function {
    /// The function that a LaTeX command or a plain word names.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" => Self::Tan,
            "cot" => Self::Cot,
            "sec" => Self::Sec,
            "csc" => Self::Csc,
            "arcsin" | "asin" => Self::Arcsin,
            "arccos" | "acos" => Self::Arccos,
            "arctan" | "atan" => Self::Arctan,
            "sinh" => Self::Sinh,
            "cosh" => Self::Cosh,
            "tanh" => Self::Tanh,
            "exp" => Self::Exp,
            "ln" | "log" | "lg" => Self::Log,
            _ => return None,
        })
    }
}

impl Expr {
    pub fn negative(self) -> Self {
        match self {
            Self::Negative(inner) => *inner,
            other => Self::Negative(Box::new(other)),
        }
    }

    pub fn quotient(self, below: Self) -> Self {
        Self::Quotient(Box::new(self), Box::new(below))
    }

    pub fn power(self, exponent: Self) -> Self {
        Self::Power(Box::new(self), Box::new(exponent))
    }

    pub fn minus(&self, other: &Self) -> Self {
        Self::Sum(vec![self.clone(), other.clone().negative()])
    }

    /// The literal, with a minus sign where it has one, of a plain number.
    pub fn literal(&self) -> Option<String> {
        match self {
            Self::Number(digits) => Some(digits.clone()),
            Self::Negative(inner) => match inner.as_ref() {
                Self::Number(digits) => Some(format!("-{digits}")),
                _ => None,
            },
            _ => None,
        }
    }

    /// Every variable in it, in the order of appearance, each once.
    pub fn symbols(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.collect_symbols(&mut found);
        found
    }

    /// Whether π, e, i or ∞ is in it.
    pub fn has_constants(&self) -> bool {
        match self {
            Self::Constant(_) => true,
            Self::Symbol(_) | Self::Number(_) => false,
            Self::Sum(parts) | Self::Product(parts) | Self::Call(_, parts) => parts.iter().any(Self::has_constants),
            Self::Negative(inner) | Self::Percent(inner) => inner.has_constants(),
            Self::Quotient(a, b) | Self::Power(a, b) => a.has_constants() || b.has_constants(),
        }
    }

    fn collect_symbols<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::Symbol(name) if !found.contains(&name.as_str()) => found.push(name),
            Self::Symbol(_) | Self::Number(_) | Self::Constant(_) => {}
            Self::Sum(parts) | Self::Product(parts) | Self::Call(_, parts) => {
                parts.iter().for_each(|part| part.collect_symbols(found));
            }
            Self::Negative(inner) | Self::Percent(inner) => inner.collect_symbols(found),
            Self::Quotient(a, b) | Self::Power(a, b) => {
                a.collect_symbols(found);
                b.collect_symbols(found);
            }
        }
    }
}
