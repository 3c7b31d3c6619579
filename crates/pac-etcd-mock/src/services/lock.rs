//! Locks.

use std::sync::Arc;

use etcd_client::proto::{PbLockResponse, PbRangeRequest, PbUnlockResponse};

use super::dispatch::{Incoming, Methods, Outgoing, unary, waiting};
use super::line::{await_turn, deletion, enter, prefix, worded};
use crate::operation::Operation;
use crate::shared::Shared;
use crate::world::Call;
use crate::world::refusal::{Answer, Code, Refusal};

const SESSION_EXPIRED: Refusal = Refusal::new(Code::Unknown, "mutex: session is expired");

/// The service `v3lockpb.Lock`.
#[derive(Debug, Clone)]
pub(super) struct Lock(pub(super) Arc<Shared>);

/// `v3lockpb.LockRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

/// `v3lockpb.UnlockRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

impl Methods for Lock {
    const NAME: &'static str = "v3lockpb.Lock";

    fn serve(&self, method: &str, request: Incoming) -> Option<Outgoing> {
        match method {
            "Lock" => waiting(&self.0, Operation::Lock, request, lock),
            "Unlock" => unary(
                &self.0,
                Operation::Lock,
                request,
                |world, call, asked: UnlockRequest| {
                    let deleted = world.delete_range(call, &deletion(&asked.key));
                    let header = deleted.map_err(worded)?.header;
                    Ok(PbUnlockResponse { header })
                },
            ),
            _ => None,
        }
    }
}

async fn lock(shared: Arc<Shared>, call: Call, asked: LockRequest) -> Answer<PbLockResponse> {
    let entered =
        shared.with_world(|world| enter(world, &call, &asked.name, asked.lease, Vec::new()));
    let place = entered.map_err(worded)?;
    let mut entry = Entry {
        shared: &shared,
        call: &call,
        key: &place.key,
        is_kept: false,
    };
    let turn = await_turn(&shared, &call, &prefix(&asked.name), place.created).await;
    turn.map_err(worded)?;
    let own = PbRangeRequest {
        key: place.key.clone(),
        ..PbRangeRequest::default()
    };
    let now = shared.renewed(&call);
    let found = shared.with_world(|world| world.range(&now, &own));
    let found = found.map_err(worded)?;
    entry.is_kept = true;
    if found.kvs.is_empty() {
        return Err(SESSION_EXPIRED);
    }
    Ok(PbLockResponse {
        header: found.header,
        key: place.key.clone(),
    })
}

/// The key of a request that waits. It goes with the request, unless the lock was taken.
struct Entry<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Call,
    key: &'a [u8],
    is_kept: bool,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let call = self.shared.renewed(self.call);
            let deleted = self
                .shared
                .with_world(|world| world.delete_range(&call, &deletion(self.key)));
            if let Err(refusal) = deleted {
                tracing::trace!(?refusal, "the key of a request that has gone stays");
            }
        }
    }
}
