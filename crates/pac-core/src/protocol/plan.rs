//! A plan: commands applied one after the other on top of a state that is not modified, and the
//! one commit that carries them all out.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;

use super::overlay::Overlay;
use crate::name::PipelineRunKey;
use crate::state::{
    Entry, EntryState, Head, Moment, Policy, QueueIter, Rank, RepositoryState, RunOutcome, Snapshot,
};
use crate::value::{FencingToken, SessionId, Ticket, Timestamp, Version};

/// The process that issues commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Issuer {
    /// The session of the process.
    pub session: SessionId,
    /// Whether the process can start any durable run: then it is granted those without an owner.
    pub takes_ownerless: bool,
}

/// The content of one commit to one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Changes {
    /// The version that the repository must be at, revision and stamp; for a repository that does
    /// not exist, the one that it was read with (its revision is the floor of the store,
    /// [`Head::absent`]).
    pub expected: Version,
    /// The head to write. Its version is still `expected`: the driver gives it a new one.
    pub head: Head,
    /// The policy of the head at `expected`. See [`Self::new_policy`].
    pub policy_before: Option<Arc<Policy>>,
    /// The entries to write, each at most once. The `revision` of each is still that of the queued or
    /// started entry of the same run that it takes the place of; 0 where there is none.
    pub entries: Vec<Arc<Entry>>,
    /// Sessions other than the issuer's that runs are granted to: the driver must refuse the
    /// commit unless all of them are alive.
    pub alive: Vec<SessionId>,
    /// The runs among `entries` that hold a slot because they were running already. Only they
    /// may raise the number of slots above the limit of `head`.
    pub adopted: Vec<PipelineRunKey>,
    /// Delete the repository with all that belongs to it, and write nothing.
    pub remove: bool,
}

impl Changes {
    /// The policy of `head`, if it is another one than before. A store that keeps policies apart from
    /// the rest of a head has none to write otherwise.
    #[must_use]
    pub fn new_policy(&self) -> Option<&Policy> {
        let policy = self.head.policy.as_ref();
        // Mostly they are the same object, which is not looked into then.
        policy
            .filter(|_| self.head.policy != self.policy_before)
            .map(|policy| &**policy)
    }

    /// What a commit of this writes, which is not a removal: with the version of the new head, and
    /// the time of the commit in place of [`Moment::AT_COMMIT`].
    #[must_use]
    #[inline]
    pub fn written(self, version: Version, now: Timestamp) -> Snapshot {
        let (mut head, mut entries) = (self.head, self.entries);
        head.stamp(version, now);
        for entry in &mut entries {
            Arc::make_mut(entry).stamp(version.revision, now);
        }
        Snapshot {
            since: Some(self.expected),
            exists: true,
            head,
            entries,
        }
    }

    /// Checks that the counters are such as a store may hold: no commit takes one beyond
    /// [`MAX_COUNTER`](crate::MAX_COUNTER), and no removal the floor of the store beyond
    /// [`MAX_FLOOR`](crate::MAX_FLOOR). For managers before they commit, and for drivers that refuse
    /// what a broken one sends.
    ///
    /// # Errors
    /// A sentence with the counter, its value, the rule and the cure.
    pub fn check_counters(&self) -> Result<(), String> {
        self.head.check_counters()?;
        if self.remove {
            self.head.check_removal()?;
        }
        Ok(())
    }
}

/// The commands applied so far, as changes on top of `base`.
///
/// A command costs at most O(√n) for n waiting runs, and the plan keeps only what changes. The
/// death of a session and the removal of a repository look at every run.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) base: &'a RepositoryState,
    pub(super) issuer: Issuer,
    pub(super) head: Head,
    pub(super) overlay: Overlay,
    pub(super) removed: bool,
    pub(super) alive: Vec<SessionId>,
    adopted: Vec<PipelineRunKey>,
    /// The queue of `base`, without the waiters at its front that no promotion of this plan
    /// needs to look at again.
    pub(super) waiting: Option<Peekable<QueueIter<'a>>>,
    /// The waiting runs that this plan queued or moved.
    pub(super) arrivals: BTreeMap<Rank, PipelineRunKey>,
    /// Sessions known to be dead that still own entries.
    pub(super) dead: &'a [SessionId],
    /// Once this many entries have changed, no further run is started.
    budget: usize,
    more: bool,
}

impl<'a> Plan<'a> {
    /// A plan over `base` on behalf of `issuer`, of about `budget` entries: a command that would
    /// exceed the budget stops early, and [`Plan::has_more`] is then true.
    #[must_use]
    #[inline]
    pub fn new(base: &'a RepositoryState, issuer: Issuer, budget: usize) -> Self {
        Self {
            base,
            issuer,
            head: base.head().clone(),
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

    /// Grants nothing to these sessions: they are known to be dead, but still own entries.
    /// Without this, two dead sessions could be granted each other's slots without end.
    #[must_use]
    pub fn without(mut self, dead: &'a [SessionId]) -> Self {
        self.dead = dead;
        self
    }

    /// Counts on from at least these, where the store has gone back in time and would give tickets
    /// and tokens out again that were given out before. A repository that does not exist is not
    /// created for that alone.
    #[must_use]
    pub fn counting_from(mut self, (ticket, token): (Ticket, FencingToken)) -> Self {
        self.head.last_ticket = self.head.last_ticket.max(ticket);
        self.head.last_token = self.head.last_token.max(token);
        self
    }

    /// The head, as the commands applied so far have left it.
    pub(crate) fn head(&self) -> &Head {
        &self.head
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

    /// Whether a command stopped at the budget. After this commit, continue with
    /// [`Command::Promote`](super::Command::Promote) or the same
    /// [`Command::Expire`](super::Command::Expire).
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// The commit that carries out everything applied so far; `None` when nothing changes.
    #[must_use]
    pub fn finish(mut self) -> Option<Changes> {
        self.note_needs();
        debug_assert!(
            (self.overlay.entries())
                .all(|entry| entry.revision == self.base.live_revision(&entry.run)),
            "a store finds by it what the entry takes the place of"
        );
        if self.removed {
            return self.base.exists().then(|| Changes {
                expected: self.base.head().version(),
                head: self.head,
                policy_before: self.base.head().policy.clone(),
                entries: Vec::new(),
                alive: Vec::new(),
                adopted: Vec::new(),
                remove: true,
            });
        }
        if self.overlay.len() == 0 && !self.head_changes() {
            return None;
        }
        Some(Changes {
            expected: self.base.head().version(),
            head: self.head,
            policy_before: self.base.head().policy.clone(),
            entries: self.overlay.into_entries(),
            alive: self.alive,
            adopted: self.adopted,
            remove: false,
        })
    }

    fn head_changes(&self) -> bool {
        let (before, after) = (self.base.head(), &self.head);
        if self.base.exists() {
            return after != before;
        }
        let counters = Head {
            last_ticket: after.last_ticket,
            last_token: after.last_token,
            ..before.clone()
        };
        *after != counters
    }

    /// The entry of a run, as the commands applied so far have left it.
    pub(crate) fn current(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        self.overlay.current(self.base, run)
    }

    /// The entry of a run, if the commands applied so far have changed it.
    pub(crate) fn changed(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        self.overlay.get(run)
    }

    /// Whether an entry of the state is still as it was.
    pub(super) fn is_untouched(&self, entry: &Entry) -> bool {
        self.overlay.get(&entry.run).is_none()
    }

    /// All entries, as this plan has changed them, in no particular order.
    pub(super) fn current_entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let base = self.base.entries().filter(|entry| self.is_untouched(entry));
        base.chain(self.overlay.entries())
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    pub(super) fn budget_is_spent(&mut self) -> bool {
        let spent = self.overlay.len() >= self.budget;
        self.more |= spent;
        spent
    }

    /// Adds an entry that the queue and the counts of the head do not include yet.
    pub(super) fn put_new(&mut self, entry: Entry) {
        self.head.count(&entry);
        if entry.is_queued() {
            self.arrivals.insert(Rank::of(&entry), entry.run.clone());
        }
        self.overlay.put(entry);
    }

    /// Replaces `entry` by `change(entry)`, and keeps the counts of the head and the order of
    /// the queue right.
    pub(super) fn change(&mut self, entry: Entry, change: impl FnOnce(Entry) -> Entry) {
        self.head.discount(&entry);
        if entry.is_queued() {
            self.arrivals.remove(&Rank::of(&entry));
        }
        self.put_new(change(entry));
    }

    pub(super) fn end(&mut self, entry: Entry, outcome: RunOutcome) {
        self.finish_entry(entry, outcome, false);
    }

    /// Ends a run so that it may be admitted again.
    pub(super) fn give_up(&mut self, entry: Entry, outcome: RunOutcome) {
        self.finish_entry(entry, outcome, true);
    }

    fn finish_entry(&mut self, entry: Entry, outcome: RunOutcome, abandoned: bool) {
        self.change(entry, |mut entry| {
            entry.state = EntryState::Finished {
                outcome,
                token: entry.token(),
                abandoned,
            };
            entry.finished = Moment::AT_COMMIT;
            entry.leave_slots();
            entry
        });
    }

    /// Records that a run takes a slot beyond the limit because it is running already.
    pub(super) fn record_adoption(&mut self, run: &PipelineRunKey) {
        if !self.adopted.contains(run) {
            self.adopted.push(run.clone());
        }
    }
}
