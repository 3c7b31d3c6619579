//! What an etcd is, as a pure state machine: no channel, no clock, no lock and no network.
//!
//! Each request is a method of [`World`]: it takes the request and the [`Call`] that it came with,
//! and returns the response. What is owed to watchers stands ready afterwards.

mod kv;
mod lease;
mod overlap;
pub(crate) mod refusal;
mod span;
mod store;
mod txn;
mod write;

use std::time::Duration;

use etcd_client::proto::PbResponseHeader as Header;
use prost::Message;

use self::lease::Leases;
use self::refusal::{Answer, REQUEST_TOO_LARGE};
use self::store::{Change, Store};

/// What a request comes with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    /// Since the beginning of the world.
    pub(crate) now: Duration,
    /// What says which user asks.
    pub(crate) token: Option<String>,
}

/// What a world allows.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Operations in one branch of a transaction (`--max-txn-ops`).
    pub(crate) txn_operations: usize,
    /// Bytes of a request that writes (`--max-request-bytes`).
    pub(crate) request_bytes: usize,
    /// The shortest TTL, in seconds.
    pub(crate) least_ttl: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            txn_operations: 128,
            request_bytes: 1536 * 1024,
            // Of one and a half election timeouts of a second each, rounded up.
            least_ttl: 2,
        }
    }
}

/// One etcd.
#[derive(Debug)]
pub(crate) struct World {
    limits: Limits,
    cluster_id: u64,
    member_id: u64,
    term: u64,
    store: Store,
    leases: Leases,
}

impl World {
    /// An empty one. `seed` decides its ids.
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            cluster_id: random.u64(1..),
            member_id: random.u64(1..),
            term: 2,
            store: Store::default(),
            leases: Leases::new(limits.least_ttl),
            limits,
        }
    }

    /// Completes a header. Of a revision that is not there yet, it gets the current one.
    fn fill(&self, header: &mut Option<Header>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.cluster_id;
        header.member_id = self.member_id;
        header.raft_term = self.term;
        if header.revision == 0 {
            header.revision = self.store.revision();
        }
    }

    fn check_size(&self, asked: &impl Message) -> Answer<()> {
        // What etcd wraps a request in before it measures it: an id, and the number of the request.
        const WRAPPING: usize = 18;
        let size = asked.encoded_len() + WRAPPING;
        (size <= self.limits.request_bytes)
            .then_some(())
            .ok_or(REQUEST_TOO_LARGE)
    }

    fn commit(&mut self, changes: Vec<Change>) {
        self.store.commit(changes);
    }
}
