//! What can be set of a controller.

use std::time::Duration;

use pac_core::{RepositoryKey, Timestamp};

/// Which runs a controller acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// No other software queues runs: every run that is held back with a mark of a queue, or in a
    /// Repository with a limit, waits for this controller.
    #[default]
    Alone,
    /// Beside Pipelines-as-Code, which holds its runs back where there is a limit, and whose own
    /// queue does not see them because an admission policy renames their execution order. A run
    /// whose order is still that of Pipelines-as-Code is left to it.
    Takeover,
    /// Beside Pipelines-as-Code in Repositories without a limit of its own, and for runs that are
    /// not its: only those that bear [`HELD`](crate::vocabulary::HELD).
    Gate,
    /// None: what the cluster shows is followed, nothing is written to it, and nothing is asked
    /// of the store.
    Observe,
}

/// Settings of a [`PipelinesController`](super::PipelinesController).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControllerOptions {
    /// The Repository whose limit holds for those without one of their own. Default:
    /// `pipelines-as-code/pipelines-as-code`. It need not exist.
    pub global_repository: Option<RepositoryKey>,
    /// Which runs it acts on. Default: [`Mode::Alone`].
    pub mode: Mode,
    /// How long runs of one event wait for their execution order before they are taken in the
    /// order of their creation. Default: 10 s.
    pub order_wait: Duration,
    /// How long the start of a run that Pipelines-as-Code has made waits until its watcher has
    /// prepared the run, in the modes takeover and gate: at most
    /// [`LONGEST_START_WAIT`](Self::LONGEST_START_WAIT) counts. The slot is held meanwhile. Counted
    /// from the creation of the run; then it starts all the same, and
    /// [that is told](super::What::StartedUnprepared). Default: zero, no wait.
    pub start_wait: Duration,
    /// How often the cluster's lists are compared with the store although nothing was heard.
    /// Default: 5 min.
    pub recovery_interval: Duration,
    /// How long a Repository that only the store has must be missing from the cluster's lists
    /// before it is removed there. A run that only the store has is read, and ends when it is gone
    /// or done. Default: 1 min.
    pub grace: Duration,
    /// How many starts are under way at once at most, so that a burst does not hurt the cluster.
    /// Default: 32.
    pub concurrent_starts: usize,
    /// How many Repositories are seen to at once at most. Default: 64.
    pub concurrent_repositories: usize,
    /// What the clock shows when the controller is opened; it then goes on by measured time.
    /// Compared with the creation times of runs alone. Default: the system's clock.
    pub epoch: Option<Timestamp>,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            global_repository: RepositoryKey::new("pipelines-as-code", "pipelines-as-code").ok(),
            mode: Mode::default(),
            order_wait: Duration::from_secs(10),
            start_wait: Duration::ZERO,
            recovery_interval: Duration::from_secs(5 * 60),
            grace: Duration::from_secs(60),
            concurrent_starts: 32,
            concurrent_repositories: 64,
            epoch: None,
        }
    }
}

impl ControllerOptions {
    /// The longest time that a start waits for Pipelines-as-Code. Its watcher makes the secret of a
    /// run with the first look at it: one that has not in half a minute is away.
    pub const LONGEST_START_WAIT: Duration = Duration::from_secs(30);

    /// With another global Repository, or none.
    #[must_use]
    pub fn with_global_repository(mut self, repository: Option<RepositoryKey>) -> Self {
        self.global_repository = repository;
        self
    }

    /// Acting on other runs.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// With another wait for the execution order.
    #[must_use]
    pub fn with_order_wait(mut self, wait: Duration) -> Self {
        self.order_wait = wait;
        self
    }

    /// With a wait until Pipelines-as-Code has prepared a run.
    #[must_use]
    pub fn with_start_wait(mut self, wait: Duration) -> Self {
        self.start_wait = wait;
        self
    }

    /// How long starts wait, within the bound.
    pub(super) fn start_wait(&self) -> Duration {
        self.start_wait.min(Self::LONGEST_START_WAIT)
    }

    /// With another interval between recoveries.
    #[must_use]
    pub fn with_recovery_interval(mut self, interval: Duration) -> Self {
        self.recovery_interval = interval;
        self
    }

    /// With another grace period.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// With another number of starts at once; at least 1.
    #[must_use]
    pub fn with_concurrent_starts(mut self, starts: usize) -> Self {
        self.concurrent_starts = starts.max(1);
        self
    }

    /// With a clock that shows this when the controller is opened.
    #[must_use]
    pub fn with_epoch(mut self, epoch: Timestamp) -> Self {
        self.epoch = Some(epoch);
        self
    }
}
