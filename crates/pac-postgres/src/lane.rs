//! The thread on which the driver keeps its [link](crate::client::Link): it makes the connection
//! and makes it anew when it is lost, hears hints on it and sends them, and renewals of sessions go
//! over it. No load of the application gets in its way.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pac_core::pauses::Pauses;
use pac_core::{Error, ErrorKind};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Session};
use crate::watch::Watches;

/// The time between two attempts to connect: at first, and later, each up to twice as long. The
/// longest is how long a store that is back may go unnoticed; an attempt that is refused costs the
/// server next to nothing.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// Two attempts are never closer together.
const SHORTEST: Duration = Duration::from_millis(50);
/// An attempt that takes longer than this is begun anew when the server answers on another connection.
const OUTDATED: Duration = Duration::from_secs(1);
/// How long the end of the thread may be put off for hints that have not been sent yet.
const LAST_HINTS: Duration = Duration::from_secs(1);

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    thread: JoinHandle<()>,
    _stop: oneshot::Sender<()>,
}

/// A thread whose link is up, and which waits to be told how changes are found.
#[derive(Debug)]
pub(crate) struct Started {
    lane: Lane,
    go_on: oneshot::Sender<By>,
}

/// How changes of other processes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Notifications,
    Polling,
}

impl Lane {
    /// Starts the thread, and returns when it has connected. Waits for a server that has no room for
    /// another connection.
    pub(crate) async fn start(client: Client, watches: Arc<Watches>) -> Result<Started, Error> {
        let (stop, stopped) = oneshot::channel();
        let (connected, is_connected) = oneshot::channel();
        let (go_on, goes_on) = oneshot::channel();
        let last = Arc::clone(&watches);
        let work = async move {
            let session = match first(&client, &watches).await {
                Ok(session) => session,
                Err(error) => {
                    // Nobody waits any more when the future was dropped.
                    let _ = connected.send(Err(error));
                    return;
                }
            };
            client.link().set(Some(Arc::clone(&session)));
            if connected.send(Ok(())).is_err() {
                return;
            }
            let Ok(by) = goes_on.await else {
                return;
            };
            let changes = async {
                match by {
                    By::Notifications => watches.notify().await,
                    By::Polling => watches.poll().await,
                }
            };
            let looks = watches.pass_on_looks();
            tokio::join!(keep(&client, &watches, session, by), changes, looks);
        };
        let thread = spawn(work, stopped, async move { last.send().await })?;
        let lane = Self {
            thread,
            _stop: stop,
        };
        is_connected.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(Started { lane, go_on })
    }

    /// Whether it works. It ends only with its driver, or by a bug.
    pub(crate) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }
}

impl Started {
    /// Lets the thread go on.
    pub(crate) fn go_on(self, by: By) -> Lane {
        // A thread that has ended shows in `is_alive`.
        let _ = self.go_on.send(by);
        self.lane
    }
}

fn spawn(
    work: impl Future<Output = ()> + Send + 'static,
    stopped: oneshot::Receiver<()>,
    last_hints: impl Future<Output = Result<bool, Error>> + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let failed = |error: std::io::Error| {
        let message = "could not start the thread that keeps the connection to PostgreSQL";
        Error::new(ErrorKind::Internal, "connect", message).caused_by(error)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let run = move || {
        runtime.block_on(async move {
            tokio::select! {
                () = work => {}
                _ = stopped => {
                    // If they cannot be sent, others find out when they poll.
                    let _ = timeout(LAST_HINTS, last_hints).await;
                }
            }
        });
    };
    let builder = thread::Builder::new().name("pac-postgres".to_owned());
    builder.spawn(run).map_err(failed)
}

/// The first connection.
async fn first(client: &Client, watches: &Arc<Watches>) -> Result<Arc<Session>, Error> {
    let hears = watches.hears();
    let session = client.listen_when_there_is_room("connect", hears).await?;
    Ok(Arc::new(session))
}

/// Makes the connection anew whenever it is lost, for ever.
async fn keep(client: &Client, watches: &Arc<Watches>, mut session: Arc<Session>, by: By) {
    loop {
        // The keep-alive of TCP finds out when the server is gone without closing the connection,
        // and so does a renewal that is not answered.
        session.closed().await;
        client.link().set(None);
        session = again(client, watches, by).await;
        client.link().set(Some(Arc::clone(&session)));
        if by == By::Notifications {
            watches.missed();
        }
    }
}

async fn again(client: &Client, watches: &Arc<Watches>, by: By) -> Arc<Session> {
    let mut pauses = Pauses::new(RECONNECT.0, RECONNECT.1);
    let mut failures = 0_u32;
    loop {
        // An attempt that began while nothing got through may wait for long after that.
        let outdated = async {
            sleep(OUTDATED).await;
            client.link().hurried().await;
        };
        let error = tokio::select! {
            opened = open(client, watches, by) => match opened {
                Ok(session) => return Arc::new(session),
                Err(error) => error,
            },
            () = outdated => continue,
        };
        // An outage is told when it begins, and then more and more seldom.
        failures += 1;
        if failures.is_power_of_two() {
            tracing::warn!(%error, failures, "the connection for hints and renewals is lost; trying again");
        }
        if by == By::Notifications {
            watches.broken(&error);
        }
        // Where requests are answered and only this connection cannot be had, as on a full server,
        // it is not tried with every answer.
        sleep(SHORTEST).await;
        tokio::select! {
            () = sleep(pauses.grow()) => {}
            () = client.link().hurried() => {}
        }
    }
}

async fn open(client: &Client, watches: &Arc<Watches>, by: By) -> Result<Session, Error> {
    let session = client.listen("listen", watches.hears()).await?;
    if by == By::Notifications {
        watches.start_to_hear(&session).await?;
    }
    Ok(session)
}

fn ended() -> Error {
    let message = "the thread that keeps the connection to PostgreSQL ended, which is a bug";
    Error::new(ErrorKind::Internal, "connect", message)
}
