//! The behaviour of a repository, implemented a second time as plainly as possible: a list and
//! some counters, searched from end to end. It shares no code and no types with the protocol
//! that it checks; it is slow on purpose.

mod arrivals;
mod ask;
mod commands;
mod operators;
mod rules;
mod slots;
mod words;

pub(crate) use ask::{
    Answer, Ask, Asker, Bump, Change, Claim, How, Owner, Paused, Skip, Supersedes, Way, Which, Wish,
};

/// How long a run that has held its slots for too long, and was asked to end, keeps them, in
/// milliseconds.
pub(crate) const GRACE: u64 = 30_000;

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Repository {
    /// The time, in milliseconds, which others set.
    pub(crate) clock: u64,
    /// Whether the repository exists.
    pub(crate) exists: bool,
    /// The rules in force.
    pub(crate) rules: Rules,
    /// The party that has set them.
    pub(crate) owner: Option<Owner>,
    /// The rules that are in force again once the present ones are unpinned, and their owner.
    pub(crate) beneath: Option<(Rules, Owner)>,
    /// The version of the newest announced limit.
    pub(crate) announced: Option<u64>,
    /// Since when nothing is started, and the number of the reason.
    pub(crate) paused: Option<(u64, Option<u8>)>,
    /// The revision: the number of commits, plus what removals add.
    pub(crate) commits: u64,
    /// The last ticket given out.
    pub(crate) tickets: u64,
    /// The last token given out.
    pub(crate) tokens: u64,
    /// All known runs, in no particular order.
    pub(crate) runs: Vec<Run>,
}

/// The rules of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    /// The number of slots; 0 means no limit.
    pub(crate) limit: u32,
    /// The number of runs that may wait.
    pub(crate) most_waiting: Option<u32>,
    /// How many lighter runs may go before one that does not fit; 0 means none.
    pub(crate) backfill: u32,
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
    /// The priority that its owner wants, where an operator gave it another one.
    pub(crate) wanted: Option<i32>,
    /// Its place in the order of arrival.
    pub(crate) ticket: u64,
    /// What it asks for beside a slot.
    pub(crate) terms: Terms,
    /// When it was queued.
    pub(crate) queued: u64,
    /// When it was last started.
    pub(crate) started: Option<u64>,
    /// When it was asked to end.
    pub(crate) asked: Option<u64>,
    /// How many lighter runs have gone before it while it was the next one.
    pub(crate) passed: u32,
    /// The numbers of its slots, if it asks for them and has some.
    pub(crate) slots: Vec<u32>,
    /// Its state.
    pub(crate) place: Place,
}

/// What a run asks for beside a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    /// How many slots it takes.
    pub(crate) weight: u32,
    /// Its group.
    pub(crate) group: Option<u8>,
    /// How long it may wait, in milliseconds.
    pub(crate) max_wait: Option<u64>,
    /// How long it may hold its slots, in milliseconds.
    pub(crate) max_hold: Option<u64>,
    /// It is to be told the numbers of its slots.
    pub(crate) numbered: bool,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// It waits.
    Waiting {
        /// The session that its grant goes to.
        owner: Option<u64>,
    },
    /// It holds its slots.
    Running {
        /// The token of the grant.
        token: u64,
        /// The session that holds the slots.
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
        /// Its asker gave it up, or it was refused; it may come again.
        abandoned: bool,
    },
}

impl Repository {
    /// The run with a name.
    pub(crate) fn run(&self, name: u8) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// The number of runs that hold slots.
    pub(crate) fn running(&self) -> usize {
        self.runs.iter().filter(|run| run.is_running()).count()
    }

    /// The number of slots that are taken.
    pub(crate) fn taken(&self) -> u32 {
        let running = self.runs.iter().filter(|run| run.is_running());
        running.map(|run| run.terms.weight).sum()
    }

    /// Whether a run that takes so many slots may start.
    pub(crate) fn has_room(&self, weight: u32) -> bool {
        let limit = self.rules.limit;
        self.paused.is_none() && (limit == 0 || self.taken().saturating_add(weight) <= limit)
    }

    /// Whether there are so many slots, taken or not.
    pub(crate) fn has_slots(&self, weight: u32) -> bool {
        self.rules.limit == 0 || weight <= self.rules.limit
    }

    /// The waiting runs, next first.
    pub(crate) fn queue(&self) -> Vec<&Run> {
        let mut queue: Vec<&Run> = self.runs.iter().filter(|run| run.is_waiting()).collect();
        queue.sort_by_key(|run| run.rank());
        queue
    }

    /// Whether the first waiting run that there are slots enough for may start, or a lighter one before
    /// it.
    pub(crate) fn could_start(&self) -> bool {
        let queue = self.queue();
        let mut possible = queue.iter().filter(|run| self.has_slots(run.terms.weight));
        let has_room = |run: &&Run| self.has_room(run.terms.weight);
        possible.next().is_some_and(|first| {
            let may_be_passed = first.passed < self.rules.backfill;
            has_room(first) || (may_be_passed && possible.any(has_room))
        })
    }

    /// The number of runs that wait or hold slots and may do so only for some time.
    pub(crate) fn timed(&self) -> usize {
        let timed = |run: &&Run| run.terms.max_wait.is_some() || run.terms.max_hold.is_some();
        self.runs
            .iter()
            .filter(|run| !run.is_over())
            .filter(timed)
            .count()
    }

    /// The same repository with its runs sorted and no clock, for comparison.
    pub(crate) fn sorted(mut self) -> Self {
        self.runs.sort();
        self.clock = 0;
        self
    }

    /// The same repository without times, where the clock is not known.
    pub(crate) fn timeless(mut self) -> Self {
        self.paused = self.paused.map(|(_, reason)| (0, reason));
        for run in &mut self.runs {
            run.queued = 0;
            run.started = run.started.map(|_| 0);
            run.asked = run.asked.map(|_| 0);
        }
        self
    }
}

impl Run {
    /// Of the waiting runs, the one with the lowest is next.
    pub(crate) fn rank(&self) -> (i64, u64) {
        (-i64::from(self.priority), self.ticket)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.place, Place::Waiting { .. })
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.place, Place::Running { .. })
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.place, Place::Over { .. })
    }

    /// The session that it waits for, or that holds its slots.
    pub(crate) fn session(&self) -> Option<u64> {
        match self.place {
            Place::Waiting { owner } => owner,
            Place::Running { session, .. } => Some(session),
            Place::Over { .. } => None,
        }
    }
}

impl Terms {
    /// Of a run that asks for one slot and nothing else.
    pub(crate) const NONE: Self = Self {
        weight: 1,
        group: None,
        max_wait: None,
        max_hold: None,
        numbered: false,
    };
}
