//! What an operator takes and makes, and when two ports fit.

use crate::rows::RowType;

/// What travels along an edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A table of a row type.
    Rows(&'static RowType),
    /// A table whose columns are known only when it is made, or do not matter.
    AnyTable,
    /// A model folder.
    Model,
    /// A model that answers elsewhere: its name and place, no weights. Only an output.
    Endpoint,
    /// A model folder or an endpoint. Only an input, of work that needs no weights.
    AnyModel,
}

impl Kind {
    /// Whether it is a model, of whatever kind; all else is a table.
    pub fn is_model(self) -> bool {
        matches!(self, Self::Model | Self::Endpoint | Self::AnyModel)
    }

    /// Whether something made as `self` may be taken as `wanted`; if not, why.
    ///
    /// Columns that are only known at run time are checked when they are read.
    pub fn fits(self, wanted: Self) -> Result<(), String> {
        match (self, wanted) {
            (Self::Model, Self::Model | Self::AnyModel)
            | (Self::Endpoint, Self::Endpoint | Self::AnyModel)
            | (Self::AnyTable, Self::AnyTable | Self::Rows(_))
            | (Self::Rows(_), Self::AnyTable) => Ok(()),
            (Self::Rows(made), Self::Rows(wanted)) => match made.lacks(wanted) {
                None => Ok(()),
                Some(lack) => Err(format!("{made} rows do not fit {wanted} rows: {lack}")),
            },
            (made, wanted) => Err(format!("{} is not {}", made.describe(), wanted.describe())),
        }
    }

    /// For messages and the manual: `a model`, `Prompt rows`, `a table`.
    pub fn describe(self) -> String {
        match self {
            Self::Rows(rows) => format!("a table of {rows} rows"),
            Self::AnyTable => "a table".to_owned(),
            Self::Model => "a model".to_owned(),
            Self::Endpoint => "an endpoint".to_owned(),
            Self::AnyModel => "a model or an endpoint".to_owned(),
        }
    }
}

/// How many artifacts an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one model, or one table (several instances are gathered in one).
    One,
    /// None or one.
    Optional,
    /// One or more.
    Many,
}

/// An input port.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The word in `inputs:`.
    pub name: String,
    /// What it takes.
    pub kind: Kind,
    /// How many.
    pub arity: Arity,
    /// The operator writes the labels of what is bound here into its output,
    /// so they are part of its key and must be known.
    pub labelled: bool,
    /// Left out, it is bound to the stage of its own name (SQL's tables).
    pub implicit: bool,
    /// One sentence for the manual.
    pub doc: &'static str,
}

impl Input {
    /// An input that takes exactly one.
    pub fn one(name: &str, kind: Kind, doc: &'static str) -> Self {
        Self { name: name.to_owned(), kind, arity: Arity::One, labelled: false, implicit: false, doc }
    }

    /// An input that may be left out.
    pub fn optional(name: &str, kind: Kind, doc: &'static str) -> Self {
        Self { arity: Arity::Optional, ..Self::one(name, kind, doc) }
    }

    /// An input that takes one or more.
    pub fn many(name: &str, kind: Kind, doc: &'static str) -> Self {
        Self { arity: Arity::Many, ..Self::one(name, kind, doc) }
    }

    /// Says that labels are needed here.
    #[must_use]
    pub fn labelled(self) -> Self {
        Self { labelled: true, ..self }
    }

    /// Says that the port's name is a stage's name unless bound otherwise.
    #[must_use]
    pub fn implicit(self) -> Self {
        Self { implicit: true, ..self }
    }
}

/// An output port.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The word after the dot in `stage.output`.
    pub name: String,
    /// What it makes.
    pub kind: Kind,
    /// One sentence for the manual.
    pub doc: &'static str,
    /// It lists rows that failed and are missing elsewhere, which readers of
    /// what rests on the rest are told.
    pub lists_failures: bool,
}

impl Output {
    /// An output.
    pub fn new(name: &str, kind: Kind, doc: &'static str) -> Self {
        Self { name: name.to_owned(), kind, doc, lists_failures: false }
    }

    /// Says that it lists rows that failed.
    #[must_use]
    pub fn of_failures(self) -> Self {
        Self { lists_failures: true, ..self }
    }
}

/// All ports of an operator under one configuration. The first output is what
/// the stage's name alone stands for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ports {
    /// Inputs, in order of the manual.
    pub inputs: Vec<Input>,
    /// Outputs; never empty.
    pub outputs: Vec<Output>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{METRIC, PROMPT, RESPONSE, SCORED};

    #[test]
    fn a_row_type_fits_where_its_columns_suffice() {
        assert!(Kind::Rows(&SCORED).fits(Kind::Rows(&RESPONSE)).is_ok());
        assert!(Kind::Rows(&RESPONSE).fits(Kind::Rows(&PROMPT)).is_ok());
        let message = Kind::Rows(&PROMPT).fits(Kind::Rows(&SCORED)).expect_err("prompts have no scores");
        assert!(message.contains("source"), "{message}");
        assert!(Kind::Rows(&METRIC).fits(Kind::Rows(&PROMPT)).is_err());
        assert!(Kind::Model.fits(Kind::AnyTable).is_err());
    }

    #[test]
    fn an_endpoint_stands_only_where_no_weights_are_needed() {
        assert!(Kind::Endpoint.fits(Kind::AnyModel).is_ok() && Kind::Model.fits(Kind::AnyModel).is_ok());
        let message = Kind::Endpoint.fits(Kind::Model).expect_err("it has no weights");
        assert_eq!(message, "an endpoint is not a model");
        assert!(Kind::Endpoint.fits(Kind::AnyTable).is_err() && Kind::AnyTable.fits(Kind::AnyModel).is_err());
    }
}
