//! Locks.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use etcd_client::proto::{PbLockResponse, PbRangeRequest, PbUnlockResponse};
use tonic::server::NamedService;
use tower::Service;

use super::dispatch::{Incoming, Outgoing, unary, unknown, waiting};
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

impl NamedService for Lock {
    const NAME: &'static str = "v3lockpb.Lock";
}

impl Service<Incoming> for Lock {
    type Response = tonic::codegen::http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Outgoing;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Incoming) -> Outgoing {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/v3lockpb.Lock/Lock" => waiting(&self.0, Operation::Lock, request, lock),
            "/v3lockpb.Lock/Unlock" => unary(
                &self.0,
                Operation::Lock,
                request,
                |world, call, asked: UnlockRequest| {
                    let deleted = world.delete_range(call, &deletion(&asked.key));
                    let header = deleted.map_err(worded)?.header;
                    Ok(PbUnlockResponse { header })
                },
            ),
            _ => unknown(&path, Self::NAME),
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
    let found = shared.with_world(|world| world.range(&call, &own));
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
            let deleted = self
                .shared
                .with_world(|world| world.delete_range(self.call, &deletion(self.key)));
            if let Err(refusal) = deleted {
                tracing::trace!(?refusal, "the key of a request that has gone stays");
            }
        }
    }
}
