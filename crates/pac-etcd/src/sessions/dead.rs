//! Dead sessions: which there are, what they left, and how they are forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use pac_core::effect::Effect;
use pac_core::protocol::Death;
use pac_core::state::EntryState;
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId};
use tokio::time::{Instant, timeout};

use super::revoke;
use super::witness::{Suspect, TTLS};
use crate::client::failure::Failure;
use crate::client::{Client, Compare, Operation, Range, Transaction};
use crate::keys::{Place, end_of};
use crate::store::{Store, all_pages, decode_head, malformed, one, one_key};

/// Most leases that one look at the sessions ends. Each takes a request; those of further sessions
/// are ended by later looks, and by etcd when their time is over.
const MOST_REVOKED: usize = 16;

/// How long one look may spend on that.
const REVOKING_FOR: Duration = Duration::from_secs(1);
/// How long one look may spend on sessions that somebody else may keep alive.
const ENDING_FOR: Duration = Duration::from_millis(500);
/// One look of so many reads all that one dead session may still have, which are whole repositories,
const LOOKS_PER_READ: u32 = 8;
/// and takes so long at most for each of its two steps.
const READING_FOR: Duration = Duration::from_millis(500);

/// How many heads are read with one request.
const HEADS_AT_ONCE: usize = 50;

/// The keys of one session.
#[derive(Debug, Default)]
struct Found {
    record: bool,
    /// The etcd lease for the session TTL, if that has not passed.
    alive: Option<i64>,
    /// The etcd lease for the lease TTL, if that has not passed, and the revision of its key.
    lease: Option<(i64, i64)>,
    /// The revision of the sign of its process; 0: there is none.
    sign: i64,
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
        let sessions = self
            .sessions()
            .await
            .map_err(|failure| not_swept(&failure))?;
        // A session without a record has been forgotten, and only its lease is left.
        let mut over: Vec<i64> = Vec::new();
        let mut dead = Vec::new();
        for (&id, found) in &sessions {
            let lease = found.lease.map(|(lease, _)| lease);
            match found {
                Found { alive: Some(_), .. } => {}
                Found { record: true, .. } => {
                    died(id);
                    dead.push((id, lease));
                }
                Found { .. } => over.extend(lease),
            }
        }
        let mut listed = Vec::new();
        let mut forgotten = Vec::new();
        for part in dead.chunks((self.max_operations / 2).max(1)) {
            let holds = self.hold_something(part).await?;
            for ((id, lease), holds) in part.iter().copied().zip(holds) {
                match lease {
                    Some(_) if holds => listed.push((id, Death::Session)),
                    None if holds && self.may_have_runs(id).await? => {
                        listed.push((id, Death::Lease));
                    }
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
        // What this ends is found dead by the next look.
        let _ = timeout(ENDING_FOR, self.end_unsigned(&sessions)).await;
        self.look_into_one(&mut listed).await;
        Ok(listed)
    }

    /// The keys of all sessions, by session.
    async fn sessions(&self) -> Result<BTreeMap<SessionId, Found>, Failure> {
        let mut sessions: BTreeMap<SessionId, Found> = BTreeMap::new();
        for key in self.keys_in(self.keys.sessions_and_signs()).await? {
            match key.place {
                Place::Record(id) => sessions.entry(id).or_default().record = true,
                Place::Alive(id) => sessions.entry(id).or_default().alive = Some(key.lease),
                Place::Lease(id) => {
                    sessions.entry(id).or_default().lease = Some((key.lease, key.modified));
                }
                Place::Sign(id) => sessions.entry(id).or_default().sign = key.modified,
                Place::Head(_)
                | Place::Entry(..)
                | Place::Held(..)
                | Place::Removed(_)
                | Place::Floor => {}
            }
        }
        Ok(sessions)
    }

    /// Ends sessions whose lease somebody else than their process renews, and the lease TTL of dead
    /// ones likewise. One request for each that is suspected for the first time, and one for each
    /// that is ended.
    async fn end_unsigned(&self, sessions: &BTreeMap<SessionId, Found>) {
        // A session of a process that writes no signs is not suspected. Others have one from the
        // beginning, and nobody without the permission can take it away.
        let signed = |found: &Found| found.alive.is_some() && found.sign != 0;
        let alive = sessions.iter().filter(|(_, found)| signed(found));
        let alive: Vec<_> = alive.map(|(id, found)| (*id, found.sign)).collect();
        let dead = sessions.iter().filter(|(_, found)| found.alive.is_none());
        let dead: Vec<_> = dead
            .filter_map(|(id, found)| Some((*id, found.lease?.1)))
            .collect();
        let suspects = self.witness.look(Instant::now(), &alive, &dead);
        for suspect in suspects.alive {
            let lease = sessions.get(&suspect.id).and_then(|found| found.alive);
            self.end_suspect(suspect, lease, |granted| granted.saturating_mul(TTLS), true)
                .await;
        }
        for suspect in suspects.dead {
            let lease = sessions
                .get(&suspect.id)
                .and_then(|found| Some(found.lease?.0));
            let over = |granted: Duration| granted.saturating_add(suspects.grace);
            self.end_suspect(suspect, lease, over, false).await;
        }
    }

    /// Deletes a key that lives by its lease alone, if it has lived for longer than that `allows`
    /// and is still as it was seen. A client that goes on to renew the lease keeps nothing alive by it.
    async fn end_suspect(
        &self,
        suspect: Suspect,
        lease: Option<i64>,
        allows: impl Fn(Duration) -> Duration,
        session_lives: bool,
    ) {
        let Some(lease) = lease else {
            return;
        };
        let granted = match suspect.granted {
            Some(granted) => granted,
            None => match self.granted_ttl(lease).await {
                Ok(granted) => {
                    self.witness.granted(suspect, session_lives, granted);
                    granted
                }
                Err(failure) => {
                    let session = suspect.id;
                    tracing::debug!(%failure, %session, "its lease cannot be looked at");
                    return;
                }
            },
        };
        if suspect.unchanged < allows(granted) {
            return;
        }
        let id = suspect.id;
        let (alive, lease) = (self.keys.alive(id), self.keys.lease(id));
        let transaction = if session_lives {
            Transaction {
                when: vec![
                    Compare::ModifiedAt(self.keys.sign(id), suspect.at),
                    Compare::Exists(alive.clone()),
                ],
                then: vec![Operation::Delete(alive)],
                otherwise: Vec::new(),
            }
        } else {
            Transaction {
                when: vec![
                    Compare::ModifiedAt(lease.clone(), suspect.at),
                    Compare::Absent(alive),
                ],
                then: vec![Operation::Delete(lease)],
                otherwise: Vec::new(),
            }
        };
        match self.cluster.transact(&transaction, Effect::Write).await {
            Ok(answer) if answer.succeeded => tracing::warn!(
                session = %id,
                unchanged = ?suspect.unchanged,
                "the etcd lease of a session was renewed, and its process has not written a key for \
                 several session TTLs: the session is ended. Look for a client of etcd that renews \
                 leases of others, and for a controller whose user may not write any more"
            ),
            // It has written one by now.
            Ok(_) => {}
            Err(failure) => {
                tracing::debug!(%failure, session = %id, "a session is not ended yet");
            }
        }
    }

    async fn granted_ttl(&self, lease: i64) -> Result<Duration, Failure> {
        let granted = move |client: Client| async move { client.granted_ttl(lease).await };
        let seconds = self.cluster.call(Effect::Read, granted).await?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// Whether a dead session may have queued or started runs. It may where its repositories cannot
    /// be read: that stops the sweep of no other.
    async fn may_have_runs(&self, session: SessionId) -> Result<bool, Error> {
        match self.has_runs(session).await {
            Err(error) if !error.is_retryable() && error.kind() == ErrorKind::Corrupt => Ok(true),
            answer => answer,
        }
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
                key: held.into_bytes(),
                // Foreign keys there may be long.
                count_only: true,
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
        Ok(pages.iter().map(|page| page.count > 0).collect())
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
                Operation::Delete(self.keys.sign(id)),
                Operation::delete_under(self.keys.held_by(id)),
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
        let held = self.keys.held_by(session);
        let end = end_of(&held);
        let keys = self.keys_in((held, end)).await;
        let held = keys.map_err(|failure| not_swept(&failure))?.into_iter();
        let held = held.filter_map(|key| match key.place {
            Place::Held(_, repository) => Some(repository),
            _ => None,
        });
        let held: Vec<_> = held.collect();
        let mut with_runs = Vec::new();
        let (mut left, mut at_once) = (held.as_slice(), HEADS_AT_ONCE.min(self.max_operations - 1));
        while !left.is_empty() {
            let (chunk, rest) = left.split_at(at_once.clamp(1, left.len()));
            let (alive, busy) = match self.busy(session, chunk).await {
                Ok(answer) => answer,
                // Foreign values take the place of heads.
                Err(failure) if failure.is_too_large() && chunk.len() > 1 => {
                    at_once = chunk.len() / 2;
                    continue;
                }
                // It counts as having runs: the caller then reads it and gets the error.
                Err(failure) if failure.is_too_large() => (true, vec![true]),
                Err(failure) => return Err(not_swept(&failure)),
            };
            left = rest;
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
    ) -> Result<(bool, Vec<bool>), Failure> {
        let alive = Operation::Get(one_key(self.keys.alive(session)));
        let heads = repositories
            .iter()
            .map(|key| Operation::Get(one(self.keys.head(key))));
        let transaction = Transaction {
            then: std::iter::once(alive).chain(heads).collect(),
            ..Transaction::default()
        };
        let answer = self.cluster.transact(&transaction, Effect::Read).await?;
        let mut pages = all_pages(answer.steps).into_iter();
        let alive = pages.next().unwrap_or_default();
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
        let Ok(read) = self.load(repository, None).await else {
            return true;
        };
        read.entries.iter().any(|entry| match entry.state {
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

fn not_swept(failure: &Failure) -> Error {
    failure.error("sweep", Effect::Read)
}
