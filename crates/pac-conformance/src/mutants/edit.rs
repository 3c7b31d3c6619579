//! A commit that a mutant rewrites: changed entries over the state, with counts that stay
//! correct, so that the mutant breaks only the one thing that it is meant to break.

use std::cmp::Reverse;
use std::sync::Arc;

use pac_core::protocol::{Changes, Issuer};
use pac_core::state::{Entry, EntryState, Head, Moment, RepositoryState, RunKind};
use pac_core::{FencingToken, PipelineRunKey, SessionId};

/// See the module. Not usable for removals.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    base: &'a RepositoryState,
    pub(crate) head: Head,
    entries: Vec<Arc<Entry>>,
    pub(crate) alive: Vec<SessionId>,
    adopted: Vec<PipelineRunKey>,
}

impl<'a> Edit<'a> {
    pub(crate) fn of(base: &'a RepositoryState, changes: Option<Changes>) -> Self {
        match changes {
            Some(changes) => Self {
                base,
                head: changes.head,
                entries: changes.entries,
                alive: changes.alive,
                adopted: changes.adopted,
            },
            None => Self {
                base,
                head: base.head().clone(),
                entries: Vec::new(),
                alive: Vec::new(),
                adopted: Vec::new(),
            },
        }
    }

    pub(crate) fn finish(self) -> Option<Changes> {
        let changed = !self.entries.is_empty() || self.head != *self.base.head();
        changed.then(|| Changes {
            expected: self.base.head().version(),
            head: self.head,
            policy_before: self.base.head().policy.clone(),
            entries: self.entries,
            alive: self.alive,
            adopted: self.adopted,
            remove: false,
        })
    }

    /// The entry of a run, as changed so far.
    pub(crate) fn entry(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        let changed = self.entries.iter().find(|entry| entry.run == *run);
        changed.or_else(|| self.base.entry(run))
    }

    /// Replaces the entry of a run, and adjusts the counts.
    pub(crate) fn put(&mut self, entry: Entry) {
        let before = self.entry(&entry.run).map(|before| before.state);
        self.count(before, u32::wrapping_sub);
        self.count(Some(entry.state), u32::wrapping_add);
        let entry = Arc::new(entry);
        match self.entries.iter_mut().find(|known| known.run == entry.run) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
        self.recount();
    }

    /// Puts down the slots that are taken beyond one each, what the first waiting run needs, and how
    /// many have a limited time.
    fn recount(&mut self) {
        let surplus = |entry: &Entry| u32::from(entry.weight().get() - 1);
        let current: Vec<_> = self.current().cloned().collect();
        let started = current.iter().filter(|entry| entry.is_started());
        let taken = started.map(|entry| surplus(entry)).sum();
        let live = current.iter().filter(|entry| !entry.is_finished());
        let timed = live.filter(|entry| entry.terms().is_timed()).count();
        let queue = self.queue();
        let needs = match queue.first() {
            Some(first) => surplus(first),
            None if self.head.queued == 0 => 0,
            None => u32::MAX,
        };
        if self.head.policy.is_some() || taken > 0 || timed > 0 || needs > 0 {
            let policy = Arc::make_mut(self.head.policy.get_or_insert_default());
            policy.surplus = taken;
            policy.needs = needs;
            policy.timed = timed.try_into().unwrap();
        }
    }

    /// All entries, as changed so far.
    fn current(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let untouched = |entry: &&Arc<Entry>| {
            let mut changed = self.entries.iter();
            !changed.any(|changed| changed.run == entry.run)
        };
        let base = self.base.entries().filter(untouched);
        base.chain(&self.entries)
    }

    /// The waiting runs that there are slots enough for, next first.
    pub(crate) fn queue(&self) -> Vec<Arc<Entry>> {
        let possible = |entry: &&Arc<Entry>| {
            let weight = entry.weight().get().into();
            entry.is_queued() && self.head.limit.admits_all(0, weight)
        };
        let mut queue: Vec<_> = self.current().filter(possible).cloned().collect();
        queue.sort_by_key(|entry| (Reverse(entry.priority), entry.ticket));
        queue
    }

    /// What this commit writes so far.
    pub(crate) fn changed(&self) -> Vec<Entry> {
        self.entries
            .iter()
            .map(|entry| Entry::clone(entry))
            .collect()
    }

    /// The runs that get their slots with this commit.
    pub(crate) fn granted(&self) -> Vec<Entry> {
        let before = |entry: &Entry| self.base.entry(&entry.run);
        let new = |entry: &Entry| before(entry).is_none_or(|before| !before.is_started());
        let mut granted = self.changed();
        granted.retain(|entry| entry.is_started() && new(entry));
        granted.sort_by_key(Entry::token);
        granted
    }

    /// The numbers of the slots that others have.
    pub(crate) fn numbers_of_others(&self, run: &PipelineRunKey) -> Vec<u32> {
        let others = self.current().filter(|entry| entry.run != *run);
        let holders = others.filter(|entry| entry.is_started());
        holders
            .flat_map(|entry| entry.terms().slots.clone())
            .collect()
    }

    fn count(&mut self, state: Option<EntryState>, step: fn(u32, u32) -> u32) {
        match state {
            Some(EntryState::Queued { .. }) => self.head.queued = step(self.head.queued, 1),
            Some(EntryState::Started { .. }) => self.head.started = step(self.head.started, 1),
            Some(EntryState::Finished { .. }) | None => {}
        }
    }

    /// Grants a slot with the next token to `session` for a run.
    pub(crate) fn start(&mut self, run: &PipelineRunKey, issuer: Issuer, session: SessionId) {
        let Some(entry) = self.entry(run).map(|entry| Entry::clone(entry)) else {
            return;
        };
        self.head.last_token = self.head.last_token.next();
        if session != issuer.session && !self.alive.contains(&session) {
            self.alive.push(session);
        }
        let mut terms = entry.terms().clone();
        if terms.numbered && !entry.is_started() {
            let used = self.numbers_of_others(run);
            let free = (0..).filter(|number| !used.contains(number));
            terms.slots = free.take(terms.weight.get().into()).collect();
        }
        let started = Entry {
            state: EntryState::Started {
                token: self.head.last_token,
                session,
                orphaned: false,
            },
            started: Moment::AT_COMMIT,
            ..entry
        };
        self.put(started.with_terms(terms));
    }

    /// The runs that waited before and start with this commit, in the order of their tokens.
    pub(crate) fn promoted(&self) -> Vec<PipelineRunKey> {
        let waited = |run| {
            self.base
                .entry(run)
                .is_some_and(|before| before.is_queued())
        };
        let started = self.entries.iter().filter(|entry| entry.is_started());
        let mut promoted: Vec<_> = started
            .filter(|entry| waited(&entry.run))
            .map(|entry| (entry.token(), entry.run.clone()))
            .collect();
        promoted.sort();
        promoted.into_iter().map(|(_, run)| run).collect()
    }

    /// Undoes the starts of waiting runs, except the first `keep`. Returns how many it undid.
    pub(crate) fn put_back(&mut self, keep: usize) -> usize {
        let promoted = self.promoted();
        let undone = promoted.iter().skip(keep);
        for run in undone.clone() {
            if let Some(before) = self.base.entry(run) {
                self.put(Entry::clone(before));
            }
        }
        let tokens = self.entries.iter().filter_map(|entry| entry.token());
        let last = tokens.max().unwrap_or_default();
        self.head.last_token = last.max(self.base.head().last_token);
        undone.len()
    }

    /// Starts up to `count` waiting runs in the given order instead of the queue's.
    pub(crate) fn start_by<K: Ord>(
        &mut self,
        count: usize,
        issuer: Issuer,
        order: impl Fn(&Entry) -> K,
    ) {
        let grantee = |entry: &Entry| {
            let takes = issuer.takes_ownerless && entry.kind == RunKind::Durable;
            entry.owner().or_else(|| takes.then_some(issuer.session))
        };
        for _ in 0..count {
            let waiting = self
                .base
                .entries()
                .filter_map(|entry| self.entry(&entry.run));
            let next = waiting
                .filter(|entry| entry.is_queued() && self.head.admits(entry.weight()))
                .filter_map(|entry| Some((order(entry), entry.run.clone(), grantee(entry)?)))
                .min_by(|one, other| one.0.cmp(&other.0));
            let Some((_, run, owner)) = next else { return };
            self.start(&run, issuer, owner);
        }
    }

    /// Rewrites the token and session of every grant of this commit.
    pub(crate) fn regrant(
        &mut self,
        change: impl Fn(FencingToken, SessionId) -> (FencingToken, SessionId),
    ) {
        let before = self.base.head().last_token;
        for entry in &mut self.entries {
            if let EntryState::Started { token, session, .. } = entry.state
                && token > before
            {
                let (token, session) = change(token, session);
                Arc::make_mut(entry).state = EntryState::Started {
                    token,
                    session,
                    orphaned: false,
                };
            }
        }
    }
}
