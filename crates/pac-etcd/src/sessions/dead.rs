//! Dead sessions: which there are, what they left, and how they are forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use pac_core::effect::Effect;
use pac_core::protocol::Death;
use pac_core::state::EntryState;
use pac_core::{Error, RepositoryKey, SessionId};
use tokio::time::timeout;

use super::revoke;
use crate::client::{Compare, Operation, Range, Transaction};
use crate::keys::{Place, end_of};
use crate::store::{Store, all_pages, decode_head, malformed, one, one_key};

/// Most leases that one look at the sessions ends. Each takes a request; those of further sessions
/// are ended by later looks, and by etcd when their time is over.
const MOST_REVOKED: usize = 16;

/// How long one look may spend on that.
const REVOKING_FOR: Duration = Duration::from_secs(1);
/// One look of so many reads all that one dead session may still have, which are whole repositories,
const LOOKS_PER_READ: u32 = 8;
/// and takes so long at most for each of its two steps.
const READING_FOR: Duration = Duration::from_millis(500);

/// The keys of one session.
#[derive(Debug, Default)]
struct Found {
    record: bool,
    alive: bool,
    /// The etcd lease for the lease TTL, if that has not passed.
    lease: Option<i64>,
}

impl Store {
    /// The dead sessions that may still have runs. Forgets those that have none. One request, and
    /// if there are dead sessions a few more: one for some 60 of them, and one more to forget as
    /// many.
    ///
    /// Tells `died` of every session that is dead, those without runs too.
    pub(crate) async fn dead_sessions(
        &self,
        mut died: impl FnMut(SessionId),
    ) -> Result<Vec<(SessionId, Death)>, Error> {
        let mut sessions: BTreeMap<SessionId, Found> = BTreeMap::new();
        for (place, on_lease) in self.keys_under(&self.keys.sessions(), "sweep").await? {
            match place {
                Place::Record(id) => sessions.entry(id).or_default().record = true,
                Place::Alive(id) => sessions.entry(id).or_default().alive = true,
                Place::Lease(id) => sessions.entry(id).or_default().lease = Some(on_lease),
                Place::Head(_) | Place::Entry(..) | Place::Held(..) | Place::Floor => {}
            }
        }
        // A session without a record has been forgotten, and only its lease is left.
        let mut over: Vec<i64> = Vec::new();
        let mut dead = Vec::new();
        for (id, found) in sessions {
            match found {
                Found { alive: true, .. } => {}
                Found { record: true, .. } => {
                    died(id);
                    dead.push((id, found.lease));
                }
                Found { lease, .. } => over.extend(lease),
            }
        }
        let mut listed = Vec::new();
        let mut forgotten = Vec::new();
        for part in dead.chunks((self.max_operations / 2).max(1)) {
            let holds = self.hold_something(part).await?;
            for ((id, lease), holds) in part.iter().copied().zip(holds) {
                match lease {
                    Some(_) if holds => listed.push((id, Death::Session)),
                    None if holds && self.has_runs(id).await? => listed.push((id, Death::Lease)),
                    _ => forgotten.push((id, lease)),
                }
            }
        }
        // The sweep goes on where nothing can be written, as in a full store.
        if let Err(error) = self.forget_sessions(&forgotten).await {
            tracing::debug!(%error, "dead sessions are not forgotten yet");
            return Ok(listed);
        }
        over.extend(forgotten.iter().filter_map(|(_, lease)| *lease));
        let revoking = async {
            for lease in over.into_iter().filter(|id| *id != 0).take(MOST_REVOKED) {
                if let Err(error) = revoke(self, lease, "sweep").await {
                    tracing::debug!(%error, "the lease of a dead session is not revoked yet");
                    break;
                }
            }
        };
        // Later looks revoke what is left.
        let _ = timeout(REVOKING_FOR, revoking).await;
        self.look_into_one(&mut listed).await;
        Ok(listed)
    }

    /// Now and then, reads what one of the listed sessions may still have, and forgets the session
    /// if that is nothing: its runs have been seen to, in repositories where others go on.
    async fn look_into_one(&self, listed: &mut Vec<(SessionId, Death)>) {
        let due = fastrand::u32(..LOOKS_PER_READ) == 0;
        let Some(at) = due.then(|| fastrand::usize(..listed.len().max(1))) else {
            return;
        };
        let Some((id, _)) = listed.get(at).copied() else {
            return;
        };
        match timeout(READING_FOR, self.has_runs(id)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true) | Err(_)) | Err(_) => return,
        }
        match timeout(READING_FOR, self.forget_session(id)).await {
            Ok(Ok(())) => drop(listed.remove(at)),
            Ok(Err(error)) => tracing::debug!(%error, "a dead session is not forgotten yet"),
            Err(_) => {}
        }
    }

    /// For each of these sessions, whether it has `held` keys. A dead session gets no new ones.
    async fn hold_something(
        &self,
        sessions: &[(SessionId, Option<i64>)],
    ) -> Result<Vec<bool>, Error> {
        let held = sessions.iter().map(|(id, _)| {
            let held = self.keys.held_by(*id);
            Operation::Get(Range {
                end: end_of(&held),
                key: held,
                limit: 1,
                keys_only: true,
                ..Range::default()
            })
        });
        let transaction = Transaction {
            then: held.collect(),
            ..Transaction::default()
        };
        let answer = self.cluster.commit(transaction, "sweep", Effect::Read);
        let pages = all_pages(answer.await?.steps);
        if pages.len() != sessions.len() {
            return Err(malformed());
        }
        Ok(pages.iter().map(|page| !page.entries.is_empty()).collect())
    }

    /// Deletes what is stored of dead sessions without runs, but for their leases.
    async fn forget_sessions(&self, sessions: &[(SessionId, Option<i64>)]) -> Result<(), Error> {
        for part in sessions.chunks((self.max_operations / 2).max(1)) {
            let each = part.iter().map(|(id, _)| {
                let forget = self.forgetting(*id);
                Operation::Transaction(forget)
            });
            let transaction = Transaction {
                then: each.collect(),
                ..Transaction::default()
            };
            let forgotten = self.cluster.commit(transaction, "sweep", Effect::Write);
            forgotten.await?;
        }
        Ok(())
    }

    pub(super) async fn forget_session(&self, id: SessionId) -> Result<(), Error> {
        let forgotten = self
            .cluster
            .commit(self.forgetting(id), "sweep", Effect::Write);
        forgotten.await.map(drop)
    }

    fn forgetting(&self, id: SessionId) -> Transaction {
        Transaction {
            when: vec![Compare::Absent(self.keys.alive(id))],
            then: vec![
                Operation::Delete(self.keys.record(id)),
                Operation::DeletePrefix(self.keys.held_by(id)),
            ],
            otherwise: Vec::new(),
        }
    }

    /// The repositories for which the session has a `held` key and in which any session has queued
    /// or started runs. Whose runs they are, the caller sees when it reads those repositories; to
    /// read all of their entries here would take too long. One request for the keys, and one for
    /// every 50 repositories.
    pub(crate) async fn repositories_of(
        &self,
        session: SessionId,
    ) -> Result<Vec<RepositoryKey>, Error> {
        let places = self
            .keys_under(&self.keys.held_by(session), "sweep")
            .await?;
        let held = places.into_iter().filter_map(|place| match place {
            (Place::Held(_, repository), _) => Some(repository),
            _ => None,
        });
        let held: Vec<_> = held.collect();
        let mut with_runs = Vec::new();
        for chunk in held.chunks(50.min(self.max_operations - 1)) {
            let (alive, busy) = self.busy(session, chunk).await?;
            for (repository, busy) in chunk.iter().zip(busy) {
                // A dead session gets no new runs, so its key for a repository without runs can go.
                if busy {
                    with_runs.push(repository.clone());
                } else if !alive {
                    self.delete_held(session, repository).await?;
                }
            }
        }
        Ok(with_runs)
    }

    /// Whether the session lives, and for each of the repositories whether it has queued or started
    /// runs of any session.
    async fn busy(
        &self,
        session: SessionId,
        repositories: &[RepositoryKey],
    ) -> Result<(bool, Vec<bool>), Error> {
        let alive = Operation::Get(one_key(self.keys.alive(session)));
        let heads = repositories
            .iter()
            .map(|key| Operation::Get(one(self.keys.head(key))));
        let transaction = Transaction {
            then: std::iter::once(alive).chain(heads).collect(),
            ..Transaction::default()
        };
        let answer = self
            .cluster
            .commit(transaction, "sweep", Effect::Read)
            .await?;
        let mut pages = all_pages(answer.steps).into_iter();
        let alive = pages.next().ok_or_else(malformed)?;
        let busy = pages.map(|page| match page.entries.first().map(decode_head) {
            Some(Ok(stored)) => stored.head.queued > 0 || stored.head.started > 0,
            // It counts as having runs: the caller then reads it and gets the error.
            Some(Err(_)) => true,
            None => false,
        });
        Ok((!alive.entries.is_empty(), busy.collect()))
    }

    /// Whether a dead session has queued or started runs. Reads the repositories that may have
    /// some, up to the first that does, and deletes the session's `held` keys for those that do
    /// not, so that they are not read again.
    pub(super) async fn has_runs(&self, session: SessionId) -> Result<bool, Error> {
        for repository in self.repositories_of(session).await? {
            if self.has_runs_in(session, &repository).await {
                return Ok(true);
            }
            self.delete_held(session, &repository).await?;
        }
        Ok(false)
    }

    async fn has_runs_in(&self, session: SessionId, repository: &RepositoryKey) -> bool {
        let Ok(entries) = self.all_entries(repository, "sweep").await else {
            return true;
        };
        entries.iter().any(|entry| match entry.state {
            EntryState::Queued { owner } => owner == Some(session),
            EntryState::Started {
                session: holder, ..
            } => holder == session,
            EntryState::Finished { .. } => false,
        })
    }

    /// Deletes the key that says that a dead session may have runs in a repository.
    async fn delete_held(
        &self,
        session: SessionId,
        repository: &RepositoryKey,
    ) -> Result<(), Error> {
        let transaction = Transaction {
            when: vec![Compare::Absent(self.keys.alive(session))],
            then: vec![Operation::Delete(self.keys.held(session, repository))],
            otherwise: Vec::new(),
        };
        let deleted = self.cluster.commit(transaction, "sweep", Effect::Write);
        deleted.await.map(drop)
    }
}
