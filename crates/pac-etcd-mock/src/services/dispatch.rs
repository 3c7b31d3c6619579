//! Services whose traits the client library does not export: a method is found by its path.
//!
//! `Auth` is one of them: its trait has a method with types that have no public name.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::operation::Operation;
use crate::shared::{Shared, status};
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

/// Does a request that may wait for others.
pub(super) fn waiting<Asked, Answered, Work>(
    shared: &Arc<Shared>,
    operation: Operation,
    request: Incoming,
    work: fn(Arc<Shared>, Call, Asked) -> Work,
) -> Outgoing
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
    Work: Future<Output = Answer<Answered>> + Send + 'static,
{
    let shared = Arc::clone(shared);
    let service = tower::service_fn(move |request: Request<Asked>| {
        let shared = Arc::clone(&shared);
        async move {
            let under_way = shared.begin(operation, true, &request).await?;
            let call = shared.call(request.metadata());
            let answer = work(Arc::clone(&shared), call, request.into_inner()).await;
            under_way.end().await?;
            answer.map(Response::new).map_err(status)
        }
    });
    Box::pin(async move {
        let mut grpc = Grpc::new(ProstCodec::<Answered, Asked>::default());
        Ok(grpc.unary(service, request).await)
    })
}

/// Does a request that has many answers.
pub(super) fn streaming<Asked, Answered, Answers>(
    shared: &Arc<Shared>,
    operation: Operation,
    request: Incoming,
    work: fn(Arc<Shared>, Call, Asked) -> Answers,
) -> Outgoing
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
    Answers: Stream<Item = Result<Answered, Status>> + Send + 'static,
{
    let shared = Arc::clone(shared);
    let service = tower::service_fn(move |request: Request<Asked>| {
        let shared = Arc::clone(&shared);
        async move {
            let under_way = shared.begin(operation, true, &request).await?;
            let call = shared.call(request.metadata());
            under_way.end().await?;
            let answers = work(shared, call, request.into_inner());
            Ok::<_, Status>(Response::new(answers))
        }
    });
    Box::pin(async move {
        let mut grpc = Grpc::new(ProstCodec::<Answered, Asked>::default());
        Ok(grpc.server_streaming(service, request).await)
    })
}

/// The answer to a path that is not served.
pub(super) fn unknown(path: &str, service: &str) -> Outgoing {
    let method = path.rsplit('/').next().unwrap_or(path);
    let status = Status::unimplemented(format!("unknown method {method} for service {service}"));
    Box::pin(ready(Ok(status.into_http())))
}
