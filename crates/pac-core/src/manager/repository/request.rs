//! A command on its way.

use tokio::time::Instant;

use super::env::Port;
use crate::name::{Reason, Uid};
use crate::protocol::{Admitted, Command, Ended, Outcome};
use crate::state::{Entry, Head, Owner, Rules, RunKind};
use crate::value::{FencingToken, LimitVersion, Ticket, Version};

/// Names a request to its repository: the number of requests before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u64);

/// A command on its way, and where its answer goes.
#[derive(Debug)]
pub struct Request<P: Port> {
    /// What is asked for.
    pub command: Command,
    /// Names it.
    pub id: RequestId,
    /// How many requests, from this one on, are to be planned together.
    pub group: usize,
    /// Where the answer goes.
    pub listener: Listener<P::Asker>,
    /// From when on it is not tried any more; `None` for what is tried until it succeeds.
    pub deadline: Option<Instant>,
    /// An attempt that may have succeeded without our knowing.
    pub uncertain: Option<Box<Uncertain>>,
    /// The entry was created for an earlier asker that has gone. It counts as created by this
    /// request, so that it is taken back if this asker goes too.
    pub inherits: bool,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener<A> {
    /// The command is the manager's own.
    Nobody,
    /// To the call that submitted it and has not returned yet.
    Caller,
    /// There.
    Channel(A),
    /// The asker has gone. Its command is carried out all the same, but an admission is taken
    /// back.
    Dropped,
    /// The asker was told that the outcome is unknown.
    TimedOut,
}

/// What is asked for; decides what is undone when the asker has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A slot, or a place in the queue.
    Admission,
    /// The old place in the queue, for a slot.
    Requeue,
    /// Something that stays done.
    Other,
}

/// An attempt whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uncertain {
    /// What the attempt came to if it succeeded.
    pub outcome: Outcome,
    /// What it was planned on.
    pub basis: Basis,
    /// It would have taken over the slot of an orphan.
    pub takes_over: bool,
}

impl Uncertain {
    /// Whether the attempt would have put a run back into its place.
    pub(super) fn puts_back(&self) -> bool {
        matches!(self.basis, Basis::Place(Some(_)))
    }

    /// Whether an entry may be the one that the attempt was about: a run that was put back into its
    /// place has its ticket still, and one that came anew has not.
    pub(super) fn may_mean(&self, entry: &Entry) -> bool {
        match self.basis {
            Basis::Place(ticket) => ticket == Some(entry.ticket),
            _ => true,
        }
    }
}

/// What a command that names less than it changes was planned on. Repeated after a lost answer,
/// it is held to that, and never to what has come since.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The command itself says enough.
    Command,
    /// A cancellation by name would end this run.
    Run(Uid),
    /// An admission would end a run of its name and another uid, if that is this one.
    Arrival(Option<Uid>),
    /// A release by force would free this slot.
    Slot(FencingToken),
    /// A run with this ticket would be put back into its place; without one, nothing would change.
    Place(Option<Ticket>),
    /// The rules as they were, and as they would be.
    Limit(Box<[InForce; 2]>),
    /// The reason of the pause as it was, and as it would be; `None` where there is no pause.
    Pause(Box<[Option<Option<Reason>>; 2]>),
    /// Many would be ended, with tickets up to this one.
    UpTo(Ticket),
    /// A removal would remove what is there at this version, with all tickets up to this one.
    Repository(Version, Ticket),
}

/// The rules of a repository, and what they hold against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InForce {
    rules: Rules,
    owner: Option<Owner>,
    version: Option<LimitVersion>,
    beneath: Option<(Rules, Owner)>,
}

impl InForce {
    pub(super) fn of(head: &Head) -> Self {
        let policy = head.policy.as_ref();
        Self {
            rules: head.rules(),
            owner: head.owner(),
            version: head.limit_version,
            beneath: policy.and_then(|policy| policy.beneath.clone()),
        }
    }
}

/// A request in the commit that is on its way.
#[derive(Debug)]
pub(super) struct Planned<P: Port> {
    /// The request.
    pub(super) request: Request<P>,
    /// What it comes to if the commit succeeds.
    pub(super) outcome: Outcome,
    /// What it was planned on.
    pub(super) basis: Basis,
    /// It takes over a run that is an orphan.
    pub(super) takes_over: bool,
}

impl<P: Port> Request<P> {
    /// A command that an asker waits for, in vain from `deadline` on.
    pub fn new(command: Command, listener: Listener<P::Asker>, deadline: Option<Instant>) -> Self {
        Self {
            command,
            id: RequestId::default(),
            group: 1,
            listener,
            deadline,
            uncertain: None,
            inherits: false,
        }
    }

    /// A command of the manager's own: tried until it succeeds.
    pub fn own(command: Command) -> Self {
        Self::new(command, Listener::Nobody, None)
    }

    /// The last request that is to be planned together with this one. Those in between may have
    /// been given up.
    pub fn last_of_group(&self) -> Option<RequestId> {
        let more = self.group.checked_sub(1).filter(|more| *more > 0)?;
        Some(RequestId(self.id.0 + more as u64))
    }

    /// Whether somebody waits for the answer.
    pub fn is_awaited(&self) -> bool {
        matches!(self.listener, Listener::Caller | Listener::Channel(_))
    }

    /// Whether the command is the manager's own.
    pub fn is_own(&self) -> bool {
        matches!(self.listener, Listener::Nobody)
    }

    /// The asker of a slot has gone before anything was tried. Any other command is carried out
    /// whether or not somebody waits for the answer.
    pub fn is_moot(&self) -> bool {
        let gone = matches!(self.listener, Listener::Dropped | Listener::TimedOut);
        let untried = self.uncertain.is_none() && !self.inherits;
        gone && untried && matches!(self.command, Command::Admit(_))
    }

    /// Whether the asker has gone and nobody knows whether it was given a slot: that is found
    /// out however long it takes, since the slot has to be given back.
    pub fn may_have_left_a_slot(&self) -> bool {
        let gone = match &self.listener {
            Listener::Dropped => true,
            // A durable run is known to the cluster, and stays for whoever asks again.
            Listener::TimedOut => matches!(
                &self.command,
                Command::Admit(request) if request.kind == RunKind::Ephemeral
            ),
            Listener::Nobody | Listener::Caller | Listener::Channel(_) => false,
        };
        gone && self.admits()
    }

    /// Whether what came of it stays although nobody was told: the asker knows that it may have
    /// happened, and a durable run is known to the cluster.
    pub fn stays_unanswered(&self) -> bool {
        matches!(self.listener, Listener::TimedOut) && !self.may_have_left_a_slot()
    }

    /// What is asked for.
    pub fn asked(&self) -> Asked {
        match &self.command {
            Command::Admit(_) => Asked::Admission,
            Command::Requeue { .. } => Asked::Requeue,
            _ => Asked::Other,
        }
    }

    /// Whether this can wait a while where others wait for a slot anyway.
    pub fn may_wait(&self) -> bool {
        matches!(self.command, Command::Admit(_)) && self.uncertain.is_none() && self.group == 1
    }

    /// Whether this asks for a slot or a place.
    pub fn admits(&self) -> bool {
        matches!(
            self.command,
            Command::Admit(_) | Command::Adopt(_) | Command::Requeue { .. }
        )
    }

    /// Whether this asks for a slot for this very run.
    pub fn asks_for(&self, entry: &Entry) -> bool {
        match &self.command {
            Command::Admit(request) | Command::Adopt(request) => {
                request.run == entry.run && request.uid == entry.uid
            }
            Command::Requeue { run, uid, .. } => *run == entry.run && *uid == entry.uid,
            _ => false,
        }
    }

    /// Whether this gives back what nobody has any more: it is tried until it succeeds, since
    /// nobody else would.
    pub fn gives_back(&self) -> bool {
        let gives = matches!(
            self.command,
            Command::Abandon { .. } | Command::Disown { .. } | Command::Expire { .. }
        );
        gives && self.deadline.is_none()
    }

    /// Whether this gives back a slot whose lease its asker had, and has gone with.
    pub fn is_left_to_itself(&self) -> bool {
        let ends = matches!(
            self.command,
            Command::Release { .. } | Command::Requeue { .. }
        );
        ends && matches!(self.listener, Listener::Dropped)
    }

    /// Whether an asker of this kind leaves something behind that nobody else looks after when it
    /// is told of a failure: an earlier attempt may have succeeded, or an earlier asker has gone.
    pub fn may_leave_something(&self) -> bool {
        self.admits() && (self.uncertain.is_some() || self.inherits)
    }
}

impl<P: Port> Planned<P> {
    /// Notes that the commit that this is in may have succeeded.
    pub(super) fn note_uncertain(&mut self) {
        let (outcome, basis) = (self.outcome.clone(), self.basis.clone());
        self.request.note_uncertain(outcome, basis, self.takes_over);
    }
}

impl<P: Port> Request<P> {
    /// Notes that the attempt which the request was in may have succeeded. Of several such
    /// attempts the first that would have changed something is the one to find again.
    fn note_uncertain(&mut self, outcome: Outcome, basis: Basis, takes_over: bool) {
        let known = self.uncertain.as_ref();
        let takes_over = takes_over || known.is_some_and(|known| known.takes_over);
        match &mut self.uncertain {
            Some(known) if is_a_change(&known.outcome) || known.puts_back() => {
                known.takes_over = takes_over;
            }
            _ => {
                self.uncertain = Some(Box::new(Uncertain {
                    outcome,
                    basis,
                    takes_over,
                }));
            }
        }
    }
}

fn is_a_change(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Admitted { created, .. } => *created,
        Outcome::Moved { standing, .. } => *standing != Admitted::NotHeld,
        Outcome::Ended { ended, .. } => matches!(ended, Ended::Done | Ended::Asked(_)),
        Outcome::LimitSet { accepted, .. } => *accepted,
        Outcome::Paused {
            before,
            accepted,
            promoted,
        } => *accepted && (!before || !promoted.is_empty()),
        Outcome::Swept { affected, promoted } => !(affected.is_empty() && promoted.is_empty()),
        Outcome::Removed(ended) => !ended.is_empty(),
    }
}
