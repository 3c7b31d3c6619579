//! One server, and the execution of sequences on it. It belongs to the sequence alone: what was
//! there before is deleted and compacted, and revisions are counted from then on.

use std::collections::HashMap;

use etcd_client::proto::*;
use tonic::Status;

use super::answer::{refusal, words};
use super::operation::*;
use super::quirks::Quirks;
use super::request::View;
use super::watches::Watches;
use super::wire::Wire;

/// Sequences begin at this revision at least, so that there are earlier ones.
const LEAST: i64 = 200;

/// A watch that begins later than this many revisions from now reports nothing.
const SOON: i64 = 8;

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) wire: Wire,
    pub(crate) view: View,
    watches: Option<Watches>,
    /// The leases that were granted.
    granted: Vec<Lease>,
    /// What was before this revision has been compacted.
    compacted: i64,
    /// Whether that goes on: by chance, a deletion at that very revision can still be seen.
    is_compacting: bool,
    pub(crate) caller: Caller,
    pub(crate) tokens: HashMap<&'static str, String>,
    /// Whether users belong to the sequences, for which a watch has a stream of its own.
    with_users: bool,
}

impl Side {
    pub(crate) fn new(wire: &Wire, with_users: bool, quirks: Quirks) -> Self {
        Self {
            wire: wire.clone(),
            view: View {
                quirks,
                ..View::default()
            },
            watches: None,
            granted: Vec::new(),
            compacted: 0,
            is_compacting: false,
            caller: Caller::Nobody,
            tokens: HashMap::new(),
            with_users,
        }
    }

    /// Executes a sequence: the answer to each operation, then what remains. Fails if the server
    /// could not be cleaned before.
    pub(crate) async fn run(&mut self, ops: &[Op]) -> Result<Vec<String>, Status> {
        self.clean().await?;
        let mut lines = Vec::new();
        for op in ops {
            let answer = self.execute(op).await;
            lines.push(answer);
        }
        lines.extend(self.remains().await);
        Ok(lines)
    }

    async fn execute(&mut self, op: &Op) -> String {
        match op {
            Op::Range(range) => {
                let request = self.view.range(range);
                self.say::<_, PbRangeResponse>(RANGE, request).await
            }
            Op::Put(put) => self.say::<_, PbPutResponse>(PUT, self.view.put(put)).await,
            Op::PutLarge(key, size) => {
                let request = put(key.to_vec(), vec![b'x'; *size]);
                self.say::<_, PbPutResponse>(PUT, request).await
            }
            Op::Delete(delete) => {
                let request = self.view.delete(delete);
                self.say::<_, PbDeleteResponse>(DELETE, request).await
            }
            Op::Txn(txn) => {
                let flat = self.with_users && self.view.quirks.nested_txn;
                let request = if flat {
                    self.view.txn(&txn.without_nested())
                } else {
                    self.view.txn(txn)
                };
                self.say::<_, PbTxnResponse>(TXN, request).await
            }
            Op::Compact(revision, physical) => {
                // What a watch still has to read would be compacted, or not, by chance.
                self.flush_all().await;
                let revision = self.view.revision(*revision);
                let physical = *physical;
                let request = PbCompactionRequest { revision, physical };
                let answer = self.call::<_, PbCompactionResponse>(COMPACT, request).await;
                if answer.is_ok() {
                    self.compacted = revision;
                    self.is_compacting = !physical;
                }
                words(&mut self.view, answer)
            }
            Op::Grant(lease, ttl) => self.grant(*lease, *ttl).await,
            Op::GrantShort(ttl) => {
                let (id, ttl) = (2_000, *ttl);
                let request = PbLeaseGrantRequest { id, ttl };
                let answer = self.say::<_, PbLeaseGrantResponse>(GRANT, request).await;
                let revoke = PbLeaseRevokeRequest { id };
                self.say::<_, PbLeaseRevokeResponse>(REVOKE, revoke).await;
                answer
            }
            Op::Revoke(lease) => {
                let id = self.view.lease(*lease);
                let request = PbLeaseRevokeRequest { id };
                self.say::<_, PbLeaseRevokeResponse>(REVOKE, request).await
            }
            Op::KeepAlive(lease) => {
                let id = self.view.lease(*lease);
                let request = PbLeaseKeepAliveRequest { id };
                let method = "/etcdserverpb.Lease/LeaseKeepAlive";
                let token = self.token();
                let answer = self.wire.exchange(method, token.as_deref(), request).await;
                words::<PbLeaseKeepAliveResponse>(&mut self.view, answer)
            }
            Op::TimeToLive(lease, keys) => {
                let (id, keys) = (self.view.lease(*lease), *keys);
                let request = PbLeaseTimeToLiveRequest { id, keys };
                self.say::<_, PbLeaseTimeToLiveResponse>(TIME_TO_LIVE, request)
                    .await
            }
            Op::Leases => {
                let request = PbLeaseLeasesRequest {};
                self.say::<_, PbLeaseLeasesResponse>(LEASES, request).await
            }
            Op::Watch(watch) => self.watch(watch).await,
            Op::Cancel(n) => {
                self.flush(*n).await;
                match &mut self.watches {
                    Some(watches) => watches.cancel(&mut self.view, *n).await,
                    None => String::new(),
                }
            }
            Op::Progress => match &mut self.watches {
                Some(watches) => watches.progress(&mut self.view).await,
                None => String::new(),
            },
            Op::Auth(auth) => self.auth(auth).await,
            Op::As(caller) => {
                self.caller = *caller;
                String::new()
            }
        }
    }

    /// Calls a method as the present caller; returns the answer in words.
    pub(crate) async fn say<Q, A>(&mut self, method: &'static str, request: Q) -> String
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + super::answer::Normal + 'static,
    {
        let answer = self.call::<Q, A>(method, request).await;
        words(&mut self.view, answer)
    }

    pub(crate) async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.wire
            .call(method, self.token().as_deref(), request)
            .await
    }

    fn token(&self) -> Option<String> {
        match self.caller {
            Caller::Nobody => None,
            Caller::User(user) => self.tokens.get(user).cloned(),
            Caller::Forger => Some("forged.1".to_owned()),
        }
    }

    async fn grant(&mut self, lease: Lease, ttl: i64) -> String {
        // A server chooses the id for the ones that it has not named yet, too.
        let id = match lease {
            Lease::Chosen(id) => id,
            Lease::None | Lease::Assigned(_) => 0,
        };
        let request = PbLeaseGrantRequest { ttl, id };
        let answer = self.call::<_, PbLeaseGrantResponse>(GRANT, request).await;
        if let Ok(answer) = &answer {
            let n = self.view.assigned.len();
            if id == 0 {
                self.view.assigned.push(answer.id);
            }
            self.granted
                .push(if id == 0 { Lease::Assigned(n) } else { lease });
        }
        words(&mut self.view, answer)
    }

    async fn watch(&mut self, watch: &Watch) -> String {
        let is_open = watch.span.range().1 == [0];
        if self.with_users && is_open && self.view.quirks.open_watch {
            return String::new();
        }
        let mut start = self.view.revision(watch.start);
        if self.is_compacting && start == self.compacted {
            start += 1;
        }
        let request = self.view.watch(watch, start);
        let token = self.token();
        let open = match &mut self.watches {
            Some(open) if !self.with_users => {
                open.send(request);
                open
            }
            other => match Watches::open(&self.wire, token.as_deref(), request).await {
                Ok(opened) => other.insert(opened),
                Err(status) => return refusal(&status),
            },
        };
        let n = open.watchers.len();
        let answer = open.created(&mut self.view, watch, start).await;
        if start != 0 && start < self.compacted {
            // It ends by itself, within 100 ms.
            open.settle(&mut self.view, n, i64::MAX).await;
        }
        answer
    }

    /// Waits until the watches have reported all that there is.
    async fn flush_all(&mut self) {
        let count = self.watches.as_ref().map_or(0, |open| open.watchers.len());
        for n in 0..count {
            self.flush(n).await;
        }
    }

    /// Writes what the n-th watch reports, and waits until it does.
    async fn flush(&mut self, n: usize) {
        let watches = self.watches.as_ref().filter(|_| !self.with_users);
        let watcher = watches.and_then(|open| open.watchers.get(n));
        let Some(watcher) = watcher.filter(|one| one.is_live()) else {
            return;
        };
        let (watch, start) = (watcher.watch.clone(), watcher.start);
        if start > self.view.now + SOON || (watch.no_put && watch.no_delete) {
            return;
        }
        let key = watch.span.inside();
        let mut written = 0;
        while written == 0 || written < start {
            let request = put(key.clone(), b"flush".to_vec());
            let answer = self.call::<_, PbPutResponse>(PUT, request).await;
            let header = answer.unwrap().header;
            written = header.map_or(0, |header| header.revision);
            if watch.no_put {
                let key = key.clone();
                let request = PbDeleteRequest {
                    key,
                    ..PbDeleteRequest::default()
                };
                let answer = self.call::<_, PbDeleteResponse>(DELETE, request).await;
                let header = answer.unwrap().header;
                written = header.map_or(0, |header| header.revision);
            }
        }
        self.view.now = self.view.now.max(written);
        if let Some(watches) = &mut self.watches {
            watches.settle(&mut self.view, n, written).await;
        }
    }

    /// What the sequence leaves behind.
    async fn remains(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.flush_all().await;
        if let Some(mut watches) = self.watches.take()
            && !self.with_users
        {
            lines.push(watches.progress(&mut self.view).await);
            lines.extend(watches.report(&mut self.view));
        }
        let (key, range_end) = Span::All.range();
        let request = PbRangeRequest {
            key,
            range_end,
            ..PbRangeRequest::default()
        };
        lines.push(self.say::<_, PbRangeResponse>(RANGE, request).await);
        for lease in std::mem::take(&mut self.granted) {
            lines.push(self.execute(&Op::TimeToLive(lease, true)).await);
        }
        lines
    }

    /// Makes the server as good as new.
    async fn clean(&mut self) -> Result<(), Status> {
        self.watches = None;
        self.view = View {
            quirks: self.view.quirks,
            ..View::default()
        };
        if self.with_users {
            self.remove_users().await?;
        }
        self.caller = Caller::Nobody;
        self.tokens.clear();
        let request = PbLeaseLeasesRequest {};
        let leases = self
            .call::<_, PbLeaseLeasesResponse>(LEASES, request)
            .await?;
        for lease in leases.leases {
            let request = PbLeaseRevokeRequest { id: lease.id };
            self.call::<_, PbLeaseRevokeResponse>(REVOKE, request)
                .await?;
        }
        // A put remains, and is the one event that watches still see of what was before.
        let first = PbTxnOpRequest::RequestPut(put(vec![0], Vec::new()));
        let others = PbTxnOpRequest::RequestDeleteRange(PbDeleteRequest {
            key: vec![1],
            range_end: vec![0],
            prev_kv: false,
        });
        let requests = [first, others].map(Some);
        let request = PbTxnRequest {
            success: requests.map(|request| PbTxnRequestOp { request }).into(),
            ..PbTxnRequest::default()
        };
        let mut revision = 0;
        while revision < LEAST {
            let answer = self.call::<_, PbTxnResponse>(TXN, request.clone()).await?;
            revision = answer.header.map_or(0, |header| header.revision);
        }
        let request = PbCompactionRequest {
            revision,
            physical: true,
        };
        self.call::<_, PbCompactionResponse>(COMPACT, request)
            .await?;
        self.compacted = revision;
        self.is_compacting = false;
        self.view.base = revision;
        self.view.now = revision;
        Ok(())
    }
}

fn put(key: Vec<u8>, value: Vec<u8>) -> PbPutRequest {
    PbPutRequest {
        key,
        value,
        ..PbPutRequest::default()
    }
}
