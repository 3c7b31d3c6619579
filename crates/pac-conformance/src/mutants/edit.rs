//! A commit that a mutant rewrites: changed entries over the state, with counts that stay
//! correct, so that the mutant breaks only the one thing that it is meant to break.

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
        self.put(Entry {
            state: EntryState::Started {
                token: self.head.last_token,
                session,
                orphaned: false,
            },
            started: Moment::AtCommit,
            ..entry
        });
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
                .filter(|entry| entry.is_queued())
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
