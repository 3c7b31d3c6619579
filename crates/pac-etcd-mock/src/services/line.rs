//! Keys that stand in a line, in the order of their creation: what locks and elections are made of.
//!
//! Source: `client/v3/concurrency` of etcd, which its services of the same names call.

use std::sync::Arc;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbKeyValue as KeyValue, PbLeaseGrantRequest, PbPutRequest,
    PbRangeRequest, PbResponseHeader as Header, PbTargetUnion as Target, PbTxnOpRequest as Op,
    PbTxnOpResponse as OpAnswer, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tokio::sync::Notify;

use crate::server::HAS_ENDED;
use crate::shared::Shared;
use crate::world::refusal::{Answer, Code, Refusal};
use crate::world::span::{Span, prefix_end};
use crate::world::watch::{StreamId, WatchCreate};
use crate::world::{Call, World};

/// The TTL of the lease that is granted where none is given, in seconds (`defaultSessionTTL`).
const SESSION_TTL: i64 = 60;

const ENDED: Refusal = Refusal::new(Code::Unavailable, HAS_ENDED);

/// A place in the line.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: Vec<u8>,
    /// The revision at which its key was created.
    pub(super) created: i64,
    pub(super) lease: i64,
    pub(super) header: Option<Header>,
    /// The value that the key had already.
    pub(super) before: Option<Vec<u8>>,
}

/// What these services answer: the text alone is of the error, as their client of etcd has none of
/// the codes.
pub(super) fn worded(refusal: Refusal) -> Refusal {
    Refusal {
        code: Code::Unknown,
        ..refusal
    }
}

/// Takes a place in the line of a name: the one that its lease has already, or a new one.
pub(super) fn enter(
    world: &mut World,
    call: &Call,
    name: &[u8],
    lease: i64,
    value: Vec<u8>,
) -> Answer<Place> {
    let mut lease = lease;
    if lease == 0 {
        let asked = PbLeaseGrantRequest {
            ttl: SESSION_TTL,
            id: 0,
        };
        lease = world.lease_grant(call, &asked)?.id;
    }
    let sign = if lease < 0 { "-" } else { "" };
    let mut key = prefix(name);
    key.extend(format!("{sign}{:x}", lease.unsigned_abs()).into_bytes());
    let put = PbPutRequest {
        key: key.clone(),
        value,
        lease,
        ..PbPutRequest::default()
    };
    let get = PbRangeRequest {
        key: key.clone(),
        ..PbRangeRequest::default()
    };
    let txn = when_created(&key, 0, Op::RequestPut(put), Some(Op::RequestRange(get)));
    let answer = world.txn(call, txn)?;
    let found = first_found(&answer).cloned();
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok(Place {
        created: found.as_ref().map_or(revision, |kv| kv.create_revision),
        before: found.map(|kv| kv.value),
        header: answer.header,
        lease,
        key,
    })
}

/// What all keys in the line of a name begin with.
pub(super) fn prefix(name: &[u8]) -> Vec<u8> {
    let mut prefix = name.to_vec();
    prefix.push(b'/');
    prefix
}

/// Does something to a place if it is still the same. Whether it was.
pub(super) fn at_place(
    world: &mut World,
    call: &Call,
    key: &[u8],
    created: i64,
    operation: Op,
) -> Answer<(bool, Option<Header>)> {
    let answer = world.txn(call, when_created(key, created, operation, None))?;
    Ok((answer.succeeded, answer.header))
}

/// Deletes the key of a place.
pub(super) fn deletion(key: &[u8]) -> PbDeleteRequest {
    PbDeleteRequest {
        key: key.to_vec(),
        ..PbDeleteRequest::default()
    }
}

fn when_created(key: &[u8], created: i64, then: Op, otherwise: Option<Op>) -> PbTxnRequest {
    const CREATE: i32 = 1;
    let compare = PbCompare {
        target: CREATE,
        key: key.to_vec(),
        target_union: Some(Target::CreateRevision(created)),
        ..PbCompare::default()
    };
    let operation = |request| PbTxnRequestOp {
        request: Some(request),
    };
    PbTxnRequest {
        compare: vec![compare],
        success: vec![operation(then)],
        failure: otherwise.map(operation).into_iter().collect(),
    }
}

fn first_found(answer: &PbTxnResponse) -> Option<&KeyValue> {
    match &answer.responses.first()?.response {
        Some(OpAnswer::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}

/// The key of a line that was created first, or last before a revision.
pub(super) fn end_of_line(prefix: &[u8], last_before: Option<i64>) -> PbRangeRequest {
    const ASCENDING: i32 = 1;
    const DESCENDING: i32 = 2;
    const BY_CREATION: i32 = 2;
    PbRangeRequest {
        key: prefix.to_vec(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: if last_before.is_some() {
            DESCENDING
        } else {
            ASCENDING
        },
        sort_target: BY_CREATION,
        max_create_revision: last_before.map_or(0, |created| created - 1),
        ..PbRangeRequest::default()
    }
}

/// Waits until no key of the line was created before this place.
///
/// Cancel-safe: the place stays as it is.
pub(super) async fn await_turn(
    shared: &Arc<Shared>,
    call: &Call,
    prefix: &[u8],
    created: i64,
) -> Answer<()> {
    // A limit of 0 would be none.
    if created <= 1 {
        return Ok(());
    }
    let asked = end_of_line(prefix, Some(created));
    loop {
        // A wait may be longer than the time of a token that is used elsewhere meanwhile.
        let call = shared.renewed(call);
        let found = shared.with_world(|world| world.range(&call, &asked))?;
        let Some(earlier) = found.kvs.into_iter().next() else {
            return Ok(());
        };
        let revision = found.header.map_or(0, |header| header.revision);
        let span = Span::of(&earlier.key, &[]);
        let mut follower = Follower::new(shared, &call, span, revision + 1);
        follower.next().await?;
    }
}

/// Follows the changes of some keys, from inside of the server.
pub(super) struct Follower {
    shared: Arc<Shared>,
    stream: StreamId,
    notify: Arc<Notify>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.close_watches(self.stream);
    }
}

impl Follower {
    pub(super) fn new(shared: &Arc<Shared>, call: &Call, span: Span, from: i64) -> Self {
        let (stream, notify) = shared.open_watches();
        let asked = WatchCreate::plain(span, from);
        shared.with_world(|world| world.create_watch(call, stream, &asked));
        Self {
            shared: Arc::clone(shared),
            stream,
            notify,
        }
    }

    /// The next changes: each with whether the key was written, and what it is now. Cancel-safe.
    pub(super) async fn next(&mut self) -> Answer<(Option<Header>, Vec<(bool, KeyValue)>)> {
        loop {
            let stream = self.stream;
            let next = self.shared.with_world(|world| world.next_response(stream));
            let Some(response) = next else {
                tokio::select! {
                    () = self.notify.notified() => continue,
                    () = self.shared.ended() => return Err(ENDED),
                }
            };
            if response.canceled {
                let text = if response.cancel_reason.is_empty() {
                    "etcdserver: mvcc: required revision has been compacted".to_owned()
                } else {
                    response.cancel_reason
                };
                return Err(Refusal {
                    code: Code::Unknown,
                    text: text.into(),
                });
            }
            if !response.events.is_empty() {
                let events = response.events.into_iter();
                let changes = events.filter_map(|event| Some((event.r#type == 0, event.kv?)));
                return Ok((response.header, changes.collect()));
            }
        }
    }
}
