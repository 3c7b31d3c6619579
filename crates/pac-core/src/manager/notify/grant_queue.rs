//! Grants on their way to the stream of leases that nobody awaits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::manager::registry::Cell;
use crate::manager::repository::effects::Grant;
use crate::value::SessionId;

/// Grants that may lie unread before this manager takes no more.
const MOST: usize = 1_024;

/// A grant, and its repository.
pub(in crate::manager) type Granted = (Arc<Cell>, Grant);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::manager) struct GrantQueue {
    inner: Mutex<Inner>,
    /// Whether somebody reads, and not too much lies unread. Written under the lock.
    takes: AtomicBool,
    opened: Notify,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    is_read: bool,
    ended: bool,
    unread: VecDeque<Granted>,
}

impl GrantQueue {
    /// Whether a run without an owner may be granted to the reader.
    pub(in crate::manager) fn takes(&self) -> bool {
        self.takes.load(Ordering::Acquire)
    }

    /// A reader begins. False when there is one already.
    pub(in crate::manager) fn open(&self) -> bool {
        let mut inner = self.inner();
        let first = !std::mem::replace(&mut inner.is_read, true);
        self.note(&inner);
        drop(inner);
        if first {
            self.opened.notify_one();
        }
        first
    }

    /// The reader has gone: what it has not read is to be given back by the caller.
    #[must_use = "what nobody reads has to be given back"]
    pub(in crate::manager) fn close(&self) -> VecDeque<Granted> {
        let mut inner = self.inner();
        inner.is_read = false;
        let unread = std::mem::take(&mut inner.unread);
        self.note(&inner);
        unread
    }

    /// Nothing more comes.
    pub(in crate::manager) fn end(&self) {
        self.inner().ended = true;
        self.wake.notify_one();
    }

    /// What may start without an owner is looked for, if somebody takes it.
    pub(in crate::manager) fn look_again(&self) {
        if self.takes() {
            self.opened.notify_one();
        }
    }

    /// Waits until a reader begins, or may be given more.
    pub(in crate::manager) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Adds a grant. Gives it back when nobody reads, or too much lies unread.
    pub(in crate::manager) fn push(&self, granted: Granted) -> Result<(), Granted> {
        let mut inner = self.inner();
        if !inner.is_read || inner.ended || inner.unread.len() >= MOST {
            return Err(granted);
        }
        inner.unread.push_back(granted);
        self.note(&inner);
        drop(inner);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for a grant, and says whose session holds its slot; it stays in the queue. `None`
    /// when nothing more comes. Cancel-safe.
    pub(in crate::manager) async fn session_of_first(&self) -> Option<SessionId> {
        loop {
            let wake = self.wake.notified();
            {
                let inner = self.inner();
                if inner.ended {
                    return None;
                }
                if let Some((_, grant)) = inner.unread.front() {
                    return Some(grant.session);
                }
            }
            wake.await;
        }
    }

    pub(in crate::manager) fn take_first(&self) -> Option<Granted> {
        let mut inner = self.inner();
        let first = inner.unread.pop_front();
        self.note(&inner);
        let again = inner.is_read && inner.unread.len() + 1 == MOST;
        drop(inner);
        if again {
            // Runs were left to others because too much lay here.
            self.opened.notify_one();
        }
        first
    }

    fn note(&self, inner: &Inner) {
        let takes = inner.is_read && !inner.ended && inner.unread.len() < MOST;
        self.takes.store(takes, Ordering::Release);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
