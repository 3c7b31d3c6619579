//! What an admitted run gets: a lease, or a place in the queue to wait in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use super::ConcurrencyManager;
use super::repository::Repository;
use super::view::WaitReason;
use crate::error::Error;
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::protocol::{Command, Ended};
use crate::state::{Entry, RunKind, RunOutcome};
use crate::value::{FencingToken, SessionId, Timestamp};

/// What came of asking for a slot.
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

/// How waiting ended.
#[derive(Debug)]
pub enum Turn {
    /// It runs.
    Started(Lease),
    /// It was ended while it waited.
    Ended(RunOutcome),
    /// It is not this waiter's any more: admitted again, here or by another controller.
    TakenOver,
    /// It is gone: its repository was removed, or a new run took its name.
    Gone,
}

/// A slot that a run holds.
///
/// The lease of a durable run is a plain record: dropping it changes nothing, since the cluster
/// runs the run. That of an ephemeral run ends with it: dropping it ends the run as cancelled.
pub struct Lease {
    grant: Grant,
    /// Set when dropping ends the run.
    guard: Option<ConcurrencyManager>,
}

impl Lease {
    /// Of the answer to an admission. Asked for again, the run still ends with its first lease.
    pub(super) fn new(manager: &ConcurrencyManager, grant: Grant, fresh: bool) -> Self {
        let guarded = fresh && grant.entry.kind == RunKind::Ephemeral;
        Self {
            grant,
            guard: guarded.then(|| manager.clone()),
        }
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &RepositoryKey {
        self.grant.repository.key()
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &PipelineRunKey {
        &self.grant.entry.run
    }

    /// Which run of that name.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        &self.grant.entry.uid
    }

    /// The fencing token: hand it to whatever the run writes to, and have older ones refused.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.grant.token
    }

    /// The session that holds the slot: this manager's, or that of another live controller
    /// which started the run before.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.grant.session
    }

    /// When it was queued, by the store's clock.
    #[must_use]
    pub fn queued_at(&self) -> Option<Timestamp> {
        self.grant.entry.queued.at()
    }

    /// When it was started, by the store's clock.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        self.grant.entry.started.at()
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whoever ends the run by other means says so.
    pub(super) fn disarm(&mut self) {
        self.guard = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(manager) = self.guard.take() {
            let (run, uid) = (self.grant.entry.run.clone(), self.grant.entry.uid.clone());
            manager.send(&self.grant.repository, Command::Abandon { run, uid });
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("repository", self.repository())
            .field("run", self.run())
            .field("token", &self.token())
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// A place in the queue: a future that is ready when the run's turn has come.
///
/// Dropping it before gives the place up, and the slot too if it was granted in that instant.
/// A timeout is that: `tokio::time::timeout(after, waiter)`, or [`Waiter::wait_for`], which
/// also waits until the place is given up. [`Waiter::detach`] leaves the run in the queue.
#[must_use = "dropping a place in the queue gives it up"]
pub struct Waiter {
    manager: ConcurrencyManager,
    repository: Arc<Repository>,
    entry: Arc<Entry>,
    place: Place,
}

/// The end of the channel on which the manager says that the turn has come.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) notice: oneshot::Receiver<Notice>,
}

/// What the manager says on that channel.
#[derive(Debug)]
pub(super) enum Notice {
    Started(Grant),
    Ended(RunOutcome),
    TakenOver,
    Gone,
}

/// What a [`Lease`] is made of.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) repository: Arc<Repository>,
    pub(super) entry: Arc<Entry>,
    pub(super) token: FencingToken,
    pub(super) session: SessionId,
}

impl Waiter {
    pub(super) fn new(
        manager: ConcurrencyManager,
        repository: Arc<Repository>,
        entry: Arc<Entry>,
        place: Place,
    ) -> Self {
        Self {
            manager,
            repository,
            entry,
            place,
        }
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &PipelineRunKey {
        &self.entry.run
    }

    /// When it was queued, by the store's clock.
    #[must_use]
    pub fn queued_at(&self) -> Option<Timestamp> {
        self.entry.queued.at()
    }

    /// Its position as far as this manager knows: 1 is next. `None` once it waits no more.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.repository.position(&self.entry.run)
    }

    /// Why it waits, as far as this manager knows. `None` once it waits no more.
    #[must_use]
    pub fn reason(&self) -> Option<WaitReason> {
        self.repository.wait_reason(&self.entry.run)
    }

    /// The runs that start before it, as far as this manager knows, next first. Costs as much
    /// as there are.
    #[must_use]
    pub fn ahead(&self) -> Vec<PipelineRunKey> {
        self.repository.ahead(&self.entry.run)
    }

    /// Waits at most `timeout`. `None` when the turn has not come by then: the run has left the
    /// queue, and the slot is given back if it was granted meanwhile.
    ///
    /// # Errors
    /// As of awaiting the waiter; and when giving up the place could not be confirmed (the
    /// manager goes on trying).
    pub async fn wait_for(mut self, timeout: Duration) -> Result<Option<Turn>, Error> {
        if let Ok(turn) = tokio::time::timeout(timeout, &mut self).await {
            return turn.map(Some);
        }
        let give_up = Command::Abandon {
            run: self.entry.run.clone(),
            uid: self.entry.uid.clone(),
        };
        // Dropping `self` afterwards gives up once more, should this fail.
        self.manager.ask(&self.repository, give_up).await?;
        Ok(None)
    }

    /// Leaves the run in the queue without a waiter: when its turn comes, its lease comes out
    /// of [`ConcurrencyManager::grants`].
    pub fn detach(mut self) {
        self.repository
            .stop_waiting(&self.entry.run, self.place.number);
        if let Ok(Notice::Started(grant)) = self.place.notice.try_recv() {
            self.manager.deliver(grant);
        }
    }
}

impl Future for Waiter {
    type Output = Result<Turn, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let notice = ready!(Pin::new(&mut self.place.notice).poll(cx));
        Poll::Ready(match notice {
            Ok(Notice::Started(grant)) => {
                let held = self.manager.check_session(grant.session, "wait");
                held.map(|()| Turn::Started(Lease::new(&self.manager, grant, true)))
            }
            Ok(Notice::Ended(outcome)) => Ok(Turn::Ended(outcome)),
            Ok(Notice::TakenOver) => Ok(Turn::TakenOver),
            Ok(Notice::Gone) => Ok(Turn::Gone),
            // The manager forgets a waiter without a word only when it ends itself.
            Err(_) => Err(self.manager.closed("wait")),
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let waits = self
            .repository
            .stop_waiting(&self.entry.run, self.place.number);
        let granted = matches!(self.place.notice.try_recv(), Ok(Notice::Started(_)));
        if waits || granted {
            let (run, uid) = (self.entry.run.clone(), self.entry.uid.clone());
            self.manager
                .send(&self.repository, Command::Abandon { run, uid });
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("repository", self.repository.key())
            .field("run", self.run())
            .finish_non_exhaustive()
    }
}

/// What came of ending a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Whether it ended, or why not.
    pub ended: Ended,
    /// The run's record as it stands now; `None` if there is none.
    pub entry: Option<Arc<Entry>>,
    /// The runs that started in its stead, in order.
    pub promoted: Vec<PipelineRunKey>,
}
