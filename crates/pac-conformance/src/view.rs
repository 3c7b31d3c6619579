//! The stored state of a repository, read without a manager.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use pac_core::state::RunOutcome;
use pac_core::state::{Entry, EntryState, Head, Snapshot};
use pac_core::{FencingToken, SessionId, Timestamp};

/// A full snapshot, sorted. The queue order is computed here from the records, independently of
/// the protocol's code.
#[derive(Debug, Clone)]
pub struct View {
    /// Whether the store has any state of the repository.
    pub exists: bool,
    /// The head.
    pub head: Head,
    /// The runs that hold a slot, by token.
    pub running: Vec<Arc<Entry>>,
    /// The runs that wait, by priority, then ticket.
    pub waiting: Vec<Arc<Entry>>,
    /// The runs that ended, by ticket.
    pub finished: Vec<Arc<Entry>>,
}

impl View {
    pub(crate) fn of(snapshot: Snapshot) -> Self {
        assert_eq!(snapshot.since, None, "a part where all was asked for");
        let mut view = Self {
            exists: snapshot.exists,
            head: snapshot.head,
            running: Vec::new(),
            waiting: Vec::new(),
            finished: Vec::new(),
        };
        for entry in snapshot.entries {
            let list = match entry.state {
                EntryState::Queued { .. } => &mut view.waiting,
                EntryState::Started { .. } => &mut view.running,
                EntryState::Finished { .. } => &mut view.finished,
            };
            list.push(entry);
        }
        view.running.sort_by_key(|entry| token_of(entry));
        view.waiting
            .sort_by_key(|entry| (Reverse(entry.priority), entry.ticket));
        view.finished.sort_by_key(|entry| entry.ticket);
        view
    }

    /// The names of the runs that hold a slot, in the order of their grants.
    #[must_use]
    pub fn running_names(&self) -> Vec<&str> {
        names(&self.running)
    }

    /// The names of the runs that wait, the next to start first.
    #[must_use]
    pub fn waiting_names(&self) -> Vec<&str> {
        names(&self.waiting)
    }

    /// The names of all recorded runs that ever held a slot, in the order of their last grants.
    #[must_use]
    pub fn granted_names(&self) -> Vec<&str> {
        let mut granted: Vec<_> = self.entries().filter(|e| token_of(e).is_some()).collect();
        granted.sort_by_key(|entry| token_of(entry));
        granted.iter().map(|entry| entry.run.name()).collect()
    }

    /// How the run of this name ended.
    #[must_use]
    pub fn outcome(&self, name: &str) -> Option<RunOutcome> {
        match self.entry(name)?.state {
            EntryState::Finished { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// The token of the run of this name.
    #[must_use]
    #[track_caller]
    pub fn token(&self, name: &str) -> FencingToken {
        let token = self.entry(name).and_then(|entry| token_of(&entry));
        token.unwrap_or_else(|| panic!("{name} holds no token: {self:?}"))
    }

    /// The session that a queued run's grant goes to, or that holds a started run's slot.
    #[must_use]
    pub fn session(&self, name: &str) -> Option<SessionId> {
        match self.entry(name)?.state {
            EntryState::Queued { owner } => owner,
            EntryState::Started { session, .. } => Some(session),
            EntryState::Finished { .. } => None,
        }
    }

    /// When the run of this name was queued, started and finished.
    #[must_use]
    #[track_caller]
    pub fn times(&self, name: &str) -> [Option<Timestamp>; 3] {
        let entry = self.entry(name).unwrap();
        [entry.queued.at(), entry.started.at(), entry.finished.at()]
    }

    /// The record of the run of this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        let found = self.entries().find(|entry| entry.run.name() == name);
        found.cloned()
    }

    /// All records.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let live = self.running.iter().chain(&self.waiting);
        live.chain(&self.finished)
    }

    /// Asserts that exactly these runs hold slots and wait, in these orders.
    #[track_caller]
    pub fn assert(&self, running: &[&str], waiting: &[&str]) {
        let mut started = self.running_names();
        started.sort_unstable();
        let mut expected = running.to_vec();
        expected.sort_unstable();
        assert_eq!(
            (started, self.waiting_names()),
            (expected, waiting.to_vec()),
            "(running, waiting) in the store"
        );
    }

    /// Asserts what must hold for any repository at any time.
    pub fn audit(&self) {
        assert_eq!(self.head.started as usize, self.running.len(), "{self:#?}");
        assert_eq!(self.head.queued as usize, self.waiting.len(), "{self:#?}");
        let mut tokens = BTreeSet::new();
        let mut tickets = BTreeSet::new();
        let mut runs = BTreeSet::new();
        for entry in self.entries() {
            assert!(runs.insert(&entry.run), "{} twice", entry.run);
            // A superseded run has given its place to another one.
            let has_its_place = self.outcome(entry.run.name()) != Some(RunOutcome::Superseded);
            let is_new = !has_its_place || tickets.insert(entry.ticket);
            assert!(is_new, "ticket twice: {entry:?}");
            assert!(entry.ticket <= self.head.last_ticket, "{entry:?}");
            if let Some(token) = token_of(entry) {
                assert!(tokens.insert(token), "token twice: {entry:?}");
                assert!(token <= self.head.last_token, "{entry:?}");
            }
            assert!(entry.revision <= self.head.revision, "{entry:?}");
        }
    }
}

fn names(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.run.name()).collect()
}

fn token_of(entry: &Entry) -> Option<FencingToken> {
    match entry.state {
        EntryState::Queued { .. } => None,
        EntryState::Started { token, .. } => Some(token),
        EntryState::Finished { token, .. } => token,
    }
}
