//! The names of the checks.

use std::fmt;

/// A check of the random commands: two against the reference model, and one per invariant of
/// the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The answer to a command is the one that the reference model gives.
    Answer,
    /// The store can accept the commit: its counts, tickets and tokens are consistent.
    State,
    /// The store can take what is written: counts, tickets and tokens add up.
    Records,
    /// No grant exceeds the limit in force, and only a newer announcement replaces it.
    Limit,
    /// Grants go by priority, then ticket; the commit assigns tickets, and they never change.
    Order,
    /// Runs leave the queue and their slots only for a reason.
    NothingLost,
    /// A free slot and a waiter with a live owner never coexist.
    NoIdleSlot,
    /// Repeating a command changes nothing.
    Idempotent,
    /// Tokens strictly increase, and commands with older ones change nothing.
    Fencing,
    /// A grant goes to the owner of the run, and only while that session lives.
    LiveOwner,
    /// The leases that managers hand out, and the answers to their waiters, agree with the
    /// store.
    Told,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "answer",
            Self::State => "state",
            Self::Records => "records",
            Self::Limit => "limit",
            Self::Order => "order",
            Self::NothingLost => "nothing lost",
            Self::NoIdleSlot => "no idle slot",
            Self::Idempotent => "idempotent",
            Self::Fencing => "fencing",
            Self::LiveOwner => "live owner",
            Self::Told => "told",
        })
    }
}
