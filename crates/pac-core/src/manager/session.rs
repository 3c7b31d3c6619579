//! This process at the store: one session, kept alive, and known to be over in time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::background::vital;
use super::event::Event;
use super::shared::Shared;
use crate::driver::{Driver, SessionTtl};
use crate::error::{Error, ErrorKind};
use crate::value::SessionId;

/// So many sessions before are remembered: their runs have been seen to long since.
const FORMER: usize = 16;

/// The session of a manager as its holders see it.
#[derive(Debug)]
pub(super) struct Session {
    ttl: SessionTtl,
    id: AtomicU64,
    /// Those before, oldest first.
    former: Mutex<Vec<SessionId>>,
    lost: AtomicBool,
    /// Held by whoever changes the above.
    changing: Mutex<()>,
    acknowledged: Mutex<Moment>,
    /// Wakes the keep-alive when somebody else has noticed the loss.
    over: Notify,
}

/// A moment on two monotonic clocks: tokio's, which tests can pause, and the one that goes on
/// while the machine is suspended. Whichever has run further counts.
#[derive(Debug, Clone, Copy)]
struct Moment {
    tokio: Instant,
    boot: Duration,
}

impl Moment {
    fn now() -> Self {
        Self {
            tokio: Instant::now(),
            boot: since_boot(),
        }
    }

    fn elapsed(self) -> Duration {
        let boot = since_boot().saturating_sub(self.boot);
        self.tokio.elapsed().max(boot)
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.try_into().unwrap_or_default()
}

/// Elsewhere tokio's clock alone decides.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    Duration::ZERO
}

impl Session {
    pub(super) async fn open(driver: &dyn Driver, ttl: SessionTtl) -> Result<Self, Error> {
        let sent = Moment::now();
        let id = driver.open_session(ttl).await?;
        Ok(Self {
            ttl,
            id: AtomicU64::new(id.get()),
            former: Mutex::default(),
            changing: Mutex::new(()),
            lost: AtomicBool::new(false),
            acknowledged: Mutex::new(sent),
            over: Notify::new(),
        })
    }

    pub(super) fn id(&self) -> SessionId {
        SessionId::new(self.id.load(Ordering::Acquire))
    }

    /// Whether that was a session of this manager, or is one that it has lost.
    pub(super) fn was(&self, id: SessionId) -> bool {
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.contains(&id) || (id == self.id() && self.is_lost())
    }

    /// Waits until it is known whether `id` is still this manager's session, and alive.
    pub(super) async fn is_held(&self, id: SessionId) -> bool {
        loop {
            if self.id() != id || self.is_lost() {
                return false;
            }
            if !self.remaining().is_zero() {
                return true;
            }
            sleep(self.ttl.session / 20).await;
        }
    }

    /// How long this process may still call itself a holder: the TTL less a margin, counted
    /// from when the last acknowledged keep-alive was *sent*. The margin covers clocks that run
    /// at different speeds and the time between asking and acting.
    pub(super) fn remaining(&self) -> Duration {
        if self.lost.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let margin = self.ttl.session / 10;
        let usable = self.ttl.session.saturating_sub(margin);
        usable.saturating_sub(self.acknowledged().elapsed())
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// True for the first to notice.
    fn lose(&self, id: SessionId) -> bool {
        let changing = self.changing();
        let first = self.id() == id && !self.lost.swap(true, Ordering::AcqRel);
        drop(changing);
        first
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acknowledged(&self) -> MutexGuard<'_, Moment> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn renewed(&self, sent: Moment) {
        *self.acknowledged() = sent;
    }

    fn reopened(&self, id: SessionId, sent: Moment) {
        let _changing = self.changing();
        self.renewed(sent);
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.push(self.id());
        if former.len() > FORMER {
            former.remove(0);
        }
        drop(former);
        self.id.store(id.get(), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }
}

/// What renews the session: a task, or for a store behind a network a thread of its own, so
/// that no load of the application can starve it.
#[derive(Debug)]
pub(super) struct KeepAlive {
    stop: watch::Sender<bool>,
}

impl KeepAlive {
    pub(super) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<Self, Error> {
        let (stop, mut stopped) = watch::channel(false);
        let part = "keep-alive of the session";
        let work = vital(Arc::clone(shared), part, keep_alive(Arc::clone(shared)));
        if !shared.descriptor.remote {
            tasks.spawn(work);
            return Ok(Self { stop });
        }
        let failed = |error: std::io::Error| {
            let message = "could not start the thread that keeps the session alive";
            Error::new(ErrorKind::Internal, "open", message).caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let run = move || {
            // The thread exists to block: this future is all that runs on it.
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        };
        std::thread::Builder::new()
            .name("pac-keep-alive".to_owned())
            .spawn(run)
            .map_err(failed)?;
        Ok(Self { stop })
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// Renews the session every third of its TTL, and opens another one when it is lost.
async fn keep_alive(shared: Arc<Shared>) {
    let session = &shared.session;
    loop {
        tokio::select! {
            () = sleep(session.ttl.session / 3) => {}
            () = session.over.notified() => {}
        }
        let id = session.id();
        while !session.is_lost() {
            match renew(&shared, id).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::SessionLost => {
                    shared.note_loss(id, &error);
                }
                Err(error) if session.remaining().is_zero() => {
                    shared.note_loss(id, &error);
                }
                Err(error) => {
                    tracing::warn!(session = %id, %error, "keep-alive failed, trying again");
                    sleep(session.ttl.session / 20).await;
                }
            }
        }
        while session.is_lost() {
            if shared.is_gone() {
                return;
            }
            reopen(&shared).await;
        }
    }
}

async fn renew(shared: &Shared, id: SessionId) -> Result<(), Error> {
    let sent = Moment::now();
    let ttl = shared.session.ttl.session;
    match timeout(ttl / 3, shared.driver.keep_alive(id)).await {
        Ok(answer) => answer.map(|()| shared.session.renewed(sent)),
        Err(_) => Err(Error::new(
            ErrorKind::Indeterminate,
            "keep alive",
            "no answer within a third of the session TTL",
        )),
    }
}

impl Shared {
    /// Somebody has heard that a session is over: the keep-alive opens another one.
    pub(super) fn lost(&self, id: SessionId, error: &Error) {
        if self.note_loss(id, error) {
            self.session.over.notify_one();
        }
    }

    /// Notes that a session is over; true for the first time.
    fn note_loss(&self, id: SessionId, error: &Error) -> bool {
        let first = self.session.lose(id);
        if first {
            tracing::warn!(session = %id, %error, "the session is lost, and all leases with it");
            self.tell(Event::SessionLost(id));
        }
        first
    }
}

async fn reopen(shared: &Arc<Shared>) {
    let sent = Moment::now();
    let ttl = shared.session.ttl;
    match timeout(ttl.session / 3, shared.driver.open_session(ttl)).await {
        Ok(Ok(id)) => {
            shared.session.reopened(id, sent);
            tracing::info!(session = %id, "opened a new session");
            shared.reclaim_waiting();
            shared.tell(Event::SessionOpened(id));
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "no new session yet");
            sleep(ttl.session / 10).await;
        }
        Err(_) => tracing::warn!("no new session yet: no answer"),
    }
}

pub(super) fn session_lost(session: SessionId) -> Error {
    Error::new(
        ErrorKind::SessionLost,
        "hold",
        format!("session {session} is over, or was not renewed in time; its leases are lost"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run() {
        let before = Moment::now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(before.elapsed() >= Duration::from_millis(20));
        assert!(since_boot() > Duration::ZERO || !cfg!(target_os = "linux"));
    }
}
