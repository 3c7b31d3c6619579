//! Whether the session of another process is renewed by that process.
//!
//! To renew an etcd lease takes no permission: anybody who reaches etcd can keep the lease of a dead
//! process alive. So each process also writes a key of its session, its sign, about once per session
//! TTL, for which it needs the permission to write under the prefix. A process that looks for dead
//! sessions remembers at which moment of its own monotonic clock it has last seen each sign change.
//! No wall clock is compared with that of another process.
//!
//! Time counts only while the store certainly took writes: this process has written its own sign
//! lately, and has looked often enough. After a stall of the store, of the network or of this
//! process, all sessions have their whole time again. See `docs/adr` 35.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::SessionId;
use tokio::time::Instant;

/// After so many session TTLs without a sign the lease of a session counts as renewed by somebody
/// else: a process writes one in each.
pub(super) const TTLS: u32 = 4;

/// What this process has seen of the sessions.
#[derive(Debug, Default)]
pub(crate) struct Witness(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// When the last own sign that the store took was sent, and the TTL of that session.
    own: Option<(Instant, Duration)>,
    /// When this process last looked.
    looked: Option<Instant>,
    signs: Unchanged,
    leases: Unchanged,
}

/// Since when keys have had the same revision.
#[derive(Debug, Default)]
struct Unchanged(HashMap<SessionId, Known>);

/// What is known of one key.
#[derive(Debug, Clone, Copy)]
struct Known {
    at: i64,
    since: Instant,
    /// The TTL of the lease that belongs to it, once etcd was asked.
    granted: Option<Duration>,
}

/// A session that may not be renewed by its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) id: SessionId,
    /// The revision of the key that has not changed.
    pub(super) at: i64,
    /// For how long it has not, at least.
    pub(super) unchanged: Duration,
    /// The TTL of its lease, if etcd was asked for it before.
    pub(super) granted: Option<Duration>,
}

/// What one look at the sessions has found.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Sessions whose lease lives, and whose sign has not changed.
    pub(super) alive: Vec<Suspect>,
    /// Dead sessions whose lease of the lease TTL lives.
    pub(super) dead: Vec<Suspect>,
    /// What is added to a TTL before it counts as over.
    pub(super) grace: Duration,
}

impl Witness {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the store took the sign of a session of this process, which was sent then.
    pub(super) fn signed(&self, sent: Instant, ttl: Duration) {
        self.seen().own = Some((sent, ttl));
    }

    /// Takes in what the store has now: the signs of sessions whose lease lives, and the keys of the
    /// lease TTL of those that are dead, each with the revision of its last write. Gives those that
    /// have not changed for [`TTLS`] times the session TTL of this process. A process without a
    /// session of its own has no suspects.
    pub(super) fn look(
        &self,
        now: Instant,
        alive: &[(SessionId, i64)],
        dead: &[(SessionId, i64)],
    ) -> Suspects {
        let mut seen = self.seen();
        let Some((sent, ttl)) = seen.own else {
            return Suspects::default();
        };
        let takes_writes = now.saturating_duration_since(sent) <= ttl.saturating_mul(3) / 2;
        let looks = seen
            .looked
            .is_some_and(|at| now.saturating_duration_since(at) <= ttl);
        seen.looked = Some(now);
        if !(takes_writes && looks) {
            seen.signs.0.clear();
            seen.leases.0.clear();
        }
        let grace = ttl.saturating_mul(TTLS);
        Suspects {
            alive: seen.signs.since(now, alive, grace),
            dead: seen.leases.since(now, dead, grace),
            grace,
        }
    }

    /// Notes the TTL of a suspect's lease: etcd is asked for it once, however long it is.
    pub(super) fn granted(&self, suspect: Suspect, lives: bool, ttl: Duration) {
        let mut seen = self.seen();
        let keys = if lives {
            &mut seen.signs
        } else {
            &mut seen.leases
        };
        if let Some(known) = keys.0.get_mut(&suspect.id) {
            known.granted = Some(ttl);
        }
    }
}

impl Unchanged {
    /// Remembers these keys and no others. Gives those that have not changed for so long.
    fn since(&mut self, now: Instant, keys: &[(SessionId, i64)], long: Duration) -> Vec<Suspect> {
        let before = std::mem::take(&mut self.0);
        let mut suspects = Vec::new();
        for (id, at) in keys.iter().copied() {
            let same = before.get(&id).filter(|known| known.at == at).copied();
            let new = Known {
                at,
                since: now,
                granted: None,
            };
            let known = same.unwrap_or(new);
            let unchanged = now.saturating_duration_since(known.since);
            if unchanged >= long {
                suspects.push(Suspect {
                    id,
                    at,
                    unchanged,
                    granted: known.granted,
                });
            }
            self.0.insert(id, known);
        }
        suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);
    const DEAD: SessionId = SessionId::new(7);
    const LIVES: SessionId = SessionId::new(8);

    /// Looks every 5 s for so long, from a moment on; the process writes its own sign, or not.
    fn suspects(
        witness: &Witness,
        from: Instant,
        seconds: u64,
        signs: bool,
    ) -> Option<(Instant, Vec<SessionId>)> {
        for step in 0..=seconds / 5 {
            let now = from + Duration::from_secs(5 * step);
            if signs && step % 3 == 0 {
                witness.signed(now, TTL);
            }
            let of_the_living = i64::try_from(100 + step / 3).unwrap();
            let alive = [(DEAD, 3), (LIVES, of_the_living)];
            let found = witness.look(now, &alive, &[(SessionId::new(9), 4)]);
            if !found.alive.is_empty() {
                assert_eq!(found.dead.len(), 1, "{found:?}");
                return Some((now, found.alive.iter().map(|found| found.id).collect()));
            }
        }
        None
    }

    #[tokio::test]
    async fn a_session_without_a_sign_is_found_when_others_are_written() {
        let (witness, begun) = (Witness::default(), Instant::now());
        let (at, found) = suspects(&witness, begun, 600, true).unwrap();
        assert_eq!(found, [DEAD]);
        let after = at - begun;
        assert!(
            after >= TTL * TTLS && after <= TTL * (TTLS + 1),
            "{after:?}"
        );
    }

    #[tokio::test]
    async fn nobody_is_suspected_while_the_store_takes_no_writes() {
        let (witness, begun) = (Witness::default(), Instant::now());
        assert!(suspects(&witness, begun, 6_000, false).is_none());
        // It has written its sign once, and then the store was full.
        witness.signed(begun, TTL);
        assert!(suspects(&witness, begun, 6_000, false).is_none());
    }

    #[tokio::test]
    async fn after_a_stall_all_have_their_whole_time_again() {
        let (witness, begun) = (Witness::default(), Instant::now());
        let nearly = u64::from(TTLS) * TTL.as_secs() - 5;
        assert!(suspects(&witness, begun, nearly, true).is_none());
        let later = begun + Duration::from_secs(3_600);
        assert!(suspects(&witness, later, nearly, true).is_none());
        let again = later + Duration::from_secs(nearly + 5);
        assert!(suspects(&witness, again, 10, true).is_some());
    }
}
