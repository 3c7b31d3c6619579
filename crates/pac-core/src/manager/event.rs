//! What a manager has to tell that nobody asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use super::ConcurrencyManager;
use super::admission::Lease;
use super::waiting::Grant;
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
pub struct Events(pub(super) broadcast::Receiver<Option<Event>>);

/// An [`Event`], or how many a slow reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The next event.
    Event(Event),
    /// So many events were dropped before the next one: read what matters again.
    Missed(u64),
}

impl Events {
    /// Waits for the next event; `None` when the manager was closed, has died or is gone.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(None) => None,
            Ok(Some(event)) => Some(Heard::Event(event)),
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
    /// Waits for the next lease; `None` when the manager was closed or has died. Cancel-safe.
    pub async fn next(&mut self) -> Option<Lease> {
        let shared = self.0.shared();
        loop {
            // Taken only after the wait, so that a dropped future loses nothing.
            let session = shared.grants.session_of_first().await?;
            let held = shared.session.is_held(session).await;
            match shared.grants.take_first() {
                Some(grant) if held => return Some(Lease::new(&self.0, grant, true)),
                _ => {}
            }
        }
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        self.0.shared().grants.close();
    }
}

/// Grants on their way to [`Grants`]: never more than runs were detached or taken over.
#[derive(Debug, Default)]
pub(super) struct GrantQueue {
    is_read: AtomicBool,
    /// Nothing more comes.
    ended: AtomicBool,
    opened: Notify,
    waiting: Mutex<VecDeque<Grant>>,
    wake: Notify,
}

impl GrantQueue {
    /// Whether somebody reads.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// False when somebody reads already.
    pub(super) fn open(&self) -> bool {
        let first = !self.is_read.swap(true, Ordering::AcqRel);
        if first {
            self.opened.notify_one();
        }
        first
    }

    pub(super) fn close(&self) {
        self.is_read.store(false, Ordering::Release);
    }

    /// Says that nothing more comes.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until somebody begins to read.
    pub(super) async fn opened(&self) {
        self.opened.notified().await;
    }

    pub(super) fn push(&self, grant: Grant) {
        self.waiting().push_back(grant);
        self.wake.notify_one();
    }

    async fn session_of_first(&self) -> Option<SessionId> {
        loop {
            let first = self.waiting().front().map(|grant| grant.session);
            if first.is_some() {
                return first;
            }
            if self.ended.load(Ordering::Acquire) {
                return None;
            }
            self.wake.notified().await;
        }
    }

    fn take_first(&self) -> Option<Grant> {
        self.waiting().pop_front()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Grant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
