//! Leases, the keys that end with them, and when they end.
//!
//! Source: `server/lease/lessor.go` of etcd.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::refusal::{Answer, LEASE_EXISTS, LEASE_NOT_FOUND, LEASE_TTL_TOO_LARGE};

/// The longest TTL that etcd grants, in seconds (`MaxLeaseTTL`).
const MOST_TTL: i64 = 9_000_000_000;

/// The leases of one world.
#[derive(Debug)]
pub(crate) struct Leases {
    leases: HashMap<i64, Lease>,
    /// When each lease ends, soonest first.
    ends: BTreeSet<(Duration, i64)>,
    /// The shortest TTL that is granted, in seconds.
    least_ttl: i64,
}

#[derive(Debug)]
struct Lease {
    /// In seconds.
    ttl: i64,
    ends: Duration,
    keys: BTreeSet<Vec<u8>>,
}

impl Leases {
    pub(crate) fn new(least_ttl: i64) -> Self {
        Self {
            leases: HashMap::new(),
            ends: BTreeSet::new(),
            least_ttl,
        }
    }

    /// Grants a lease of this id. Returns its TTL in seconds.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, now: Duration) -> Answer<i64> {
        if ttl > MOST_TTL {
            return Err(LEASE_TTL_TOO_LARGE);
        }
        if self.exists(id) {
            return Err(LEASE_EXISTS);
        }
        let ttl = ttl.max(self.least_ttl);
        let lease = Lease {
            ttl,
            ends: now.saturating_add(seconds(ttl)),
            keys: BTreeSet::new(),
        };
        self.ends.insert((lease.ends, id));
        self.leases.insert(id, lease);
        Ok(ttl)
    }

    pub(crate) fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn check(&self, id: i64) -> Answer<()> {
        self.exists(id).then_some(()).ok_or(LEASE_NOT_FOUND)
    }

    /// Lets a lease last for its whole TTL again. Returns it, in seconds.
    pub(crate) fn renew(&mut self, id: i64, now: Duration) -> Answer<i64> {
        let lease = self.leases.get_mut(&id).ok_or(LEASE_NOT_FOUND)?;
        self.ends.remove(&(lease.ends, id));
        lease.ends = now.saturating_add(seconds(lease.ttl));
        self.ends.insert((lease.ends, id));
        Ok(lease.ttl)
    }

    /// As a new leader does: it does not know how long the leases have lasted.
    pub(crate) fn renew_all(&mut self, now: Duration) {
        self.ends.clear();
        for (id, lease) in &mut self.leases {
            lease.ends = now.saturating_add(seconds(lease.ttl));
            self.ends.insert((lease.ends, *id));
        }
    }

    /// Removes a lease. Returns the keys that end with it, in their order.
    pub(crate) fn remove(&mut self, id: i64) -> Answer<BTreeSet<Vec<u8>>> {
        let lease = self.leases.remove(&id).ok_or(LEASE_NOT_FOUND)?;
        self.ends.remove(&(lease.ends, id));
        Ok(lease.keys)
    }

    /// The remaining and the granted TTL, in seconds.
    pub(crate) fn ttl(&self, id: i64, now: Duration) -> Answer<(i64, i64)> {
        let lease = self.leases.get(&id).ok_or(LEASE_NOT_FOUND)?;
        let left = lease.ends.saturating_sub(now).as_secs();
        Ok((i64::try_from(left).unwrap_or(i64::MAX), lease.ttl))
    }

    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &Vec<u8>> {
        let lease = self.leases.get(&id);
        lease.into_iter().flat_map(|lease| &lease.keys)
    }

    /// The ids of all leases, those that end soonest first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.ends.iter().map(|(_, id)| *id)
    }

    /// When the next lease ends, and which one that is.
    pub(crate) fn next_end(&self) -> Option<(Duration, i64)> {
        self.ends.first().copied()
    }

    pub(crate) fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.to_vec());
        }
    }

    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
