//! Who is alive.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use pac_core::driver::SessionTtl;
use pac_core::protocol::Death;
use pac_core::{SessionId, Timestamp};

#[derive(Debug, Clone, Copy)]
struct Session {
    ttl: SessionTtl,
    /// Alive before this; then dead, for good.
    session_deadline: Timestamp,
    /// Its durable runs keep their slots before this.
    lease_deadline: Timestamp,
}

/// The sessions of a store. A session that was closed or not renewed in time stays dead: time
/// does not run back, and nothing sets a passed deadline again.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    last: AtomicU64,
    sessions: DashMap<SessionId, Session, RandomState>,
}

impl Sessions {
    pub(crate) fn open(&self, ttl: SessionTtl, now: Timestamp) -> SessionId {
        let id = SessionId::new(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.sessions.insert(id, Session::renewed(ttl, now));
        id
    }

    /// False when the session is dead.
    pub(crate) fn renew(&self, id: SessionId, now: Timestamp) -> bool {
        match self.sessions.get_mut(&id) {
            Some(mut session) if now < session.session_deadline => {
                *session = Session::renewed(session.ttl, now);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn close(&self, id: SessionId, now: Timestamp) {
        if let Some(mut session) = self.sessions.get_mut(&id) {
            session.session_deadline = session.session_deadline.min(now);
        }
    }

    pub(crate) fn is_alive(&self, id: SessionId, now: Timestamp) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| now < session.session_deadline)
    }

    pub(crate) fn dead(&self, now: Timestamp) -> Vec<(SessionId, Death)> {
        let death = |session: &Session| match session {
            _ if now < session.session_deadline => None,
            _ if now < session.lease_deadline => Some(Death::Session),
            _ => Some(Death::Lease),
        };
        self.sessions
            .iter()
            .filter_map(|session| Some((*session.key(), death(&session)?)))
            .collect()
    }

    pub(crate) fn forget(&self, id: SessionId) {
        self.sessions.remove(&id);
    }
}

impl Session {
    fn renewed(ttl: SessionTtl, now: Timestamp) -> Self {
        Self {
            ttl,
            session_deadline: now.plus(ttl.session),
            lease_deadline: now.plus(ttl.lease),
        }
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
        let ttl = SessionTtl {
            session: Duration::from_millis(10),
            lease: Duration::from_millis(30),
        };
        let id = sessions.open(ttl, at(0));
        assert!(sessions.renew(id, at(9)) && sessions.is_alive(id, at(18)));
        assert_eq!(sessions.dead(at(18)), []);
        assert!(!sessions.is_alive(id, at(19)) && !sessions.renew(id, at(19)));
        assert_eq!(sessions.dead(at(38)), [(id, Death::Session)]);
        assert_eq!(sessions.dead(at(39)), [(id, Death::Lease)]);
        let other = sessions.open(ttl, at(40));
        sessions.close(other, at(41));
        assert!(other != id && !sessions.renew(other, at(41)));
    }
}
