//! What came of asking for a slot, and of ending a run.

use std::sync::Arc;

use super::lease::Lease;
use super::turn::Turn;
use super::waiter::Waiter;
use crate::error::Error;
use crate::name::PipelineRunKey;
use crate::protocol::Ended;
use crate::state::{Entry, RunOutcome};
use crate::status::{QueuedRun, RunStatus};

/// What came of asking for a slot. A caller has to answer each of these: one more would be a
/// breaking change, on purpose.
#[derive(Debug)]
#[must_use = "dropping a place in the queue gives it up"]
pub enum Admission {
    /// It runs.
    Started(Lease),
    /// It waits: await the [`Waiter`] for its turn.
    Queued(Waiter),
    /// This very run (same name and uid) ended before, and does not run again.
    Finished(RunOutcome),
}

impl Admission {
    /// The turn of the run: at once when it runs or has ended, else when it comes.
    ///
    /// # Errors
    /// As of awaiting the [`Waiter`].
    ///
    /// Dropped before it is ready, it gives the place up.
    pub async fn turn(self) -> Result<Turn, Error> {
        match self {
            Self::Started(lease) => Ok(Turn::Started(lease)),
            Self::Queued(waiter) => waiter.await,
            Self::Finished(outcome) => Ok(Turn::Ended(outcome)),
        }
    }
}

/// What came of ending a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// Whether it ended, or why not.
    pub ended: Ended,
    /// The runs that started in its stead, in order.
    pub promoted: Vec<PipelineRunKey>,
    entry: Option<Arc<Entry>>,
    waits: Option<Box<QueuedRun>>,
}

impl Ending {
    pub(in crate::manager) fn new(
        ended: Ended,
        promoted: Vec<PipelineRunKey>,
        entry: Option<Arc<Entry>>,
        waits: Option<Box<QueuedRun>>,
    ) -> Self {
        Self {
            ended,
            promoted,
            entry,
            waits,
        }
    }

    /// Where the run of that name stands now.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        if let Some(waits) = &self.waits {
            return RunStatus::Queued(QueuedRun::clone(waits));
        }
        self.entry
            .as_ref()
            .map_or(RunStatus::Unknown, |entry| RunStatus::of_entry(entry))
    }
}
