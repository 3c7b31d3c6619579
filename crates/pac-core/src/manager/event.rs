//! What a manager has to tell that nobody asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use super::ConcurrencyManager;
use super::admission::{Grant, Lease};
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::state::RunOutcome;
use crate::value::SessionId;

/// Events that a slow reader may be behind before it loses the oldest.
pub(super) const EVENTS: usize = 1_024;

/// Something that happened to runs or sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A waiting durable run has lost its owner to death. Whoever admits or adopts it now, owns
    /// it; else it is granted to a controller that can start any run.
    OwnerLost {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
    },
    /// A running durable run has lost its controller to death. It keeps its slot until the
    /// lease TTL has passed; whoever admits or adopts it now, holds it.
    Orphaned {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
    },
    /// A run that this manager held, waited for or watched over was ended by somebody else.
    Ended {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
        /// How; `None` when its repository was removed with it, or a new run took its name.
        outcome: Option<RunOutcome>,
    },
    /// This manager's own session is over: it holds none of its leases any more.
    SessionLost(SessionId),
    /// This manager has a session again. Its waiting durable runs kept their places and are
    /// waited for again; running ones have to be adopted by whoever knows that they run.
    SessionOpened(SessionId),
}

/// The events of a manager from the moment on at which this was asked for.
#[derive(Debug)]
pub struct Events(pub(super) broadcast::Receiver<Event>);

/// An [`Event`], or how many a slow reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The next event.
    Event(Event),
    /// So many events were dropped before the next one: read what matters again.
    Missed(u64),
}

impl Events {
    /// Waits for the next event; `None` when the manager is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The leases that nobody awaits: of runs whose waiter was detached, and of durable runs whose
/// owner died. While this lives, the manager takes over runs without an owner.
#[derive(Debug)]
pub struct Grants(pub(super) ConcurrencyManager);

impl Grants {
    /// Waits for the next lease. Cancel-safe.
    pub async fn next(&mut self) -> Lease {
        loop {
            let grant = self.0.shared().grants.next().await;
            if self.0.check_session(grant.session, "grant").is_ok() {
                return Lease::new(&self.0, grant, true);
            }
        }
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        self.0
            .shared()
            .grants
            .is_read
            .store(false, Ordering::Release);
    }
}

/// Grants on their way to [`Grants`]: never more than runs were detached or taken over.
#[derive(Debug, Default)]
pub(super) struct GrantQueue {
    is_read: AtomicBool,
    waiting: Mutex<VecDeque<Grant>>,
    wake: Notify,
}

impl GrantQueue {
    /// Whether somebody reads.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// False when somebody reads already.
    pub(super) fn read(&self) -> bool {
        !self.is_read.swap(true, Ordering::AcqRel)
    }

    pub(super) fn push(&self, grant: Grant) {
        self.waiting().push_back(grant);
        self.wake.notify_one();
    }

    async fn next(&self) -> Grant {
        loop {
            // Taken in a statement of its own: the guard must not live over the await.
            let next = self.waiting().pop_front();
            if let Some(grant) = next {
                return grant;
            }
            self.wake.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Grant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
