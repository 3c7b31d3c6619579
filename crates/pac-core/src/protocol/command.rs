//! What can be asked of a repository, and what came of it.

use crate::name::{PipelineRunKey, Uid};
use crate::state::{Entry, EntryState, RunKind, RunOutcome};
use crate::value::{FencingToken, Limit, LimitVersion, Priority, SessionId, Ticket};

/// A run that asks for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunRequest {
    /// Its name.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// What its owner's death means for it.
    pub kind: RunKind,
    /// Its urgency. Asking again with another priority moves a waiting run.
    pub priority: Priority,
}

impl RunRequest {
    /// A run that the cluster runs, of usual priority.
    #[must_use]
    pub fn durable(run: PipelineRunKey, uid: Uid) -> Self {
        Self {
            run,
            uid,
            kind: RunKind::Durable,
            priority: Priority::default(),
        }
    }

    /// A run that the asking process runs itself, of usual priority.
    #[must_use]
    pub fn ephemeral(run: PipelineRunKey, uid: Uid) -> Self {
        Self {
            kind: RunKind::Ephemeral,
            ..Self::durable(run, uid)
        }
    }

    /// The same with another priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }
}

/// How long a session has been dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Death {
    /// Its session TTL has passed: it is a controller no more.
    Session,
    /// Its lease TTL has passed too: the slots that it left behind are free.
    Lease,
}

/// What can be asked of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Queue a run, and start it when its turn has come.
    Admit(RunRequest),
    /// A run has ended; its slot is free.
    Release {
        /// The run.
        run: PipelineRunKey,
        /// Which run of that name.
        uid: Uid,
        /// The token of its grant; without one it is released by force, whoever holds it.
        token: Option<FencingToken>,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// End a run, waiting or running.
    Cancel {
        /// The run.
        run: PipelineRunKey,
        /// Which run of that name; any when `None`.
        uid: Option<Uid>,
    },
    /// A started run certainly did not begin to work: back to its old place in the queue.
    Requeue {
        /// The run.
        run: PipelineRunKey,
        /// The token of its grant.
        token: FencingToken,
    },
    /// The run is running already: record it, also beyond the limit.
    Adopt(RunRequest),
    /// A limit was announced.
    SetLimit {
        /// The limit.
        limit: Limit,
        /// The version of the announcement; an older one than the last changes nothing. None
        /// sets the limit whatever was announced, until a newer announcement.
        version: Option<LimitVersion>,
    },
    /// A session died.
    Expire {
        /// The dead session.
        session: SessionId,
        /// For how long.
        death: Death,
    },
    /// A durable run that waited in the name of a session which is over: go on waiting for it in
    /// the issuer's. Changes nothing if the run waits no more, or somebody else has taken it.
    Reclaim {
        /// The run.
        run: PipelineRunKey,
        /// Which run of that name.
        uid: Uid,
        /// The issuer's session before.
        former: SessionId,
    },
    /// Whoever asked for this run has gone: end it, unless somebody else has taken it. It may
    /// be asked for again.
    Abandon {
        /// The run.
        run: PipelineRunKey,
        /// Which run of that name.
        uid: Uid,
        /// In whose name it was asked for; the issuer's session, or one that it had before.
        owner: SessionId,
        /// The place that it was asked for with: a run that came again later has another.
        ticket: Ticket,
        /// The token of the slot that is given back; a later grant of it is not touched. None
        /// gives the place up, and a slot if it was granted meanwhile.
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
    /// Start all runs that may start: after a change that started fewer runs than it could.
    Promote,
    /// Forget the repository, its limit and every run of it.
    RemoveRepository,
}

impl Command {
    /// The run that the command is about, if it is about one.
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
    /// Which run of its name the command is about, if it says so.
    #[must_use]
    pub fn uid(&self) -> Option<&Uid> {
        match self {
            Self::Admit(request) | Self::Adopt(request) => Some(&request.uid),
            Self::Release { uid, .. } | Self::Reclaim { uid, .. } | Self::Abandon { uid, .. } => {
                Some(uid)
            }
            Self::Cancel { uid, .. } => uid.as_ref(),
            _ => None,
        }
    }
}

/// What came of asking for a slot, or a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admitted {
    /// It holds a slot.
    Started {
        /// The token of its grant.
        token: FencingToken,
        /// Who holds it: the issuer, or another live controller that had it before.
        session: SessionId,
    },
    /// It waits.
    Queued {
        /// Its place in the order of arrival.
        ticket: Ticket,
    },
    /// This very run has ended before; it does not run again.
    Finished(RunOutcome),
    /// Refused: an ephemeral run belongs to the process that admitted it first, and an
    /// ephemeral request ends no run of its name that somebody else has.
    HeldElsewhere(SessionId),
    /// Refused: there is no such run, or it is not held with this token, or is somebody else's.
    NotHeld,
}

impl Admitted {
    /// Whether the run waits or runs for who asked.
    #[must_use]
    pub fn has_a_place(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Queued { .. })
    }

    /// What an entry amounts to for who asked for it.
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

/// What came of ending a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// It waited or ran, and has ended with this command.
    Done,
    /// It had ended before, in this way.
    Before(RunOutcome),
    /// Nothing changed: it still waits. Only a started run can be released.
    NotStarted,
    /// Nothing changed: its slot was granted again since, with this token.
    Stale(FencingToken),
    /// Nothing changed: no run of this name and uid is known.
    Unknown,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Of `Admit`, `Adopt`, `Requeue`, `Reclaim` and `Disown`.
    Admitted {
        /// Where the run stands now.
        admitted: Admitted,
        /// Whether the run was not waiting or running before this command.
        created: bool,
    },
    /// Of `Release`, `Cancel` and `Abandon`.
    Ended {
        /// Whether it ended.
        ended: Ended,
        /// The runs that started in its stead, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// Of `SetLimit`.
    LimitSet {
        /// The limit in force.
        limit: Limit,
        /// Whether this announcement was newer than the last; false when it was ignored.
        accepted: bool,
        /// The runs that started because of it, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// Of `Expire` and `Promote`.
    Swept {
        /// The dead session's runs that ended or lost their owner.
        affected: Vec<PipelineRunKey>,
        /// The runs that started in their stead, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// Of `RemoveRepository`: the runs that were waiting or running.
    Removed(Vec<PipelineRunKey>),
}
