//! The server: its start, its ways in, and its end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream::{self, Stream, TryStreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;
use tonic::transport::server::{Server, TcpIncoming};

use crate::connection::Connection;
use crate::services::routes;
use crate::shared::Shared;
use crate::world::Limits;

/// Bytes that are under way on a connection in memory, in each direction.
const LINE: usize = 64 * 1024;

/// Connections in memory that wait to be accepted.
const BACKLOG: usize = 64;

/// How a [`MockEtcd`] is to be.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Builder {
    listen: Option<SocketAddr>,
    seed: Option<u64>,
    limits: Limits,
}

impl Builder {
    /// Also listens at this address; port 0 takes a free one. Without it, the server can be reached
    /// in this process alone.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Decides the ids that the server gives: two servers with one seed give the same.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the server, on the runtime that this is called on.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub async fn start(self) -> io::Result<MockEtcd> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let shared = Arc::new(Shared::new(self.limits, seed));
        let routes = routes(&shared);
        let (lines, accepted) = mpsc::channel(BACKLOG);
        let in_memory = Server::builder().add_routes(routes.clone());
        let cuts = watch::Sender::new(0);
        let in_memory = in_memory.serve_with_incoming(cuttable(queue(accepted), cuts.subscribe()));
        let mut tasks = vec![served(in_memory)];
        let mut address = None;
        if let Some(listen) = self.listen {
            let listener = TcpListener::bind(listen).await?;
            address = Some(listener.local_addr()?);
            let accepted = TcpIncoming::from(listener).with_nodelay(Some(true));
            let tcp = Server::builder().add_routes(routes);
            tasks.push(served(
                tcp.serve_with_incoming(cuttable(accepted, cuts.subscribe())),
            ));
        }
        Ok(MockEtcd {
            shared,
            lines,
            address,
            tasks,
            cuts,
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
    tasks: Vec<JoinHandle<()>>,
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<u64>,
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
        for task in &self.tasks {
            task.abort();
        }
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

fn served(
    server: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the mock etcd has ended");
        }
    })
}
