//! The names of the checks.

use std::fmt;

/// A check of the random commands: two against the reference model, and one per invariant of
/// the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The answer to a command is the one that the reference model gives.
    Answer,
    /// The state is the one that the reference model reaches.
    State,
    /// The store can take what is written: counts, tickets and tokens add up.
    Records,
    /// No grant exceeds the limit in force, in slots, and only a claim that holds against its owner
    /// replaces it.
    Limit,
    /// Nothing starts during a pause.
    Pause,
    /// Grants go by priority, then ticket; the commit assigns tickets, and they never change. Only
    /// as many lighter runs as may go before one that does not fit.
    Order,
    /// No more runs wait than may.
    Bound,
    /// Slots have the smallest numbers that were free, and no two holders the same.
    Numbers,
    /// Runs leave the queue and their slots only for a reason.
    NothingLost,
    /// Holders are asked to end for a reason, and once.
    Asked,
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
            Self::Pause => "pause",
            Self::Order => "order",
            Self::Bound => "bound",
            Self::Numbers => "numbers",
            Self::Asked => "asked",
            Self::NothingLost => "nothing lost",
            Self::NoIdleSlot => "no idle slot",
            Self::Idempotent => "idempotent",
            Self::Fencing => "fencing",
            Self::LiveOwner => "live owner",
            Self::Told => "told",
        })
    }
}
