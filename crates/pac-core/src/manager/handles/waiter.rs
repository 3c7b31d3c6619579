//! A place in the queue.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use super::lease::Lease;
use super::turn::Turn;
use crate::error::{Error, ErrorKind};
use crate::manager::ConcurrencyManager;
use crate::manager::registry::{AnswerReceiver, Cell, Channels};
use crate::manager::repository::effects::{EndOfWaiting, Grant, Place, TurnMessage};
use crate::manager::session::fence::{Era, session_lost};
use crate::name::PipelineRunKey;
use crate::state::Entry;
use crate::status::{RepositorySummary, WaitReason, wait_reason};
use crate::value::{Ticket, Timestamp};

/// A place in the queue: a future that is ready when the run's turn has come.
///
/// Dropping it before gives the place up, and the slot too if it was granted in that instant,
/// unless another call of this manager's for the same run was answered with it.
/// A timeout is that: `tokio::time::timeout(after, waiter)`, or [`Waiter::wait_for`], which
/// also waits until the place is given up. To be polled no more once it was ready.
/// A manager that shuts down is to be [closed](ConcurrencyManager::close) before its waiters
/// are dropped: durable runs then keep their places. [`Waiter::detach`] leaves the run in the
/// queue.
///
/// A place is lost when the store says so: an outage of the store in which it keeps the session
/// costs no place.
///
/// # Errors
/// Awaiting it fails with `SessionLost` when an ephemeral run has ended with its session, or the
/// run was started in the name of a session that is over; with `Closed` when the manager ends; with
/// `Corrupt` or `Incompatible` when the records of the repository cannot be understood any more. The
/// run has kept its place if it is there after they were repaired: admit it again.
#[must_use = "dropping a place in the queue gives it up"]
pub struct Waiter {
    manager: ConcurrencyManager,
    cell: Arc<Cell>,
    entry: Arc<Entry>,
    place: Place<Channels>,
    /// The end of waiting has been heard.
    done: bool,
    /// Set while it is not known whether the grant may be acted on.
    confirming: Option<Confirming>,
}

type Confirming = (Grant, Pin<Box<dyn Future<Output = Option<Era>> + Send>>);

impl Waiter {
    pub(in crate::manager) fn new(
        manager: ConcurrencyManager,
        cell: Arc<Cell>,
        entry: Arc<Entry>,
        place: Place<Channels>,
    ) -> Self {
        Self {
            manager,
            cell,
            entry,
            place,
            done: false,
            confirming: None,
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
        let inner = self.cell.lock();
        Some(inner.machine.state()?.position(self.run())? + 1)
    }

    /// Why it waits, as far as this manager knows. `None` once it waits no more.
    #[must_use]
    pub fn reason(&self) -> Option<WaitReason> {
        let inner = self.cell.lock();
        let state = inner.machine.state()?;
        let entry = state.entry(self.run()).filter(|entry| entry.is_queued())?;
        Some(wait_reason(state, entry, state.position(self.run())?))
    }

    /// The queue that it waits in, as far as this manager knows: the limit in force, and how many
    /// run and wait. `None` where this manager knows nothing of it any more.
    #[must_use]
    pub fn queue(&self) -> Option<RepositorySummary> {
        let inner = self.cell.lock();
        let head = inner.machine.state()?.head().clone();
        Some(RepositorySummary::of((self.cell.key().clone(), head)))
    }

    /// The runs that start before it, as far as this manager knows, next first. Costs as much
    /// as there are.
    #[must_use]
    pub fn ahead(&self) -> Vec<PipelineRunKey> {
        let inner = self.cell.lock();
        let Some(state) = inner.machine.state() else {
            return Vec::new();
        };
        let ahead = state.position(self.run()).unwrap_or(0);
        let before = state.queue().take(ahead);
        before.map(|entry| entry.run.clone()).collect()
    }

    /// Waits at most `timeout`. `None` when the turn has not come by then: the run has left the
    /// queue, and the slot is given back if it was granted meanwhile, unless another call of this
    /// manager's for the same run was answered with it: then the run goes on.
    ///
    /// # Errors
    /// As of awaiting the waiter; and `Unavailable` when giving up the place could not be
    /// confirmed within the command timeout (the manager goes on trying).
    pub async fn wait_for(self, timeout: Duration) -> Result<Option<Turn>, Error> {
        let manager = self.manager.clone();
        let waiting = self.wait_on_the_runtime(timeout);
        manager.engine().executor.within(waiting).await
    }

    async fn wait_on_the_runtime(mut self, timeout: Duration) -> Result<Option<Turn>, Error> {
        if let Ok(turn) = tokio::time::timeout(timeout, &mut self).await {
            return turn.map(Some);
        }
        let Some(answer) = self.give_up() else {
            return Ok(None);
        };
        // It goes on being tried should this be dropped, or run out of time.
        let engine = self.manager.engine();
        match tokio::time::timeout(engine.options.command_timeout, answer).await {
            Ok(Ok(answer)) => answer.map(|_| None).map_err(|error| *error),
            Ok(Err(_)) => Err(engine.lifecycle.no_answer("wait")),
            Err(_) => {
                let message = "the place is not given up yet: the store did not answer";
                Err(Error::new(ErrorKind::Unavailable, "wait", message))
            }
        }
    }

    /// Gives the place up, and the slot if it was granted in this instant. What comes of it can
    /// be awaited, but need not.
    fn give_up(&mut self) -> Option<AnswerReceiver> {
        let granted = self.take_grant().map(|grant| grant.token);
        if self.done && granted.is_none() {
            return None;
        }
        self.done = true;
        let engine = self.manager.engine();
        let (asker, answer) = oneshot::channel();
        let (entry, waiter) = (&self.entry, self.place.waiter);
        let lead = engine.input(&self.cell, |input| {
            let machine = &mut input.machine;
            machine.give_up(input.env, entry, waiter, granted, asker, input.effects)
        });
        engine.follow_up(&self.cell, lead?);
        Some(answer)
    }

    /// The grant that has come and was not handed out. None comes after this.
    fn take_grant(&mut self) -> Option<Grant> {
        if let Some((grant, _)) = self.confirming.take() {
            return Some(grant);
        }
        if self.done {
            return None;
        }
        // From here on the end of waiting cannot be delivered, and comes back.
        self.place.end.close();
        match self.place.end.try_recv() {
            Ok(TurnMessage::Started(grant)) => Some(grant),
            Ok(TurnMessage::Over(_)) => {
                self.done = true;
                None
            }
            Err(_) => None,
        }
    }

    /// Leaves the run in the queue without a waiter: when its turn comes, its lease comes out
    /// of [`ConcurrencyManager::grants`]. Where nobody reads those, it is left to another
    /// controller.
    pub fn detach(mut self) {
        let engine = Arc::clone(self.manager.engine());
        let cell = Arc::clone(&self.cell);
        // All of it under the lock of the repository: a turn that cannot be delivered from here on
        // comes back only after the repository knows of the detached waiter.
        engine.input(&cell, |input| match self.take_grant() {
            Some(grant) => input.effects.grants.push(grant),
            None if self.done => {}
            None => {
                let (entry, waiter) = (&self.entry, self.place.waiter);
                if !input.machine.detach(entry, waiter) {
                    input.machine.detach_late(waiter);
                }
            }
        });
        self.done = true;
    }
}

impl Future for Waiter {
    type Output = Result<Turn, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if let Some((_, confirmed)) = &mut this.confirming {
                let era = ready!(confirmed.as_mut().poll(cx));
                let grant = this.confirming.take().map(|(grant, _)| grant);
                let engine = this.manager.engine();
                return Poll::Ready(match (grant, era) {
                    (Some(grant), Some(era)) => {
                        let lease = Lease::new(&this.manager, &this.cell, grant, era, true);
                        Ok(Turn::Started(lease))
                    }
                    _ if engine.lifecycle.is_over() => Err(engine.lifecycle.no_answer("wait")),
                    (Some(grant), None) => Err(session_lost(grant.session)),
                    (None, _) => Err(session_lost(engine.fence.session().0)),
                });
            }
            let message = ready!(Pin::new(&mut this.place.end).poll(cx));
            this.done = true;
            match message {
                Ok(TurnMessage::Started(grant)) => {
                    let (engine, session) = (Arc::clone(this.manager.engine()), grant.session);
                    let confirmed = async move { engine.fence.confirmed(session).await };
                    this.confirming = Some((grant, Box::pin(confirmed)));
                }
                Ok(TurnMessage::Over(why)) => {
                    return Poll::Ready(match why {
                        EndOfWaiting::Ended(outcome) => Ok(Turn::Ended(outcome)),
                        EndOfWaiting::TakenOver => Ok(Turn::TakenOver),
                        EndOfWaiting::Gone => Ok(Turn::Gone),
                        EndOfWaiting::Lost(session) => Err(session_lost(session)),
                        EndOfWaiting::Failed(error) => Err(error),
                    });
                }
                // A waiter is forgotten without a word only when the manager ends.
                Err(_) => {
                    let lifecycle = &this.manager.engine().lifecycle;
                    return Poll::Ready(Err(lifecycle.no_answer("wait")));
                }
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
            .field("repository", self.cell.key())
            .field("run", self.run())
            .finish_non_exhaustive()
    }
}
