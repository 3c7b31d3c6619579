//! Why a step is not in its section.

use thiserror::Error;

/// A step could not enter or leave a section: what kind of failure it is, of which section of which
/// run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SectionError {
    kind: SectionErrorKind,
    message: String,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SectionErrorKind {
    /// There is no run of this name and uid any more.
    RunGone,
    /// The run has ended, or is being deleted.
    RunEnded,
    /// The request was ended in the store, by an operator.
    Cancelled,
    /// Another step of the run has taken the request back.
    Withdrawn,
    /// The run has as many requests, or holders of one, as it may.
    Crowded,
    /// The turn did not come in time; the request was taken back.
    TimedOut,
    /// The API does not allow it.
    Refused,
    /// The API was not to be had.
    Unavailable,
}

impl SectionError {
    pub(super) fn new(kind: SectionErrorKind, message: String) -> Self {
        Self { kind, message }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> SectionErrorKind {
        self.kind
    }
}
