//! Whether a manager does what it is there for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::value::SessionId;

/// What a manager says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Its session at the store.
    pub session: SessionId,
    /// How long it may still call itself the holder of its leases if it hears nothing more;
    /// zero when the session is lost.
    pub session_remaining: Duration,
    /// Why the last renewal of the session failed, if it did: without another one that succeeds
    /// the leases are lost when [`session_remaining`](Self::session_remaining) is over.
    pub renewal_error: Option<String>,
    /// It was closed by its owner: an orderly end, after which it answers no more calls.
    pub closed: bool,
    /// The part of the manager that has died, if one has, or its runtime: it answers no more
    /// calls then.
    pub dead: Option<&'static str>,
    /// Why the watch is not connected, if it is not. Waiters are then woken by polling alone.
    pub watch_error: Option<String>,
    /// Tasks that ended in a panic: each one is a bug.
    pub panics: u64,
}

impl Health {
    /// Whether it is to be trusted with work: it is open, its parts live, and so does its
    /// session.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.closed && self.dead.is_none() && !self.session_remaining.is_zero()
    }
}

/// What parts of the manager report of themselves.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    watch_error: Mutex<Option<String>>,
}

impl Vitals {
    /// The watch is connected, or why it is not.
    pub(super) fn watching(&self, error: Option<String>) {
        let known = &self.watch_error;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn watch_error(&self) -> Option<String> {
        let known = &self.watch_error;
        known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
