//! A plan: commands applied one after the other to a state that stays as it is, and the one
//! commit that makes them all true.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;

use super::overlay::Overlay;
use crate::name::PipelineRunKey;
use crate::state::{
    Entry, EntryState, Head, Moment, QueueIter, Rank, RepositoryState, RunKind, RunOutcome,
};
use crate::value::{Revision, SessionId};

/// On whose behalf commands are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Issuer {
    /// The session of the process.
    pub session: SessionId,
    /// Whether it can start any durable run, and so is granted those that have no owner.
    pub takes_ownerless: bool,
}

/// What one commit to one repository writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Changes {
    /// The revision that the repository must be at; for a repository that does not exist, the
    /// floor of the store ([`Head::absent`]).
    pub expected: Revision,
    /// The head to write. Its revision is still `expected`: the driver gives it a new one.
    pub head: Head,
    /// The entries to write, each at most once.
    pub entries: Vec<Arc<Entry>>,
    /// Sessions, besides the issuer's, that must be alive: runs are granted to them.
    pub alive: Vec<SessionId>,
    /// Those of the entries that hold a slot because they ran already: for these alone the
    /// number of slots may be above the limit of `head`.
    pub adopted: Vec<PipelineRunKey>,
    /// Delete the repository with all that belongs to it, and write nothing.
    pub remove: bool,
}

/// Commands applied to a state so far.
///
/// A command costs O(√n) at worst for n waiting runs, and keeps only what changes; but the
/// death of a session and the removal of a repository look at every run.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) base: &'a RepositoryState,
    pub(super) issuer: Issuer,
    pub(super) head: Head,
    pub(super) overlay: Overlay,
    pub(super) removed: bool,
    alive: Vec<SessionId>,
    adopted: Vec<PipelineRunKey>,
    /// The queue of `base` from the first place on that a promotion has not yet passed.
    waiting: Option<Peekable<QueueIter<'a>>>,
    /// The runs that this plan put into the queue, or moved in it.
    arrivals: BTreeMap<Rank, PipelineRunKey>,
    /// Sessions that are known to be dead although their entries do not say so yet.
    dead: &'a [SessionId],
    /// Entries from which on no further run is started.
    budget: usize,
    more: bool,
}

impl<'a> Plan<'a> {
    /// A plan over `base` on behalf of `issuer` of about `budget` entries: a command that would
    /// go on beyond stops early, and [`Plan::has_more`] says so.
    #[must_use]
    pub fn new(base: &'a RepositoryState, issuer: Issuer, budget: usize) -> Self {
        Self {
            base,
            issuer,
            head: *base.head(),
            overlay: Overlay::default(),
            removed: false,
            alive: Vec::new(),
            adopted: Vec::new(),
            waiting: None,
            arrivals: BTreeMap::new(),
            dead: &[],
            budget,
            more: false,
        }
    }

    /// Grants nothing to sessions that are known to be dead, although their entries do not say
    /// so yet. Without this, two of them could be granted each other's slots without an end.
    #[must_use]
    pub fn without(self, dead: &'a [SessionId]) -> Self {
        Self { dead, ..self }
    }

    /// How many entries the commit would write so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.overlay.len()
    }

    /// Whether the commit would write no entry so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a command stopped at the budget: a [`Command::Promote`](super::Command::Promote)
    /// or the same [`Command::Expire`](super::Command::Expire) goes on, after this commit.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// The commit that makes all that was applied true; `None` when nothing changes.
    #[must_use]
    pub fn finish(self) -> Option<Changes> {
        if self.removed {
            return self.base.exists().then(|| Changes {
                expected: self.base.head().revision,
                head: self.head,
                entries: Vec::new(),
                alive: Vec::new(),
                adopted: Vec::new(),
                remove: true,
            });
        }
        if self.overlay.len() == 0 && self.head == *self.base.head() {
            return None;
        }
        Some(Changes {
            expected: self.base.head().revision,
            head: self.head,
            entries: self.overlay.into_entries(),
            alive: self.alive,
            adopted: self.adopted,
            remove: false,
        })
    }

    pub(super) fn current(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        self.overlay.current(self.base, run)
    }

    /// All entries as they stand now, in no particular order.
    pub(super) fn current_entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let untouched = |entry: &&Arc<Entry>| self.overlay.get(&entry.run).is_none();
        let base = self.base.entries().filter(untouched);
        base.chain(self.overlay.entries())
    }

    pub(super) fn budget_is_spent(&mut self) -> bool {
        let spent = self.overlay.len() >= self.budget;
        self.more |= spent;
        spent
    }

    /// Puts a run in that is new to the repository.
    fn put_new(&mut self, entry: Entry) {
        match entry.state {
            EntryState::Queued { .. } => {
                self.head.queued = self.head.queued.saturating_add(1);
                self.arrivals.insert(Rank::of(&entry), entry.run.clone());
            }
            EntryState::Started { .. } => self.head.started = self.head.started.saturating_add(1),
            EntryState::Finished { .. } => {}
        }
        self.overlay.put(entry);
    }

    /// Puts what becomes of `entry` in its place, keeping the counts of the head and the order
    /// of the queue.
    pub(super) fn change(&mut self, entry: Entry, change: impl FnOnce(Entry) -> Entry) {
        match entry.state {
            EntryState::Queued { .. } => {
                self.head.queued = self.head.queued.saturating_sub(1);
                self.arrivals.remove(&Rank::of(&entry));
            }
            EntryState::Started { .. } => self.head.started = self.head.started.saturating_sub(1),
            EntryState::Finished { .. } => {}
        }
        self.put_new(change(entry));
    }

    pub(super) fn end(&mut self, entry: Entry, outcome: RunOutcome) {
        self.finish_entry(entry, outcome, false);
    }

    /// Ends a run in such a way that it may come again.
    pub(super) fn give_up(&mut self, entry: Entry) {
        self.finish_entry(entry, RunOutcome::Cancelled, true);
    }

    fn finish_entry(&mut self, entry: Entry, outcome: RunOutcome, abandoned: bool) {
        self.change(entry, |entry| Entry {
            state: EntryState::Finished {
                outcome,
                token: entry.token(),
                abandoned,
            },
            finished: Moment::AtCommit,
            ..entry
        });
    }

    /// Notes that a run takes a slot which it is not granted: it runs already.
    pub(super) fn record_adoption(&mut self, run: &PipelineRunKey) {
        if !self.adopted.contains(run) {
            self.adopted.push(run.clone());
        }
    }

    /// Gives the slot of the next token to `entry`, which has a place or a slot, for `session`.
    pub(super) fn start(&mut self, entry: Entry, session: SessionId) {
        let grant = self.grant(session);
        self.change(entry, grant);
    }

    /// The same for a run that is new to the repository.
    pub(super) fn start_new(&mut self, entry: Entry, session: SessionId) {
        let grant = self.grant(session);
        self.put_new(grant(entry));
    }

    fn grant(&mut self, session: SessionId) -> impl FnOnce(Entry) -> Entry + use<> {
        let token = self.head.last_token.next();
        self.head.last_token = token;
        if session != self.issuer.session && !self.alive.contains(&session) {
            self.alive.push(session);
        }
        move |entry| Entry {
            state: EntryState::Started {
                token,
                session,
                orphaned: false,
            },
            started: match entry.started {
                Moment::Never => Moment::AtCommit,
                // It runs already and only changes hands.
                earlier => earlier,
            },
            ..entry
        }
    }

    /// Queues a run that has just come, and starts whoever may start.
    pub(super) fn arrive(&mut self, entry: Entry) {
        if self.head.queued == 0 && self.head.limit.admits(self.head.started) {
            // The same as below, without a queue to put it into and take it out of.
            let session = self.issuer.session;
            self.start_new(entry, session);
        } else {
            self.put_new(entry);
            self.promote();
        }
    }

    /// Starts waiting runs in order while the limit admits more, and says which.
    ///
    /// Every change of the protocol that may free a slot or add a waiter ends here or in
    /// [`Self::arrive`], so nothing can start beside the limit or overtake a waiter.
    pub(super) fn promote(&mut self) -> Vec<PipelineRunKey> {
        let mut promoted = Vec::new();
        if self.head.queued == 0 {
            return promoted;
        }
        while self.head.limit.admits(self.head.started) {
            let Some((next, session)) = self.next_waiter() else {
                break;
            };
            if self.budget_is_spent() {
                break;
            }
            promoted.push(next.run.clone());
            self.start(next, session);
        }
        promoted
    }

    /// Whether a run of the issuer's could start at once. Every commit starts all that can, up
    /// to its size, so this is so only after a commit that was as large as it may be, or after
    /// the owner of an earlier waiter died.
    pub(crate) fn could_start_own(&mut self) -> bool {
        let session = self.issuer.session;
        self.head.queued > 0
            && self.head.limit.admits(self.head.started)
            && self
                .next_waiter()
                .is_some_and(|(_, owner)| owner == session)
    }

    /// The first waiter that can be granted a slot, and to whom. A durable run without a live
    /// owner goes to the issuer if that can start it; else it keeps its place for one who can.
    fn next_waiter(&mut self) -> Option<(Entry, SessionId)> {
        let (issuer, dead) = (self.issuer, self.dead);
        let grantee = |entry: &Entry| match entry.state {
            EntryState::Queued { owner: Some(owner) } if !dead.contains(&owner) => Some(owner),
            EntryState::Queued { .. } => {
                let takes = issuer.takes_ownerless && entry.kind == RunKind::Durable;
                takes.then_some(issuer.session)
            }
            EntryState::Started { .. } | EntryState::Finished { .. } => None,
        };
        let arrival = self.arrivals.iter().find_map(|(rank, run)| {
            let entry = self.overlay.get(run)?;
            Some((*rank, &**entry, grantee(entry)?))
        });
        // What the plan has changed is in `arrivals`, if it still waits at all.
        let overlay = &self.overlay;
        let passed = |entry: &Entry| overlay.get(&entry.run).is_some() || grantee(entry).is_none();
        let base = self.base;
        let waiting = self
            .waiting
            .get_or_insert_with(|| base.queue_iter().peekable());
        while waiting.next_if(|entry| passed(entry)).is_some() {}
        let waiting = waiting.peek().map(AsRef::as_ref);
        match (arrival, waiting) {
            (Some((rank, entry, session)), Some(first)) if rank < Rank::of(first) => {
                Some((entry.clone(), session))
            }
            (Some((_, entry, session)), None) => Some((entry.clone(), session)),
            (_, Some(first)) => Some((first.clone(), grantee(first)?)),
            (None, None) => None,
        }
    }
}
