//! Services whose traits the client library does not export: a method is found by its path.
//!
//! `Auth` is one of them: its trait has a method with types that have no public name.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::MOST_BYTES;
use crate::operation::Operation;
use crate::shared::{Shared, status};
use crate::world::refusal::Answer;
use crate::world::{Call, World};

/// A request as it comes in.
pub(super) type Incoming = http::Request<Body>;

/// The answer on its way out.
pub(super) type Outgoing = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// The methods of a service.
pub(super) trait Methods: Clone + Send + Sync + 'static {
    /// Of the service, with its package.
    const NAME: &'static str;

    /// Does a request to a method. `None` when there is no such method.
    fn serve(&self, method: &str, request: Incoming) -> Option<Outgoing>;
}

/// A service of these methods.
#[derive(Debug, Clone)]
pub(super) struct ByPath<M>(pub(super) M);

impl<M: Methods> NamedService for ByPath<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Methods> Service<Incoming> for ByPath<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Outgoing;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Incoming) -> Outgoing {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default();
        self.0.serve(method, request).unwrap_or_else(|| {
            let text = format!("unknown method {method} for service {}", M::NAME);
            Box::pin(ready(Ok(Status::unimplemented(text).into_http())))
        })
    }
}

/// Does a request with the world alone.
pub(super) fn unary<Asked, Answered>(
    shared: &Arc<Shared>,
    operation: Operation,
    request: Incoming,
    work: fn(&mut World, &Call, Asked) -> Answer<Answered>,
) -> Option<Outgoing>
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
{
    let shared = Arc::clone(shared);
    let service = tower::service_fn(move |request: Request<Asked>| {
        let shared = Arc::clone(&shared);
        async move { shared.serve(operation, true, request, work).await }
    });
    answered(service, request)
}

/// Does a request that may wait for others.
pub(super) fn waiting<Asked, Answered, Work>(
    shared: &Arc<Shared>,
    operation: Operation,
    request: Incoming,
    work: fn(Arc<Shared>, Call, Asked) -> Work,
) -> Option<Outgoing>
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
    answered(service, request)
}

fn answered<Asked, Answered, S>(service: S, request: Incoming) -> Option<Outgoing>
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
    S: Service<Request<Asked>, Response = Response<Answered>, Error = Status> + Send + 'static,
    S::Future: Send,
{
    Some(Box::pin(async move {
        Ok(grpc::<Answered, Asked>().unary(service, request).await)
    }))
}

fn grpc<Answered, Asked>() -> Grpc<ProstCodec<Answered, Asked>>
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MOST_BYTES)
}

/// Does a request that has many answers.
pub(super) fn streaming<Asked, Answered, Answers>(
    shared: &Arc<Shared>,
    operation: Operation,
    request: Incoming,
    work: fn(Arc<Shared>, Call, Asked) -> Answers,
) -> Option<Outgoing>
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
    Some(Box::pin(async move {
        let mut grpc = grpc::<Answered, Asked>();
        Ok(grpc.server_streaming(service, request).await)
    }))
}
