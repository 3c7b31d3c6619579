//! The states of PipelineRuns: kept by the store, with the times of their transitions, in place of
//! annotations.
//!
//! A run becomes [queued](RunState::Queued) and [started](RunState::Started) by asking for a slot:
//! the store alone grants one, so no method here sets these. What ends a run sets its final state,
//! once:
//!
//! | From | To | By |
//! | --- | --- | --- |
//! | unknown | queued, started | admission; started also by adopting a run that runs already |
//! | queued | started | its turn |
//! | started | queued | a start that certainly failed: it has its old place |
//! | queued, started | completed, failed, cancelled | [`finish`](StateManager::finish), or the end that a controller sees |
//! | started | expired | the death of every controller, for longer than the lease TTL |
//! | expired | started | adopting it: it ran all the same |
//! | final | unknown | the store's retention, after a while |

use std::fmt;

use pac_core::manager::{ConcurrencyManager, FinishedRun, QueuedRun, RunStatus, RunningRun};
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use pac_core::{PipelineRunKey, RepositoryKey, Timestamp, Uid};

use crate::ending::end_run;
use crate::error::PipelinesError;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RunState {
    /// The store does not know the run, or does not know it any more. Nothing says that it runs.
    #[default]
    Unknown,
    /// It waits for a slot.
    Queued,
    /// It holds a slot.
    Started,
    /// It ran to its end and succeeded.
    Completed,
    /// It ran to its end and failed.
    Failed,
    /// It was cancelled, while it waited or while it ran.
    Cancelled,
    /// It held a slot, and no controller has looked after it for longer than the lease TTL.
    LeaseLost,
    /// It waited, and a newer run of its group took its place.
    Superseded,
    /// It waited, or held its slot, for longer than it was allowed to.
    TimedOut,
    /// It was refused: as many runs waited as may.
    QueueFull,
}

/// A run as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunRecord {
    /// The run.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Its state.
    pub state: RunState,
    /// When it was queued, or started without having to wait, by the store's clock.
    pub queued_at: Option<Timestamp>,
    /// When it was started, by the store's clock; never, if it ended in the queue.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the store's clock.
    pub finished_at: Option<Timestamp>,
}

/// A state that a run came into, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Transition {
    /// The state.
    pub state: RunState,
    /// When, by the store's clock.
    pub at: Timestamp,
}

/// What came of setting a final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finish {
    /// The run waited or ran, and has ended with this call.
    Done,
    /// It had ended before, in this state, which stays.
    Before(RunState),
    /// The store knows no run of this name and uid; nothing changed.
    Unknown,
    /// It changed meanwhile; nothing was done. Read its state, and decide anew.
    Changed,
}

/// Reads and ends the states of runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateManager {
    manager: ConcurrencyManager,
}

impl StateManager {
    /// Over the manager of the limits and queues.
    #[must_use]
    pub fn new(manager: ConcurrencyManager) -> Self {
        Self { manager }
    }

    /// The state of a run. With a uid, of that run alone: another one of its name answers
    /// [`RunState::Unknown`].
    ///
    /// # Errors
    /// Those of reading from the store: a state that cannot be read is no state.
    pub async fn state(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: Option<&Uid>,
    ) -> Result<RunState, PipelinesError> {
        let record = self.record(repository, run).await?;
        let record = record.filter(|record| uid.is_none_or(|uid| *uid == record.uid));
        Ok(record.map_or(RunState::Unknown, |record| record.state))
    }

    /// A run as the store has it; `None` where it does not know it.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn record(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Result<Option<RunRecord>, PipelinesError> {
        let status = self.manager.run_status(repository, run).await?;
        Ok(RunRecord::of(status))
    }

    /// All runs of a Repository that the store has: those that hold a slot in the order of their
    /// grants, then those that wait, next first, then those that have ended, oldest end first.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn records(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Vec<RunRecord>, PipelinesError> {
        let status = self.manager.status(repository).await?;
        let running = status.running.into_iter().map(RunRecord::started);
        let queued = status.queued.into_iter().map(RunRecord::queued);
        let finished = status.finished.into_iter().map(RunRecord::finished);
        Ok(running.chain(queued).chain(finished).collect())
    }

    /// Sets the final state of a run, whoever holds it; its slot or its place is free with the
    /// same commit. A final state that it has stays. Dropped in flight, it is done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn finish(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: &Uid,
        outcome: RunOutcome,
    ) -> Result<Finish, PipelinesError> {
        let ended = end_run(&self.manager, repository, run, uid, outcome).await?;
        Ok(match ended {
            Ended::Done => Finish::Done,
            Ended::Before(outcome) => Finish::Before(outcome.into()),
            Ended::Unknown => Finish::Unknown,
            // It was not started yet, or was granted anew.
            _ => Finish::Changed,
        })
    }

    /// Ends, as cancelled, the runs that wait or hold a slot and of which `is_there` says no: they
    /// are gone from the cluster. Answers with those that ended. Final states are left to the
    /// store, which forgets them by itself after a while.
    ///
    /// A run may be admitted before a list of the cluster shows it: ask about a run itself, or
    /// give a young record time. A controller ends in the cluster what is recorded as cancelled:
    /// should `is_there` say no to a run that is there and runs, that run is ended. Read the run
    /// itself before you answer no; a list that may be old is not enough.
    ///
    /// # Errors
    /// Those of the store; the runs before the one that failed have ended.
    pub async fn clean_up(
        &self,
        repository: &RepositoryKey,
        is_there: impl Fn(&RunRecord) -> bool,
    ) -> Result<Vec<RunRecord>, PipelinesError> {
        let records = self.records(repository).await?;
        let live = records
            .into_iter()
            .filter(|record| !record.state.is_final());
        let mut ended = Vec::new();
        for record in live.filter(|record| !is_there(record)) {
            let outcome = RunOutcome::Cancelled;
            let finish = self.finish(repository, &record.run, &record.uid, outcome);
            if finish.await? == Finish::Done {
                ended.push(record);
            }
        }
        Ok(ended)
    }

    /// Forgets all states of a Repository, with its limit and its queue. Answers with the runs
    /// that waited or held a slot.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Vec<PipelineRunKey>, PipelinesError> {
        Ok(self.manager.remove_repository(repository).await?)
    }
}

impl RunState {
    /// Its name, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::LeaseLost => "lease-lost",
            Self::Superseded => "superseded",
            Self::TimedOut => "timed-out",
            Self::QueueFull => "queue-full",
        }
    }

    /// Whether a run in this state has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Unknown | Self::Queued | Self::Started => false,
            Self::Completed
            | Self::Failed
            | Self::Cancelled
            | Self::LeaseLost
            | Self::Superseded
            | Self::TimedOut
            | Self::QueueFull => true,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<RunOutcome> for RunState {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Completed => Self::Completed,
            RunOutcome::Failed => Self::Failed,
            RunOutcome::Cancelled => Self::Cancelled,
            RunOutcome::LeaseLost => Self::LeaseLost,
            RunOutcome::Superseded => Self::Superseded,
            RunOutcome::TimedOut => Self::TimedOut,
            RunOutcome::QueueFull => Self::QueueFull,
        }
    }
}

impl RunRecord {
    /// The states that the run came into, in their order.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        let final_state = self.state.is_final().then_some(self.state);
        let steps = [
            (Some(RunState::Queued), self.queued_at),
            (Some(RunState::Started), self.started_at),
            (final_state, self.finished_at),
        ];
        let steps = steps.into_iter();
        steps
            .filter_map(|(state, at)| {
                Some(Transition {
                    state: state?,
                    at: at?,
                })
            })
            .collect()
    }

    fn of(status: RunStatus) -> Option<Self> {
        match status {
            RunStatus::Queued(run) => Some(Self::queued(run)),
            RunStatus::Started(run) => Some(Self::started(run)),
            RunStatus::Finished(run) => Some(Self::finished(run)),
            // Also a state that a later version tells apart: never one that it is not.
            _ => None,
        }
    }

    fn queued(run: QueuedRun) -> Self {
        Self {
            run: run.run,
            uid: run.uid,
            state: RunState::Queued,
            queued_at: run.queued_at,
            started_at: None,
            finished_at: None,
        }
    }

    fn started(run: RunningRun) -> Self {
        Self {
            run: run.run,
            uid: run.uid,
            state: RunState::Started,
            queued_at: run.queued_at,
            started_at: run.started_at,
            finished_at: None,
        }
    }

    fn finished(run: FinishedRun) -> Self {
        Self {
            run: run.run,
            uid: run.uid,
            state: run.outcome.into(),
            queued_at: run.queued_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}
