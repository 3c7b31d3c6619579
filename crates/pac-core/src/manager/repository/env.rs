//! What a repository is told of the world with every input, and what it is given to answer
//! through: it reads no clock, and knows neither the engine nor a channel.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::driver::Retention;
use crate::protocol::Issuer;
use crate::value::SessionId;

/// The world at the moment of an input. Small, and copied freely.
#[derive(Debug, Clone, Copy)]
pub struct Env {
    /// The session of this manager.
    pub session: SessionId,
    /// That session is known to be over; no other one is open yet.
    pub session_lost: bool,
    /// Somebody reads the stream of grants: durable runs without an owner may be granted to it.
    pub takes_ownerless: bool,
    /// The manager closes, or has ended: what it gives up is left to others.
    pub closing: bool,
    /// A commit takes no time: admissions never wait for something to go along with.
    pub in_process: bool,
    /// Entries from which on a plan starts no further run.
    pub entry_budget: usize,
    /// How long finished runs stay in the cached state.
    pub retention: Retention,
    /// How long a command is tried, counted from its submission.
    pub command_timeout: Duration,
    /// Now; for an input that does not depend on the time, some earlier moment.
    pub now: Instant,
}

impl Env {
    /// On whose behalf commands are planned.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        Issuer {
            session: self.session,
            takes_ownerless: self.takes_ownerless,
        }
    }
}

/// The ends of channels that a repository keeps and hands back with its effects. It never uses
/// them, so that tests and the model check can put plain numbers in their place.
pub trait Port: fmt::Debug + 'static {
    /// Where the answer to a request goes.
    type Asker: fmt::Debug;
    /// Where a waiter is told that its waiting is over.
    type Notice: fmt::Debug;
    /// The other end of a [`Notice`](Self::Notice).
    type Place: fmt::Debug;
    /// Where a holder is told that its lease is lost.
    type Loss: fmt::Debug;

    /// Both ends for the waiter with this number, which is unique in its repository.
    fn place(number: u64) -> (Self::Notice, Self::Place);
}
