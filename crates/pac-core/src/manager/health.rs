//! Whether a manager does what it is there for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
    /// How often the store was found to have gone back in time: restored from an older copy, or a
    /// standby took over that had not received the last commits. Each time this process has
    /// forgotten what it knew and opened another session.
    pub rewinds: u64,
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
    rewinds: Mutex<Rewinds>,
}

#[derive(Debug, Default)]
struct Rewinds {
    number: u64,
    last: Option<Instant>,
}

/// Repositories that are found to have gone back in time within so long after the first one show
/// the same restore: longer than a read that was on its way then, and shorter than it takes to
/// restore a store twice.
const SAME_REWIND: Duration = Duration::from_secs(5);

impl Vitals {
    /// The watch is connected, or why it is not.
    pub(super) fn watching(&self, error: Option<String>) {
        let known = &self.watch_error;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// A repository shows that the store has gone back in time. False when others have shown that
    /// a moment ago.
    pub(super) fn store_rewound(&self) -> bool {
        let mut rewinds = self.rewinds.lock().unwrap_or_else(PoisonError::into_inner);
        let again = rewinds
            .last
            .is_some_and(|last| last.elapsed() < SAME_REWIND);
        if !again {
            rewinds.number += 1;
            rewinds.last = Some(Instant::now());
        }
        !again
    }

    /// How often the store has gone back in time.
    pub(super) fn rewinds(&self) -> u64 {
        let rewinds = self.rewinds.lock().unwrap_or_else(PoisonError::into_inner);
        rewinds.number
    }

    pub(super) fn watch_error(&self) -> Option<String> {
        let known = &self.watch_error;
        known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
