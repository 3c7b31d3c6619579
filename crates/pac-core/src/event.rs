//! What a manager has to tell that nobody asked for.

use std::fmt;
use std::time::Duration;

use crate::name::{PipelineRunKey, RepositoryKey};
use crate::state::RunOutcome;
use crate::value::{FencingToken, SessionId, Version};

/// Something that happened to runs or sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A waiting durable run has no owner any more: its controller died, or gave it up. The next
    /// controller that admits or adopts it owns it; else it is granted to a controller that can
    /// start any run.
    OwnerLost {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
    },
    /// A running durable run has lost its controller to death. It keeps its slot until the lease
    /// TTL has passed; the next controller that admits or adopts it holds it.
    Orphaned {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
    },
    /// A run that this manager held, waited for or watched over was ended by another process, by
    /// another controller's command, because a newer run of its group superseded it, or because its
    /// time was over.
    Ended {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
        /// How; `None` when its repository was removed with it, or a new run took its name.
        outcome: Option<RunOutcome>,
    },
    /// A run that holds a slot was asked to end. Its holder hears of it from
    /// [`Lease::cancel_requested`](crate::manager::Lease::cancel_requested) as well.
    CancelRequested {
        /// The repository.
        repository: RepositoryKey,
        /// The run.
        run: PipelineRunKey,
        /// The token of its slot.
        token: FencingToken,
    },
    /// A renewal of this manager's session has failed, and is tried again: told once an outage.
    /// [`Renewed`](Self::Renewed) or [`LeasesLost`](Self::LeasesLost) follows, unless the session
    /// or the manager ends first.
    NotRenewed {
        /// The session.
        session: SessionId,
        /// How long this manager may still call itself the holder of its leases if the store
        /// answers nothing more.
        remaining: Duration,
        /// Why it failed, for people to read.
        cause: String,
    },
    /// This manager's session, of which [`NotRenewed`](Self::NotRenewed) was told, is renewed
    /// again, and nothing was lost.
    Renewed(SessionId),
    /// This manager's session was not renewed in time: it may call itself the holder of none of
    /// its leases any more. Its waiting runs keep their places for as long as the store keeps
    /// the session; then [`SessionLost`](Self::SessionLost) follows, else
    /// [`SessionKept`](Self::SessionKept).
    LeasesLost(SessionId),
    /// The store has kept the session of a manager whose leases were lost: it goes on. Durable
    /// runs of this manager that run still have to be admitted or adopted again.
    SessionKept(SessionId),
    /// The store has gone back in time: it was restored from an older copy, or a standby took over
    /// that had not received the last commits. [`SessionLost`](Self::SessionLost) and
    /// [`SessionOpened`](Self::SessionOpened) follow: what this manager knew is read anew, it holds
    /// none of its leases any more, and its waiting durable runs that the store still knows are
    /// waited for again. Runs that it does not know any more have to be admitted or adopted again.
    StoreRewound {
        /// The repository that has shown it.
        repository: RepositoryKey,
        /// The version at which that was known to be.
        known: Version,
        /// The version at which it was then found.
        found: Version,
    },
    /// This manager's own session is over: it holds none of its leases any more.
    SessionLost(SessionId),
    /// This manager has a session again. Its waiting durable runs kept their places and are
    /// waited for again; running ones have to be adopted by a controller that knows that they
    /// run.
    SessionOpened(SessionId),
}

/// Why a lease is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseLoss {
    /// The run has ended, by another command than the release of this lease, or by that; `None`
    /// when its repository was removed with it, or a new run took its name.
    Ended(Option<RunOutcome>),
    /// The slot is another holder's now, or the run is back in the queue.
    TakenOver,
    /// The session that holds it was not renewed in time.
    NotRenewed,
    /// The session that holds it is over: the store has said so, or another controller has found
    /// it dead and ended its run as expired.
    SessionLost,
    /// The manager was closed by its owner, or a part of it has died.
    Closed,
}

impl fmt::Display for LeaseLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Some(outcome)) => write!(f, "the run was ended as {outcome}"),
            Self::Ended(None) => {
                f.write_str("the repository was removed, or a new run took the name")
            }
            Self::TakenOver => f.write_str("the slot was taken over, or given back to the queue"),
            Self::NotRenewed => f.write_str("the session was not renewed in time"),
            Self::SessionLost => f.write_str("the session is over"),
            Self::Closed => f.write_str("the manager has ended"),
        }
    }
}
