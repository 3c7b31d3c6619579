//! The result of a replay: the engine fills it in, report and timeline read it.

use std::fmt;
use std::time::Duration;

use pac_concurrency::{Limit, PipelineRunKey, Priority, RepositoryKey, Timestamp};

/// The result of a whole replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Replay {
    /// The repositories, in the order in which the trace first names them.
    pub(crate) repositories: Vec<RepositoryRecord>,
    /// Cancels that matched no queued or running run: the line in the trace, and the run named.
    pub(crate) unknown_cancels: Vec<(usize, PipelineRunKey)>,
}

impl Replay {
    /// Whether a run ever started that should not have.
    pub(crate) fn exceeded(&self) -> bool {
        self.repositories.iter().any(|r| !r.exceeded.is_empty())
    }
}

/// The result of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositoryRecord {
    pub(crate) repository: RepositoryKey,
    /// Every announced limit in order; the same limit may repeat.
    pub(crate) limit_changes: Vec<(Timestamp, Limit)>,
    /// The most slots taken at once, as counted by the watchdog: one for each run, or its weight.
    pub(crate) peak_running: u32,
    /// The number of starts that the watchdog compared with the limit.
    pub(crate) starts_checked: u64,
    /// The starts among them that exceeded it.
    pub(crate) exceeded: Vec<Violation>,
    pub(crate) runs: Vec<RunRecord>,
}

/// A start that should not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// When the start was granted.
    pub(crate) at: Timestamp,
    /// The number of slots taken, those of this one included.
    pub(crate) running: u32,
    pub(crate) rule: Rule,
}

/// What forbade a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// So many slots there were.
    Limit(u32),
    /// The repository was paused.
    Pause,
    /// A newer run of its group had taken its place.
    Superseded,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(limit) => write!(f, "limit {limit}"),
            Self::Pause => f.write_str("the repository was paused"),
            Self::Superseded => f.write_str("the run was superseded"),
        }
    }
}

/// The result of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRecord {
    /// Its line in the trace.
    pub(crate) line: usize,
    pub(crate) repository: RepositoryKey,
    pub(crate) run: PipelineRunKey,
    pub(crate) priority: Priority,
    /// When it was queued.
    pub(crate) queued_at: Option<Timestamp>,
    /// When it started, if it did.
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended, by itself or by a cancel.
    pub(crate) completed_at: Option<Timestamp>,
    pub(crate) outcome: RunOutcome,
}

impl RunRecord {
    /// The time from being queued to the start, if it started.
    pub(crate) fn wait(&self) -> Option<Duration> {
        Some(self.started_at?.since(self.queued_at?))
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunOutcome {
    Completed,
    /// By a row, or because a run of its group superseded it while it ran.
    Cancelled,
    /// It waited, and a newer run of its group took its place.
    Superseded,
    /// It waits for ever: its repository is paused, or has too few slots for it.
    Waiting,
}
