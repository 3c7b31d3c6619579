//! The messages for the operations.

use etcd_client::proto::*;

use super::operation::*;
use super::quirks::Quirks;

/// Ids that no server gives; the first is that of the lease that a server has named first.
const FIRST_ASSIGNED: i64 = 500_000;
/// What the revision at the beginning of a sequence is called, on every server.
const BEGINNING: i64 = 1_000;

/// What a side knows of its server: by this, what it sends and receives is put in terms of the
/// sequence.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The revision at the beginning of the sequence.
    pub(crate) base: i64,
    /// The last revision seen.
    pub(crate) now: i64,
    /// The leases that the server named.
    pub(crate) assigned: Vec<i64>,
    /// The revision of users and roles at the beginning of the sequence.
    pub(crate) auth_base: u64,
    pub(crate) quirks: Quirks,
}

impl View {
    pub(crate) fn revision(&self, revision: Revision) -> i64 {
        match revision {
            Revision::Unset => 0,
            Revision::Now(distance) => self.now + i64::from(distance),
            Revision::Raw(raw) => raw,
        }
    }

    pub(crate) fn lease(&self, lease: Lease) -> i64 {
        match lease {
            Lease::None => 0,
            Lease::Chosen(id) => id,
            Lease::Assigned(n) => match self.assigned.get(n) {
                Some(id) => *id,
                None => FIRST_ASSIGNED + n as i64,
            },
        }
    }

    /// A revision that a server sent, in terms of the sequence; 0 stays 0.
    pub(crate) fn plain_revision(&self, revision: &mut i64) {
        if *revision > 0 {
            *revision += BEGINNING - self.base;
        }
    }

    /// A lease that a server sent, in terms of the sequence.
    pub(crate) fn plain_lease(&self, lease: &mut i64) {
        if let Some(n) = self.assigned.iter().position(|id| id == lease) {
            *lease = FIRST_ASSIGNED + n as i64;
        }
    }

    pub(crate) fn range(&self, range: &Range) -> PbRangeRequest {
        let (key, range_end) = range.span.range();
        let [min_mod, max_mod, min_create, max_create] =
            range.bounds.map(|bound| self.revision(bound));
        PbRangeRequest {
            key,
            range_end,
            limit: range.limit,
            revision: self.revision(range.revision),
            sort_order: range.order,
            sort_target: range.target,
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: min_mod,
            max_mod_revision: max_mod,
            min_create_revision: min_create,
            max_create_revision: max_create,
        }
    }

    pub(crate) fn put(&self, put: &Put) -> PbPutRequest {
        PbPutRequest {
            key: put.key.to_vec(),
            value: put.value.to_vec(),
            lease: self.lease(put.lease),
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }

    pub(crate) fn delete(&self, delete: &Delete) -> PbDeleteRequest {
        let (key, range_end) = delete.span.range();
        PbDeleteRequest {
            key,
            range_end,
            prev_kv: delete.prev_kv,
        }
    }

    pub(crate) fn txn(&self, txn: &Txn) -> PbTxnRequest {
        PbTxnRequest {
            compare: txn.compares.iter().map(|one| self.compare(one)).collect(),
            success: self.txn_ops(&txn.success),
            failure: self.txn_ops(&txn.failure),
        }
    }

    fn compare(&self, compare: &Compare) -> PbCompare {
        let (key, range_end) = compare.span.range();
        let union = match compare.union {
            Union::Version(version) => Some(PbTargetUnion::Version(version)),
            Union::Create(revision) => Some(PbTargetUnion::CreateRevision(self.revision(revision))),
            Union::Mod(revision) => Some(PbTargetUnion::ModRevision(self.revision(revision))),
            Union::Value(value) => Some(PbTargetUnion::Value(value.to_vec())),
            Union::Lease(lease) => Some(PbTargetUnion::Lease(self.lease(lease))),
            Union::Absent => None,
        };
        PbCompare {
            result: compare.result,
            target: compare.target,
            key,
            range_end,
            target_union: union,
        }
    }

    fn txn_ops(&self, ops: &[TxnOp]) -> Vec<PbTxnRequestOp> {
        let mut requests = Vec::new();
        for op in ops {
            let request = match op {
                TxnOp::Range(range) => Some(PbTxnOpRequest::RequestRange(self.range(range))),
                TxnOp::Put(put) => Some(PbTxnOpRequest::RequestPut(self.put(put))),
                TxnOp::Delete(delete) => {
                    Some(PbTxnOpRequest::RequestDeleteRange(self.delete(delete)))
                }
                TxnOp::Txn(txn) => Some(PbTxnOpRequest::RequestTxn(self.txn(txn))),
                TxnOp::Nothing => None,
                TxnOp::Many(number) => {
                    let read = PbRangeRequest {
                        key: b"a".to_vec(),
                        count_only: true,
                        ..PbRangeRequest::default()
                    };
                    for _ in 1..*number {
                        let request = Some(PbTxnOpRequest::RequestRange(read.clone()));
                        requests.push(PbTxnRequestOp { request });
                    }
                    Some(PbTxnOpRequest::RequestRange(read))
                }
            };
            requests.push(PbTxnRequestOp { request });
        }
        requests
    }

    pub(crate) fn watch(&self, watch: &Watch, start: i64) -> PbWatchRequest {
        let mut union = PbWatchRequestUnion::CreateRequest(Default::default());
        if let PbWatchRequestUnion::CreateRequest(create) = &mut union {
            (create.key, create.range_end) = watch.span.range();
            create.start_revision = start;
            create.watch_id = watch.id;
            create.prev_kv = watch.prev_kv;
            create.fragment = watch.fragment;
            create.progress_notify = watch.progress;
            let filters = [(watch.no_put, 0), (watch.no_delete, 1)];
            let filters = filters.into_iter().filter(|(set, _)| *set);
            create.filters = filters.map(|(_, filter)| filter).collect();
        }
        PbWatchRequest {
            request_union: Some(union),
        }
    }
}

/// Cancels a watch.
pub(crate) fn cancel(watch_id: i64) -> PbWatchRequest {
    let mut union = PbWatchRequestUnion::CancelRequest(Default::default());
    if let PbWatchRequestUnion::CancelRequest(cancel) = &mut union {
        cancel.watch_id = watch_id;
    }
    PbWatchRequest {
        request_union: Some(union),
    }
}

/// Asks for the progress of all watches of a stream.
pub(crate) fn progress() -> PbWatchRequest {
    PbWatchRequest {
        request_union: Some(PbWatchRequestUnion::ProgressRequest(Default::default())),
    }
}
