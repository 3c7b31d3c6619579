//! The behaviour of a repository, implemented a second time as plainly as possible: a list and
//! some counters, searched from end to end. It shares no code and no types with the protocol
//! that it checks; it is slow on purpose.

mod commands;
mod rules;

use std::fmt;

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Repository {
    /// Whether the repository exists.
    pub(crate) exists: bool,
    /// The number of runs that may hold a slot at once; 0 means no limit.
    pub(crate) limit: u32,
    /// The party that has set it.
    pub(crate) owner: Option<Owner>,
    /// The limit that is in force again once the present one is unpinned, and its owner.
    pub(crate) beneath: Option<(u32, Owner)>,
    /// The version of the newest announced limit.
    pub(crate) announced: Option<u64>,
    /// The revision: the number of commits, plus what removals add.
    pub(crate) commits: u64,
    /// The last ticket given out.
    pub(crate) tickets: u64,
    /// The last token given out.
    pub(crate) tokens: u64,
    /// All known runs, in no particular order.
    pub(crate) runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    /// Its name.
    pub(crate) name: u8,
    /// Its uid: tells it from other runs of the name.
    pub(crate) uid: u8,
    /// Whether it outlives the process that admitted it.
    pub(crate) durable: bool,
    /// Higher starts first.
    pub(crate) priority: i32,
    /// Its place in the order of arrival.
    pub(crate) ticket: u64,
    /// Its state.
    pub(crate) place: Place,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// It waits.
    Waiting {
        /// The session that its grant goes to.
        owner: Option<u64>,
    },
    /// It holds a slot.
    Running {
        /// The token of the grant.
        token: u64,
        /// The session that holds the slot.
        session: u64,
        /// That session is dead.
        orphaned: bool,
    },
    /// It has ended.
    Over {
        /// How it ended.
        how: How,
        /// The token that it had when it ended.
        token: Option<u64>,
        /// Its asker gave it up; it may come again.
        abandoned: bool,
    },
}

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
    Expired,
    /// It waited, and a newer run of its group took its place.
    Superseded,
    /// It waited or ran for too long.
    TimedOut,
    /// As many waited as may.
    QueueFull,
}

/// The party that a limit is set by, and what that holds against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Where nobody has set a limit, or where another proposal is in force and nothing waits or runs.
    Propose,
    /// Against everything but a pin.
    Set,
    /// Against everything but a pin and a newer announcement.
    Announce(u64),
    /// Against everything.
    Pin,
}

/// The party that has set the limit in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Proposed,
    Set,
    Announced,
    Pinned,
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
    },
    Requeue {
        name: u8,
        token: u64,
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
    SetLimit {
        limit: u32,
        claim: Claim,
    },
    Unpin,
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
    /// The run holds a slot; `created` if it neither waited nor ran before.
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
    /// The run ended, and these start in its place.
    Ended(Vec<u8>),
    /// The run had ended before.
    EndedBefore(How),
    /// The run still waits.
    NotStarted,
    /// The run's slot has this token by now.
    Stale(u64),
    /// There is no such run.
    Unknown,
    /// The limit in force and its owner, whether the command set it, and the runs that start.
    Limit(u32, Option<Owner>, bool, Vec<u8>),
    /// The runs affected by the death, and the runs that start.
    Swept(Vec<u8>, Vec<u8>),
    /// The runs that waited or ran.
    Removed(Vec<u8>),
}

impl Repository {
    /// The run with a name.
    pub(crate) fn run(&self, name: u8) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// The number of runs that hold a slot.
    pub(crate) fn running(&self) -> usize {
        let running = |run: &&Run| matches!(run.place, Place::Running { .. });
        self.runs.iter().filter(running).count()
    }

    /// Whether one more run may start.
    pub(crate) fn has_room(&self) -> bool {
        self.limit == 0 || self.running() < self.limit as usize
    }

    /// The waiting runs, next first.
    pub(crate) fn queue(&self) -> Vec<&Run> {
        let waiting = |run: &&Run| matches!(run.place, Place::Waiting { .. });
        let mut queue: Vec<&Run> = self.runs.iter().filter(waiting).collect();
        queue.sort_by_key(|run| (-i64::from(run.priority), run.ticket));
        queue
    }

    /// The same repository with its runs sorted, for comparison.
    pub(crate) fn sorted(mut self) -> Self {
        self.runs.sort();
        self
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exists {
            return write!(f, "nothing (counting from {})", self.tokens);
        }
        match self.limit {
            0 => f.write_str("no limit")?,
            limit => write!(f, "limit {limit}")?,
        }
        if let Some(owner) = self.owner {
            write!(f, " ({owner:?})")?;
        }
        if let Some((beneath, owner)) = self.beneath {
            write!(f, " over {beneath} ({owner:?})")?;
        }
        if let Some(version) = self.announced {
            write!(f, "; announced version {version}")?;
        }
        let (tickets, tokens) = (self.tickets, self.tokens);
        write!(f, "; last ticket {tickets}, last token {tokens}")?;
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|run| (run.name, run.uid));
        for run in runs {
            write!(f, "; {run}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.durable { "" } else { " ephemeral" };
        write!(f, "run-{}/{}{kind} {}", self.name, self.uid, self.place)?;
        write!(f, " (priority {}, ticket {})", self.priority, self.ticket)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { owner: Some(owner) } => write!(f, "waits for session {owner}"),
            Self::Waiting { owner: None } => f.write_str("waits for nobody"),
            Self::Running {
                token,
                session,
                orphaned,
            } => {
                let orphaned = if *orphaned { ", orphaned" } else { "" };
                write!(f, "runs with token {token} of session {session}{orphaned}")
            }
            Self::Over { how, abandoned, .. } => {
                let abandoned = if *abandoned { ", abandoned" } else { "" };
                write!(f, "is over: {how:?}{abandoned}")
            }
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admit(wish) => write!(f, "admit {wish}"),
            Self::Adopt(wish) => write!(f, "adopt {wish}"),
            Self::Release {
                name,
                uid,
                token: Some(token),
                how,
            } => write!(f, "release run-{name}/{uid} with token {token} as {how:?}"),
            Self::Release { name, uid, how, .. } => {
                write!(f, "release run-{name}/{uid} by force as {how:?}")
            }
            Self::Cancel {
                name,
                uid: Some(uid),
            } => write!(f, "cancel run-{name}/{uid}"),
            Self::Cancel { name, uid: None } => write!(f, "cancel run-{name} of any uid"),
            Self::Requeue { name, token } => write!(f, "requeue run-{name} with token {token}"),
            Self::Reclaim { name, uid, former } => {
                write!(f, "reclaim run-{name}/{uid} from session {former}")
            }
            Self::Abandon {
                name,
                uid,
                owner,
                ticket,
                token,
            } => write!(
                f,
                "abandon run-{name}/{uid} of ticket {ticket} and token {token:?} in the name of \
                 session {owner}"
            ),
            Self::SetLimit { limit, claim } => write!(f, "{claim} limit {limit}"),
            Self::Unpin => f.write_str("unpin the limit"),
            Self::Expire { session, lease_too } => {
                let ttl = if *lease_too { "lease" } else { "session" };
                write!(f, "expire session {session} ({ttl} TTL)")
            }
            Self::Promote => f.write_str("promote"),
            Self::Remove => f.write_str("remove the repository"),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propose => f.write_str("propose"),
            Self::Set => f.write_str("set"),
            Self::Announce(version) => write!(f, "announce in version {version}"),
            Self::Pin => f.write_str("pin"),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.durable { "durable" } else { "ephemeral" };
        let (name, uid, priority) = (self.name, self.uid, self.priority);
        write!(f, "run-{name}/{uid} ({kind}, priority {priority})")
    }
}
