//! The sessions, and whether they are alive.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use pac_core::driver::SessionTtl;
use pac_core::protocol::Death;
use pac_core::{SessionId, SessionIdentity, SessionInfo, Timestamp};

#[derive(Debug)]
struct Session {
    ttl: SessionTtl,
    identity: SessionIdentity,
    opened_at: Timestamp,
    /// The session is alive before this time, and dead from then on. In Unix milliseconds.
    deadline: AtomicI64,
    /// Its durable runs keep their slots before this time. In Unix milliseconds.
    lease_deadline: AtomicI64,
}

/// The sessions of a store. A session that was closed or not renewed in time stays dead: time
/// does not run back, and nothing sets a passed deadline again.
///
/// Every commit reads it and it seldom changes; so reading writes to no memory that threads share.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    last: AtomicU64,
    known: ArcSwap<Known>,
}

/// The sessions at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(HashMap<SessionId, Arc<Session>, RandomState>);

impl Known {
    pub(crate) fn is_alive(&self, id: SessionId, now: Timestamp) -> bool {
        self.0.get(&id).is_some_and(|session| session.is_alive(now))
    }
}

impl Sessions {
    pub(crate) fn read(&self) -> impl Deref<Target = Arc<Known>> + use<> {
        self.known.load()
    }

    pub(crate) fn open(
        &self,
        ttl: SessionTtl,
        identity: SessionIdentity,
        now: Timestamp,
    ) -> SessionId {
        let id = SessionId::new(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let session = Arc::new(Session {
            ttl,
            identity,
            opened_at: now,
            deadline: AtomicI64::new(now.plus(ttl.session).as_unix_millis()),
            lease_deadline: AtomicI64::new(now.plus(ttl.lease).as_unix_millis()),
        });
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            known.0.insert(id, Arc::clone(&session));
            known
        });
        id
    }

    pub(crate) fn info(&self, id: SessionId, now: Timestamp) -> Option<SessionInfo> {
        let known = self.known.load();
        let session = known.0.get(&id)?;
        let dead = !session.is_alive(now);
        Some(SessionInfo::new(
            session.identity,
            Some(session.opened_at),
            dead,
        ))
    }

    /// False when the session is dead.
    pub(crate) fn renew(&self, id: SessionId, now: Timestamp) -> bool {
        let known = self.known.load();
        known.0.get(&id).is_some_and(|session| session.renew(now))
    }

    pub(crate) fn close(&self, id: SessionId, now: Timestamp) {
        if let Some(session) = self.known.load().0.get(&id) {
            let now = now.as_unix_millis();
            session.deadline.fetch_min(now, Ordering::AcqRel);
        }
    }

    pub(crate) fn dead(&self, now: Timestamp) -> Vec<(SessionId, Death)> {
        let known = self.known.load();
        let dead = known.0.iter().filter(|(_, session)| !session.is_alive(now));
        dead.map(|(id, session)| (*id, session.death(now)))
            .collect()
    }

    pub(crate) fn forget(&self, id: SessionId) {
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            known.0.remove(&id);
            known
        });
    }
}

impl Session {
    fn is_alive(&self, now: Timestamp) -> bool {
        now.as_unix_millis() < self.deadline.load(Ordering::Acquire)
    }

    fn death(&self, now: Timestamp) -> Death {
        if now.as_unix_millis() < self.lease_deadline.load(Ordering::Acquire) {
            Death::Session
        } else {
            Death::Lease
        }
    }

    fn renew(&self, now: Timestamp) -> bool {
        let next = now.plus(self.ttl.session).as_unix_millis();
        let alive = |deadline| (now.as_unix_millis() < deadline).then_some(next);
        let order = Ordering::AcqRel;
        let renewed = self.deadline.fetch_update(order, Ordering::Acquire, alive);
        if renewed.is_ok() {
            let next = now.plus(self.ttl.lease).as_unix_millis();
            self.lease_deadline.store(next, Ordering::Release);
        }
        renewed.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_session_dies_in_two_steps_and_never_comes_back() {
        let sessions = Sessions::default();
        let at = Timestamp::from_unix_millis;
        let ttl = SessionTtl::new(Duration::from_millis(10), Duration::from_millis(30));
        let identity = SessionIdentity::of_this_process();
        let id = sessions.open(ttl, identity, at(0));
        let is_alive = |now| sessions.read().is_alive(id, at(now));
        assert!(sessions.renew(id, at(9)) && is_alive(18));
        assert_eq!(sessions.dead(at(18)), []);
        assert!(!is_alive(19) && !sessions.renew(id, at(19)));
        assert_eq!(sessions.dead(at(38)), [(id, Death::Session)]);
        assert_eq!(sessions.dead(at(39)), [(id, Death::Lease)]);
        let other = sessions.open(ttl, identity, at(40));
        sessions.close(other, at(41));
        assert!(other != id && !sessions.renew(other, at(41)));
    }
}
