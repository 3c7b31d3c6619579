//! Sessions: each has two etcd leases, one that lasts for the session TTL and one for the lease
//! TTL.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::SessionTtl;
use pac_core::protocol::Death;
use pac_core::state::EntryState;
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId};
use tokio::time::timeout;

use crate::client::cluster::Cluster;
use crate::client::failure::{Cause, Effect, Failure};
use crate::client::{Client, Compare, Keeper, Operation, Transaction};
use crate::keys::Place;
use crate::record::encode_session;
use crate::store::{Store, all_pages, decode_head, malformed, one, one_key};

/// The longest TTL that etcd accepts for a lease.
const LONGEST_TTL: Duration = Duration::from_secs(9_000_000_000);

/// The sessions that this driver has opened.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Arc<Session>>>);

#[derive(Debug)]
struct Session {
    /// As the manager asked for it; etcd may have granted more.
    ttl: SessionTtl,
    /// The id of the etcd lease for the lease TTL. The lease for the session TTL has the session's
    /// id.
    lease: AtomicI64,
    /// The session's own connections, on the runtime that renews it. `None` before the first
    /// renewal, during a renewal, and after one that failed.
    connections: Mutex<Option<Connections>>,
}

#[derive(Debug)]
struct Connections {
    cluster: Cluster,
    /// The streams that renew the lease of the session TTL and that of the lease TTL. `None` until
    /// they are opened, during a renewal, and after one that failed.
    keepers: Option<(Keeper, Keeper)>,
}

impl Sessions {
    fn known(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.known().get(&id).cloned()
    }

    /// Opens a session, with three requests.
    pub(crate) async fn open(&self, store: &Store, ttl: SessionTtl) -> Result<SessionId, Error> {
        let operation = "open session";
        if ttl.lease > LONGEST_TTL || ttl.session > LONGEST_TTL {
            let message = "etcd keeps no TTL longer than 9,000,000,000 s";
            return Err(Error::new(ErrorKind::InvalidInput, operation, message));
        }
        let ((session, session_ttl), (lease, lease_ttl)) = tokio::try_join!(
            grant(store, ttl.session, operation),
            grant(store, ttl.lease, operation)
        )?;
        // etcd makes the id of a lease from the time and the member that grants it: no id comes
        // twice.
        let id = SessionId::new(u64::try_from(session).map_err(|_| malformed())?);
        let put = |key, value, lease| Operation::Put { key, value, lease };
        let transaction = Transaction {
            when: vec![Compare::Absent(store.keys.record(id))],
            then: vec![
                put(
                    store.keys.record(id),
                    encode_session(session_ttl, lease_ttl)?,
                    0,
                ),
                put(store.keys.alive(id), Vec::new(), session),
                put(store.keys.lease(id), Vec::new(), lease),
            ],
            otherwise: Vec::new(),
        };
        let answer = store.cluster.transact(&transaction, Effect::Write).await;
        // If the answer was lost, the session may exist all the same. Nothing renews it, so it is
        // soon dead, and the failure counts as that of a read.
        let answer = answer.map_err(|failure| failure.error(operation, Effect::Read))?;
        if !answer.succeeded {
            let message = "etcd granted the lease of another session; its data was restored from \
                           an older copy, or a lease was made by hand: try again";
            return Err(Error::new(ErrorKind::Unavailable, operation, message));
        }
        tracing::debug!(session = %id, session_ttl, lease_ttl, "opened, with TTLs in seconds");
        let session = Session {
            ttl,
            lease: AtomicI64::new(lease),
            connections: Mutex::default(),
        };
        self.known().insert(id, Arc::new(session));
        Ok(id)
    }

    /// Renews both leases, with one message each on an open stream. Turns to the next member if one
    /// does not answer, well before the session TTL is over.
    pub(crate) async fn keep_alive(&self, store: &Store, id: SessionId) -> Result<(), Error> {
        let operation = "keep alive";
        let session = self
            .get(id)
            .ok_or_else(|| Error::session_lost(operation, id))?;
        let mut connections = session.take_connections(store);
        // All attempts together take less than a third of the session TTL.
        let attempts = u32::try_from(connections.cluster.size().clamp(1, 3)).unwrap_or(1);
        let patience = session.ttl.session / (3 * attempts + 1);
        let mut last = Failure::unanswered();
        for _ in 0..attempts {
            let member = connections.cluster.current();
            let renewal = renew(&mut connections, id, session.lease.load(Ordering::Acquire));
            last = match timeout(patience, renewal).await {
                Ok(Ok(lease_lives)) => {
                    session.put_back(connections);
                    if !lease_lives {
                        restore(store, id, &session).await?;
                    }
                    return Ok(());
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::unanswered(),
            };
            match last.cause {
                Cause::NoLease => {
                    self.forget(store, id);
                    return Err(Error::session_lost(operation, id));
                }
                Cause::Token => {
                    let _ = timeout(patience, connections.cluster.authenticate(member)).await;
                }
                _ => connections.cluster.turn_away_from(member),
            }
        }
        // The connections are dropped here: one that does not answer may be dead, so the next
        // renewal opens new ones.
        Err(last.error(operation, Effect::Write))
    }

    /// Ends a session by revoking its session lease. If it has no runs left, also deletes its keys
    /// and revokes its other lease.
    pub(crate) async fn close(&self, store: &Store, id: SessionId) -> Result<(), Error> {
        let operation = "close session";
        let session = self.get(id);
        self.forget(store, id);
        let lease = i64::try_from(id.get()).unwrap_or(0);
        revoke(store, lease, operation).await?;
        if !store.has_runs(id).await? {
            store.forget_session(id).await?;
            if let Some(session) = session {
                revoke(store, session.lease.load(Ordering::Acquire), operation).await?;
            }
        }
        Ok(())
    }

    fn forget(&self, store: &Store, id: SessionId) {
        self.known().remove(&id);
        store.held.forget(id);
    }
}

impl Session {
    fn take_connections(&self, store: &Store) -> Connections {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.take().unwrap_or_else(|| Connections {
            cluster: store.cluster.apart(),
            keepers: None,
        })
    }

    fn put_back(&self, connections: Connections) {
        *self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(connections);
    }
}

/// Renews both leases. False when the lease of the lease TTL is gone; `NoLease` when that of the
/// session TTL is.
async fn renew(connections: &mut Connections, id: SessionId, lease: i64) -> Result<bool, Failure> {
    let keepers = match connections.keepers.take() {
        Some((mut first, mut second)) => {
            let (renewed, kept) = tokio::join!(first.renew(), second.renew());
            renewed?;
            kept.map(|()| (first, second))
        }
        None => {
            let client = connections
                .cluster
                .member(connections.cluster.current())
                .await?;
            let session = i64::try_from(id.get()).unwrap_or(0);
            let (first, second) = tokio::join!(client.keep(session), client.keep(lease));
            let first = first?;
            second.map(|second| (first, second))
        }
    };
    match keepers {
        Ok(keepers) => {
            connections.keepers = Some(keepers);
            Ok(true)
        }
        Err(failure) if failure.cause == Cause::NoLease => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Grants a new lease for the lease TTL, unless the session is dead: the old one was revoked from
/// outside. Without it, the durable runs of the session would lose their slots as soon as it dies.
async fn restore(store: &Store, id: SessionId, session: &Session) -> Result<(), Error> {
    let operation = "keep alive";
    tracing::warn!(session = %id, "the lease of its lease TTL was revoked; making another one");
    let (lease, _) = grant(store, session.ttl.lease, operation).await?;
    let key = store.keys.lease(id);
    let transaction = Transaction {
        when: vec![Compare::Exists(store.keys.alive(id))],
        then: vec![Operation::Put {
            key,
            value: Vec::new(),
            lease,
        }],
        otherwise: Vec::new(),
    };
    let answer = store.cluster.transact(&transaction, Effect::Write).await;
    let answer = answer.map_err(|failure| failure.error(operation, Effect::Write))?;
    if answer.succeeded {
        session.lease.store(lease, Ordering::Release);
        Ok(())
    } else {
        Err(Error::session_lost(operation, id))
    }
}

/// Grants a lease and returns its id and its TTL in seconds. If the answer is lost the lease
/// expires by itself, so the request counts as a read.
async fn grant(store: &Store, ttl: Duration, operation: &'static str) -> Result<(i64, i64), Error> {
    let seconds = seconds(ttl);
    let grant = move |client: Client| async move { client.grant(seconds).await };
    let granted = store.cluster.call(Effect::Read, grant).await;
    granted.map_err(|failure| failure.error(operation, Effect::Read))
}

async fn revoke(store: &Store, lease: i64, operation: &'static str) -> Result<(), Error> {
    let revoke = move |client: Client| async move { client.revoke(lease).await };
    match store.cluster.call(Effect::Write, revoke).await {
        Err(failure) if failure.cause != Cause::NoLease => {
            Err(failure.error(operation, Effect::Write))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Store {
    /// The dead sessions that may still have runs. Forgets those without runs whose lease TTL has
    /// passed. One request, and a few more for each session whose lease TTL has passed.
    pub(crate) async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        let mut sessions: BTreeMap<SessionId, (bool, bool, bool)> = BTreeMap::new();
        for place in self.keys_under(&self.keys.sessions(), "sweep").await? {
            match place {
                Place::Record(id) => sessions.entry(id).or_default().0 = true,
                Place::Alive(id) => sessions.entry(id).or_default().1 = true,
                Place::Lease(id) => sessions.entry(id).or_default().2 = true,
                Place::Head(_) | Place::Entry(..) | Place::Held(..) | Place::Floor => {}
            }
        }
        let mut dead = Vec::new();
        for (id, (record, alive, lease)) in sessions {
            if !record || alive {
                continue;
            }
            if lease {
                dead.push((id, Death::Session));
            } else if self.has_runs(id).await? {
                dead.push((id, Death::Lease));
            } else {
                self.forget_session(id).await?;
            }
        }
        Ok(dead)
    }

    async fn forget_session(&self, id: SessionId) -> Result<(), Error> {
        let transaction = Transaction {
            when: vec![Compare::Absent(self.keys.alive(id))],
            then: vec![
                Operation::Delete(self.keys.record(id)),
                Operation::DeletePrefix(self.keys.held_by(id)),
            ],
            otherwise: Vec::new(),
        };
        let forgotten = self.cluster.commit(transaction, "sweep", Effect::Write);
        forgotten.await.map(drop)
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
            Place::Held(_, repository) => Some(repository),
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
    async fn has_runs(&self, session: SessionId) -> Result<bool, Error> {
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

/// Whole seconds, rounded up: never less than was asked for.
fn seconds(ttl: Duration) -> i64 {
    let up = u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(ttl.as_secs().saturating_add(up)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_never_cut_short() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(15)), 15);
        assert_eq!(seconds(Duration::from_millis(15_001)), 16);
    }
}
