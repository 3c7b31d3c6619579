//! A server that runs: its ways in, and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Uri};
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use crate::builder::Builder;
use crate::faults::Faults;
use crate::operation::Operation;
use crate::shared::Shared;

/// Bytes that are under way on a connection in memory, in each direction.
const LINE: usize = 64 * 1024;

/// What is answered after the end.
pub(crate) const HAS_ENDED: &str = "the mock etcd has ended";

/// An etcd in this process.
///
/// Dropping it ends its connections and all open watches, those of direct ways too.
pub struct MockEtcd {
    shared: Arc<Shared>,
    routes: Routes,
    lines: mpsc::Sender<DuplexStream>,
    /// Where it listens, also as clients take it.
    address: Option<(SocketAddr, String)>,
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
    pub(crate) fn new(
        (shared, routes): (Arc<Shared>, Routes),
        lines: mpsc::Sender<DuplexStream>,
        address: Option<(SocketAddr, String)>,
        tasks: JoinSet<()>,
    ) -> Self {
        Self {
            shared,
            routes,
            lines,
            address,
            _tasks: tasks,
        }
    }

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
        self.address.as_ref().map(|(address, _)| *address)
    }

    /// Where it listens, as clients take it: `http://127.0.0.1:PORT`, or `https://` with TLS. Empty
    /// if it does not listen.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.address.as_ref().map_or("", |(_, endpoint)| endpoint)
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
                let ended = |_| io::Error::other(HAS_ENDED);
                lines.send(theirs).await.map_err(ended)?;
                Ok::<_, io::Error>(TokioIo::new(ours))
            }
        });
        let endpoint = Endpoint::from_static("http://etcd.invalid");
        etcd_client::Channel::Tonic(endpoint.connect_with_connector_lazy(connect))
    }

    /// A way to it without a connection, for [`etcd_client::Client::from_channel`]: each request is
    /// encoded and decoded, but not sent, and done on the thread that makes it. Several times as
    /// fast as [`channel`](Self::channel), and usable from any runtime. There is nothing to cut: a
    /// fault that would is answered with `Unavailable`.
    #[must_use]
    pub fn direct_channel(&self) -> etcd_client::Channel {
        direct(self.routes.clone(), Arc::clone(&self.shared))
    }

    /// Turns it into such a way, with which it lasts as long as the channel and its clones.
    #[must_use]
    pub fn into_direct_channel(self) -> etcd_client::Channel {
        direct(self.routes.clone(), Arc::new(self))
    }

    /// A client of it in memory.
    ///
    /// # Errors
    /// None but those of [`etcd_client::Client::from_channel`], which sends nothing here.
    pub async fn client(&self) -> Result<etcd_client::Client, etcd_client::Error> {
        etcd_client::Client::from_channel(self.channel(), None).await
    }
}

fn direct(routes: Routes, server: Arc<impl HasEnded>) -> etcd_client::Channel {
    let service = tower::service_fn(move |request: Request<Body>| {
        let mut routes = routes.clone();
        let has_ended = server.has_ended();
        async move {
            if has_ended {
                return Ok(Status::unavailable(HAS_ENDED).into_http());
            }
            // Routes are always ready.
            routes.call(request).await.map_err(BoxError::from)
        }
    });
    etcd_client::Channel::Custom(BoxCloneSyncService::new(service))
}

/// What a direct way holds of its server: all of it, or what outlives it.
trait HasEnded: Send + Sync + 'static {
    fn has_ended(&self) -> bool;
}

impl HasEnded for Shared {
    fn has_ended(&self) -> bool {
        self.has_ended()
    }
}

impl HasEnded for MockEtcd {
    fn has_ended(&self) -> bool {
        false
    }
}

impl Drop for MockEtcd {
    fn drop(&mut self) {
        self.shared.end();
        // The tasks end, but not the connections that they have accepted.
        self.faults().cut_connections();
    }
}
