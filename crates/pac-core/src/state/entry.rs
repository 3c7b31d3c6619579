//! The record of one run of a repository.

use std::fmt;

use super::terms::{Terms, Weight};
use crate::name::{Group, PipelineRunKey, Uid};
use crate::protocol::{HOLD_GRACE, RunRequest};
use crate::value::{FencingToken, Priority, Revision, SessionId, Ticket, Timestamp};

/// What happens to a run when the session that owns it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// The cluster executes it: its place outlives every controller, and its slot outlives its
    /// controller's session until the lease TTL has passed too.
    Durable,
    /// Its own process executes it: place and slot end with the session.
    Ephemeral,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunOutcome {
    /// It ran to its end and succeeded.
    Completed,
    /// It ran to its end and failed.
    Failed,
    /// It was cancelled, while it waited or while it ran.
    Cancelled,
    /// The process that owned it died, and no other took it over before the lease TTL passed.
    LeaseLost,
    /// It waited, and a newer run of its group took its place.
    Superseded,
    /// It waited, or held its slot, for longer than it was allowed to.
    TimedOut,
    /// It was refused: as many runs waited as may.
    QueueFull,
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::LeaseLost => "lease-lost",
            Self::Superseded => "superseded",
            Self::TimedOut => "timed-out",
            Self::QueueFull => "queue-full",
        })
    }
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryState {
    /// It waits for a slot.
    Queued {
        /// The session that its grant goes to; `None` when that session died and no other
        /// session has admitted the run since.
        owner: Option<SessionId>,
    },
    /// It holds a slot.
    Started {
        /// The token of the grant.
        token: FencingToken,
        /// The session that holds the slot, or held it when `orphaned`.
        session: SessionId,
        /// The session is dead; the slot is kept until the lease TTL has passed too.
        orphaned: bool,
    },
    /// It ended; kept for a while so that it can be read and is not started again.
    Finished {
        /// How it ended.
        outcome: RunOutcome,
        /// The token that it held, if it ever started.
        token: Option<FencingToken>,
        /// Its asker gave it up, so it may be admitted again.
        abandoned: bool,
    },
}

/// The time of a transition, by the store's clock: the driver stamps it in the commit.
///
/// As wide as a [`Timestamp`], whose two earliest values are given up for it: an entry has three.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moment(Timestamp);

impl Moment {
    /// The transition has not happened.
    pub const NEVER: Self = Self(Timestamp::from_unix_millis(i64::MIN));
    /// The transition happens with the commit that carries this entry; the driver replaces this
    /// by the time of the commit.
    pub const AT_COMMIT: Self = Self(Timestamp::from_unix_millis(i64::MIN + 1));

    /// The transition happened at this time; the two earliest times that there are become the next.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(at.max(Timestamp::from_unix_millis(i64::MIN + 2)))
    }

    /// The time, if the transition has happened and been stamped.
    #[must_use]
    pub fn at(self) -> Option<Timestamp> {
        (self.0 > Self::AT_COMMIT.0).then_some(self.0)
    }

    pub(super) fn stamp(&mut self, now: Timestamp) {
        if *self == Self::AT_COMMIT {
            *self = Self::of(now);
        }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("Never"),
            Self::AT_COMMIT => f.write_str("AtCommit"),
            Self(at) => f.debug_tuple("At").field(&at).finish(),
        }
    }
}

/// The record of one run, which a driver stores unchanged, by repository and run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The run; unique within its repository.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Whether it outlives the session that owns it.
    pub kind: RunKind,
    /// Its urgency.
    pub priority: Priority,
    /// Its place in the order of arrival; never changes.
    pub ticket: Ticket,
    /// Its state.
    pub state: EntryState,
    /// When it was queued (or started, if it never had to wait).
    pub queued: Moment,
    /// When it was last started.
    pub started: Moment,
    /// When it ended.
    pub finished: Moment,
    /// What it asked for beyond a slot, and what was asked of it since; `None` where that is nothing.
    pub terms: Option<Box<Terms>>,
    /// The commit that last changed this record.
    pub revision: Revision,
}

impl Entry {
    /// Replaces [`Moment::AT_COMMIT`] by the time of the commit and sets the revision. A driver
    /// must call this on every entry of a commit that it accepts (through
    /// [`Arc::make_mut`](std::sync::Arc::make_mut)).
    pub fn stamp(&mut self, revision: Revision, now: Timestamp) {
        self.revision = revision;
        self.queued.stamp(now);
        self.started.stamp(now);
        self.finished.stamp(now);
        if let Some(terms) = &mut self.terms {
            terms.stamp(now);
        }
    }

    /// The request that would admit this run again.
    #[must_use]
    pub fn request(&self) -> RunRequest {
        let (run, uid) = (self.run.clone(), self.uid.clone());
        let request = match self.kind {
            RunKind::Durable => RunRequest::durable(run, uid),
            RunKind::Ephemeral => RunRequest::ephemeral(run, uid),
        };
        request
            .with_priority(self.admitted_as())
            .with_terms(self.terms())
    }

    /// What it asked for beyond a slot, and what was asked of it since.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        Terms::or_none(self.terms.as_deref())
    }

    /// The same run with other terms.
    #[must_use]
    pub fn with_terms(self, terms: Terms) -> Self {
        let terms = (terms != Terms::NONE).then(|| Box::new(terms));
        Self { terms, ..self }
    }

    /// The priority that its owner admits it with; that in force is another one after an operator has
    /// moved it.
    #[must_use]
    pub fn admitted_as(&self) -> Priority {
        self.terms().admitted_as.unwrap_or(self.priority)
    }

    /// Drops what it has only while it holds slots, or waits for them.
    pub(crate) fn leave_slots(&mut self) {
        if let Some(terms) = &mut self.terms {
            terms.slots = Vec::new();
            terms.passed = 0;
            if **terms == Terms::NONE {
                self.terms = None;
            }
        }
    }

    /// Whether it was asked to end, while it ran.
    #[must_use]
    pub fn is_asked_to_end(&self) -> bool {
        self.terms().asked != Moment::NEVER
    }

    /// How many slots it takes while it runs.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.terms().weight
    }

    /// The group that it belongs to.
    #[must_use]
    pub fn group(&self) -> Option<&Group> {
        self.terms().group.as_ref()
    }

    /// When its time is over, by the store's clock: to wait, to hold its slots, or to end after it was
    /// asked to because of that. `None` where it has as much as it wants.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let terms = self.terms.as_deref()?;
        match self.state {
            EntryState::Queued { .. } => Some(self.queued.at()?.plus(terms.max_wait?)),
            EntryState::Started { .. } => {
                let held = self.started.at()?.plus(terms.max_hold?);
                Some(match terms.asked {
                    Moment::NEVER => held,
                    asked => held.max(asked.at()?.plus(HOLD_GRACE)),
                })
            }
            EntryState::Finished { .. } => None,
        }
    }

    /// Whether it waits.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        matches!(self.state, EntryState::Queued { .. })
    }

    /// Whether it holds a slot.
    #[must_use]
    pub fn is_started(&self) -> bool {
        matches!(self.state, EntryState::Started { .. })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state, EntryState::Finished { .. })
    }

    /// Whether its asker gave it up, so that it may be admitted again.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        matches!(
            self.state,
            EntryState::Finished {
                abandoned: true,
                ..
            }
        )
    }

    /// The token of the grant that it holds or held; `None` while it waits, or if it never
    /// started.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        match self.state {
            EntryState::Queued { .. } => None,
            EntryState::Started { token, .. } => Some(token),
            EntryState::Finished { token, .. } => token,
        }
    }

    /// The session that a queued run's grant goes to, or that holds a started run's slot. `None`
    /// once that session is known to be dead, and for a finished run.
    #[must_use]
    pub fn owner(&self) -> Option<SessionId> {
        match self.state {
            EntryState::Queued { owner } => owner,
            EntryState::Started {
                session, orphaned, ..
            } => (!orphaned).then_some(session),
            EntryState::Finished { .. } => None,
        }
    }
}
