//! What can go wrong between a controller and the cluster, and what was asked.

use std::collections::VecDeque;
use std::time::Duration;

/// Faults of the cluster's API. All off by default.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ClusterFaults {
    /// Which part of the starts is answered with "unknown", from 0 to 1. Half of those were done.
    pub ambiguous_starts: f64,
    /// Which part of the starts is refused with a conflict (409), from 0 to 1.
    pub conflicts: f64,
    /// How likely it is that a watch delivers another event than the oldest one, or one twice.
    pub disorder: f64,
    /// How long a request takes at most; each takes a random part of it.
    pub latency: Duration,
    /// Whether reads of single runs fail.
    pub failing_reads: bool,
    /// Whether the API cannot be reached at all. Watches deliver nothing meanwhile.
    pub away: bool,
}

impl ClusterFaults {
    /// With this part of the starts answered with "unknown".
    #[must_use]
    pub fn with_ambiguous_starts(mut self, part: f64) -> Self {
        self.ambiguous_starts = part;
        self
    }

    /// With this part of the starts refused with a conflict.
    #[must_use]
    pub fn with_conflicts(mut self, part: f64) -> Self {
        self.conflicts = part;
        self
    }

    /// With events out of order, and twice, this often.
    #[must_use]
    pub fn with_disorder(mut self, part: f64) -> Self {
        self.disorder = part;
        self
    }

    /// With requests that take up to this long.
    #[must_use]
    pub fn with_latency(mut self, longest: Duration) -> Self {
        self.latency = longest;
        self
    }

    /// With reads of single runs that fail.
    #[must_use]
    pub fn with_failing_reads(mut self) -> Self {
        self.failing_reads = true;
        self
    }

    /// With an API that cannot be reached.
    #[must_use]
    pub fn with_api_away(mut self) -> Self {
        self.away = true;
        self
    }
}

/// What happens to one start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartFault {
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It is not done, and nobody can tell.
    RequestLost,
    /// It is refused with a conflict (409): certainly not done.
    Conflict,
}

/// How many requests of each kind came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Requests {
    /// Starts.
    pub start: usize,
    /// Holds.
    pub hold: usize,
    /// Requests to end a run.
    pub request_end: usize,
    /// Changes of annotations.
    pub annotate: usize,
    /// Reads of one run.
    pub read: usize,
    /// Lists of runs.
    pub list_runs: usize,
    /// Lists of Repositories.
    pub list_repositories: usize,
    /// Lists of Namespaces.
    pub list_namespaces: usize,
    /// Watches.
    pub watch: usize,
}

impl Requests {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.start
            + self.hold
            + self.request_end
            + self.annotate
            + self.read
            + self.list_runs
            + self.list_repositories
            + self.list_namespaces
            + self.watch
    }
}

/// Which fault the next starts meet.
#[derive(Debug, Default)]
pub(super) struct Script {
    next: VecDeque<StartFault>,
}

impl Script {
    pub(super) fn push(&mut self, fault: StartFault) {
        self.next.push_back(fault);
    }

    /// The fault that was asked for, or one by chance.
    pub(super) fn next(
        &mut self,
        faults: &ClusterFaults,
        chance: &mut fastrand::Rng,
    ) -> Option<StartFault> {
        if let Some(fault) = self.next.pop_front() {
            return Some(fault);
        }
        let drawn = chance.f64();
        if drawn < faults.ambiguous_starts {
            let done = chance.bool();
            return Some(if done {
                StartFault::AnswerLost
            } else {
                StartFault::RequestLost
            });
        }
        (drawn < faults.ambiguous_starts + faults.conflicts).then_some(StartFault::Conflict)
    }
}
