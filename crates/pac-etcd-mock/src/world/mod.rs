//! What an etcd is, as a pure state machine: no channel, no clock, no lock and no network.
//!
//! Each request is a method of [`World`]: it takes the request and the [`Call`] that it came with,
//! and returns the response. What is owed to watchers stands ready afterwards.

mod auth;
mod kv;
mod lease;
mod leasing;
pub(crate) mod members;
mod overlap;
pub(crate) mod refusal;
pub(crate) mod span;
mod store;
mod txn;
pub(crate) mod watch;
mod watching;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use etcd_client::proto::PbResponseHeader as Header;
use prost::Message;

use self::auth::Auth;
use self::lease::Leases;
use self::members::{About, Alarm};
use self::refusal::{Answer, REQUEST_TOO_LARGE};
use self::store::{Change, Store};
use self::watch::{StreamId, Watchers};

/// What a request comes with.
#[derive(Clone, Default)]
pub(crate) struct Call {
    /// Since the beginning of the world.
    pub(crate) now: Duration,
    /// What says which user asks.
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("now", &self.now)
            .field("has_token", &self.token.is_some())
            .finish()
    }
}

/// What is to be done about changes to a world.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// These streams are owed something.
    pub(crate) streams: Vec<StreamId>,
    /// Another lease may be the next to end.
    pub(crate) leases: bool,
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
    /// Bytes of all keys and values that are kept (`--quota-backend-bytes`).
    pub(crate) quota_bytes: usize,
    /// With automatic compaction: how many revisions are kept.
    pub(crate) revisions_kept: Option<i64>,
}

impl Limits {
    /// The size above which a response to a watch is fragmented, where the client wants that.
    fn fragment_bytes(&self) -> usize {
        self.request_bytes + 512 * 1024
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            txn_operations: 128,
            request_bytes: 1536 * 1024,
            // Of one and a half election timeouts of a second each, rounded up.
            least_ttl: 2,
            quota_bytes: 2 * 1024 * 1024 * 1024,
            revisions_kept: None,
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
    /// Requests that changed something, or tried to.
    index: u64,
    has_leader: bool,
    random: fastrand::Rng,
    store: Store,
    leases: Leases,
    auth: Auth,
    watchers: Watchers,
    owed: Owed,
    /// What the member says of itself.
    about: About,
    alarms: BTreeSet<Alarm>,
}

impl World {
    /// An empty one. `seed` decides its ids.
    pub(crate) fn new(limits: Limits, about: About, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            cluster_id: random.u64(1..),
            member_id: random.u64(1..),
            term: 2,
            index: 0,
            has_leader: true,
            random,
            store: Store::default(),
            leases: Leases::new(limits.least_ttl),
            auth: Auth::default(),
            watchers: Watchers::default(),
            owed: Owed::default(),
            about,
            alarms: BTreeSet::new(),
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

    /// Ends a write.
    fn commit(&mut self, changes: Vec<Change>) {
        self.index += 1;
        if !changes.is_empty() {
            self.watchers.notice(self.store.revision() + 1, &changes);
            self.store.commit(changes);
        }
        self.compact_by_itself();
    }

    /// With automatic compaction, forgets what is older than so many revisions.
    fn compact_by_itself(&mut self) {
        if let Some(kept) = self.limits.revisions_kept {
            let oldest = self.store.compacted().max(1);
            // Not at each revision: a watch that is a little behind can still catch up.
            if self.store.revision() - oldest >= kept.saturating_mul(2).max(2) {
                self.compact_to(self.store.revision() - kept);
            }
        }
    }

    /// The revision is one that can be compacted.
    fn compact_to(&mut self, revision: i64) {
        let bytes = self.limits.fragment_bytes();
        self.watchers.before_compaction(&self.store, bytes);
        // It is after the last one and not in the future.
        let _ = self.store.compact(revision);
    }

    /// What is to be done about the last changes.
    pub(crate) fn take_owed(&mut self) -> Owed {
        Owed {
            streams: self.watchers.take_owed(),
            ..std::mem::take(&mut self.owed)
        }
    }

    /// How many watches are open.
    pub(crate) fn watches(&self) -> usize {
        self.watchers.count()
    }

    /// Bytes of all keys and values that are kept.
    pub(crate) fn size(&self) -> usize {
        self.store.size()
    }

    /// Takes the leader away, or has a new one elected: then all leases last for their whole TTL
    /// again.
    pub(crate) fn set_leader(&mut self, has_leader: bool, now: Duration) {
        if has_leader && !self.has_leader {
            self.term += 1;
            self.leases.renew_all(now);
        }
        self.has_leader = has_leader;
    }
}
