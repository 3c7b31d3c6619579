//! The repositories in a map: one entry each, changed only while the map's lock on it is held, by
//! functions that do not wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use foldhash::fast::RandomState;
use pac_core::driver::{CommitOutcome, ListFilter, Retention, check_slots};
use pac_core::protocol::Changes;
use pac_core::state::{Absorb, Entry, Head, RepositoryState, Snapshot};
use pac_core::{Error, ErrorKind, RepositoryKey, Revision, SessionId, Stamp, Timestamp, Version};

use crate::clock::Clock;
use crate::sessions::Known;

/// How many changed entries of a repository are kept, for reads of what changed since a revision. A
/// manager that is further behind reads all entries.
const LOG: usize = 128;

/// Shards of the map, a power of two. Many more than cores, so that two repositories in use at
/// the same moment seldom share one.
const SHARDS: usize = 256;

/// What a commit needs beside its changes.
pub(crate) struct Conditions<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) sessions: &'a Known,
    /// The committing session.
    pub(crate) session: SessionId,
    /// Whether any other session listens, and so may ask what has changed.
    pub(crate) log: bool,
}

impl Conditions<'_> {
    /// The time of a commit, at which all sessions that it depends on are alive; else the first one
    /// that is dead. To be called while the repository is locked, so that no other commit comes
    /// between.
    fn now(&self, changes: &Changes) -> Result<Timestamp, SessionId> {
        let now = self.clock.now();
        let needed = changes.alive.iter().chain([&self.session]);
        match needed.copied().find(|id| !self.sessions.is_alive(*id, now)) {
            Some(dead) => Err(dead),
            None => Ok(now),
        }
    }
}

#[derive(Debug)]
struct Repository {
    state: RepositoryState,
    /// The latest changed entries, oldest first. An entry that changed more than once is there in
    /// each of its versions.
    log: VecDeque<Arc<Entry>>,
    /// The log has every change after this revision.
    log_start: Revision,
}

#[derive(Debug)]
pub(crate) struct Store {
    repositories: DashMap<RepositoryKey, Repository, RandomState>,
    /// See [`Head::absent`].
    floor: AtomicU64,
    retention: Retention,
}

impl Store {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            repositories: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS),
            floor: AtomicU64::new(0),
            retention,
        }
    }

    pub(crate) fn load(
        &self,
        key: &RepositoryKey,
        since: Option<Version>,
        now: Timestamp,
    ) -> Snapshot {
        match self.repositories.get_mut(key) {
            Some(mut repository) => {
                repository.forget_finished(now, self.retention);
                repository.snapshot(since)
            }
            None => Snapshot::absent(self.floor.load(Ordering::Acquire)),
        }
    }

    /// Commits to one repository.
    pub(crate) fn commit(
        &self,
        key: &RepositoryKey,
        changes: Changes,
        conditions: &Conditions<'_>,
    ) -> CommitOutcome {
        if let Err(reason) = changes
            .check_counters()
            .and_then(|()| check_slots(&changes))
        {
            return refused(reason);
        }
        if !changes.remove
            && let Some(mut repository) = self.repositories.get_mut(key)
        {
            return repository.commit(changes, conditions, self.retention);
        }
        match self.repositories.entry(key.clone()) {
            Slot::Vacant(slot) => {
                let floor = self.floor.load(Ordering::Acquire);
                if changes.expected != Head::absent(floor).version() {
                    return CommitOutcome::Conflict(Some(Snapshot::absent(floor)));
                }
                if changes.remove {
                    return CommitOutcome::Committed(Snapshot::absent(floor));
                }
                let mut repository = Repository::new(floor);
                let outcome = repository.commit(changes, conditions, self.retention);
                if matches!(outcome, CommitOutcome::Committed(_)) {
                    slot.insert(repository);
                }
                outcome
            }
            Slot::Occupied(mut slot) => {
                let repository = slot.get_mut();
                let head = repository.state.head();
                if !changes.remove || changes.expected != head.version() {
                    return repository.commit(changes, conditions, self.retention);
                }
                if let Err(dead) = conditions.now(&changes) {
                    return CommitOutcome::SessionDead(dead);
                }
                let after = head.floor_after_removal();
                let floor = self.floor.fetch_max(after, Ordering::AcqRel).max(after);
                slot.remove();
                CommitOutcome::Committed(Snapshot::absent(floor))
            }
        }
    }

    /// The repositories with a queued or started entry for which `wanted` is true.
    pub(crate) fn with_live_entry(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<RepositoryKey> {
        self.repositories
            .iter()
            .filter(|repository| {
                let mut live = repository
                    .state
                    .entries()
                    .filter(|entry| !entry.is_finished());
                live.any(|entry| wanted(entry))
            })
            .map(|repository| repository.key().clone())
            .collect()
    }

    /// Forgets finished runs by age and number in all repositories, also in those that are never
    /// read.
    pub(crate) fn forget_finished(&self, now: Timestamp) {
        for mut repository in self.repositories.iter_mut() {
            repository.forget_finished(now, self.retention);
        }
    }

    pub(crate) fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Vec<(RepositoryKey, Head)> {
        let mut page = BTreeMap::new();
        for repository in &self.repositories {
            let (key, head) = (repository.key(), repository.state.head());
            let later = after.is_none_or(|after| key > after);
            if !later || !filter.passes(head) {
                continue;
            }
            // A full page has no room for a key after its last one: it need not be copied.
            let full = page.len() >= limit;
            if full && page.last_key_value().is_none_or(|(last, _)| key >= last) {
                continue;
            }
            page.insert(key.clone(), head.clone());
            if full {
                page.pop_last();
            }
        }
        page.into_iter().collect()
    }
}

impl Repository {
    fn new(floor: u64) -> Self {
        let state = RepositoryState::absent(floor);
        let log_start = state.head().revision;
        Self {
            state,
            log: VecDeque::new(),
            log_start,
        }
    }

    /// Commits any changes but a removal.
    fn commit(
        &mut self,
        changes: Changes,
        conditions: &Conditions<'_>,
        retention: Retention,
    ) -> CommitOutcome {
        if changes.expected != self.state.head().version() {
            let snapshot = self.snapshot(Some(changes.expected));
            return CommitOutcome::Conflict(Some(snapshot));
        }
        let now = match conditions.now(&changes) {
            Ok(now) => now,
            Err(dead) => return CommitOutcome::SessionDead(dead),
        };
        let outcome = self.write(changes, now, conditions.log);
        self.forget_finished(now, retention);
        outcome
    }

    fn write(&mut self, changes: Changes, now: Timestamp, log: bool) -> CommitOutcome {
        let version = after(changes.expected.revision);
        let snapshot = changes.written(version, now);
        if let Err(reason) = self.state.check(&snapshot) {
            return refused(reason);
        }
        match self.state.absorb(&snapshot, |_, _| ()) {
            Ok(Absorb::Applied) => {
                if log {
                    self.remember(&snapshot.entries);
                } else {
                    self.log.clear();
                    self.log_start = version.revision;
                }
                CommitOutcome::Committed(snapshot)
            }
            Ok(Absorb::Stale | Absorb::Incomplete) => refused("its counts do not add up"),
            Err(reason) => refused(reason),
        }
    }

    fn remember(&mut self, entries: &[Arc<Entry>]) {
        self.log.extend(entries.iter().cloned());
        while self.log.len() > LOG {
            if let Some(oldest) = self.log.pop_front() {
                self.log_start = oldest.revision;
            }
        }
    }

    fn snapshot(&self, since: Option<Version>) -> Snapshot {
        let known = |since: &Version| since.revision >= self.log_start && is_ours(*since);
        let since = since.filter(known);
        let entries = match since {
            None => self.state.entries().cloned().collect(),
            Some(since) => {
                let later = self
                    .log
                    .iter()
                    .rev()
                    .take_while(|entry| entry.revision > since.revision);
                let latest = |entry: &&Arc<Entry>| {
                    let now = self.state.entry(&entry.run);
                    now.is_some_and(|now| Arc::ptr_eq(now, entry))
                };
                // Oldest first, in the order of the changes.
                let mut changed: Vec<_> = later.filter(latest).cloned().collect();
                changed.reverse();
                changed
            }
        };
        Snapshot {
            since,
            exists: true,
            head: self.state.head().clone(),
            entries,
        }
    }

    fn forget_finished(&mut self, now: Timestamp, retention: Retention) {
        let before = now.minus(retention.age);
        let start = &mut self.log_start;
        self.state
            .forget_finished(before, retention.per_repository, |gone| {
                // A reader that knows only an earlier revision cannot be told of this run's end any
                // more, and has to read all entries.
                *start = gone.revision.max(*start);
            });
        let start = *start;
        while self
            .log
            .front()
            .is_some_and(|entry| entry.revision <= start)
        {
            self.log.pop_front();
        }
    }
}

/// The version after this revision. This store never goes back in time, so it gives out no revision
/// of a repository twice, and the revision itself serves as the stamp.
fn after(revision: Revision) -> Version {
    let next = revision.next();
    Version::new(next, Stamp::new(next.get()))
}

/// Whether a version was given out here: by a commit, or for a repository that was not there.
fn is_ours(version: Version) -> bool {
    let stamp = version.stamp;
    stamp == Stamp::default() || stamp.get() == version.revision.get()
}

fn refused(reason: impl Into<std::borrow::Cow<'static, str>>) -> CommitOutcome {
    CommitOutcome::Refused(Error::new(ErrorKind::Corrupt, "commit", reason))
}
