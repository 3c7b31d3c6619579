//! The commands for one repository, and their outcomes.

use super::request::RunRequest;
use crate::name::{Group, PipelineRunKey, Reason, Uid};
use crate::state::{Entry, EntryState, Owner, Pause, RulesChange, RunOutcome, Weight};
use crate::value::{FencingToken, Limit, LimitVersion, Priority, SessionId, Ticket, Timestamp};

/// How long a session has been dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Death {
    /// Its session TTL has passed: its process no longer counts as a live controller.
    Session,
    /// Its lease TTL has passed too: the slots that it still held are freed.
    Lease,
}

/// Who sets the rules of a repository, and what that holds against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Claim {
    /// A caller that needs some limit: only where nobody has set one, or another proposal is in force
    /// and no run waits or runs.
    Propose,
    /// A program: until a newer announcement, but not against a pin.
    Set,
    /// A controller: one not newer than the last announcement changes nothing. While rules are
    /// pinned, it is what will be in force afterwards.
    Announce(LimitVersion),
    /// An operator: against everybody, until it is [taken back](Command::Unpin).
    Pin,
}

/// Which runs are ended together. A condition that is `None` holds for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Which {
    /// Those of this group.
    pub group: Option<Group>,
    /// Those that were queued before this time, by the store's clock.
    pub queued_before: Option<Timestamp>,
    /// Those that had come when it was tried for the first time.
    up_to: Option<Ticket>,
}

impl Which {
    /// All runs of the repository.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of them that are of this group.
    #[must_use]
    pub fn of_group(self, group: Group) -> Self {
        let group = Some(group);
        Self { group, ..self }
    }

    /// Those of them that were queued before this time, by the store's clock.
    #[must_use]
    pub fn queued_before(self, time: Timestamp) -> Self {
        let queued_before = Some(time);
        Self {
            queued_before,
            ..self
        }
    }

    /// Those of them that have come with this ticket at most.
    pub(crate) fn up_to(self, last: Ticket) -> Self {
        let up_to = Some(self.up_to.map_or(last, |known| known.min(last)));
        Self { up_to, ..self }
    }

    pub(super) fn includes(&self, entry: &Entry) -> bool {
        if self.up_to.is_some_and(|last| entry.ticket > last) {
            return false;
        }
        let of_group = |group| entry.group() == Some(group);
        let before = |time| entry.queued.at().is_some_and(|queued| queued < time);
        self.group.as_ref().is_none_or(of_group) && self.queued_before.is_none_or(before)
    }
}

/// How a run is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Cancellation {
    /// It ends at once, waiting or running: its slot is free, whatever its process still does.
    #[default]
    AtOnce,
    /// It ends if it waits; one that has started goes on.
    IfWaiting,
    /// It ends if it waits; one that has started is asked to end, and keeps its slot until then.
    Ask,
}

/// Where a waiting run is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bump {
    /// Before all others that wait.
    First,
    /// Among those of this priority, in the order of arrival.
    To(Priority),
    /// Back to the priority that its owner admits it with.
    Back,
}

/// What a pause, or the end of one, is for: judged in the commit. Whoever decides by a look at a repository
/// says what was seen, so that a pause which somebody else has begun or changed since stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PauseCondition {
    /// The repository, paused or not.
    #[default]
    Always,
    /// One that is not paused.
    NotPaused,
    /// One that is paused for this reason; with `None`, without a reason.
    PausedFor(Option<Reason>),
}

impl PauseCondition {
    pub(super) fn holds(&self, pause: Option<&Pause>) -> bool {
        match self {
            Self::Always => true,
            Self::NotPaused => pause.is_none(),
            Self::PausedFor(reason) => pause.is_some_and(|pause| pause.reason == *reason),
        }
    }
}

/// A command for one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Command {
    /// Queue a run, and start it when it is first in the queue and the limit admits it.
    Admit(RunRequest),
    /// End, or ask to end, runs that this request is going to supersede: as many as one commit has room
    /// for, but for the one whose place it gets. For a manager, before it admits a run that supersedes
    /// more than that. Changes nothing where the run would not be let in, or has its place already.
    MakeWay(RunRequest),
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
    /// End a run, or ask it to end.
    Cancel {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run; `None` cancels whichever run has the name.
        uid: Option<Uid>,
        /// How.
        how: Cancellation,
    },
    /// End many runs, or ask them to end, in the order of their arrival.
    CancelAll {
        /// Which.
        which: Which,
        /// How.
        how: Cancellation,
    },
    /// Move a waiting run within the queue. It stays there when its owner admits it again.
    Bump {
        /// The run.
        run: PipelineRunKey,
        /// The uid of the run; `None` moves whichever run has the name.
        uid: Option<Uid>,
        /// Where to.
        to: Bump,
    },
    /// Start nothing from now on, whatever the limit: what runs goes on, and what comes is queued.
    /// Where it is paused already, only the reason is replaced.
    Pause {
        /// Why, for people to read.
        reason: Option<Reason>,
        /// Else nothing changes.
        only_if: PauseCondition,
    },
    /// End a pause.
    Resume {
        /// Else nothing changes.
        only_if: PauseCondition,
    },
    /// Give the slot of a started run back and restore its place in the queue: its work
    /// certainly did not begin. One that was asked to end meanwhile ends as cancelled.
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
    /// Set the limit of the repository, and the rules beside it.
    SetLimit {
        /// What becomes of them.
        rules: RulesChange,
        /// Who sets them.
        claim: Claim,
    },
    /// Take back that the rules are pinned: what was in force before, or was announced since, is in
    /// force again.
    Unpin,
    /// End waiting runs that have waited for as long as they may, ask those to end that have held
    /// their slots for as long as they may, and end those that were asked to
    /// [`HOLD_GRACE`](super::HOLD_GRACE) ago.
    TimeOut {
        /// The time, by the store's clock.
        now: Timestamp,
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
    /// Sets the limit alone: announced, or in the name of a program.
    #[must_use]
    pub fn limit(limit: Limit, announced: Option<LimitVersion>) -> Self {
        Self::SetLimit {
            rules: RulesChange::limit(limit),
            claim: announced.map_or(Claim::Set, Claim::Announce),
        }
    }

    /// Ends a run at once.
    #[must_use]
    pub fn cancel(run: PipelineRunKey, uid: Option<Uid>) -> Self {
        let how = Cancellation::AtOnce;
        Self::Cancel { run, uid, how }
    }

    /// The run that is admitted or adopted; `None` for other commands.
    pub(crate) fn admitted(&self) -> Option<&PipelineRunKey> {
        match self {
            Self::Admit(request) | Self::Adopt(request) => Some(&request.run),
            _ => None,
        }
    }

    /// The run that the command names, if it names one.
    #[must_use]
    pub fn run(&self) -> Option<&PipelineRunKey> {
        match self {
            Self::Admit(request) | Self::MakeWay(request) | Self::Adopt(request) => {
                Some(&request.run)
            }
            Self::Release { run, .. }
            | Self::Cancel { run, .. }
            | Self::Requeue { run, .. }
            | Self::Reclaim { run, .. }
            | Self::Disown { run, .. }
            | Self::Bump { run, .. }
            | Self::Abandon { run, .. } => Some(run),
            Self::SetLimit { .. }
            | Self::Unpin
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::CancelAll { .. }
            | Self::TimeOut { .. }
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
            Self::Admit(request) | Self::MakeWay(request) | Self::Adopt(request) => {
                Some(&request.uid)
            }
            Self::Release { uid, .. }
            | Self::Requeue { uid, .. }
            | Self::Reclaim { uid, .. }
            | Self::Abandon { uid, .. } => Some(uid),
            Self::Cancel { uid, .. } | Self::Bump { uid, .. } => uid.as_ref(),
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
    /// Refused: so many wait already, which is as many as may. Kept in the history, and may be
    /// admitted again.
    QueueFull {
        /// How many wait.
        queued: u32,
    },
    /// Refused: it needs more slots than there are.
    TooHeavy {
        /// How many it needs.
        weight: Weight,
        /// How many there are.
        limit: Limit,
    },
    /// Dropped, as the request asked for: others wait or run.
    Skipped {
        /// How many wait.
        queued: u32,
        /// How many run.
        started: u32,
    },
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
    /// Nothing changed: the run has started with this token, and only a waiting one was meant.
    Started(FencingToken),
    /// The run has started, and is asked to end, by this command or an earlier one. It keeps its slot
    /// until it is released.
    Asked(FencingToken),
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
    /// The outcome of `Bump`.
    Moved {
        /// The state of the run after the command; [`Admitted::NotHeld`] where no run of the name and
        /// uid waits.
        standing: Admitted,
        /// The runs that start because of it, in order: it may have been held up by the one that is
        /// behind it now.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `Release`, `Cancel` and `Abandon`.
    Ended {
        /// Whether the command ended the run, and if not, why.
        ended: Ended,
        /// The runs that the commit starts in the freed slot, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `SetLimit` and `Unpin`.
    LimitSet {
        /// The limit in force.
        limit: Limit,
        /// Who has set it; `None` if nobody did.
        owner: Option<Owner>,
        /// Whether it is in force because of the command; false when a later announcement was known
        /// already, when another claim holds against this one, and when nothing was pinned.
        accepted: bool,
        /// The runs that a raised limit starts, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `Pause` and `Resume`.
    Paused {
        /// Whether the repository was paused before.
        before: bool,
        /// Whether the command's condition held; nothing changed where it did not, or where another word
        /// was given before an answer that was lost could be found again.
        accepted: bool,
        /// The runs that the end of the pause starts, in order.
        promoted: Vec<PipelineRunKey>,
    },
    /// The outcome of `Expire`, `Promote`, `CancelAll`, `MakeWay` and `TimeOut`.
    Swept {
        /// The runs that ended, were asked to end, or lost their owner, a dead session.
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
