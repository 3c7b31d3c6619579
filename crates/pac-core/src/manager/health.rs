//! Whether a manager does what it is there for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::value::SessionId;

/// What a manager says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its session at the store.
    pub session: SessionId,
    /// How long it may still call itself the holder of its leases if it hears nothing more;
    /// zero when the session is lost.
    pub session_remaining: Duration,
    /// The part of the manager that has died, if one has: it answers no more calls then.
    pub dead: Option<&'static str>,
    /// Why the watch is not connected, if it is not. Waiters are then woken by polling alone.
    pub watch_error: Option<String>,
    /// Tasks that ended in a panic: each one is a bug.
    pub panics: u64,
}

impl Health {
    /// Whether it is to be trusted with work: its parts live, and so does its session.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.dead.is_none() && !self.session_remaining.is_zero()
    }
}

/// The signs of life that [`Health`] is made of.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    is_dead: AtomicBool,
    dead: Mutex<Option<&'static str>>,
    watch_error: Mutex<Option<String>>,
    panics: AtomicU64,
}

impl Pulse {
    pub(super) fn died(&self, part: &'static str) {
        // The first cause is the one to tell.
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.get_or_insert(part);
        drop(dead);
        self.is_dead.store(true, Ordering::Release);
    }

    /// # Errors
    /// `Closed` when a part of the manager has died, or it was closed.
    pub(super) fn check(&self, operation: &'static str) -> Result<(), Error> {
        if !self.is_dead.load(Ordering::Acquire) {
            return Ok(());
        }
        let part = self.dead().unwrap_or("manager");
        Err(Error::new(
            ErrorKind::Closed,
            operation,
            format!("the {part} of this manager has ended; open a new one"),
        ))
    }

    pub(super) fn dead(&self) -> Option<&'static str> {
        *self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watching(&self, error: Option<String>) {
        *self
            .watch_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn watch_error(&self) -> Option<String> {
        self.watch_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// To be dropped with a task: notices if that is because of a panic.
    pub(super) fn watch_task(self: &Arc<Self>) -> impl Drop + Send + use<> {
        Watched(Arc::clone(self))
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

struct Watched(Arc<Pulse>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a task of the manager panicked: this is a bug");
            self.0.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}
