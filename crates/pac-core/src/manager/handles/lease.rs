//! A slot that a run holds.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::watch;

use crate::event::LeaseLoss;
use crate::manager::registry::Cell;
use crate::manager::repository::effects::Grant;
use crate::manager::repository::reply::abandon;
use crate::manager::session::fence::Era;
use crate::manager::{ConcurrencyManager, log};
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::state::RunKind;
use crate::value::{FencingToken, SessionId, Timestamp};

/// A slot that a run holds.
///
/// The lease of a durable run is a plain record: dropping it changes nothing, since the cluster
/// runs the run. That of an ephemeral run ends with it: dropping it ends the run as cancelled.
#[must_use = "dropping the lease of an ephemeral run ends the run"]
pub struct Lease {
    cell: Arc<Cell>,
    grant: Grant,
    era: Era,
    /// Set when dropping ends the run.
    guard: Option<ConcurrencyManager>,
    /// Made when it is first asked for.
    lost: Mutex<Option<Lost>>,
}

impl Lease {
    /// Of the answer to an admission. Asked for again, the run still ends with its first lease.
    pub(in crate::manager) fn new(
        manager: &ConcurrencyManager,
        cell: &Arc<Cell>,
        grant: Grant,
        era: Era,
        fresh: bool,
    ) -> Self {
        if fresh && tracing::enabled!(tracing::Level::INFO) {
            log::acquired(&grant.entry.run);
        }
        let guarded = fresh && grant.entry.kind == RunKind::Ephemeral;
        Self {
            cell: Arc::clone(cell),
            grant,
            era,
            guard: guarded.then(|| manager.clone()),
            lost: Mutex::new(None),
        }
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &RepositoryKey {
        self.cell.key()
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

    /// What is ready as soon as the lease is no longer held, as far as its manager knows: with
    /// its release, when another process ends the run, when the session was not renewed in time
    /// or is over, and when the manager ends.
    ///
    /// Await it beside the work that only the holder may do, or hand clones of it to the parts of
    /// that work, which ask it with [`Lost::reason`]. Once lost, a lease is never held again.
    ///
    /// Costs a channel the first time.
    #[must_use]
    pub fn lost(&self) -> Lost {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert_with(|| Lost::follow(&self.cell, &self.grant, self.era))
            .clone()
    }

    pub(in crate::manager) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Whether the manager still knows the slot as this lease's.
    pub(in crate::manager) fn is_known_to_be_held(&self) -> bool {
        let inner = self.cell.lock();
        inner.machine.is_held(self.run(), self.token())
    }

    pub(in crate::manager) fn era(&self) -> Era {
        self.era
    }

    /// The run is ended by other means than dropping this.
    pub(in crate::manager) fn disarm(&mut self) {
        self.guard = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(manager) = self.guard.take() {
            let engine = manager.engine();
            let command = abandon(&self.grant.entry, engine.fence.session().0);
            engine.send(&self.cell, command);
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

/// The loss of a lease: a future, and a token that can be cloned and asked.
///
/// Does not keep the manager. May be polled again after it was ready.
pub struct Lost {
    /// The reason, once there is one; it never changes.
    reason: watch::Receiver<Option<LeaseLoss>>,
    waiting: Option<Pin<Box<dyn Future<Output = LeaseLoss> + Send + Sync>>>,
}

impl Lost {
    /// Has the loss of a lease noticed in a task of the manager's.
    fn follow(cell: &Arc<Cell>, grant: &Grant, era: Era) -> Self {
        let (tell, reason) = watch::channel(None);
        let lost = Self {
            reason,
            waiting: None,
        };
        let Some(engine) = cell.engine.upgrade() else {
            tell.send_replace(Some(LeaseLoss::Closed));
            return lost;
        };
        if let Some(loss) = engine.fence.loss(grant.session, era) {
            tell.send_replace(Some(loss));
            return lost;
        }
        let (loss, taken) = tokio::sync::oneshot::channel();
        let (run, token, session) = (grant.entry.run.clone(), grant.token, grant.session);
        engine.input(cell, |input| {
            input.machine.watch_lease(&run, token, loss, input.effects);
        });
        let cell = Arc::clone(cell);
        let watching = Arc::clone(&engine);
        engine.executor.spawn(async move {
            let taken = async {
                match taken.await {
                    Ok(loss) => loss,
                    // The manager ends.
                    Err(_) => LeaseLoss::Closed,
                }
            };
            let loss = tokio::select! {
                biased;
                loss = taken => Some(loss),
                loss = watching.fence.lost(session, era) => Some(loss),
                () = tell.closed() => None,
            };
            cell.lock().machine.unwatch_lease(&run, token);
            if let Some(loss) = loss {
                tell.send_replace(Some(loss));
            }
        });
        lost
    }

    /// Why the lease is no longer held; `None` while it is. Asks nobody.
    #[must_use]
    pub fn reason(&self) -> Option<LeaseLoss> {
        if self.reason.has_changed().is_err() && self.reason.borrow().is_none() {
            // Its task has gone with the runtime of the manager.
            return Some(LeaseLoss::Closed);
        }
        *self.reason.borrow()
    }
}

impl Clone for Lost {
    fn clone(&self) -> Self {
        Self {
            reason: self.reason.clone(),
            waiting: None,
        }
    }
}

impl Future for Lost {
    type Output = LeaseLoss;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LeaseLoss> {
        let this = self.get_mut();
        let waiting = this.waiting.get_or_insert_with(|| {
            let mut reason = this.reason.clone();
            Box::pin(async move {
                match reason.wait_for(Option::is_some).await {
                    Ok(reason) => reason.unwrap_or(LeaseLoss::Closed),
                    Err(_) => LeaseLoss::Closed,
                }
            })
        });
        let loss = std::task::ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(loss)
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lost").field(&self.reason()).finish()
    }
}
