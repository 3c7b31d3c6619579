//! What an admitted run gets: a lease, or a place in the queue to wait in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::repository::Repository;
use super::request::Answer;
use super::session::session_lost;
use super::view::WaitReason;
use super::waiting::{Farewell, Grant, Notice, Place};
use super::{ConcurrencyManager, log};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::protocol::Ended;
use crate::state::{Entry, RunKind, RunOutcome};
use crate::value::{FencingToken, SessionId, Ticket, Timestamp};

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
        if fresh && tracing::enabled!(tracing::Level::INFO) {
            log::acquired(&grant.entry.run);
        }
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
            let abandon = manager.shared().abandon(&self.grant.entry);
            manager.shared().send(&self.grant.repository, abandon);
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
/// also waits until the place is given up. To be polled no more once it was ready.
/// A manager that shuts down is to be [closed](ConcurrencyManager::close) before its waiters
/// are dropped: durable runs then keep their places. [`Waiter::detach`] leaves the run in the queue.
#[must_use = "dropping a place in the queue gives it up"]
pub struct Waiter {
    manager: ConcurrencyManager,
    repository: Arc<Repository>,
    entry: Arc<Entry>,
    place: Place,
    /// Set while it is not known whether the grant is still ours.
    doubt: Option<Doubt>,
}

type Doubt = (Grant, Pin<Box<dyn Future<Output = bool> + Send>>);

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
            doubt: None,
        }
    }

    /// The run's place in the order of arrival: another one if it is ever asked for again after
    /// it has ended.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.entry.ticket
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
        // It goes on being tried should this be dropped, or be too impatient.
        if let Some(answer) = self.give_up() {
            let patience = self.manager.shared().patience();
            match tokio::time::timeout(patience, answer).await {
                Ok(Ok(answer)) => drop(answer?),
                Ok(Err(_)) => return Err(self.manager.shared().closed("wait")),
                Err(_) => {
                    let message = "the place is not given up yet: the store did not answer";
                    return Err(Error::new(ErrorKind::Unavailable, "wait", message));
                }
            }
        }
        Ok(None)
    }

    fn give_up(&mut self) -> Option<Answer> {
        let granted = self.doubt.take().is_some();
        let shared = self.manager.shared();
        shared.give_up(&self.repository, &self.entry, &mut self.place, granted)
    }

    /// Leaves the run in the queue without a waiter: when its turn comes, its lease comes out
    /// of [`ConcurrencyManager::grants`].
    pub fn detach(mut self) {
        let shared = Arc::clone(self.manager.shared());
        let Self {
            repository,
            entry,
            place,
            doubt,
            ..
        } = &mut self;
        if let Some((grant, _)) = doubt.take() {
            shared.grants.push(grant);
        }
        shared.detach(repository, &entry.run, place);
    }
}

impl Future for Waiter {
    type Output = Result<Turn, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.manager.shared();
        loop {
            if let Some((_, is_held)) = &mut this.doubt {
                let held = ready!(is_held.as_mut().poll(cx));
                let grant = this.doubt.take().map(|(grant, _)| grant);
                return Poll::Ready(match grant {
                    Some(grant) if held => {
                        Ok(Turn::Started(Lease::new(&this.manager, grant, true)))
                    }
                    grant => Err(session_lost(
                        grant.map_or_else(|| shared.session.id(), |g| g.session),
                    )),
                });
            }
            match ready!(Pin::new(&mut this.place.notice).poll(cx)) {
                Ok(Notice::Started(grant)) => {
                    let (shared, session) = (Arc::clone(shared), grant.session);
                    let is_held = async move { shared.session.is_held(session).await };
                    this.doubt = Some((grant, Box::pin(is_held)));
                }
                Ok(Notice::Over(over)) => {
                    return Poll::Ready(match over {
                        Farewell::Ended(outcome) => Ok(Turn::Ended(outcome)),
                        Farewell::TakenOver => Ok(Turn::TakenOver),
                        Farewell::Gone => Ok(Turn::Gone),
                        Farewell::Lost(session) => Err(session_lost(session)),
                    });
                }
                // The manager forgets a waiter without a word only when it ends itself.
                Err(_) => return Poll::Ready(Err(shared.closed("wait"))),
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        drop(self.give_up());
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
