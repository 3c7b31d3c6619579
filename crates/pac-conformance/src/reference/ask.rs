//! The commands for a repository, and the answers.

use super::{Rules, Terms};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    /// It succeeded.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its session died, and no other took it over in time.
    LeaseLost,
    /// It waited, and a newer run of its group took its place.
    Superseded,
    /// It waited or ran for too long.
    TimedOut,
    /// As many waited as may.
    QueueFull,
}

/// The party that rules are set by, and what that holds against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Where nobody has set any, or where another proposal is in force and nothing waits or runs.
    Propose,
    /// Against everything but a pin.
    Set,
    /// Against everything but a pin and a newer announcement.
    Announce(u64),
    /// Against everything.
    Pin,
}

/// The party that has set the rules in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Proposed,
    Set,
    Announced,
    Pinned,
}

/// The pause that a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paused {
    /// Any, or none.
    Any,
    /// None.
    No,
    /// One with this reason.
    For(Option<u8>),
}

/// What is to become of the rules; a part that is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// See [`Rules::limit`].
    pub(crate) limit: Option<u32>,
    /// See [`Rules::most_waiting`].
    pub(crate) most_waiting: Option<Option<u32>>,
    /// See [`Rules::backfill`].
    pub(crate) backfill: Option<u32>,
}

impl Change {
    pub(crate) fn of(self, rules: Rules) -> Rules {
        Rules {
            limit: self.limit.unwrap_or(rules.limit),
            most_waiting: self.most_waiting.unwrap_or(rules.most_waiting),
            backfill: self.backfill.unwrap_or(rules.backfill),
        }
    }
}

/// The session that issues a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Its number.
    pub(crate) session: u64,
    /// Whether runs without an owner may be granted to it.
    pub(crate) takes_ownerless: bool,
}

/// A request for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Its name.
    pub(crate) name: u8,
    /// Its uid.
    pub(crate) uid: u8,
    /// Whether it outlives the process that admits it.
    pub(crate) durable: bool,
    /// Higher starts first.
    pub(crate) priority: i32,
    /// What it asks for beside a slot.
    pub(crate) terms: Terms,
    /// What it does to the earlier runs of its group.
    pub(crate) supersedes: Supersedes,
    /// When it is dropped instead of being queued.
    pub(crate) skip_if: Option<Skip>,
}

/// What a request does to the earlier runs of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supersedes {
    None,
    /// Those that wait end, and it gets the place of the first of them.
    Waiting,
    /// Likewise, and those that run are asked to end.
    All,
}

/// When a request is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    /// Others wait.
    Waiting,
    /// Others wait or run.
    Running,
}

/// The way in which runs are cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Waiting or running, they end.
    AtOnce,
    /// Those that wait end.
    IfWaiting,
    /// Those that wait end, those that run are asked to.
    Ask,
}

/// The runs that are cancelled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Which {
    /// Only those of this group.
    pub(crate) group: Option<u8>,
    /// Only those that were queued before this time.
    pub(crate) before: Option<u64>,
}

/// The place that a waiting run is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bump {
    First,
    To(i32),
    /// To the priority that its owner wants.
    Back,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Admit(Wish),
    Adopt(Wish),
    Release {
        name: u8,
        uid: u8,
        token: Option<u64>,
        how: How,
    },
    Cancel {
        name: u8,
        uid: Option<u8>,
        way: Way,
    },
    CancelAll {
        which: Which,
        way: Way,
    },
    Bump {
        name: u8,
        uid: Option<u8>,
        to: Bump,
    },
    Pause {
        reason: Option<u8>,
        only_if: Paused,
    },
    Resume {
        only_if: Paused,
    },
    Requeue {
        name: u8,
        token: u64,
    },
    /// Nobody takes the slots of this run of the asker's, whatever its token if that is `None`.
    Disown {
        name: u8,
        token: Option<u64>,
        running: bool,
    },
    Reclaim {
        name: u8,
        uid: u8,
        former: u64,
    },
    Abandon {
        name: u8,
        uid: u8,
        owner: u64,
        ticket: u64,
        token: Option<u64>,
    },
    SetRules {
        change: Change,
        claim: Claim,
    },
    Unpin,
    /// Ends what has waited or run for too long, by the clock.
    TimeOut,
    Expire {
        session: u64,
        lease_too: bool,
    },
    Promote,
    Remove,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The run holds its slots; `created` if it neither waited nor ran before.
    Runs {
        token: u64,
        session: u64,
        created: bool,
    },
    /// The run waits; `created` if it neither waited nor ran before.
    Waits { ticket: u64, created: bool },
    /// The run has ended and is not started again.
    Finished(How),
    /// The run belongs to that session.
    HeldElsewhere(u64),
    /// There is no such run, or it is not held as the command says.
    NotHeld,
    /// So many wait, and no more may.
    QueueFull(u32),
    /// The run needs so many slots, and there are only so many.
    TooHeavy(u32, u32),
    /// The request is dropped: so many wait, and so many run.
    Skipped(u32, u32),
    /// The run ended, and these start in its place.
    Ended(Vec<u8>),
    /// The run had ended before.
    EndedBefore(How),
    /// The run still waits.
    NotStarted,
    /// The run has started with this token, and is left alone.
    Started(u64),
    /// The run has started with this token, and is asked to end.
    Asked(u64),
    /// The run's slot has this token by now.
    Stale(u64),
    /// There is no such run.
    Unknown,
    /// Where the run stands now, and the runs that start.
    Moved(Box<Answer>, Vec<u8>),
    /// The limit in force and its owner, whether the command set it, and the runs that start.
    Limit(u32, Option<Owner>, bool, Vec<u8>),
    /// Whether the repository was paused before, whether the condition held, and the runs that start.
    Paused(bool, bool, Vec<u8>),
    /// The runs that ended, were asked to, or lost their owner, and the runs that start.
    Swept(Vec<u8>, Vec<u8>),
    /// The runs that waited or ran.
    Removed(Vec<u8>),
}
