//! A store of one repository: what the driver contract says of a commit, and every version that
//! there was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pac_core::driver::Retention;
use pac_core::protocol::{Changes, Death};
use pac_core::state::{Absorb, Entry, EntryState, RepositoryState, RunKind, Snapshot};
use pac_core::{Revision, SessionId, Stamp, Timestamp, Version};

/// Long enough for all that a test does.
pub(crate) const RETENTION: Retention = Retention::new(Duration::from_secs(1_000_000), usize::MAX);

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) state: RepositoryState,
    /// The revision at which there was nothing yet.
    born: Revision,
    /// Every version, for hints that come late.
    versions: Vec<Snapshot>,
    sessions: BTreeMap<SessionId, Option<Death>>,
    clock: i64,
}

/// What the store says to a commit.
#[derive(Debug)]
pub(crate) enum Answer {
    Committed(Snapshot),
    Conflict,
    SessionDead(SessionId),
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            state: RepositoryState::absent(0),
            born: Revision::default(),
            versions: Vec::new(),
            sessions: BTreeMap::new(),
            clock: 0,
        }
    }

    pub(crate) fn open(&mut self, session: SessionId) {
        self.sessions.insert(session, None);
    }

    /// Ends a session, or lets its lease TTL pass.
    pub(crate) fn lapse(&mut self, session: SessionId, death: Death) {
        let known = self.sessions.entry(session).or_default();
        *known = (*known).max(Some(death));
    }

    pub(crate) fn is_alive(&self, session: SessionId) -> bool {
        self.sessions.get(&session) == Some(&None)
    }

    /// The dead sessions that have entries which do not say so.
    pub(crate) fn dead(&self) -> Vec<(SessionId, Death)> {
        let dead = self.sessions.iter();
        let dead = dead.filter_map(|(session, death)| Some((*session, (*death)?)));
        dead.filter(|(session, death)| self.has_traces(*session, *death))
            .collect()
    }

    fn has_traces(&self, session: SessionId, death: Death) -> bool {
        let touched = |entry: &Arc<Entry>| match entry.state {
            EntryState::Queued { owner } => owner == Some(session),
            EntryState::Started {
                session: holder,
                orphaned,
                ..
            } => {
                let ends = entry.kind == RunKind::Ephemeral || death == Death::Lease;
                holder == session && (ends || !orphaned)
            }
            EntryState::Finished { .. } => false,
        };
        self.state.entries().any(touched)
    }

    /// Whether what has changed since a revision can be told.
    pub(crate) fn reaches(&self, since: Version) -> bool {
        since.revision >= self.born
    }

    pub(crate) fn revision(&self) -> Revision {
        self.state.head().revision
    }

    /// The answer to a reader that knows the repository as it was at `since`.
    pub(crate) fn snapshot(&self, since: Option<Version>) -> Snapshot {
        let since = since.filter(|since| since.revision >= self.born && self.state.exists());
        let entries = self.state.entries();
        let entries =
            entries.filter(|entry| since.is_none_or(|since| entry.revision > since.revision));
        Snapshot {
            since,
            exists: self.state.exists(),
            head: self.state.head().clone(),
            entries: entries.cloned().collect(),
        }
    }

    /// One of the versions that there were, `back` before the newest.
    pub(crate) fn version(&self, back: usize) -> Option<&Snapshot> {
        let newest = self.versions.len().checked_sub(1)?;
        self.versions.get(newest.saturating_sub(back))
    }

    /// Deletes the records of finished runs: who reads only what has changed does not hear of
    /// their end.
    pub(crate) fn purge(&mut self) {
        let far = Timestamp::from_unix_millis(i64::MAX);
        self.state.forget_finished(far, 0, |_| ());
    }

    /// Commits, unless the repository is at another revision or a session is dead.
    pub(crate) fn commit(&mut self, session: SessionId, changes: &Changes) -> Answer {
        if changes.expected != self.state.head().version() {
            return Answer::Conflict;
        }
        let mut needed = changes.alive.iter().chain([&session]).copied();
        if let Some(dead) = needed.find(|session| !self.is_alive(*session)) {
            return Answer::SessionDead(dead);
        }
        self.judge(changes);
        let since = Some(self.state.head().version());
        if changes.remove {
            let floor = self.state.head().floor_after_removal();
            self.state = RepositoryState::absent(floor);
            self.born = Revision::new(floor);
        } else {
            let written = self.stamped(changes);
            let absorbed = self.state.absorb(&written, |_, _| ());
            assert_eq!(absorbed, Ok(Absorb::Applied), "what is written adds up");
        }
        let written = self.snapshot(since);
        self.versions.push(self.snapshot(None));
        Answer::Committed(written)
    }

    fn stamped(&mut self, changes: &Changes) -> Snapshot {
        let version = Version::new(self.revision().next(), Stamp::default());
        self.clock += 1;
        let now = Timestamp::from_unix_millis(self.clock);
        changes.clone().written(version, now)
    }

    /// Nothing is started beyond the limit, but for what was running already.
    fn judge(&self, changes: &Changes) {
        let holds = |entry: &Entry| {
            let known = self.state.entry(&entry.run);
            known.is_some_and(|known| known.is_started() && known.ticket == entry.ticket)
        };
        let granted = changes.entries.iter().filter(|entry| {
            entry.is_started() && !holds(entry) && !changes.adopted.contains(&entry.run)
        });
        let adopted = changes
            .entries
            .iter()
            .filter(|entry| entry.is_started() && changes.adopted.contains(&entry.run));
        let (granted, adopted) = (granted.count(), adopted.count());
        let started = changes.head.started as usize;
        let limit = changes
            .head
            .limit
            .get()
            .map_or(usize::MAX, |limit| limit as usize);
        assert!(
            granted == 0 || started - adopted <= limit,
            "{granted} runs are granted slots, and {started} have one then: {changes:?}"
        );
    }
}
