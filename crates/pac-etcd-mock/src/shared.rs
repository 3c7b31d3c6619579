//! One world, and the way of every request through it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code as GrpcCode, Request, Response, Status};

use crate::operation::Operation;
use crate::world::refusal::{Answer, Code, Refusal};
use crate::world::{Call, Limits, World};

/// What all services of one server share.
pub(crate) struct Shared {
    world: Mutex<World>,
    began: Instant,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            world: Mutex::new(World::new(limits, seed)),
            began: Instant::now(),
        }
    }

    /// Does one request.
    pub(crate) async fn serve<Asked, Answered>(
        &self,
        operation: Operation,
        _needs_leader: bool,
        request: Request<Asked>,
        work: impl FnOnce(&mut World, &Call, Asked) -> Answer<Answered>,
    ) -> Result<Response<Answered>, Status> {
        let call = self.call(&request);
        tracing::trace!(?operation, "request");
        let answer = work(&mut self.world(), &call, request.into_inner());
        answer.map(Response::new).map_err(status)
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn call<T>(&self, request: &Request<T>) -> Call {
        let metadata = request.metadata();
        // Older clients send the one, newer ones the other.
        let token = metadata
            .get("token")
            .or_else(|| metadata.get("authorization"));
        Call {
            now: self.now(),
            token: token
                .and_then(|token| token.to_str().ok())
                .map(str::to_owned),
        }
    }
}

/// How gRPC says it.
pub(crate) fn status(refusal: Refusal) -> Status {
    let code = match refusal.code {
        Code::Cancelled => GrpcCode::Cancelled,
        Code::Unknown => GrpcCode::Unknown,
        Code::InvalidArgument => GrpcCode::InvalidArgument,
        Code::NotFound => GrpcCode::NotFound,
        Code::PermissionDenied => GrpcCode::PermissionDenied,
        Code::ResourceExhausted => GrpcCode::ResourceExhausted,
        Code::FailedPrecondition => GrpcCode::FailedPrecondition,
        Code::OutOfRange => GrpcCode::OutOfRange,
        Code::Unimplemented => GrpcCode::Unimplemented,
        Code::Internal => GrpcCode::Internal,
        Code::Unavailable => GrpcCode::Unavailable,
        Code::Unauthenticated => GrpcCode::Unauthenticated,
    };
    Status::new(code, refusal.text)
}
