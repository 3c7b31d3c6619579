//! Renews the session, and opens another one when the store has ended it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::fence::{Fence, Moment, Standing};
use crate::driver::{Driver, Placement};
use crate::error::{Error, ErrorKind};
use crate::manager::options::KeepAliveOn;
use crate::value::SessionId;

/// Ends the keep-alive.
#[derive(Debug)]
pub(in crate::manager) struct KeepAlive {
    stop: watch::Sender<bool>,
}

/// What the keep-alive works with.
#[derive(Debug, Clone)]
pub(in crate::manager) struct Kept {
    pub(in crate::manager) driver: Arc<dyn Driver>,
    pub(in crate::manager) fence: Arc<Fence>,
}

impl KeepAlive {
    /// Starts to keep the session: in a task, or on a thread of its own, so that no load of the
    /// application can starve it. `ended` is dropped when it ends, by a panic too.
    ///
    /// # Errors
    /// `Internal` when the thread, or its runtime, could not be started.
    pub(in crate::manager) async fn start(
        kept: Kept,
        on: Option<KeepAliveOn>,
        ended: impl Drop + Send + 'static,
    ) -> Result<Self, Error> {
        let (stop, mut stopped) = watch::channel(false);
        let thread = match on {
            Some(on) => on == KeepAliveOn::Thread,
            None => kept.driver.descriptor().placement != Placement::InProcess,
        };
        let work = async move {
            let _ended = ended;
            tokio::select! {
                () = keep(&kept) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        };
        if thread {
            on_a_thread(work).await?;
        } else {
            tokio::spawn(work);
        }
        Ok(Self { stop })
    }

    pub(in crate::manager) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// Runs `work` on a thread that is there for nothing else.
async fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    let failed = |error: std::io::Error| {
        let message = "could not start the thread that keeps the session alive";
        Error::new(ErrorKind::Internal, "open", message).caused_by(error)
    };
    let (started, has_started) = oneshot::channel();
    let run = move || {
        // Built here, so that it is dropped here too: a runtime may not be dropped by a task.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                // The thread exists to block: this future is all that runs on it.
                runtime.block_on(work);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    };
    std::thread::Builder::new()
        .name("pac-keep-alive".to_owned())
        .spawn(run)
        .map_err(failed)?;
    match has_started.await {
        Ok(started) => started.map_err(failed),
        Err(_) => Err(failed(std::io::Error::other("it ended at once"))),
    }
}

/// Renews the session every third of its TTL. A session is given up when the store says that it
/// is over, and not before: for as long as the store keeps it, waiters keep their places.
async fn keep(kept: &Kept) {
    let (fence, ttl) = (&kept.fence, kept.fence.ttl().session);
    let mut changes = fence.follow();
    loop {
        changes.mark_unchanged();
        let view = fence.view();
        match view.standing {
            Standing::Closed => return,
            Standing::Lost => reopen(kept).await,
            Standing::Kept => {
                tokio::select! {
                    () = sleep(ttl / 3) => renew_until_answered(kept, view.session).await,
                    // Somebody else has heard that it is over.
                    _ = changes.changed() => {}
                }
            }
        }
    }
}

async fn renew_until_answered(kept: &Kept, session: SessionId) {
    let (fence, ttl) = (&kept.fence, kept.fence.ttl().session);
    let mut failures = 0_u32;
    while fence.session() == (session, false) {
        let sent = Moment::now();
        let error = match timeout(ttl / 3, kept.driver.keep_alive(session)).await {
            Ok(Ok(())) => {
                fence.renewed(session, sent);
                return;
            }
            Ok(Err(error)) if error.kind() == ErrorKind::SessionLost => {
                fence.lose(session);
                return;
            }
            Ok(Err(error)) => error,
            Err(_) => Error::new(
                ErrorKind::Indeterminate,
                "keep alive",
                "no answer within a third of the session TTL",
            ),
        };
        // An outage is told when it begins, and then more and more seldom.
        failures += 1;
        if failures.is_power_of_two() {
            let left = fence.remaining();
            tracing::warn!(%session, %error, failures, ?left, "keep-alive failed, trying again");
        }
        sleep(ttl / 20).await;
    }
}

async fn reopen(kept: &Kept) {
    let ttl = kept.fence.ttl();
    let sent = Moment::now();
    match timeout(ttl.session / 3, kept.driver.open_session(ttl)).await {
        Ok(Ok(session)) => {
            if !kept.fence.reopened(session, sent) {
                // The manager has ended meanwhile, and does not know of it.
                let closed = timeout(ttl.session / 3, kept.driver.close_session(session)).await;
                drop(closed);
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "no new session yet");
            sleep(ttl.session / 10).await;
        }
        Err(_) => tracing::warn!("no new session yet: no answer"),
    }
}
