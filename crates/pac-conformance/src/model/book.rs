//! The repository at one revision, in a form that states of the model can share and compare.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;
use pac_core::protocol::Changes;
use pac_core::state::{Absorb, Entry, EntryState, Head, RepositoryState, Snapshot};
use pac_core::{PipelineRunKey, Revision, SessionId, Stamp, Timestamp, Version};

/// A version of the repository. Cheap to clone; equal when all that the store holds is.
#[derive(Clone)]
pub(super) struct Book(Arc<Content>);

struct Content {
    state: RepositoryState,
    /// In the order of their names.
    entries: Vec<Arc<Entry>>,
    /// The revision at which there was nothing yet: what is known from before says nothing.
    born: Revision,
    digest: u64,
}

impl Book {
    pub(super) fn absent() -> Self {
        Self::born(0)
    }

    /// For reports.
    pub(super) fn copy_of(state: &RepositoryState) -> Self {
        Self::of(state.clone(), Revision::default())
    }

    fn born(floor: u64) -> Self {
        Self::of(RepositoryState::absent(floor), Revision::new(floor))
    }

    fn of(state: RepositoryState, born: Revision) -> Self {
        let mut entries: Vec<_> = state.entries().cloned().collect();
        entries.sort_unstable_by(|a, b| a.run.cmp(&b.run));
        let digest = FixedState::default().hash_one((state.exists(), state.head(), &entries, born));
        Self(Arc::new(Content {
            state,
            entries,
            born,
            digest,
        }))
    }

    pub(super) fn state(&self) -> &RepositoryState {
        &self.0.state
    }

    pub(super) fn head(&self) -> &Head {
        self.0.state.head()
    }

    pub(super) fn revision(&self) -> Revision {
        self.head().revision
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.0.entries
    }

    pub(super) fn entry(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        self.0.state.entry(run)
    }

    /// Whether anything waits or runs in the name of a session.
    pub(super) fn names(&self, session: SessionId) -> bool {
        let mut entries = self.entries().iter();
        entries.any(|entry| match entry.state {
            EntryState::Queued { owner } => owner == Some(session),
            EntryState::Started {
                session: holder, ..
            } => holder == session,
            EntryState::Finished { .. } => false,
        })
    }

    /// The answer to a reader that knows the repository as it was at `since`.
    pub(super) fn snapshot(&self, since: Option<Version>) -> Snapshot {
        let since = since.filter(|since| since.revision >= self.0.born && self.0.state.exists());
        let mut entries = self.entries().to_vec();
        entries.retain(|entry| since.is_none_or(|since| entry.revision > since.revision));
        Snapshot {
            since,
            exists: self.0.state.exists(),
            head: self.head().clone(),
            entries,
        }
    }

    /// Writes what a commit at this revision is to write.
    pub(super) fn write(&self, changes: &Changes) -> Result<Self, String> {
        if changes.remove {
            return Ok(Self::born(self.head().floor_after_removal()));
        }
        let mut state = self.0.state.clone();
        let written = stamped(changes, self.revision(), Some(self.head().version()));
        match state.absorb(&written, |_, _| ())? {
            Absorb::Applied => Ok(Self::of(state, self.0.born)),
            other => Err(format!("{other:?}")),
        }
    }

    /// Writes the rows of a commit over whatever is there, as a store that compares nothing.
    pub(super) fn overwrite(&self, changes: &Changes) -> Result<Self, String> {
        let mut snapshot = stamped(changes, self.revision(), None);
        for entry in self.entries() {
            if snapshot.entries.iter().all(|new| new.run != entry.run) {
                snapshot.entries.push(Arc::clone(entry));
            }
        }
        // Readers would call the repository corrupt if the counts did not add up, and no more
        // could be seen of what the lost condition leads to.
        let count = |is: fn(&Entry) -> bool| {
            let entries = snapshot.entries.iter();
            u32::try_from(entries.filter(|entry| is(entry)).count()).unwrap_or(u32::MAX)
        };
        let (queued, started) = (count(Entry::is_queued), count(Entry::is_started));
        let known = self.head();
        snapshot.head = Head {
            queued,
            started,
            last_ticket: snapshot.head.last_ticket.max(known.last_ticket),
            last_token: snapshot.head.last_token.max(known.last_token),
            ..snapshot.head
        };
        let state = RepositoryState::from_snapshot(&snapshot)?;
        Ok(Self::of(state, self.0.born))
    }
}

/// What a commit writes to a repository that is at revision `at`.
pub(super) fn stamped(changes: &Changes, at: Revision, since: Option<Version>) -> Snapshot {
    let version = Version::new(at.next(), Stamp::default());
    let written = changes
        .clone()
        .written(version, Timestamp::from_unix_millis(0));
    Snapshot { since, ..written }
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.digest == other.0.digest
                && self.head() == other.head()
                && self.entries() == other.entries())
    }
}

impl Eq for Book {}

impl Hash for Book {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.digest);
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head();
        write!(f, "r{} limit {}:", head.revision, head.limit)?;
        for entry in self.entries() {
            write!(f, " {}#{}", entry.run.name(), entry.ticket)?;
            match entry.state {
                EntryState::Queued { owner: None } => f.write_str(" queued")?,
                EntryState::Queued { owner: Some(owner) } => write!(f, " queued/{owner}")?,
                EntryState::Started {
                    token,
                    session,
                    orphaned,
                } => {
                    let orphaned = if orphaned { " orphaned" } else { "" };
                    write!(f, " started/{session} t{token}{orphaned}")?;
                }
                EntryState::Finished { outcome, .. } => write!(f, " {outcome}")?,
            }
            f.write_str(";")?;
        }
        Ok(())
    }
}
