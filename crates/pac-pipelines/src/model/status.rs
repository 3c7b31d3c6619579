//! Where a run stands, as its object says.

use std::fmt;

use crate::vocabulary;

/// `spec.status` of a run: what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SpecStatus {
    /// Absent or empty: the run is to run.
    #[default]
    None,
    /// The run is held back; it has not started.
    Pending,
    /// End at once. A run that never started ends without any task.
    Cancelled,
    /// End the tasks, then run the `finally` tasks; also of a run that never started.
    CancelledRunFinally,
    /// Let the current tasks end, then run the `finally` tasks; also of a run that never started.
    StoppedRunFinally,
    /// A value that this version does not know: the run is left alone.
    Unknown(String),
}

impl SpecStatus {
    /// From the text of the field; empty is [`SpecStatus::None`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "" => Self::None,
            vocabulary::PENDING => Self::Pending,
            vocabulary::CANCELLED => Self::Cancelled,
            vocabulary::CANCELLED_RUN_FINALLY => Self::CancelledRunFinally,
            vocabulary::STOPPED_RUN_FINALLY => Self::StoppedRunFinally,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// The text of the field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::None => "",
            Self::Pending => vocabulary::PENDING,
            Self::Cancelled => vocabulary::CANCELLED,
            Self::CancelledRunFinally => vocabulary::CANCELLED_RUN_FINALLY,
            Self::StoppedRunFinally => vocabulary::STOPPED_RUN_FINALLY,
            Self::Unknown(text) => text,
        }
    }

    /// Whether it ends the run, at once or gracefully.
    #[must_use]
    pub fn is_cancel(&self) -> bool {
        matches!(self, Self::Cancelled) || self.is_graceful()
    }

    /// Whether it ends the run and runs its `finally` tasks.
    #[must_use]
    pub fn is_graceful(&self) -> bool {
        matches!(self, Self::CancelledRunFinally | Self::StoppedRunFinally)
    }
}

/// The condition `Succeeded` of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Condition {
    /// Whether the run has ended, and how.
    pub status: ConditionStatus,
    /// One word that says why, such as `Running`, `Failed` or `Cancelled`; may be empty.
    pub reason: String,
}

impl Condition {
    /// A condition from its two parts.
    #[must_use]
    pub fn new(status: ConditionStatus, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// The run has succeeded.
    True,
    /// The run has failed or was cancelled.
    False,
    /// The run has not ended.
    Unknown,
}

/// The state that the annotation-based system keeps on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacState {
    /// It waits for its turn.
    Queued,
    /// It was started.
    Started,
    /// It has ended, and its end was reported.
    Completed,
    /// It has ended, and its end could not be reported.
    Failed,
}

impl PacState {
    /// From the annotation's value; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Started, Self::Completed, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }

    /// The annotation's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for PacState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
