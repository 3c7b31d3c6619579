//! The store: what `Driver::commit` promises, and who is alive.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;
use pac_core::SessionId;
use pac_core::protocol::{Changes, Command, Death, Outcome};
use pac_core::state::{Entry, EntryState, RunKind};

use super::book::Book;
use super::port::Asker;
use super::target::Target;
use super::variant::Variant;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) book: Book,
    /// Every session that was ever opened.
    pub(super) sessions: Vec<(SessionId, Option<Death>)>,
}

/// A commit as it is sent. What the store needs, and what the monitor wants to know of it.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) session: SessionId,
    pub(super) changes: Changes,
    pub(super) commands: Vec<Sent>,
    /// The sender takes runs without an owner.
    pub(super) takes_ownerless: bool,
    digest: u64,
}

impl Parcel {
    pub(super) fn new(
        session: SessionId,
        changes: Changes,
        commands: Vec<Sent>,
        takes_ownerless: bool,
    ) -> Self {
        let digest = (session, &changes, &commands, takes_ownerless);
        Self {
            digest: FixedState::default().hash_one(digest),
            session,
            changes,
            commands,
            takes_ownerless,
        }
    }
}

impl PartialEq for Parcel {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Parcel {}

impl Hash for Parcel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// A command in a commit, and what it comes to by that.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) asker: Option<Asker>,
    pub(super) command: Command,
    pub(super) outcome: Outcome,
    /// What it ends, if it does not say that itself.
    pub(super) target: Option<Target>,
}

/// What the store says to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Committed(Book),
    Conflict(Book),
    SessionDead(SessionId),
}

impl Store {
    pub(super) fn open(&mut self, session: SessionId) {
        match self.sessions.binary_search_by_key(&session, |(id, _)| *id) {
            // Only a controller that reuses its id opens it twice.
            Ok(at) => self.sessions[at].1 = None,
            Err(at) => self.sessions.insert(at, (session, None)),
        }
    }

    /// How long a session has been dead; `None` while it lives.
    pub(super) fn death(&self, session: SessionId) -> Option<Death> {
        let known = self.sessions.iter().find(|(id, _)| *id == session);
        known.map_or(Some(Death::Lease), |(_, death)| *death)
    }

    pub(super) fn is_alive(&self, session: SessionId) -> bool {
        self.death(session).is_none()
    }

    pub(super) fn lapse(&mut self, session: SessionId, death: Death) {
        for (id, known) in &mut self.sessions {
            if *id == session {
                *known = Some(death);
            }
        }
    }

    /// What a commit comes to: written if the head is at the revision expected, and everybody
    /// named is alive.
    pub(super) fn commit(&self, parcel: &Parcel, variant: Variant) -> Result<Answer, String> {
        let changes = &parcel.changes;
        let expected = changes.expected == self.book.head().version();
        if !expected && variant != Variant::CommitsUnconditionally {
            return Ok(Answer::Conflict(self.book.clone()));
        }
        let alive: &[SessionId] = match variant {
            Variant::GrantsUnchecked => &[],
            _ => &changes.alive,
        };
        let mut needed = alive.iter().chain([&parcel.session]).copied();
        if let Some(dead) = needed.find(|session| !self.is_alive(*session)) {
            return Ok(Answer::SessionDead(dead));
        }
        let book = if expected {
            self.book.write(changes)
        } else {
            self.book.overwrite(changes)
        };
        book.map(Answer::Committed)
    }

    /// Whether the death of a session is not yet recorded in all its entries.
    pub(super) fn leaves_traces(&self, session: SessionId, death: Death) -> bool {
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
        self.book.entries().iter().any(touched)
    }
}
