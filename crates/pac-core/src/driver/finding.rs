//! What a driver finds out about its store when it is asked to look for faults.

use std::fmt;

use crate::error::ErrorKind;
use crate::text::one_line;

/// One thing about a store that an operator should know of, and what to do about it.
///
/// ```
/// use pac_core::ErrorKind;
/// use pac_core::driver::{Finding, Level};
///
/// let finding = Finding::failure(
///     ErrorKind::Unauthorised,
///     "the role \"pac\" may not DELETE from pac.sessions",
///     "grant what docs/deploy/postgresql.sql lists",
/// );
/// assert_eq!(finding.level(), Level::Failure(ErrorKind::Unauthorised));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    level: Level,
    text: String,
    cure: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// All works; it will not for ever, or it is slower than it could be.
    Warning,
    /// Something does not work. The kind is that of the error with which it fails.
    Failure(ErrorKind),
}

impl Finding {
    /// Something that works today, and should be seen to. `text` names the thing and what is wrong
    /// with it, `cure` says what to do.
    #[must_use]
    pub fn warning(text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            text: one_line(&text.into()).into_owned(),
            cure: one_line(&cure.into()).into_owned(),
        }
    }

    /// Something that does not work, and fails with an error of this kind.
    #[must_use]
    pub fn failure(kind: ErrorKind, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            level: Level::Failure(kind),
            text: one_line(&text.into()).into_owned(),
            cure: one_line(&cure.into()).into_owned(),
        }
    }

    /// How bad it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The thing, and what is wrong with it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> &str {
        &self.cure
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.cure)
    }
}
