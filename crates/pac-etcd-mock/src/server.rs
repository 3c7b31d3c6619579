//! The server: its start, its ways in, and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, TryStreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;
use tonic::transport::server::{Server, TcpIncoming};

use crate::connection::Connection;
use crate::faults::Faults;
use crate::operation::Operation;
use crate::services::routes;
use crate::shared::Shared;
use crate::world::Limits;
use crate::world::members::About;

/// Bytes that are under way on a connection in memory, in each direction.
const LINE: usize = 64 * 1024;

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
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: None,
            seed: None,
            limits: Limits::default(),
            version: VERSION.to_owned(),
            progress_interval: PROGRESS_INTERVAL,
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
    /// 10 minutes if nothing else is said, and 100 ms at least.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Starts the server, on the runtime that this is called on.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub async fn start(self) -> io::Result<MockEtcd> {
        let listener = match self.listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let about = About {
            version: self.version,
            name: "default".to_owned(),
            client_urls: address.iter().map(|at| format!("http://{at}")).collect(),
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let shared = Shared::new(self.limits, about, self.progress_interval, seed);
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
            let tcp = Server::builder().add_routes(routes);
            tasks.spawn(served(tcp.serve_with_incoming(accepted)));
        }
        let ending = Arc::clone(&shared);
        tasks.spawn(async move { ending.end_leases().await });
        Ok(MockEtcd {
            shared,
            lines,
            address,
            _tasks: tasks,
        })
    }
}

/// An etcd in this process.
///
/// Dropping it ends its connections, and with them all open watches.
pub struct MockEtcd {
    shared: Arc<Shared>,
    lines: mpsc::Sender<DuplexStream>,
    address: Option<SocketAddr>,
    /// They end when this is dropped.
    _tasks: JoinSet<()>,
}

impl fmt::Debug for MockEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockEtcd")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl MockEtcd {
    /// How it is to be: at first, one in memory alone.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What can go wrong with it.
    #[must_use]
    pub fn faults(&self) -> Faults<'_> {
        Faults::new(&self.shared)
    }

    /// How many requests of each kind it got since it started, also those that it refused.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Operation, u64> {
        self.shared.counters.read()
    }

    /// How many watches are open.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.shared.with_world(|world| world.watches())
    }

    /// Bytes of all keys and values that are kept, old ones included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared.with_world(|world| world.size())
    }

    /// Where it listens, if it listens at all.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where it listens, as clients take it: `http://127.0.0.1:PORT`. Empty if it does not.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.address
            .map(|address| format!("http://{address}"))
            .unwrap_or_default()
    }

    /// A way to it in memory, for [`etcd_client::Client::from_channel`]. It connects with the first
    /// request.
    #[must_use]
    pub fn channel(&self) -> etcd_client::Channel {
        let lines = self.lines.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let lines = lines.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(LINE);
                let ended = |_| io::Error::other("the mock etcd has ended");
                lines.send(theirs).await.map_err(ended)?;
                Ok::<_, io::Error>(TokioIo::new(ours))
            }
        });
        let endpoint = Endpoint::from_static("http://etcd.invalid");
        etcd_client::Channel::Tonic(endpoint.connect_with_connector_lazy(connect))
    }

    /// A client of it in memory.
    ///
    /// # Errors
    /// None but those of [`etcd_client::Client::from_channel`], which sends nothing here.
    pub async fn client(&self) -> Result<etcd_client::Client, etcd_client::Error> {
        etcd_client::Client::from_channel(self.channel(), None).await
    }
}

impl Drop for MockEtcd {
    fn drop(&mut self) {
        // The tasks end, but not the connections that they have accepted.
        self.faults().cut_connections();
    }
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
        tracing::error!(%error, "the mock etcd has ended");
    }
}
