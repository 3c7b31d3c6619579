//! The commands for one repository, and their outcomes.

use crate::name::{PipelineRunKey, Uid};
use crate::state::{Entry, EntryState, RunKind, RunOutcome};
use crate::value::{FencingToken, Limit, LimitVersion, Priority, SessionId, Ticket};

/// A request for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RunRequest {
    /// The run that needs the slot.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Whether the run outlives the session that owns it.
    pub kind: RunKind,
    /// Its urgency. Admitting a waiting run again with another priority moves it in the queue.
    pub priority: Priority,
    /// Which live run of its name, with another uid, it ends. Default: any.
    pub replaces: Replaces,
}

/// Which live run of its name, with another uid, a request ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Replaces {
    /// Any: of two runs of one name, the one that asks is the one that is there.
    #[default]
    Any,
    /// The run with this uid, or none. Where another one is live by the time at which the request
    /// reaches the store, that one is the newer, and the request is
    /// [refused](Admitted::HeldElsewhere).
    Only(Option<Uid>),
}

impl Replaces {
    /// Whether the run with this uid is ended.
    pub(super) fn includes(&self, uid: &Uid) -> bool {
        match self {
            Self::Any => true,
            Self::Only(one) => one.as_ref() == Some(uid),
        }
    }
}

impl RunRequest {
    /// A request for a run that the cluster executes, of default priority.
    #[must_use]
    pub fn durable(run: PipelineRunKey, uid: Uid) -> Self {
        Self {
            run,
            uid,
            kind: RunKind::Durable,
            priority: Priority::default(),
            replaces: Replaces::default(),
        }
    }

    /// A request for a run that the asking process executes itself, of default priority.
    #[must_use]
    pub fn ephemeral(run: PipelineRunKey, uid: Uid) -> Self {
        Self {
            kind: RunKind::Ephemeral,
            ..Self::durable(run, uid)
        }
    }

    /// The same request with another priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The same request, which ends no other live run of its name than `known`: the one that its
    /// asker knows to be there, and older.
    #[must_use]
    pub fn replacing(self, known: Option<Uid>) -> Self {
        let replaces = Replaces::Only(known);
        Self { replaces, ..self }
    }
}

/// How long a session has been dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Death {
    /// Its session TTL has passed: its process no longer counts as a live controller.
    Session,
    /// Its lease TTL has passed too: the slots that it still held are freed.
    Lease,
}

/// A command for one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Command {
    /// Queue a run, and start it when it is first in the queue and the limit admits it.
    Admit(RunRequest),
    /// A run has ended; its slot is free.
    Release {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run; a run of the same name and another uid is not touched.
        uid: Uid,
        /// The token of the run's grant. `None` releases the slot by force, whichever session
        /// holds it.
        token: Option<FencingToken>,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// End a run, waiting or running.
    Cancel {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run; `None` cancels whichever run has the name.
        uid: Option<Uid>,
    },
    /// Give the slot of a started run back and restore its place in the queue: its work
    /// certainly did not begin.
    Requeue {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run; the token alone decides whether the slot is still its.
        uid: Uid,
        /// The token of its grant.
        token: FencingToken,
    },
    /// Record a run that is running already, even if that exceeds the limit.
    Adopt(RunRequest),
    /// Set the limit of the repository.
    SetLimit {
        /// The limit.
        limit: Limit,
        /// The version of the announced limit: an announcement not newer than the last one
        /// changes nothing. `None` sets the limit unconditionally; a later announcement with a
        /// newer version replaces it.
        version: Option<LimitVersion>,
    },
    /// Record that a session died, and free or orphan its runs.
    Expire {
        /// The dead session.
        session: SessionId,
        /// Which of its two deadlines have passed.
        death: Death,
    },
    /// Transfer a waiting durable run from the issuer's former session to its current one.
    /// Changes nothing if the run no longer waits or has another owner by now.
    Reclaim {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run.
        uid: Uid,
        /// The issuer's previous session.
        former: SessionId,
    },
    /// End a run that its asker no longer wants, unless another session owns it by now. The run
    /// may be admitted again afterwards.
    Abandon {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run.
        uid: Uid,
        /// The session that the run was admitted under: the issuer's current one, or a previous
        /// one.
        owner: SessionId,
        /// The ticket that the run was admitted with. If the run was admitted again later, it
        /// has another ticket and is not touched.
        ticket: Ticket,
        /// The token of the slot to give back; a later grant of the run is not touched. `None`
        /// gives the place in the queue up, and the slot too if one was granted meanwhile.
        token: Option<FencingToken>,
    },
    /// Nobody takes the slot that a durable run of the issuer's was granted: give it back, and
    /// leave the run to any controller. Not running yet, it is queued again in its old place,
    /// without an owner; running, it keeps its slot as an orphan.
    Disown {
        /// The run.
        run: PipelineRunKey,
        /// The token of the slot.
        token: FencingToken,
        /// Whether the run is running.
        running: bool,
    },
    /// Start every run that can start. Needed after a commit that started fewer runs than the
    /// limit admits.
    Promote,
    /// Delete the repository with its limit and all its runs.
    RemoveRepository,
}

impl Command {
    /// The run that the command names, if it names one.
    #[must_use]
    pub fn run(&self) -> Option<&PipelineRunKey> {
        match self {
            Self::Admit(request) | Self::Adopt(request) => Some(&request.run),
            Self::Release { run, .. }
            | Self::Cancel { run, .. }
            | Self::Requeue { run, .. }
            | Self::Reclaim { run, .. }
            | Self::Disown { run, .. }
            | Self::Abandon { run, .. } => Some(run),
            Self::SetLimit { .. }
            | Self::Expire { .. }
            | Self::Promote
            | Self::RemoveRepository => None,
        }
    }
}

impl Command {
    /// The uid of the run that the command names, if it gives one.
    #[must_use]
    pub fn uid(&self) -> Option<&Uid> {
        match self {
            Self::Admit(request) | Self::Adopt(request) => Some(&request.uid),
            Self::Release { uid, .. }
            | Self::Requeue { uid, .. }
            | Self::Reclaim { uid, .. }
            | Self::Abandon { uid, .. } => Some(uid),
            Self::Cancel { uid, .. } => uid.as_ref(),
            _ => None,
        }
    }
}

/// The answer to a command that asks for a slot or a place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Admitted {
    /// The run holds a slot.
    Started {
        /// The token of its grant.
        token: FencingToken,
        /// The session that holds the slot: the issuer's, or another live one that was granted
        /// it before.
        session: SessionId,
    },
    /// The run waits.
    Queued {
        /// Its place in the order of arrival.
        ticket: Ticket,
    },
    /// The run with this uid has ended before; it is not started again.
    Finished(RunOutcome),
    /// Refused because of this session: it owns the ephemeral run, or it owns another run of the
    /// name, which an ephemeral request, or one that [may not](RunRequest::replaces), does not end.
    /// Where that run has no owner, it is the issuer's session.
    HeldElsewhere(SessionId),
    /// Refused: no such run, or it is not held with this token, or another session owns it.
    NotHeld,
}

impl Admitted {
    /// Whether the run waits in the queue or holds a slot.
    #[must_use]
    pub fn has_a_place(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Queued { .. })
    }

    /// The answer that describes the present state of an entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        match entry.state {
            EntryState::Started { token, session, .. } => Self::Started { token, session },
            EntryState::Queued { .. } => Self::Queued {
                ticket: entry.ticket,
            },
            EntryState::Finished { outcome, .. } => Self::Finished(outcome),
        }
    }
}

/// The answer to a command that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// The run waited or ran, and this command ended it.
    Done,
    /// The run had ended before, with this outcome.
    Before(RunOutcome),
    /// Nothing changed: the run still waits. Only a started run can be released.
    NotStarted,
    /// Nothing changed: the run's slot has been granted anew since, with this token.
    Stale(FencingToken),
    /// Nothing changed: no run of this name and uid is known.
    Unknown,
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The outcome of `Admit`, `Adopt`, `Requeue`, `Reclaim` and `Disown`.
    Admitted {
        /// The state of the run after the command.
        admitted: Admitted,
        /// Whether the run neither waited nor ran before this command.
        created: bool,
    },
    /// The outcome of `Release`, `Cancel` and `Abandon`.
    Ended {
        /// Whether the command ended the run, and if not, why.
        ended: Ended,
        /// The runs that the commit starts in the freed slot, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `SetLimit`.
    LimitSet {
        /// The limit in force.
        limit: Limit,
        /// Whether the command set the limit; false when a later announcement was known already.
        accepted: bool,
        /// The runs that a raised limit starts, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `Expire` and `Promote`.
    Swept {
        /// The dead session's runs that ended or lost their owner.
        affected: Vec<PipelineRunKey>,
        /// The runs that the commit starts in freed slots, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `RemoveRepository`: the runs that were waiting or running.
    Removed(Vec<PipelineRunKey>),
}

impl Outcome {
    /// Whether the run that a slot or a place was asked for has one.
    #[must_use]
    pub fn has_a_place(&self) -> bool {
        matches!(self, Self::Admitted { admitted, .. } if admitted.has_a_place())
    }
}
