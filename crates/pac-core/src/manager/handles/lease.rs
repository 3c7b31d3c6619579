//! A slot that a run holds.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{oneshot, watch};

use crate::event::LeaseLoss;
use crate::manager::engine::Engine;
use crate::manager::registry::{Cell, Keeper};
use crate::manager::repository::HolderId;
use crate::manager::repository::effects::Grant;
use crate::manager::repository::reply::abandon;
use crate::manager::session::fence::{Era, Fence};
use crate::manager::{ConcurrencyManager, log};
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::state::{RunKind, Weight};
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

    /// How many slots it is.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.grant.entry.weight()
    }

    /// The numbers of its slots, from 0 on, where the run asked to be [told](crate::protocol::RunRequest::numbered);
    /// else none.
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        &self.grant.entry.terms().slots
    }

    /// Waits until the run is asked to end: by a run that supersedes it, by an operator, because it
    /// has held its slots for as long as it may. Ready at once if it was already, and never if nobody
    /// asks: await it beside the work, and beside [`lost`](Self::lost). The slot stays the lease's
    /// until it is released.
    ///
    /// Cancel-safe. Known as fast as the store tells of changes, and after the poll interval at the
    /// latest.
    pub async fn cancel_requested(&self) {
        // What another controller holds is of interest only while somebody follows it.
        let _following = Followed::new(&self.cell);
        let told = self.cell.lock().await_asked(self.run(), self.token());
        if let Some(told) = told
            && told.await.is_err()
        {
            // The manager is gone, and with it whoever could tell.
            std::future::pending::<()>().await;
        }
    }

    /// Whether it was asked to end because it has held its slots for as long as it
    /// [may](crate::protocol::RunRequest::with_max_hold), by the store's clock and as far as this manager
    /// knows. Not if it was asked before that, for whatever reason.
    #[must_use]
    pub fn is_asked_for_its_time(&self) -> bool {
        let inner = self.cell.lock();
        let entry = inner
            .machine
            .state()
            .and_then(|state| state.entry(self.run()));
        let entry = entry.filter(|entry| entry.token() == Some(self.token()));
        let is_over = entry.and_then(|entry| {
            let terms = entry.terms();
            Some(terms.asked.at()? >= entry.started.at()?.plus(terms.max_hold?))
        });
        is_over.unwrap_or(false)
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

/// A repository that is followed while this lives.
struct Followed<'a>(&'a Cell);

impl<'a> Followed<'a> {
    fn new(cell: &'a Cell) -> Self {
        cell.lock().machine.watch();
        Self(cell)
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.0.lock().machine.unwatch();
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
    reason: watch::Receiver<Option<LeaseLoss>>,
    loss: Arc<Loss>,
    waiting: Option<Pin<Box<dyn Future<Output = LeaseLoss> + Send + Sync>>>,
}

/// What all clones of a [`Lost`] and the task that follows the lease share.
#[derive(Debug)]
struct Loss {
    /// The reason, once there is one; it never changes.
    reason: watch::Sender<Option<LeaseLoss>>,
    /// `None` when the manager had gone before anybody asked.
    fence: Option<Arc<Fence>>,
    session: SessionId,
    era: Era,
}

/// Dropped with the task that follows a lease: if that is because the runtime of the manager was
/// shut down, the manager has ended.
struct Following(Arc<Loss>);

impl Keeper for Engine {
    fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    fn watch_lease(
        self: Arc<Self>,
        cell: &Arc<Cell>,
        grant: &Grant,
        taker: oneshot::Sender<LeaseLoss>,
    ) -> HolderId {
        let (run, token) = (&grant.entry.run, grant.token);
        self.input(cell, |input| {
            let (machine, effects) = (&mut input.machine, &mut *input.effects);
            machine.watch_lease(run, token, taker, effects)
        })
    }

    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.executor.spawn(work);
    }
}

impl Lost {
    /// Has the loss of a lease noticed in a task of the manager's.
    fn follow(cell: &Arc<Cell>, grant: &Grant, era: Era) -> Self {
        let (tell, reason) = watch::channel(None);
        let keeper = cell.keeper.upgrade();
        let loss = Arc::new(Loss {
            reason: tell,
            fence: keeper.as_ref().map(|keeper| Arc::clone(keeper.fence())),
            session: grant.session,
            era,
        });
        let lost = Self {
            reason,
            loss,
            waiting: None,
        };
        let Some(keeper) = keeper else {
            lost.loss.tell(LeaseLoss::Closed);
            return lost;
        };
        if lost.reason().is_some() {
            return lost;
        }
        let (taker, taken) = oneshot::channel();
        let fence = Arc::clone(keeper.fence());
        let holder = Arc::clone(&keeper).watch_lease(cell, grant, taker);
        let following = Following(Arc::clone(&lost.loss));
        let cell = Arc::clone(cell);
        keeper.spawn(Box::pin(async move {
            let loss = &following.0;
            // Without a word, the manager ends.
            let taken = async { taken.await.unwrap_or(LeaseLoss::Closed) };
            let why = tokio::select! {
                biased;
                why = taken => Some(why),
                why = fence.lost(loss.session, loss.era) => Some(why),
                () = loss.reason.closed() => None,
            };
            cell.lock().machine.unwatch_lease(holder);
            if let Some(why) = why {
                loss.tell(why);
            }
        }));
        lost
    }

    /// Why the lease is no longer held; `None` while it is. Reads two clocks, so that a process
    /// which was stopped for longer than its TTL knows at once; asks nobody.
    #[must_use]
    pub fn reason(&self) -> Option<LeaseLoss> {
        let told = *self.reason.borrow();
        told.or_else(|| self.loss.look())
    }
}

impl Loss {
    /// Looks at the fence.
    fn look(&self) -> Option<LeaseLoss> {
        let why = self.fence.as_ref()?.loss(self.session, self.era)?;
        Some(self.tell(why))
    }

    /// The lease is lost, for this reason if it is the first. Returns the first.
    fn tell(&self, why: LeaseLoss) -> LeaseLoss {
        self.reason.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert(why);
            first
        });
        self.reason.borrow().unwrap_or(why)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.tell(LeaseLoss::Closed);
    }
}

impl Clone for Lost {
    fn clone(&self) -> Self {
        Self {
            reason: self.reason.clone(),
            loss: Arc::clone(&self.loss),
            waiting: None,
        }
    }
}

impl Future for Lost {
    type Output = LeaseLoss;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LeaseLoss> {
        let this = self.get_mut();
        if let Some(why) = this.reason() {
            this.waiting = None;
            return Poll::Ready(why);
        }
        let waiting = this.waiting.get_or_insert_with(|| {
            let mut reason = this.reason.clone();
            Box::pin(async move {
                match reason.wait_for(Option::is_some).await {
                    Ok(reason) => reason.unwrap_or(LeaseLoss::Closed),
                    Err(_) => LeaseLoss::Closed,
                }
            })
        });
        let why = std::task::ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(why)
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lost").field(&self.reason()).finish()
    }
}
