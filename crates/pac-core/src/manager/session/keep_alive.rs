//! Renews the session, and opens another one when the store has ended it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::fence::{Fence, Moment, Standing};
use crate::driver::{Driver, Placement};
use crate::error::{Error, ErrorKind};
use crate::manager::contact::Contact;
use crate::manager::options::KeepAliveOn;
use crate::pauses::Pauses;
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
    pub(in crate::manager) contact: Arc<Contact>,
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
    let mut returns = kept.contact.follow();
    let mut pauses = Pauses::new(ttl / 200, ttl / 40);
    let mut failures = 0_u32;
    while fence.session() == (session, false) {
        returns.begin();
        let sent = Moment::now();
        let longest = patience(ttl, fence.remaining());
        let answer = match timeout(longest, kept.driver.keep_alive(session)).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("no answer within {longest:?}");
                Err(Error::new(ErrorKind::Indeterminate, "keep alive", message))
            }
        };
        kept.contact.heard(&answer);
        let error = match answer {
            Ok(()) => {
                fence.renewed(session, sent);
                if failures > 0 {
                    tracing::info!(%session, failures, "the session is renewed again");
                }
                return;
            }
            Err(error) if error.kind() == ErrorKind::SessionLost => {
                fence.lose(session);
                return;
            }
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        let left = fence.remaining();
        if fence.not_renewed(session, &error) {
            let why = "the session could not be renewed, trying again; without an answer its \
                       leases are lost when this time is over";
            tracing::warn!(%session, %error, ?left, "{why}");
        } else {
            tracing::debug!(%session, %error, failures, ?left, "still not renewed");
        }
        // The first time at once: a connection that was lost long since is found out so.
        if failures > 1 {
            returns.pause(pauses.grow()).await;
        }
    }
}

/// How long one attempt to renew may take, of what is `left` of the session: so that another one
/// follows while something is left. A session whose time is over may still be kept by the store.
fn patience(ttl: Duration, left: Duration) -> Duration {
    if left.is_zero() {
        return ttl / 3;
    }
    (left / 2).clamp(ttl / 20, ttl / 3).min(left)
}

/// Opens another session, however long that takes, unless the manager ends meanwhile.
async fn reopen(kept: &Kept) {
    let (fence, ttl) = (&kept.fence, kept.fence.ttl());
    let mut returns = kept.contact.follow();
    let mut pauses = Pauses::new(ttl.session / 100, ttl.session / 20);
    let mut failures = 0_u32;
    while fence.view().standing == Standing::Lost {
        returns.begin();
        let sent = Moment::now();
        let opening = kept.driver.open_session(ttl, fence.identity());
        let answer = match timeout(ttl.session / 3, opening).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = "no answer within a third of the session TTL";
                Err(Error::new(
                    ErrorKind::Indeterminate,
                    "open session",
                    message,
                ))
            }
        };
        kept.contact.heard(&answer);
        match answer {
            Ok(session) => {
                if !fence.reopened(session, sent) {
                    // The manager has ended meanwhile, and does not know of it.
                    let closed = timeout(ttl.session / 3, kept.driver.close_session(session)).await;
                    drop(closed);
                }
                return;
            }
            Err(error) => {
                // An outage is told when it begins, and then more and more seldom.
                failures = failures.saturating_add(1);
                if failures.is_power_of_two() {
                    tracing::warn!(%error, failures, "no new session yet");
                }
                returns.pause(pauses.grow()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attempt_takes_all_that_is_left_of_the_session() {
        let ttl = Duration::from_secs(15);
        let mut left = ttl.mul_f64(0.9) - ttl / 3;
        let mut attempts = 0;
        while left > ttl / 10 {
            let longest = patience(ttl, left);
            assert!(
                longest < left && longest <= ttl / 3,
                "{longest:?} of {left:?}"
            );
            left -= longest;
            attempts += 1;
        }
        assert!(attempts >= 3, "{attempts}");
        assert_eq!(patience(ttl, ttl / 100), ttl / 100);
        assert_eq!(patience(ttl, Duration::ZERO), ttl / 3);
    }
}
