//! The server: its start and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connection::{Answers, serve};
use super::error::{WebhookError, WebhookErrorKind};
use super::keeper::Keeper;
use super::options::WebhookOptions;
use super::tls::Served;
use crate::install::ClusterAccess;

/// A server that answers admission reviews over TLS, at [`Rule::path`](super::Rule::path) of each
/// rule, and the probes `/healthz` and `/readyz`. Until there is a certificate, no handshake
/// succeeds.
///
/// Dropping it ends all of it at once.
#[derive(Debug)]
pub struct WebhookServer {
    address: SocketAddr,
    served: Arc<Served>,
    answers: Arc<Answers>,
    closing: watch::Sender<bool>,
    serving: Part,
    keeping: Part,
    /// What [`ended`](WebhookServer::ended) has said.
    over: Option<WebhookError>,
}

impl WebhookServer {
    /// Listens, and begins to look after the certificate.
    ///
    /// # Errors
    /// `Config` for an address that cannot be listened on, and for certificates that could not be
    /// renewed in time.
    pub async fn start(
        access: &ClusterAccess,
        options: &WebhookOptions,
    ) -> Result<Self, WebhookError> {
        options.certificate.check()?;
        let listening = async {
            let listener = TcpListener::bind(options.address).await?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((listener, address))
        };
        let (listener, address) = listening.await.map_err(|error| {
            let message = format!("cannot be listened on: {error}; name a free address");
            WebhookError::new(WebhookErrorKind::Config, options.address, message)
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let served = Served::new(Arc::clone(&provider));
        let config = served.config().map_err(|error| {
            WebhookError::new(WebhookErrorKind::Internal, "TLS", error.to_string())
        })?;
        let answers = Arc::new(Answers::new(
            access.clone(),
            options.answer_timeout,
            options.lookup_timeout,
        ));
        let (closing, closes) = watch::channel(false);
        let serving = serve(listener, Arc::new(config), Arc::clone(&answers), closes);
        let keeper = Keeper::new(access, options, Arc::clone(&served), provider);
        Ok(Self {
            address,
            served,
            answers,
            closing,
            serving: Part(tokio::spawn(serving)),
            keeping: Part(tokio::spawn(keeper.run())),
            over: None,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether there is a certificate, so that reviews are answered.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.served.is_there()
    }

    /// Waits until a part of it has ended by itself, which only a bug makes it do. Cancel-safe.
    pub async fn ended(&mut self) -> WebhookError {
        if let Some(over) = &self.over {
            return over.clone();
        }
        let (part, ended) = tokio::select! {
            ended = &mut self.serving.0 => ("connections", ended),
            ended = &mut self.keeping.0 => ("certificate", ended),
        };
        let message = match ended {
            Ok(()) => "nothing looks after it any more; start anew".to_owned(),
            Err(error) => format!("{error}; this is a bug; start anew"),
        };
        let over = WebhookError::new(WebhookErrorKind::Internal, part, message);
        self.over.insert(over).clone()
    }

    /// Ends in order: `/readyz` says so at once, connections are taken in for `linger` more, since
    /// the API server learns only then that it has to ask another replica, and what is being
    /// answered may take until `grace`. Dropped in flight, it ends at once.
    pub async fn close(mut self, linger: Duration, grace: Duration) {
        self.answers.leave();
        sleep(linger).await;
        self.closing.send_replace(true);
        if self.serving.0.is_finished() {
            return;
        }
        if timeout(grace, &mut self.serving.0).await.is_err() {
            tracing::warn!(?grace, "connections were open for too long; they are cut");
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Part(JoinHandle<()>);

impl Drop for Part {
    fn drop(&mut self) {
        self.0.abort();
    }
}
