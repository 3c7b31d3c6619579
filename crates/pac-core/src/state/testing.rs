//! Entries for the unit tests of this crate.

use super::{Entry, EntryState, Moment, RunKind};
use crate::value::{Priority, Revision, SessionId, Ticket, Timestamp};

/// A durable run `ns/run-<ticket>` waiting for session 1.
pub(crate) fn queued(ticket: u64, priority: i32) -> Entry {
    Entry {
        run: format!("ns/run-{ticket}").parse().unwrap(),
        uid: format!("uid-{ticket}").parse().unwrap(),
        kind: RunKind::Durable,
        priority: Priority::new(priority),
        ticket: Ticket::new(ticket),
        state: EntryState::Queued {
            owner: Some(SessionId::new(1)),
        },
        queued: Moment::of(Timestamp::from_unix_millis(0)),
        started: Moment::NEVER,
        finished: Moment::NEVER,
        terms: None,
        revision: Revision::new(1),
    }
}
