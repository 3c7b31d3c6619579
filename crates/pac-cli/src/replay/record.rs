//! What became of a trace: filled in by the engine, read by the report and the timeline.

use std::time::Duration;

use pac_concurrency::{Limit, PipelineRunKey, Priority, RepositoryKey, Timestamp};

/// Everything that a replay found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Replay {
    /// In the order in which the trace first names them.
    pub(crate) repositories: Vec<RepositoryRecord>,
    /// Cancels that met no queued or running run: the trace's line, and the run it names.
    pub(crate) unknown_cancels: Vec<(usize, PipelineRunKey)>,
}

impl Replay {
    /// Whether a limit was ever exceeded.
    pub(crate) fn exceeded(&self) -> bool {
        self.repositories.iter().any(|r| !r.exceeded.is_empty())
    }
}

/// What became of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositoryRecord {
    pub(crate) repository: RepositoryKey,
    /// Every announced limit in order, with or without repetitions.
    pub(crate) limit_changes: Vec<(Timestamp, Limit)>,
    /// The most runs at once, as the watchdog counted.
    pub(crate) peak_running: u32,
    /// How many starts the watchdog compared with the limit.
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
    /// How many ran, this one included.
    pub(crate) running: u32,
    /// How many were allowed.
    pub(crate) limit: u32,
}

/// What became of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRecord {
    /// The line of the trace.
    pub(crate) line: usize,
    pub(crate) repository: RepositoryKey,
    pub(crate) run: PipelineRunKey,
    pub(crate) priority: Priority,
    /// When it asked for a slot.
    pub(crate) queued_at: Option<Timestamp>,
    /// When it got one, if it ever did.
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended, by itself or by a cancel.
    pub(crate) completed_at: Option<Timestamp>,
    pub(crate) outcome: RunOutcome,
}

impl RunRecord {
    /// How long it waited for its slot, if it ever got one.
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
