//! The result of a replay: the engine fills it in, report and timeline read it.

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
    /// Whether a limit was ever exceeded.
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
    /// The most runs at once, as counted by the watchdog.
    pub(crate) peak_running: u32,
    /// The number of starts that the watchdog compared with the limit.
    pub(crate) starts_checked: u64,
    /// The starts among them that exceeded it.
    pub(crate) exceeded: Vec<Violation>,
    pub(crate) runs: Vec<RunRecord>,
}

/// A start that made more runs run than the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// When the start was granted.
    pub(crate) at: Timestamp,
    /// The number of running runs, this one included.
    pub(crate) running: u32,
    /// The number allowed.
    pub(crate) limit: u32,
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
    Cancelled,
}
