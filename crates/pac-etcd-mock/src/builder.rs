//! How a server is to be, and its start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, TryStreamExt};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::connection::Connection;
use crate::server::MockEtcd;
use crate::services::routes;
use crate::shared::Shared;
use crate::world::Limits;
use crate::world::members::About;

/// Connections in memory that wait to be accepted.
const BACKLOG: usize = 64;

/// How often etcd tells progress by default (`--experimental-watch-progress-notify-interval`).
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// The version that the server claims to be by default: the newest one that it is compared with.
const VERSION: &str = "3.5.1";

/// How a [`MockEtcd`] is to be.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    listen: Option<SocketAddr>,
    seed: Option<u64>,
    limits: Limits,
    version: String,
    progress_interval: Duration,
    tls: Option<Tls>,
    client_ca: Option<String>,
    root_password: Option<Password>,
}

/// The certificate of the server with its key, in PEM.
#[derive(Clone)]
struct Tls {
    certificate: String,
    key: String,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Clone)]
struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: None,
            seed: None,
            limits: Limits::default(),
            version: VERSION.to_owned(),
            progress_interval: PROGRESS_INTERVAL,
            tls: None,
            client_ca: None,
            root_password: None,
        }
    }
}

impl Builder {
    /// Also listens at this address; port 0 takes a free one. Without it, the server can be reached
    /// in this process alone.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Decides the ids that the server gives: two servers with one seed give the same. Without it,
    /// they are random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The version that the server claims to be, 3.5.1 if nothing else is said. It behaves the same.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The shortest TTL of a lease, in seconds: shorter ones are raised to it. 2 if nothing else is
    /// said, as etcd has it with its default election timeout.
    pub fn least_ttl(mut self, seconds: i64) -> Self {
        self.limits.least_ttl = seconds;
        self
    }

    /// The most operations in a branch of a transaction (`--max-txn-ops`). 128 if nothing else is
    /// said.
    pub fn max_txn_ops(mut self, operations: usize) -> Self {
        self.limits.txn_operations = operations;
        self
    }

    /// The bytes of keys and values at which nothing more is written (`--quota-backend-bytes`).
    /// 2 GiB if nothing else is said.
    pub fn quota(mut self, bytes: usize) -> Self {
        self.limits.quota_bytes = bytes;
        self
    }

    /// Compacts by itself, so that these many revisions are kept at least and twice as many at most.
    /// Without it, all are kept until a client compacts.
    pub fn auto_compaction(mut self, revisions: u32) -> Self {
        self.limits.revisions_kept = Some(revisions.into());
        self
    }

    /// How often a watch that asked for it is told its progress, if nothing else is to be told.
    /// 10 minutes if nothing else is said, 100 ms at least, and a year at most.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        self.progress_interval = interval.clamp(Duration::from_millis(100), YEAR);
        self
    }

    /// Speaks TLS alone, by TCP, with this certificate and its key, in PEM. In memory there is none.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some(Tls {
            certificate: certificate.into(),
            key: key.into(),
        });
        self
    }

    /// Asks each client for a certificate of this authority, in PEM. Needs [`tls`](Self::tls). The
    /// name in the certificate is not taken for a user.
    pub fn client_ca(mut self, authority: impl Into<String>) -> Self {
        self.client_ca = Some(authority.into());
        self
    }

    /// Checks users from the start: there is one, `root`, with this password, who may do everything.
    pub fn root_password(mut self, password: impl Into<String>) -> Self {
        self.root_password = Some(Password(password.into()));
        self
    }

    /// Starts the server, on the runtime that this is called on.
    ///
    /// # Errors
    /// When the address cannot be listened at, certificate and key cannot be used, or certificates of
    /// clients are asked for without TLS.
    pub async fn start(self) -> io::Result<MockEtcd> {
        let mut tcp = Server::builder();
        match (&self.tls, &self.client_ca) {
            (Some(tls), authority) => {
                let config = tls.config(authority.as_deref());
                tcp = tcp.tls_config(config).map_err(|error| unusable(&error))?;
            }
            (None, Some(_)) => {
                let message = "clients can be asked for certificates with TLS only: give a \
                               certificate and its key, too";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            (None, None) => {}
        }
        let listener = match self.listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = address.map(|address| format!("{scheme}://{address}"));
        let about = About {
            version: self.version,
            name: "default".to_owned(),
            client_urls: endpoint.iter().cloned().collect(),
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let shared = Shared::new(self.limits, about, self.progress_interval, seed);
        if let Some(Password(password)) = self.root_password {
            shared.with_world(|world| world.guard(password));
        }
        let shared = Arc::new(shared);
        let routes = routes(&shared);
        let mut tasks = JoinSet::new();
        let (lines, accepted) = mpsc::channel(BACKLOG);
        let accepted = cuttable(queue(accepted), shared.cuts.subscribe());
        let in_memory = Server::builder().add_routes(routes.clone());
        tasks.spawn(served(in_memory.serve_with_incoming(accepted)));
        if let Some(listener) = listener {
            let accepted = TcpIncoming::from(listener).with_nodelay(Some(true));
            let accepted = cuttable(accepted, shared.cuts.subscribe());
            tasks.spawn(served(
                tcp.add_routes(routes.clone()).serve_with_incoming(accepted),
            ));
        }
        let ending = Arc::clone(&shared);
        tasks.spawn(async move { ending.end_leases().await });
        let address = address.zip(endpoint);
        Ok(MockEtcd::new((shared, routes), lines, address, tasks))
    }
}

impl Tls {
    fn config(&self, client_ca: Option<&str>) -> ServerTlsConfig {
        let identity = Identity::from_pem(&self.certificate, &self.key);
        let config = ServerTlsConfig::new().identity(identity);
        match client_ca {
            Some(authority) => config.client_ca_root(Certificate::from_pem(authority)),
            None => config,
        }
    }
}

fn unusable(error: &tonic::transport::Error) -> io::Error {
    let reason = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    let message = format!(
        "certificate, key or authority cannot be used ({error} {reason}): give them in PEM"
    );
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn queue(accepted: mpsc::Receiver<DuplexStream>) -> impl Stream<Item = io::Result<DuplexStream>> {
    stream::unfold(accepted, |mut accepted| async move {
        let line = accepted.recv().await?;
        Some((Ok(line), accepted))
    })
}

fn cuttable<S>(
    accepted: impl Stream<Item = io::Result<S>>,
    cuts: watch::Receiver<u64>,
) -> impl Stream<Item = io::Result<Connection<S>>> {
    accepted.map_ok(move |line| Connection::new(line, cuts.clone()))
}

async fn served(server: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = server.await {
        tracing::trace!(%error, "the mock etcd has ended");
    }
}
