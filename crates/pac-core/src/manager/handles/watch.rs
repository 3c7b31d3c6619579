//! The changing state of one repository.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::manager::registry::Cell;
use crate::status::RepositoryStatus;

/// The changing state of one repository, as far as this manager hears of it.
///
/// A reader that is slow sees the latest state and how many steps it has missed; it holds
/// nothing up, and nothing piles up for it.
#[derive(Debug)]
pub struct RepositoryWatch {
    cell: Arc<Cell>,
    steps: watch::Receiver<u64>,
    seen: u64,
}

/// A state that a watch has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Update {
    /// The state now.
    pub status: RepositoryStatus,
    /// How many states were passed over since the last update.
    pub missed: u64,
}

impl RepositoryWatch {
    /// Counts states from now on. In a repository that has ended none come.
    pub(in crate::manager) fn begin(cell: &Arc<Cell>) -> Self {
        let mut inner = cell.lock();
        let open = inner.machine.watch();
        // 1: there is a state to be seen from the start.
        let steps = match &inner.steps {
            Some(steps) => steps.subscribe(),
            None => {
                let steps = watch::Sender::new(1);
                let receiver = steps.subscribe();
                inner.steps = open.then_some(steps);
                receiver
            }
        };
        Self {
            cell: Arc::clone(cell),
            steps,
            seen: 0,
        }
    }

    /// The state has been read: it is the first to be seen.
    pub(in crate::manager) fn begins_here(mut self) -> Self {
        self.seen = self.steps.borrow().saturating_sub(1);
        self
    }

    /// Waits until the state is another than at the last call, the first time not at all.
    /// `None` when the manager has ended, or the records of the repository cannot be understood any
    /// more, which [`failure`](Self::failure) tells. Cancel-safe.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            let step = *self.steps.borrow_and_update();
            if step > self.seen {
                let missed = step - self.seen - 1;
                self.seen = step;
                if let Some(status) = self.status() {
                    return Some(Update { status, missed });
                }
            }
            self.steps.changed().await.ok()?;
        }
    }

    /// Why the watch has ended, if the records of the repository could not be understood: `Corrupt`
    /// or `Incompatible`. `None` while it goes on, and when the manager has ended. To follow the
    /// repository after it was repaired, watch it anew.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.steps.has_changed().err()?;
        let inner = self.cell.lock();
        inner.unreadable.as_ref().map(|why| why.replicate())
    }

    fn status(&self) -> Option<RepositoryStatus> {
        let inner = self.cell.lock();
        let state = inner.machine.state()?;
        Some(RepositoryStatus::of(self.cell.key(), state))
    }
}

impl Drop for RepositoryWatch {
    fn drop(&mut self) {
        let mut inner = self.cell.lock();
        inner.machine.unwatch();
    }
}
