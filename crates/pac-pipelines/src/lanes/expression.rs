//! Expressions of the Common Expression Language (CEL) in annotations. They always end soon: they
//! are short, they repeat nothing, and what they read is small.

use std::fmt;
use std::sync::Arc;

use super::rule::Lane;
use crate::model::RunView;

/// How long an expression is at most, in bytes.
#[cfg(feature = "expressions")]
const LENGTH: usize = 512;

/// How long the text is at most that an expression gives, in bytes.
const TEXT: usize = 253;

/// What an expression may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// `object`: the metadata of a run.
    Object,
    /// `lane`, a text, and `labels`, the values of the labels that a lane is of.
    Lane,
}

/// What an expression reads.
#[cfg_attr(
    not(feature = "expressions"),
    allow(dead_code, reason = "nothing is evaluated then")
)]
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    Object(&'a RunView),
    Lane(&'a Lane),
}

/// What an expression gives.
#[cfg_attr(
    not(feature = "expressions"),
    allow(dead_code, reason = "nothing is evaluated then")
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    Text(String),
    Number(i64),
    /// Something of this type.
    Other(&'static str),
}

/// An expression that can be understood. Cheap to clone.
#[derive(Clone)]
pub(super) struct Expression(Arc<imp::Program>);

impl Expression {
    /// Understands an expression.
    ///
    /// # Errors
    /// What is wrong with it, as a rule that it breaks.
    pub(super) fn parse(source: &str, scope: Scope) -> Result<Self, String> {
        imp::parse(source, scope).map(|program| Self(Arc::new(program)))
    }

    /// The text that it gives for a run.
    ///
    /// # Errors
    /// Why it gives none.
    pub(super) fn text(&self, input: Input<'_>) -> Result<String, String> {
        match imp::evaluate(&self.0, input)? {
            Output::Text(text) if text.len() <= TEXT => Ok(text),
            Output::Text(_) => Err(format!("gives a text that is longer than {TEXT} bytes")),
            Output::Number(_) => Err("gives a number, not a text; put string() around it".into()),
            Output::Other(kind) => Err(format!("gives {kind}, not a text")),
        }
    }

    /// The number that it gives for a lane.
    ///
    /// # Errors
    /// Why it gives none.
    pub(super) fn number(&self, input: Input<'_>) -> Result<i64, String> {
        match imp::evaluate(&self.0, input)? {
            Output::Number(number) => Ok(number),
            Output::Text(_) => Err("gives a text, not a number; put int() around it".into()),
            Output::Other(kind) => Err(format!("gives {kind}, not a number")),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").finish_non_exhaustive()
    }
}

#[cfg(feature = "expressions")]
#[path = "expression/cel.rs"]
mod imp;

/// Of a program that was built without expressions.
#[cfg(not(feature = "expressions"))]
mod imp {
    use super::{Input, Output, Scope};

    /// There is none.
    pub(super) enum Program {}

    pub(super) fn parse(_: &str, _: Scope) -> Result<Program, String> {
        Err("is an expression, which this program was built without".to_owned())
    }

    pub(super) fn evaluate(program: &Program, _: Input<'_>) -> Result<Output, String> {
        match *program {}
    }
}
