//! What an input to a repository leads to outside of it. Effects are delivered after the lock
//! of the repository was released, in the order in which they came about.

use std::sync::Arc;

use smallvec::SmallVec;

use super::env::Port;
use super::request::{Asked, RequestId};
use crate::driver::RepositoryCommit;
use crate::error::Error;
use crate::event::{Event, LeaseLoss};
use crate::protocol::Outcome;
use crate::state::{Entry, EntryState, RunOutcome};
use crate::status::QueuedRun;
use crate::value::{FencingToken, SessionId, Timestamp, Version};
use std::time::Duration;
use tokio::time::Instant;

/// What has to be done next for a repository by the one that has the combiner's right.
#[derive(Debug)]
pub enum Action {
    /// Nothing; the right is given back.
    Rest,
    /// Plan again.
    Plan,
    /// Plan again after a while.
    PlanAfter(Duration),
    /// Read what changed since, or all.
    Load(Option<Version>),
    /// Plan again at that moment, or as soon as [`Effects::wake`] says so.
    Hold(Instant),
    /// Commit this, in the name of the session that it was planned for.
    Commit(SessionId, OneCommit),
}

/// The commit of one repository. Made where it is planned as the list of one that a driver takes,
/// so that it is neither copied nor allocated again on its way there.
pub(super) type OneCommit = Box<[RepositoryCommit; 1]>;

/// See the module.
#[derive(Debug)]
pub struct Effects<P: Port> {
    /// Answers, each to one request.
    pub replies: SmallVec<[Answer<P>; 1]>,
    /// Waiters whose waiting is over.
    pub turns: Vec<Turn<P>>,
    /// Slots of this manager's runs that nobody waits for here.
    pub grants: Vec<Grant>,
    /// Leases that are lost, each told to one holder.
    pub losses: Vec<(P::Loss, LeaseLoss)>,
    /// What everybody may want to hear.
    pub events: Vec<Event>,
    /// A commit found that this session of the manager's is over.
    pub session_lost: Option<SessionId>,
    /// What was read shows that the store has gone back in time.
    pub rewound: Option<Rewound>,
    /// The records of the repository cannot be understood: those that follow it are told why.
    pub unreadable: Option<Error>,
    /// The state is another one than before.
    pub stepped: bool,
    /// Something came that admissions which were held back can go along with.
    pub wake: bool,
    /// There are runs that may wait, or hold their slots, only for some time: when the first one's is over,
    /// and whether that run is this manager's.
    pub timed: Option<(Timestamp, bool)>,
}

impl<P: Port> Effects<P> {
    /// Whether nothing has to happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
            && self.turns.is_empty()
            && self.grants.is_empty()
            && self.losses.is_empty()
            && self.events.is_empty()
            && self.session_lost.is_none()
            && self.rewound.is_none()
            && self.unreadable.is_none()
            && !self.stepped
            && !self.wake
            && self.timed.is_none()
    }
}

impl<P: Port> Default for Effects<P> {
    fn default() -> Self {
        Self {
            replies: SmallVec::new(),
            turns: Vec::new(),
            grants: Vec::new(),
            losses: Vec::new(),
            events: Vec::new(),
            session_lost: None,
            rewound: None,
            unreadable: None,
            stepped: false,
            wake: false,
            timed: None,
        }
    }
}

/// How a repository shows that its store has gone back in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewound {
    /// It was known to be at this version.
    pub known: Version,
    /// It was then found to be at this one.
    pub found: Version,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Answer<P: Port> {
    /// Which request.
    pub request: RequestId,
    /// Where it goes; `None` when its asker is still in the call that submitted it.
    pub asker: Option<P::Asker>,
    /// What came of it.
    pub result: AnswerResult<P>,
}

/// A reply, or a failure. Boxed, since it is handed on several times on its way.
pub type AnswerResult<P> = Result<Box<Reply<P>>, Box<Error>>;

/// What a request came to.
#[derive(Debug)]
pub struct Reply<P: Port> {
    /// What was asked for.
    pub asked: Asked,
    /// What the command came to.
    pub outcome: Outcome,
    /// The run's entry as it stands now.
    pub entry: Option<Arc<Entry>>,
    /// Where its turn will be announced, if it waits.
    pub place: Option<Place<P>>,
    /// Another commit has started the run, and this answer is how its asker hears of that.
    pub carries: Option<Grant>,
    /// How the run waits, where a run that was to be ended waits still.
    pub waits: Option<Box<QueuedRun>>,
    /// The run was an orphan, and its slot is this manager's because of the request.
    pub took_over: bool,
}

/// A place in the queue of a repository.
#[derive(Debug)]
pub struct Place<P: Port> {
    /// Names the waiter to its repository.
    pub waiter: WaiterId,
    /// Where the end of waiting is announced.
    pub end: P::Place,
}

/// A waiter whose waiting is over.
#[derive(Debug)]
pub struct Turn<P: Port> {
    /// Which waiter.
    pub waiter: WaiterId,
    /// Where it hears of it.
    pub notice: P::Notice,
    /// What it hears.
    pub message: TurnMessage,
}

/// How waiting ended.
#[derive(Debug)]
pub enum TurnMessage {
    /// With a slot.
    Started(Grant),
    /// Without one.
    Over(EndOfWaiting),
}

/// A slot of this manager's: what a lease is made of.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The run as it was started.
    pub entry: Arc<Entry>,
    /// The token of the slot.
    pub token: FencingToken,
    /// The session that holds it.
    pub session: SessionId,
    /// The run was running before: given back, it is an orphan, and not queued again.
    pub running: bool,
}

impl Grant {
    /// The slot that a run has. `None` when it has none.
    pub(super) fn of(entry: &Arc<Entry>, running: bool) -> Option<Self> {
        match entry.state {
            EntryState::Started { token, session, .. } => Some(Self {
                entry: Arc::clone(entry),
                token,
                session,
                running,
            }),
            _ => None,
        }
    }
}

/// Names a waiter to its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Why waiting is over without a slot.
#[derive(Debug)]
pub enum EndOfWaiting {
    /// The run has ended.
    Ended(RunOutcome),
    /// Another waiter, here or elsewhere, waits for it now.
    TakenOver,
    /// There is no such run any more.
    Gone,
    /// It waited, or was started, in the name of a session that is over.
    Lost(SessionId),
    /// The manager has ended, or the records of the repository cannot be understood.
    Failed(Error),
}
