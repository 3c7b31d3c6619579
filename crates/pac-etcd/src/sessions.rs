//! Sessions: each has two etcd leases, one that lasts for the session TTL and one for the lease
//! TTL.

mod dead;
mod info;
mod witness;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::SessionTtl;
use pac_core::effect::Effect;
use pac_core::{Error, ErrorKind, SessionId, SessionIdentity};
use tokio::time::{Instant, timeout};

use crate::client::cluster::Cluster;
use crate::client::failure::{Cause, Failure};
use crate::client::{Client, Compare, Keeper, Operation, Transaction};
use crate::record::encode_session;
use crate::store::{LONGEST_TTL, Store, malformed};

use witness::TTLS;
pub(crate) use witness::Witness;

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
    /// When the last renewal that was answered was sent.
    renewed: Mutex<Instant>,
    /// When the last sign that the store took was sent.
    signed: Mutex<Instant>,
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
    pub(crate) async fn open(
        &self,
        store: &Store,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        let operation = "open session";
        let sent = Instant::now();
        ttl.check(LONGEST_TTL)?;
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
                    encode_session(
                        (session_ttl, lease_ttl),
                        identity,
                        Some(crate::clock::now(&[])),
                    )?,
                    0,
                ),
                put(store.keys.alive(id), Vec::new(), session),
                put(store.keys.lease(id), Vec::new(), lease),
                put(store.keys.sign(id), Vec::new(), 0),
            ],
            otherwise: Vec::new(),
        };
        let answer = store.cluster.transact(&transaction, Effect::Write).await;
        // If the answer was lost, the session may exist all the same. Nothing renews it, so it is
        // soon dead, and the failure counts as that of a read.
        let opened = match answer {
            Ok(answer) if answer.succeeded => Ok(()),
            Ok(_) => {
                let message = "etcd granted the lease of another session; its data was restored \
                               from an older copy, or a lease was made by hand: try again";
                Err(Error::new(ErrorKind::Unavailable, operation, message))
            }
            Err(failure) => Err(failure.error(operation, Effect::Read)),
        };
        if let Err(error) = opened {
            // The other lease ends with the session TTL; this one would last for hours.
            if let Err(error) = revoke(store, lease, operation).await {
                tracing::debug!(%error, "a lease is left over until its time is over");
            }
            return Err(error);
        }
        tracing::debug!(session = %id, session_ttl, lease_ttl, "opened, with TTLs in seconds");
        let session = Session {
            ttl,
            lease: AtomicI64::new(lease),
            renewed: Mutex::new(sent),
            signed: Mutex::new(sent),
            connections: Mutex::default(),
        };
        store.witness.signed(sent, ttl.session);
        self.known().insert(id, Arc::new(session));
        Ok(id)
    }

    /// Renews both leases, with one message each on an open stream; about once per session TTL also
    /// writes the sign of the session, with one request. Turns to the next member if one does not
    /// answer, well before the session TTL is over.
    pub(crate) async fn keep_alive(&self, store: &Store, id: SessionId) -> Result<(), Error> {
        let operation = "keep alive";
        let session = self
            .get(id)
            .ok_or_else(|| Error::session_lost(operation, id))?;
        let mut connections = session.take_connections(store);
        let attempts = u32::try_from(connections.cluster.size().clamp(1, 3)).unwrap_or(1);
        let patience = session.patience(attempts);
        let mut last = Failure::unanswered();
        for _ in 0..attempts {
            let member = connections.cluster.current();
            let sent = Instant::now();
            let (cluster, keepers) = (&connections.cluster, &mut connections.keepers);
            let renewal = renew(cluster, keepers, id, session.lease.load(Ordering::Acquire));
            let renewal = timeout(patience, renewal);
            let sign = session.sign(store, cluster, id);
            // A member that does not answer gets no more time for the sign.
            let renewed = |renewal: &_| matches!(renewal, Ok(Ok(_)));
            let (renewal, sign) = and_soon(renewal, sign, renewed, session.ttl.session / 30).await;
            if sign == Some(Sign::Dead) || (sign == Some(Sign::Refused) && session.is_unsigned()) {
                self.forget(store, id);
                return Err(Error::session_lost(operation, id));
            }
            last = match renewal {
                Ok(Ok(lease_lives)) => {
                    connections.cluster.answered();
                    session.renewed(sent);
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
                _ => {
                    connections.cluster.forget(member);
                    connections.cluster.turn_away_from(member);
                }
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

    pub(crate) fn forget(&self, store: &Store, id: SessionId) {
        self.known().remove(&id);
        store.held.forget(id);
    }
}

impl Session {
    /// How long one of so many attempts to renew may take: all of them less than a third of the
    /// session TTL, and less than half of what is left of the session.
    fn patience(&self, attempts: u32) -> Duration {
        let since = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        patience(self.ttl.session, since.elapsed(), attempts)
    }

    fn renewed(&self, sent: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }

    /// Writes the sign of the session, if that is due: without it, others would take the session for
    /// one that somebody else keeps alive. That it could not be written fails no renewal, and it is
    /// tried again with the next one.
    async fn sign(&self, store: &Store, cluster: &Cluster, id: SessionId) -> Sign {
        let sent = Instant::now();
        let last = *self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.saturating_duration_since(last) < self.ttl.session.mul_f64(SIGN_AFTER) {
            return Sign::Fresh;
        }
        let transaction = Transaction {
            when: vec![Compare::Exists(store.keys.alive(id))],
            then: vec![Operation::Put {
                key: store.keys.sign(id),
                value: Vec::new(),
                lease: 0,
            }],
            otherwise: Vec::new(),
        };
        match cluster.transact(&transaction, Effect::Write).await {
            Ok(answer) if answer.succeeded => {
                *self.signed.lock().unwrap_or_else(PoisonError::into_inner) = sent;
                store.witness.signed(sent, self.ttl.session);
                Sign::Fresh
            }
            Ok(_) => Sign::Dead,
            Err(failure) => {
                tracing::debug!(%failure, session = %id, "its sign is not written yet");
                match failure.cause {
                    Cause::Denied | Cause::Credentials | Cause::Token => Sign::Refused,
                    _ => Sign::Missing,
                }
            }
        }
    }

    /// Whether other processes will soon end the session, because its sign is an old one. A process
    /// whose user may not write any more would hear of that only if it may still read.
    fn is_unsigned(&self) -> bool {
        let last = *self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() > self.ttl.session.saturating_mul(TTLS - 1)
    }

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

/// What an attempt to write the sign of a session came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// It is there, and young enough.
    Fresh,
    /// It could not be written.
    Missing,
    /// The user may not write it.
    Refused,
    /// The session is dead.
    Dead,
}

/// A sign is due so much of a session TTL after the last one: with the third renewal.
const SIGN_AFTER: f64 = 0.8;

/// Waits for `first`, and then, where that came to what is `worth` it, so much longer for `second`,
/// which is begun at the same time.
async fn and_soon<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
    worth: impl FnOnce(&A) -> bool,
    longer: Duration,
) -> (A, Option<B>) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut done = None;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut first => break answer,
            other = &mut second, if done.is_none() => done = Some(other),
        }
    };
    if done.is_none() && worth(&answer) {
        done = timeout(longer, second).await.ok();
    }
    (answer, done)
}

/// Renews both leases. False when the lease of the lease TTL is gone; `NoLease` when that of the
/// session TTL is.
async fn renew(
    cluster: &Cluster,
    keepers: &mut Option<(Keeper, Keeper)>,
    id: SessionId,
    lease: i64,
) -> Result<bool, Failure> {
    let renewed = match keepers.take() {
        Some((mut first, mut second)) => {
            let (renewed, kept) = tokio::join!(first.renew(), second.renew());
            renewed?;
            kept.map(|()| (first, second))
        }
        None => {
            let client = cluster.member(cluster.current()).await?;
            let session = i64::try_from(id.get()).unwrap_or(0);
            let (first, second) = tokio::join!(client.keep(session), client.keep(lease));
            let first = first?;
            second.map(|second| (first, second))
        }
    };
    match renewed {
        Ok(renewed) => {
            *keepers = Some(renewed);
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

/// Even when nothing is left of the session, by the clock of this process, the store may have kept
/// it: an attempt then has the least time.
fn patience(ttl: Duration, since: Duration, attempts: u32) -> Duration {
    let left = ttl.saturating_sub(since);
    let most = ttl / (3 * attempts + 1);
    let least = ttl / 30;
    (left / (2 * attempts + 1)).clamp(least, most)
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
    fn a_renewal_is_given_up_before_the_session_is_over() {
        let ttl = Duration::from_secs(15);
        for (since, attempts, expected) in [
            (3, 1, 3_750),
            (3, 3, 1_500),
            (9, 1, 2_000),
            (8, 3, 1_000),
            (15, 3, 500),
            (99, 1, 500),
        ] {
            let patience = patience(ttl, Duration::from_secs(since), attempts);
            assert_eq!(patience, Duration::from_millis(expected), "{since}");
        }
    }

    #[test]
    fn a_ttl_is_never_cut_short() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(15)), 15);
        assert_eq!(seconds(Duration::from_millis(15_001)), 16);
    }
}
