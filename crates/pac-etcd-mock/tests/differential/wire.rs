//! Requests as they are, without the convenience of a client library.

use std::time::Duration;

use etcd_client::Channel;
use etcd_client::proto::{PbWatchRequest, PbWatchResponse};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Without an answer for so long, a server is taken to be silent. Nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a test sends and receives may be larger than what etcd accepts.
const LARGEST: usize = 16 << 20;

/// A way to a server.
#[derive(Debug, Clone)]
pub(crate) struct Wire(pub(crate) Channel);

impl Wire {
    /// Calls a method, such as `/etcdserverpb.KV/Range`.
    pub(crate) async fn call<Q, A>(
        &self,
        method: &'static str,
        token: Option<&str>,
        message: Q,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(method);
            grpc.unary(with(token, message), path, ProstCodec::default())
                .await
                .map(Response::into_inner)
        };
        timeout(PATIENCE, call).await.unwrap_or_else(silent)
    }

    /// Calls a method with streams in both directions, and a first message.
    pub(crate) async fn stream<Q, A>(
        &self,
        method: &'static str,
        token: Option<&str>,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(method);
            grpc.streaming(with(token, messages), path, ProstCodec::default())
                .await
                .map(Response::into_inner)
        };
        timeout(PATIENCE, call).await.unwrap_or_else(silent)
    }

    /// One message each way.
    pub(crate) async fn exchange<Q, A>(
        &self,
        method: &'static str,
        token: Option<&str>,
        message: Q,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut answers = self
            .stream(method, token, tokio_stream::once(message))
            .await?;
        next(&mut answers).await
    }

    /// Opens a stream of watches with a first request.
    pub(crate) async fn watch(
        &self,
        token: Option<&str>,
        first: PbWatchRequest,
    ) -> Result<
        (
            mpsc::UnboundedSender<PbWatchRequest>,
            Streaming<PbWatchResponse>,
        ),
        Status,
    > {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        sender.send(first).unwrap();
        let requests = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        let answers = self
            .stream("/etcdserverpb.Watch/Watch", token, requests)
            .await?;
        Ok((sender, answers))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.0.clone())
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(format!("no connection: {error:?}")))?;
        Ok(grpc)
    }
}

/// The next message of a stream; the end is a status too.
pub(crate) async fn next<A>(answers: &mut Streaming<A>) -> Result<A, Status> {
    match timeout(PATIENCE, answers.next()).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(Status::ok("the stream has ended")),
        Err(elapsed) => silent(elapsed),
    }
}

fn silent<A>(_: tokio::time::error::Elapsed) -> Result<A, Status> {
    Err(Status::deadline_exceeded("the server is silent"))
}

fn with<M>(token: Option<&str>, message: M) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let token = token.parse().unwrap();
        request.metadata_mut().insert("token", token);
    }
    request
}
