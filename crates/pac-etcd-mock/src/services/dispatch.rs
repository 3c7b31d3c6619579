//! Services whose traits the client library does not export: a method is found by its path.
//!
//! `Auth` is one of them: its trait has a method with types that have no public name.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::operation::Operation;
use crate::shared::Shared;
use crate::world::refusal::Answer;
use crate::world::{Call, World};

/// A request as it comes in.
pub(super) type Incoming = http::Request<Body>;

/// The answer on its way out.
pub(super) type Outgoing = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// Does a request with the world alone.
pub(super) fn unary<Asked, Answered>(
    shared: &Arc<Shared>,
    operation: Operation,
    request: Incoming,
    work: fn(&mut World, &Call, Asked) -> Answer<Answered>,
) -> Outgoing
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
{
    let shared = Arc::clone(shared);
    let service = tower::service_fn(move |request: Request<Asked>| {
        let shared = Arc::clone(&shared);
        async move { shared.serve(operation, true, request, work).await }
    });
    Box::pin(async move {
        let mut grpc = Grpc::new(ProstCodec::<Answered, Asked>::default());
        Ok(grpc.unary(service, request).await)
    })
}

/// The answer to a path that is not served.
pub(super) fn unknown(path: &str, service: &str) -> Outgoing {
    let method = path.rsplit('/').next().unwrap_or(path);
    let status = Status::unimplemented(format!("unknown method {method} for service {service}"));
    Box::pin(ready(Ok(status.into_http())))
}
