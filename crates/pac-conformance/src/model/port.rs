//! What the repository of a controller is given in place of channels: plain values, so that a
//! state of it can be copied and compared.

use pac_core::manager::machine::{Port, Repository};
use pac_core::protocol::Death;
use pac_core::{FencingToken, SessionId};

/// The manager's own state machine.
pub(super) type Machine = Repository<ModelPort>;

#[derive(Debug, Clone, Copy)]
pub(super) struct ModelPort;

impl Port for ModelPort {
    type Asker = Asker;
    // A waiter is known by its number.
    type Notice = ();
    type Place = ();
    type Loss = ();

    fn place(_: u64) -> ((), ()) {
        ((), ())
    }
}

/// Where an answer goes. Named by what it is about, and not by a number that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Asker {
    pub(super) of: Of,
    /// Counts the calls that were told that it takes too long, and were repeated.
    pub(super) attempt: u8,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Of {
    /// An event of the scenario.
    Event(usize),
    /// The slot with this token is given back.
    Release(FencingToken),
    /// A death is recorded.
    Sweep(SessionId, Death),
}

impl From<Of> for Asker {
    fn from(of: Of) -> Self {
        Self { of, attempt: 0 }
    }
}
