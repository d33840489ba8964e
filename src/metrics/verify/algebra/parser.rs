//! Formulas by recursive descent. What is not understood is no formula: there
//! is no guess about the rest.

use super::expr::{Constant, Expr, Function};
use super::lexer::{Token, tokens};
use super::relation::Relation;
use super::value::Value;
use super::{MAX_CHARS, MAX_DEPTH, MAX_WRAPS};

/// Letters that LaTeX writes as commands.
const LETTERS: &[&str] = &[
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
    "ell",
    "hbar",
];
/// Commands that stand before an argument and make another symbol of it.
const ACCENTS: &[&str] = &["overline", "bar", "hat", "vec", "mathbb", "mathcal", "tilde", "widehat", "overrightarrow"];

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whether runs of letters are names; otherwise each letter is a variable.
    pub words: bool,
    /// Whether all of the text must be understood; otherwise its longest beginning that is an expression counts.
    pub whole: bool,
    /// Whether a number before a fraction is a mixed number; otherwise they are multiplied.
    pub mixed: bool,
    /// Whether a comma before three digits divides thousands; otherwise it divides a list.
    pub separators: bool,
}

/// LaTeX, all of it.
pub const LATEX: Reading = Reading { words: false, whole: true, mixed: true, separators: false };

/// Reads a text as one value.
pub fn parse(text: &str, reading: Reading) -> Option<Value> {
    if text.len() > 4 * MAX_CHARS || text.chars().count() > MAX_CHARS {
        return None;
    }
    let tokens = tokens(text, reading)?;
    let mut parser = Parser { tokens, reading, at: 0, depth: 0, n_wraps: 0, bars: 0 };
    if !reading.whole {
        return parser.relation();
    }
    let value = parser.list()?;
    (parser.at == parser.tokens.len()).then_some(value)
}

struct Parser {
    tokens: Vec<Token>,
    reading: Reading,
    at: usize,
    depth: usize,
    n_wraps: usize,
    /// How many absolute values are open.
    bars: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn peek_sign(&self) -> Option<char> {
        match self.peek() {
            Some(Token::Sign(sign)) => Some(*sign),
            _ => None,
        }
    }

    fn peek_command(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Command(name)) => Some(name),
            _ => None,
        }
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.peek_sign() == Some(sign);
        self.at += usize::from(found);
        found
    }

    fn take_command(&mut self, name: &str) -> bool {
        let found = self.peek_command() == Some(name);
        self.at += usize::from(found);
        found
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Counts what makes an expression deeper without brackets.
    fn wrap(&mut self) -> Option<()> {
        self.n_wraps += 1;
        (self.n_wraps <= MAX_WRAPS).then_some(())
    }

    /// Items with commas or semicolons between them.
    fn list(&mut self) -> Option<Value> {
        let mut items = self.items()?;
        if items.len() == 1 { items.pop() } else { Some(Value::List(items)) }
    }

    fn items(&mut self) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        loop {
            match self.relation()? {
                // Both values of `\pm 1`.
                Value::List(both) => items.extend(both),
                item => items.push(item),
            }
            if !self.take(',') && !self.take(';') {
                return Some(items);
            }
        }
    }

    fn relation(&mut self) -> Option<Value> {
        let first = self.nested(Self::union)?;
        let mut sides = vec![first];
        let mut signs = Vec::new();
        while let Some(sign) = self.relation_sign() {
            let side = self.nested(Self::union)?;
            // What something is nearly is no part of it.
            if sign == Relation::Approximately {
                break;
            }
            signs.push(sign);
            sides.push(side);
        }
        if signs.is_empty() { sides.pop() } else { Some(Value::Relation { sides, signs }) }
    }

    fn relation_sign(&mut self) -> Option<Relation> {
        let sign = match self.peek()? {
            Token::Sign('=') => Relation::Equal,
            Token::Sign('<') => Relation::Less,
            Token::Sign('>') => Relation::Greater,
            Token::Command(name) => match name.as_str() {
                "le" => Relation::LessOrEqual,
                "ge" => Relation::GreaterOrEqual,
                "ne" => Relation::NotEqual,
                "approx" | "simeq" | "sim" => Relation::Approximately,
                "equiv" => Relation::Equal,
                "in" => Relation::In,
                _ => return None,
            },
            _ => return None,
        };
        self.at += 1;
        // Also `<=` and `>=`, as they are typed.
        Some(match sign {
            Relation::Less if self.take('=') => Relation::LessOrEqual,
            Relation::Greater if self.take('=') => Relation::GreaterOrEqual,
            Relation::Equal => {
                self.take('=');
                Relation::Equal
            }
            sign => sign,
        })
    }

    fn union(&mut self) -> Option<Value> {
        let first = self.sum()?;
        let mut parts = vec![first];
        while self.take_command("cup") {
            parts.push(self.sum()?);
        }
        if parts.len() == 1 { parts.pop() } else { Some(Value::Union(parts)) }
    }

    fn sum(&mut self) -> Option<Value> {
        let mut value = if self.peek_command() == Some("pm") {
            self.at += 1;
            let Value::Scalar(x) = self.product()? else { return None };
            Value::List(vec![Value::Scalar(x.clone()), Value::Scalar(x.negative())])
        } else {
            self.product()?
        };
        loop {
            let sign = match self.peek() {
                Some(Token::Sign(sign @ ('+' | '-'))) => *sign,
                Some(Token::Command(name)) if name == "pm" || name == "mp" => '±',
                _ => return Some(value),
            };
            self.at += 1;
            value = add(value, sign, self.product()?)?;
        }
    }

    /// Factors with signs between them. In LaTeX those without a sign belong together first: `1/2x` is one over `2x`.
    fn product(&mut self) -> Option<Value> {
        let mut value = self.run()?;
        loop {
            value = if self.take('*') {
                multiply(value, self.run()?)?
            } else if self.take('/') || self.take(':') {
                self.wrap()?;
                match (value, self.run()?) {
                    (Value::Scalar(a), Value::Scalar(b)) => Value::Scalar(a.quotient(b)),
                    (Value::Matrix(rows), Value::Scalar(b)) => scaled(rows, |cell| cell.quotient(b.clone())),
                    _ => return None,
                }
            } else if self.reading.words && self.starts_factor() {
                multiply(value, self.powered()?)?
            } else {
                return Some(value);
            }
        }
    }

    /// Factors without a sign between them.
    fn run(&mut self) -> Option<Value> {
        let mut value = self.signed()?;
        while !self.reading.words && self.starts_factor() {
            let is_number = matches!(value, Value::Scalar(Expr::Number(_)));
            if is_number && matches!(self.peek(), Some(Token::Number(_))) {
                return None;
            }
            let mixed = self.reading.mixed && is_number && self.starts_fraction();
            value = match (value, self.powered()?) {
                // A whole number before a fraction of numbers is a mixed number.
                (Value::Scalar(a), Value::Scalar(b)) if mixed => Value::Scalar(Expr::Sum(vec![a, b])),
                (a, b) => multiply(a, b)?,
            };
        }
        Some(value)
    }

    /// Whether the next token begins a factor that needs no sign before it.
    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Number(_) | Token::Letter(_) | Token::Text(_) | Token::Word(_)) => true,
            Some(Token::Sign(sign)) => matches!(sign, '(' | '{' | '[') || (*sign == '|' && self.bars == 0),
            Some(Token::Command(name)) => !matches!(
                name.as_str(),
                "}" | "le"
                    | "ge"
                    | "ne"
                    | "approx"
                    | "simeq"
                    | "sim"
                    | "equiv"
                    | "in"
                    | "cup"
                    | "pm"
                    | "mp"
                    | "rfloor"
                    | "rceil"
                    | "end"
            ),
            None => false,
        }
    }

    /// Whether `\frac` of two literals is next.
    fn starts_fraction(&self) -> bool {
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        let number = |token: &Token| matches!(token, Token::Number(_));
        match rest {
            [Token::Command(frac), Token::Number(digits), ..] if frac == "frac" && digits.len() > 1 => true,
            [
                Token::Command(frac),
                Token::Sign('{'),
                a,
                Token::Sign('}'),
                Token::Sign('{'),
                b,
                Token::Sign('}'),
                ..,
            ] => frac == "frac" && number(a) && number(b),
            [Token::Command(frac), a, b, ..] if frac == "frac" => number(a) && number(b),
            _ => false,
        }
    }

    fn signed(&mut self) -> Option<Value> {
        let mut negative = false;
        loop {
            if self.take('-') {
                negative = !negative;
            } else if !self.take('+') {
                break;
            }
        }
        match self.powered()? {
            value if !negative => Some(value),
            Value::Scalar(x) => Some(Value::Scalar(x.negative())),
            Value::Matrix(rows) => Some(scaled(rows, Expr::negative)),
            _ => None,
        }
    }

    /// An atom with what stands behind it: powers, factorials, percent signs, indices.
    fn powered(&mut self) -> Option<Value> {
        let mut value = self.nested(Self::atom)?;
        while matches!(self.peek_sign(), Some('^' | '!' | '%' | '_' | '\'')) {
            self.wrap()?;
            let wrap = |value: Value, f: &dyn Fn(Expr) -> Expr| match value {
                Value::Scalar(x) => Some(Value::Scalar(f(x))),
                _ => None,
            };
            value = if self.take('^') {
                match (value, self.nested(Self::argument)?) {
                    (Value::Scalar(base), exponent) => Value::Scalar(base.power(exponent)),
                    // A transpose or an inverse is a name, not arithmetic.
                    _ => return None,
                }
            } else if self.take('!') {
                wrap(value, &|x| Expr::Call(Function::Factorial, vec![x]))?
            } else if self.take('%') {
                wrap(value, &|x| Expr::Percent(Box::new(x)))?
            } else if self.take('_') {
                let index = self.nested(Self::argument)?;
                let Value::Scalar(base) = value else { return None };
                // The base of a number's digits is left out, as graders do.
                let indexed = |base: &Expr| Some(Expr::Symbol(format!("{}_{}", name(base)?, name(&index)?)));
                Value::Scalar(if matches!(base, Expr::Number(_)) { base } else { indexed(&base)? })
            } else {
                self.at += 1;
                let Value::Scalar(base) = value else { return None };
                Value::Scalar(Expr::Symbol(format!("{}'", name(&base)?)))
            }
        }
        Some(value)
    }

    /// What a command or a raised sign applies to: a group in braces, or one piece.
    fn argument(&mut self) -> Option<Expr> {
        if self.take('{') {
            let value = self.sum_in('}')?;
            return Some(value);
        }
        let negative = self.take('-');
        let Value::Scalar(value) = self.atom()? else { return None };
        Some(if negative { value.negative() } else { value })
    }

    /// The argument of `\frac` and its like: of a number only the first digit.
    fn digit_argument(&mut self) -> Option<Expr> {
        if let Some(Token::Number(digits)) = self.tokens.get_mut(self.at)
            && digits.len() > 1
            && !digits.contains('.')
        {
            let first = digits.remove(0);
            return Some(Expr::Number(first.into()));
        }
        self.argument()
    }

    fn sum_in(&mut self, close: char) -> Option<Expr> {
        match self.sum()? {
            Value::Scalar(value) if self.take(close) => Some(value),
            _ => None,
        }
    }

    fn atom(&mut self) -> Option<Value> {
        let scalar = |expr: Expr| Some(Value::Scalar(expr));
        match self.next()? {
            Token::Number(digits) => scalar(Expr::Number(digits)),
            Token::Letter('e') => scalar(Expr::Constant(Constant::E)),
            Token::Letter('i') => scalar(Expr::Constant(Constant::I)),
            Token::Letter(letter) => scalar(Expr::Symbol(letter.into())),
            Token::Text(text) => scalar(Expr::Symbol(text)),
            Token::Sign(open @ ('(' | '[')) => self.bracketed(open),
            Token::Sign('{') => self.braced(false),
            Token::Sign('|') => {
                self.bars += 1;
                let inner = self.nested(|parser| parser.sum_in('|'));
                self.bars -= 1;
                scalar(Expr::Call(Function::Abs, vec![inner?]))
            }
            Token::Sign(_) => None,
            Token::Word(word) => match word.as_str() {
                "sqrt" | "pi" | "oo" | "inf" | "infinity" => self.command(&word),
                _ => match Function::named(&word) {
                    Some(function) => self.function(function),
                    None => scalar(Expr::Symbol(word)),
                },
            },
            Token::Command(command) => self.command(&command),
        }
    }

    fn bracketed(&mut self, open: char) -> Option<Value> {
        // Bars within brackets are their own.
        let bars = std::mem::take(&mut self.bars);
        let items = self.nested(Self::items);
        self.bars = bars;
        let mut items = items?;
        let close = match self.next()? {
            Token::Sign(close @ (')' | ']')) => close,
            _ => return None,
        };
        if items.len() == 1 && matches!((open, close), ('(', ')') | ('[', ']')) {
            return items.pop();
        }
        Some(Value::Tuple { open, close, items })
    }

    fn braced(&mut self, is_set: bool) -> Option<Value> {
        let closes = |parser: &mut Self| if is_set { parser.take_command("}") } else { parser.take('}') };
        if closes(self) {
            return Some(Value::Set(Vec::new()));
        }
        let mut items = self.nested(Self::items)?;
        if !closes(self) {
            return None;
        }
        if items.len() == 1 && !is_set { items.pop() } else { Some(Value::Set(items)) }
    }

    fn command(&mut self, command: &str) -> Option<Value> {
        let scalar = |expr: Expr| Some(Value::Scalar(expr));
        let call = |function, arguments| Some(Value::Scalar(Expr::Call(function, arguments)));
        match command {
            "{" => self.braced(true),
            "frac" => {
                let above = self.digit_argument()?;
                let below = self.digit_argument()?;
                scalar(above.quotient(below))
            }
            "binom" => {
                let n = self.digit_argument()?;
                let k = self.digit_argument()?;
                call(Function::Binomial, vec![n, k])
            }
            "sqrt" => {
                let mut degree = None;
                if self.take('[') {
                    degree = Some(self.sum_in(']')?);
                }
                let mut arguments = vec![self.argument()?];
                arguments.extend(degree);
                call(Function::Root, arguments)
            }
            "pi" => scalar(Expr::Constant(Constant::Pi)),
            "infty" | "inf" | "infinity" | "oo" => scalar(Expr::Constant(Constant::Infinity)),
            "emptyset" => Some(Value::Set(Vec::new())),
            "lfloor" | "lceil" => {
                let inner = self.sum()?;
                let (close, function) =
                    if command == "lfloor" { ("rfloor", Function::Floor) } else { ("rceil", Function::Ceiling) };
                match inner {
                    Value::Scalar(x) if self.take_command(close) => call(function, vec![x]),
                    _ => None,
                }
            }
            "begin" => self.matrix(),
            _ if LETTERS.contains(&command) => scalar(Expr::Symbol(command.to_owned())),
            _ if ACCENTS.contains(&command) => {
                let inner = self.argument()?;
                scalar(Expr::Symbol(format!("{command} {}", name(&inner)?)))
            }
            _ => self.function(Function::named(command)?),
        }
    }

    fn function(&mut self, function: Function) -> Option<Value> {
        let base = if self.take('_') { Some(self.digit_argument()?) } else { None };
        let exponent = if self.take('^') { Some(self.argument()?) } else { None };
        let argument = if matches!(self.peek_sign(), Some('(' | '{')) {
            match self.atom()? {
                Value::Scalar(x) => x,
                _ => return None,
            }
        } else {
            let mut factors = Vec::new();
            while factors.is_empty() || (self.starts_factor() && !self.starts_function()) {
                match self.powered()? {
                    Value::Scalar(x) => factors.push(x),
                    _ => return None,
                }
            }
            Expr::Product(factors)
        };
        let mut arguments = vec![argument];
        arguments.extend(base.filter(|_| function == Function::Log));
        let inverse = exponent.as_ref().and_then(Expr::literal).is_some_and(|literal| literal == "-1");
        let function = match function {
            Function::Sin if inverse => Function::Arcsin,
            Function::Cos if inverse => Function::Arccos,
            Function::Tan if inverse => Function::Arctan,
            other => other,
        };
        let value = Expr::Call(function, arguments);
        Some(Value::Scalar(match exponent {
            Some(exponent) if !inverse => value.power(exponent),
            _ => value,
        }))
    }

    fn starts_function(&self) -> bool {
        matches!(self.peek(), Some(Token::Command(name) | Token::Word(name)) if Function::named(name).is_some())
    }

    /// `\begin{pmatrix} a & b \\ c & d \end{pmatrix}` and its like, from behind `\begin`.
    fn matrix(&mut self) -> Option<Value> {
        self.environment()?;
        // The columns' alignment of an array.
        if self.take('{') {
            while !self.take('}') {
                self.next()?;
            }
        }
        let mut rows = Vec::new();
        loop {
            if self.take_command("end") {
                break;
            }
            let mut row = vec![self.cell()?];
            while self.take('&') {
                row.push(self.cell()?);
            }
            rows.push(row);
            if !self.take('\n') {
                if !self.take_command("end") {
                    return None;
                }
                break;
            }
        }
        self.environment()?;
        Some(Value::Matrix(rows))
    }

    fn cell(&mut self) -> Option<Expr> {
        match self.nested(Self::sum)? {
            Value::Scalar(value) => Some(value),
            _ => None,
        }
    }

    /// The name of an environment in braces.
    fn environment(&mut self) -> Option<()> {
        if !self.take('{') {
            return None;
        }
        let mut name = String::new();
        while !self.take('}') {
            match self.next()? {
                Token::Letter(letter) => name.push(letter),
                Token::Word(word) => name.push_str(&word),
                _ => return None,
            }
        }
        matches!(name.as_str(), "pmatrix" | "bmatrix" | "matrix" | "vmatrix" | "Bmatrix" | "smallmatrix" | "array")
            .then_some(())
    }
}

/// What an index or an accent calls its symbol.
fn name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Symbol(name) => Some(name.clone()),
        Expr::Number(digits) => Some(digits.clone()),
        Expr::Constant(Constant::E) => Some("e".into()),
        Expr::Constant(Constant::I) => Some("i".into()),
        Expr::Product(parts) => parts.iter().map(name).collect::<Option<Vec<_>>>().map(|names| names.concat()),
        Expr::Negative(inner) => Some(format!("-{}", name(inner)?)),
        _ => None,
    }
}

fn scaled(rows: Vec<Vec<Expr>>, f: impl Fn(Expr) -> Expr) -> Value {
    Value::Matrix(rows.into_iter().map(|row| row.into_iter().map(&f).collect()).collect())
}

fn add(a: Value, sign: char, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Scalar(a), Value::Scalar(b)) if sign == '±' => {
            let plus = Expr::Sum(vec![a.clone(), b.clone()]);
            Some(Value::List(vec![Value::Scalar(plus), Value::Scalar(Expr::Sum(vec![a, b.negative()]))]))
        }
        (Value::Scalar(a), Value::Scalar(b)) => {
            let b = if sign == '-' { b.negative() } else { b };
            Some(Value::Scalar(match a {
                Expr::Sum(mut parts) => {
                    parts.push(b);
                    Expr::Sum(parts)
                }
                a => Expr::Sum(vec![a, b]),
            }))
        }
        _ => None,
    }
}

fn multiply(a: Value, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Scalar(Expr::Product(mut parts)), Value::Scalar(b)) => {
            parts.push(b);
            Some(Value::Scalar(Expr::Product(parts)))
        }
        (Value::Scalar(a), Value::Scalar(b)) => Some(Value::Scalar(Expr::Product(vec![a, b]))),
        (Value::Scalar(a), Value::Matrix(rows)) | (Value::Matrix(rows), Value::Scalar(a)) => {
            Some(scaled(rows, |cell| Expr::Product(vec![a.clone(), cell])))
        }
        _ => None,
    }
}
