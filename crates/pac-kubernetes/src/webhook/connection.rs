//! Connections and the requests on them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pac_core::RepositoryKey;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::review::{Considered, Lookup, consider};
use super::rule::Rule;
use crate::install::{ClusterAccess, Place, REPOSITORY};

/// The largest body: the API server takes an object of 3 MiB, and a review has two of them.
const BODY_LIMIT: usize = 7 << 20;

/// How much the bodies may take that are in memory at once, in KiB.
const BODIES: usize = 32 << 10;

/// How many connections there are at once; more of them wait.
const CONNECTIONS: usize = 512;

/// How long the handshake of a connection may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long the head of the next request may take to come. The API server closes a connection that
/// was idle for 90 s: it should be the one that does.
const IDLE: Duration = Duration::from_secs(100);

/// The most bytes of a head.
const HEAD: usize = 64 << 10;

type Answer = Response<Full<Bytes>>;

/// What answers requests.
#[derive(Debug)]
pub(super) struct Answers {
    access: ClusterAccess,
    answer_timeout: Duration,
    lookup_timeout: Duration,
    bodies: Semaphore,
    is_leaving: AtomicBool,
}

impl Answers {
    pub(super) fn new(
        access: ClusterAccess,
        answer_timeout: Duration,
        lookup_timeout: Duration,
    ) -> Self {
        Self {
            access,
            answer_timeout,
            lookup_timeout,
            bodies: Semaphore::new(BODIES),
            is_leaving: AtomicBool::new(false),
        }
    }

    /// From now on the probe says that no new connections should come.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        match (Rule::of_path(path), head.method) {
            (Some(rule), Method::POST) => {
                let length = head.headers.get(header::CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                let answer = timeout(self.answer_timeout, self.review(rule, length, body)).await;
                answer.unwrap_or_else(|_| {
                    let within = self.answer_timeout;
                    refused(
                        StatusCode::SERVICE_UNAVAILABLE,
                        &format!("rule {}: no answer within {within:?}", rule.name()),
                    )
                })
            }
            (Some(_), _) => refused(StatusCode::METHOD_NOT_ALLOWED, "reviews are posted"),
            (None, _) => match path {
                "/healthz" => said(StatusCode::OK, "ok"),
                "/readyz" if self.is_leaving.load(Ordering::Relaxed) => {
                    said(StatusCode::SERVICE_UNAVAILABLE, "closing")
                }
                "/readyz" => said(StatusCode::OK, "ok"),
                _ => said(StatusCode::NOT_FOUND, "there is nothing here"),
            },
        }
    }

    async fn review(&self, rule: Rule, length: Option<usize>, body: Incoming) -> Answer {
        let most = length.unwrap_or(BODY_LIMIT);
        if most > BODY_LIMIT {
            return too_large();
        }
        let considered = {
            // The semaphore is never closed, and has room for the largest body.
            let kib = u32::try_from(most / 1024 + 1).unwrap_or(u32::MAX);
            let Ok(_room) = self.bodies.acquire_many(kib).await else {
                return refused(StatusCode::SERVICE_UNAVAILABLE, "closing");
            };
            match Limited::new(body, most).collect().await {
                Ok(body) => consider(rule, &body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => return too_large(),
                Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        };
        let answer = match considered {
            Ok(Considered::Answered(answer)) => answer,
            Ok(Considered::Asks(question)) => {
                let found = self.look_up(question.repository()).await;
                question.answer(&found)
            }
            Err(refusal) => {
                let message = format!("rule {}: {refusal}", rule.name());
                return refused(StatusCode::BAD_REQUEST, &message);
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(answer)));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    /// Reads the Repository past all caches: one that got its limit a moment ago has it.
    async fn look_up(&self, repository: &RepositoryKey) -> Lookup {
        let place = Place::new(REPOSITORY, repository.namespace(), repository.name());
        match timeout(self.lookup_timeout, self.access.get(place)).await {
            Ok(Ok(found)) => Lookup::of(found.as_ref()),
            Ok(Err(error)) => Lookup::Unknown(error.message().to_owned()),
            Err(_) => Lookup::Unknown(format!("no answer within {:?}", self.lookup_timeout)),
        }
    }
}

/// Takes connections in until `closing` says so, and ends when the last of them has ended.
pub(super) async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    answers: Arc<Answers>,
    mut closing: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let taken_in = async {
            let room = Arc::clone(&room).acquire_owned().await;
            (room, listener.accept().await)
        };
        tokio::select! {
            (room, accepted) = taken_in => match accepted {
                Ok((stream, _)) => {
                    let acceptor = TlsAcceptor::from(Arc::clone(&config));
                    let (answers, closing) = (Arc::clone(&answers), closing.clone());
                    connections.spawn(async move {
                        let _room = room;
                        connection(stream, acceptor, answers, closing).await;
                    });
                }
                Err(error) => {
                    // Such as too many open files: that passes.
                    tracing::warn!(%error, "no connection can be accepted; trying again");
                    sleep(Duration::from_secs(1)).await;
                }
            },
            Some(ended) = connections.join_next() => look_at(&ended),
            () = closes(&mut closing) => break,
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        look_at(&ended);
    }
}

/// Waits until the server closes. Cancel-safe.
async fn closes(closing: &mut watch::Receiver<bool>) {
    // An error says that the server is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}

fn look_at(ended: &Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection has ended by a bug");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    answers: Arc<Answers>,
    mut closing: watch::Receiver<bool>,
) {
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // Probes of the port do that all the time.
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake has failed");
            return;
        }
        Err(_) => {
            tracing::debug!("a handshake has taken too long");
            return;
        }
    };
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = closes(&mut closing) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection has ended");
    }
}

fn too_large() -> Answer {
    let message = format!("a review has at most {BODY_LIMIT} bytes");
    refused(StatusCode::PAYLOAD_TOO_LARGE, &message)
}

/// The API server takes it for a failed call, and goes by the failure policy.
fn refused(status: StatusCode, message: &str) -> Answer {
    tracing::warn!(status = status.as_u16(), message, "a review has no answer");
    said(status, message)
}

fn said(status: StatusCode, message: &str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *response.status_mut() = status;
    response
}
