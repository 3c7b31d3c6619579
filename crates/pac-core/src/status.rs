//! What can be read of a repository.

use crate::name::{PipelineRunKey, Reason, RepositoryKey, Uid};
use crate::state::{
    Entry, EntryState, Head, Owner, RepositoryState, Rules, RunKind, RunOutcome, Terms, Weight,
};
use crate::value::{FencingToken, Limit, LimitVersion, Priority, Revision, SessionId, Timestamp};

/// A repository at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryStatus {
    /// The repository.
    pub repository: RepositoryKey,
    /// Whether the store has anything of it.
    pub exists: bool,
    /// The version of this state.
    pub revision: Revision,
    /// The limit in force.
    pub limit: Limit,
    /// The newest announcement of a limit, if there ever was one.
    pub limit_version: Option<LimitVersion>,
    /// Who has set the rules in force; `None` if nobody did.
    pub owner: Option<Owner>,
    /// The rules in force, the limit among them.
    pub rules: Rules,
    /// What is in force once the rules are unpinned, and who has set it.
    pub beneath: Option<(Rules, Owner)>,
    /// Nothing is started at present.
    pub pause: Option<Paused>,
    /// How many slots are taken: as many as run, unless a run takes several.
    pub slots_taken: u32,
    /// Who holds a slot, in the order of their grants.
    pub running: Vec<RunningRun>,
    /// Who waits, next first.
    pub queued: Vec<QueuedRun>,
    /// Who ended lately, oldest first.
    pub finished: Vec<FinishedRun>,
}

/// Nothing is started in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paused {
    /// Since when, by the store's clock.
    pub since: Option<Timestamp>,
    /// Why.
    pub reason: Option<Reason>,
}

impl Paused {
    pub(crate) fn of(head: &Head) -> Option<Self> {
        head.pause().map(|pause| Self {
            since: pause.since.at(),
            reason: pause.reason.clone(),
        })
    }
}

/// A run that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningRun {
    /// The run.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// The token of its grant.
    pub token: FencingToken,
    /// Whether it outlives its session.
    pub kind: RunKind,
    /// The session that holds it.
    pub session: SessionId,
    /// That session is dead: the slot is kept until the lease TTL has passed.
    pub orphaned: bool,
    terms: Option<Box<Terms>>,
    /// When it was queued, by the store's clock.
    pub queued_at: Option<Timestamp>,
    /// When it was started, by the store's clock.
    pub started_at: Option<Timestamp>,
}

impl RunningRun {
    /// What it asked for beyond a slot, which slots it has, and when it was asked to end.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        Terms::or_none(self.terms.as_deref())
    }
}

/// A run that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuedRun {
    /// The run.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Whether it outlives its session.
    pub kind: RunKind,
    /// 1 is next.
    pub position: usize,
    /// Its urgency.
    pub priority: Priority,
    /// The session that its grant goes to; none when that session died.
    pub owner: Option<SessionId>,
    terms: Option<Box<Terms>>,
    /// When it was queued, by the store's clock.
    pub queued_at: Option<Timestamp>,
    /// Why it waits.
    pub reason: WaitReason,
}

impl QueuedRun {
    /// What it asked for beyond a slot.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        Terms::or_none(self.terms.as_deref())
    }
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedRun {
    /// The run.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// How.
    pub outcome: RunOutcome,
    /// It was only given up: nothing says that it must not run, and it may be admitted again.
    pub abandoned: bool,
    terms: Option<Box<Terms>>,
    /// When it was queued, by the store's clock.
    pub queued_at: Option<Timestamp>,
    /// When it was started, by the store's clock; never, if it ended in the queue.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the store's clock.
    pub finished_at: Option<Timestamp>,
}

impl FinishedRun {
    /// What it asked for beyond a slot, and when it was asked to end.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        Terms::or_none(self.terms.as_deref())
    }
}

/// Why a run waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// Nothing is started in the repository.
    Paused(Paused),
    /// It needs more slots than there are, since the limit was lowered: others pass it until it is
    /// raised again.
    TooHeavy {
        /// How many it needs.
        weight: Weight,
        /// The limit in force.
        limit: Limit,
    },
    /// It is next, but there are not as many slots left as it needs.
    LimitReached {
        /// The limit in force.
        limit: Limit,
        /// How many slots are taken.
        running: u32,
    },
    /// Others are before it.
    Behind {
        /// How many.
        ahead: usize,
    },
    /// It is next and could run, but its owner is dead, and no controller has taken it yet.
    NoOwner,
}

/// Where one run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunStatus {
    /// It waits.
    Queued(QueuedRun),
    /// It holds a slot.
    Started(RunningRun),
    /// It has ended.
    Finished(FinishedRun),
    /// The store does not know it (any more).
    Unknown,
}

/// A repository in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositorySummary {
    /// The repository.
    pub repository: RepositoryKey,
    /// The version of this state: as long as it is the same, nothing of the repository changes.
    pub revision: Revision,
    /// The limit in force.
    pub limit: Limit,
    /// How many hold a slot.
    pub running: u32,
    /// How many wait.
    pub queued: u32,
    /// How many slots are taken: as many as run, unless a run takes several.
    pub slots_taken: u32,
    /// Who has set the limit; `None` if nobody did.
    pub owner: Option<Owner>,
    /// How many runs may wait; any number where there is none.
    pub max_queued: Option<u32>,
    /// Nothing is started at present.
    pub pause: Option<Paused>,
}

impl RepositorySummary {
    pub(crate) fn of((repository, head): (RepositoryKey, Head)) -> Self {
        Self {
            repository,
            revision: head.revision,
            limit: head.limit,
            running: head.started,
            queued: head.queued,
            slots_taken: head.slots(),
            owner: head.owner(),
            max_queued: head.rules().max_queued,
            pause: Paused::of(&head),
        }
    }
}

impl RepositoryStatus {
    pub(crate) fn of(repository: &RepositoryKey, state: &RepositoryState) -> Self {
        let mut running: Vec<_> = state.entries().filter_map(|e| running_run(e)).collect();
        running.sort_unstable_by_key(|run| run.token);
        let mut finished: Vec<_> = state.entries().filter_map(|e| finished_run(e)).collect();
        finished.sort_by(|a, b| (a.finished_at, &a.run).cmp(&(b.finished_at, &b.run)));
        let queue = state.queue().enumerate();
        let beneath = state.head().policy.as_deref();
        Self {
            repository: repository.clone(),
            exists: state.exists(),
            revision: state.head().revision,
            limit: state.head().limit,
            limit_version: state.head().limit_version,
            owner: state.head().owner(),
            rules: state.head().rules(),
            beneath: beneath.and_then(|policy| policy.beneath.clone()),
            pause: Paused::of(state.head()),
            slots_taken: state.head().slots(),
            running,
            queued: queue
                .filter_map(|(at, entry)| queued_run(state, entry, at))
                .collect(),
            finished,
        }
    }
}

impl RunStatus {
    pub(crate) fn of(state: &RepositoryState, run: &PipelineRunKey) -> Self {
        let Some(entry) = state.entry(run) else {
            return Self::Unknown;
        };
        let queued = || queued_run(state, entry, state.position(run)?).map(Self::Queued);
        queued().unwrap_or_else(|| Self::of_entry(entry))
    }

    /// Of a run that does not wait.
    pub(crate) fn of_entry(entry: &Entry) -> Self {
        let started = running_run(entry).map(Self::Started);
        let ended = || finished_run(entry).map(Self::Finished);
        started.or_else(ended).unwrap_or(Self::Unknown)
    }
}

pub(crate) fn running_run(entry: &Entry) -> Option<RunningRun> {
    let EntryState::Started {
        token,
        session,
        orphaned,
    } = entry.state
    else {
        return None;
    };
    Some(RunningRun {
        run: entry.run.clone(),
        uid: entry.uid.clone(),
        token,
        kind: entry.kind,
        session,
        orphaned,
        terms: entry.terms.clone(),
        queued_at: entry.queued.at(),
        started_at: entry.started.at(),
    })
}

pub(crate) fn queued_run(
    state: &RepositoryState,
    entry: &Entry,
    ahead: usize,
) -> Option<QueuedRun> {
    let EntryState::Queued { owner } = entry.state else {
        return None;
    };
    Some(QueuedRun {
        run: entry.run.clone(),
        uid: entry.uid.clone(),
        kind: entry.kind,
        position: ahead + 1,
        priority: entry.priority,
        owner,
        terms: entry.terms.clone(),
        queued_at: entry.queued.at(),
        reason: wait_reason(state, entry, ahead),
    })
}

pub(crate) fn finished_run(entry: &Entry) -> Option<FinishedRun> {
    let EntryState::Finished { outcome, .. } = entry.state else {
        return None;
    };
    Some(FinishedRun {
        run: entry.run.clone(),
        uid: entry.uid.clone(),
        outcome,
        abandoned: entry.is_abandoned(),
        terms: entry.terms.clone(),
        queued_at: entry.queued.at(),
        started_at: entry.started.at(),
        finished_at: entry.finished.at(),
    })
}

pub(crate) fn wait_reason(state: &RepositoryState, entry: &Entry, ahead: usize) -> WaitReason {
    let (head, weight) = (state.head(), entry.weight());
    if let Some(pause) = Paused::of(head) {
        return WaitReason::Paused(pause);
    }
    if !head.has_slots_for(weight) {
        let limit = head.limit;
        return WaitReason::TooHeavy { weight, limit };
    }
    if ahead > 0 {
        WaitReason::Behind { ahead }
    } else if entry.owner().is_none() && head.admits(weight) {
        WaitReason::NoOwner
    } else {
        WaitReason::LimitReached {
            limit: head.limit,
            running: head.slots(),
        }
    }
}
