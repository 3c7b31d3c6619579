//! The server: its start, its switches and its end.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admission::Mutator;
use crate::call::{Answer, Call, Verb};
use crate::failure::Failure;
use crate::faults::Faults;
use crate::handle::Handle;
use crate::http::answer::answer;
use crate::http::connection::{Connection, Connections, Door};
use crate::policies::Policy;
use crate::requests::{Log, RequestRecord, Requests};
use crate::resource::Resource;
use crate::store::State;
use crate::webhooks::{self, Webhooks};

/// How a server behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiOptions {
    /// How many changes the history keeps: a watch that is further behind is answered with 410.
    pub history: usize,
    /// How often a watch that takes bookmarks gets one. A real server sends one a minute.
    pub bookmark_interval: Duration,
    /// How long a watch lasts that does not say so itself.
    pub watch_timeout: Duration,
    /// Resources beside those of every server.
    pub resources: Vec<Resource>,
    /// Whether the resources of Tekton and Pipelines-as-Code are served from the beginning. Otherwise
    /// their definitions have to be made first, as in a new cluster.
    pub custom_resources: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            history: 100_000,
            bookmark_interval: Duration::from_secs(1),
            watch_timeout: Duration::from_secs(1800),
            resources: Vec::new(),
            custom_resources: true,
        }
    }
}

/// A Kubernetes API server in this process, at a port of the loopback address.
///
/// Dropping it ends its connections, and with them all open watches and held requests.
pub struct ApiServer {
    shared: Arc<Shared>,
    url: String,
    accepting: JoinHandle<()>,
}

impl ApiServer {
    /// Starts a server with the options of most tests.
    ///
    /// # Panics
    /// Without a Tokio runtime, or when the loopback address has no free port.
    pub async fn start() -> Self {
        Self::start_with(ApiOptions::default()).await
    }

    /// Starts a server.
    ///
    /// # Panics
    /// Without a Tokio runtime, or when the loopback address has no free port.
    #[allow(
        clippy::panic,
        reason = "a test that cannot start its server has to fail"
    )]
    pub async fn start_with(options: ApiOptions) -> Self {
        let mut state = State::new(options.history);
        if !options.custom_resources {
            state.remove_custom_resources();
        }
        for row in &options.resources {
            state.add_resource(row.clone());
        }
        let shared = Arc::new(Shared {
            revisions: watch::Sender::new(state.revision()),
            state: Mutex::new(state),
            options,
            faults: Faults::default(),
            log: Log::default(),
            connections: Arc::default(),
            webhooks: Webhooks::default(),
        });
        let (listener, address) = match listen().await {
            Ok(listening) => listening,
            Err(error) => panic!("the test's API server found no loopback port: {error}"),
        };
        let door = Door {
            listener,
            connections: Arc::clone(&shared.connections),
        };
        let service = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared))
            .into_make_service_with_connect_info::<Connection>();
        let accepting = tokio::spawn(async move {
            // It never returns: its listener accepts for ever.
            let _ = axum::serve(door, service).await;
        });
        Self {
            shared,
            url: format!("http://{address}"),
            accepting,
        }
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A way to its objects without a connection, for tests and for stand-ins.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }

    /// The faults of requests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Cuts the connections of all open watches; returns how many there were.
    #[must_use = "a count of zero means that no watch was open yet"]
    pub fn cut_watches(&self) -> usize {
        self.shared.connections.cut_watches()
    }

    /// Goes away: all connections are cut, and each new one is closed as soon as it is accepted.
    /// [`Handle`]s get 503.
    pub fn leave(&self) {
        self.shared.connections.set_away(true);
    }

    /// Comes back at the same port, with all that it kept.
    pub fn come_back(&self) {
        self.shared.connections.set_away(false);
    }

    /// Forgets the history: every watch from an older revision, and every open page of a list, is
    /// answered with 410. Open watches have read the history and go on.
    pub fn compact(&self) {
        self.shared.lock().compact();
    }

    /// The requests so far that the filter accepts, in the order in which they came. Those of [`Handle`]s
    /// and those for discovery are not among them.
    #[must_use]
    pub fn requests(&self, requests: &Requests) -> Vec<RequestRecord> {
        self.shared.log.matching(requests)
    }

    /// How many requests so far the filter accepts.
    #[must_use]
    pub fn count(&self, requests: &Requests) -> usize {
        self.requests(requests).len()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.log.clear();
    }

    /// Installs a function that every written object goes through; one of the same name is
    /// replaced.
    pub fn install_mutator(&self, name: &str, mutator: Mutator) {
        self.shared.lock().admission.install(name, mutator);
    }

    /// Removes an installed function.
    pub fn remove_mutator(&self, name: &str) {
        self.shared.lock().admission.remove(name);
    }

    /// Says where a Service is that webhooks are called at; `None`: nowhere. While a
    /// MutatingWebhookConfiguration concerns a write, its webhooks are called by the thread that
    /// writes: where they run on the same runtime, it needs several threads.
    pub fn serve_service(&self, namespace: &str, name: &str, address: Option<SocketAddr>) {
        self.shared.webhooks.set(namespace, name, address);
    }

    /// Lets the server do what a policy does, for as long as its objects exist.
    pub fn recognise(&self, policy: Policy) {
        self.shared.lock().admission.recognise(policy);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.connections.set_away(true);
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What the connections, the handles and the server share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The last revision; watches wait for the next.
    revisions: watch::Sender<u64>,
    pub(crate) options: ApiOptions,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    pub(crate) connections: Arc<Connections>,
    pub(crate) webhooks: Webhooks,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each new revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    /// Does what a request asks for; watches are not among these.
    ///
    /// # Errors
    /// As of the verb.
    pub(crate) fn call(&self, call: &Call) -> Result<Answer, Failure> {
        webhooks::call(self, call)
    }

    /// The same without asking webhooks.
    ///
    /// # Errors
    /// As of the verb.
    pub(crate) fn perform(&self, call: &Call) -> Result<Answer, Failure> {
        let mut state = self.lock();
        let answer = match call.verb {
            Verb::Get => state
                .get(&call.resource, &call.namespace, &call.name)
                .map(Answer::ok),
            Verb::List => state.list(call),
            Verb::Create => state.create(call),
            Verb::Update => state.update(call),
            Verb::Patch => state.patch(call),
            Verb::Delete => state.delete(call),
            Verb::DeleteCollection => state.delete_collection(call),
            Verb::Watch => Err(Failure::not_allowed()),
        };
        let revision = state.revision();
        drop(state);
        self.revisions.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
        answer
    }
}

async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
