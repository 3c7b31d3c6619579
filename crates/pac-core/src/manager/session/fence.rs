//! Whether this process may act as the holder of its leases: one value, read under one lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::driver::{Driver, SessionTtl};
use crate::error::{Error, ErrorKind};
use crate::event::LeaseLoss;
use crate::identity::SessionIdentity;
use crate::value::SessionId;

/// So many sessions before are remembered: the runs of older ones have been seen to long since.
const FORMER: usize = 16;

/// Set in [`Fence::current`] beside the session when that is lost. Ids of sessions are below.
const LOST: u64 = 1 << 63;

/// Counts the times at which all leases were lost together. A lease is held in its own era only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::manager) struct Era(u64);

/// The session of a manager, as its holders see it.
#[derive(Debug)]
pub(in crate::manager) struct Fence {
    ttl: SessionTtl,
    identity: SessionIdentity,
    value: Mutex<Value>,
    /// The session, and [`LOST`]; written under the lock of `value`, read without it by those
    /// whose commits the store judges anyway.
    current: AtomicU64,
    /// The era of `value`, in the same way.
    era: AtomicU64,
    /// Counts the changes of `value` that somebody may wait for.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Value {
    session: SessionId,
    standing: Standing,
    era: Era,
    /// The leases of this era were lost because the session was not renewed in time.
    lapsed: bool,
    /// When the last acknowledged keep-alive was sent.
    acknowledged: Moment,
    /// Why the last keep-alive failed; `None` from the next one on that is acknowledged.
    trouble: Option<String>,
    /// The sessions before, oldest first.
    former: Vec<SessionId>,
}

/// What is known of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manager) enum Standing {
    /// The store has not said otherwise.
    Kept,
    /// The store has ended it.
    Lost,
    /// The manager has ended it.
    Closed,
}

/// What a look at the fence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manager) struct View {
    /// The session.
    pub(in crate::manager) session: SessionId,
    /// What is known of it.
    pub(in crate::manager) standing: Standing,
    /// The era.
    pub(in crate::manager) era: Era,
    /// Its leases are lost, and it has not been renewed since.
    pub(in crate::manager) lapsed: bool,
    /// How long this process may still act as a holder if it hears nothing more.
    pub(in crate::manager) remaining: Duration,
}

/// A moment on two monotonic clocks: tokio's, which tests can pause, and the one that goes on
/// while the machine is suspended. The one that has run further counts.
#[derive(Debug, Clone, Copy)]
pub(in crate::manager) struct Moment {
    tokio: Instant,
    boot: Duration,
}

impl Moment {
    pub(in crate::manager) fn now() -> Self {
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

/// On Linux and Android the monotonic clock stands still while the machine is suspended, and
/// another one does not; on Apple's systems it is the monotonic clock that goes on (its manual
/// page `clock_gettime(3)` says so), and the one behind [`Instant`] that stands still.
#[cfg(unix)]
fn since_boot() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    rustix::time::clock_gettime(CLOCK)
        .try_into()
        .unwrap_or_default()
}

/// Elsewhere (Windows) the clock behind [`Instant`] goes on during suspension.
#[cfg(not(unix))]
fn since_boot() -> Duration {
    Duration::ZERO
}

impl Fence {
    /// Opens the first session.
    pub(in crate::manager) async fn open(
        driver: &dyn Driver,
        ttl: SessionTtl,
        identity: SessionIdentity,
    ) -> Result<Self, Error> {
        let sent = Moment::now();
        let session = driver.open_session(ttl, &identity).await?;
        Ok(Self {
            ttl,
            identity,
            current: AtomicU64::new(session.get()),
            era: AtomicU64::new(0),
            value: Mutex::new(Value {
                session,
                standing: Standing::Kept,
                era: Era(0),
                lapsed: false,
                acknowledged: sent,
                trouble: None,
                former: Vec::new(),
            }),
            changes: watch::Sender::new(0),
        })
    }

    pub(in crate::manager) fn ttl(&self) -> SessionTtl {
        self.ttl
    }

    /// Who holds the session.
    pub(in crate::manager) fn identity(&self) -> &SessionIdentity {
        &self.identity
    }

    /// The session, and whether it is lost. Read without a lock: for commits, which the store
    /// judges, and never to act as a holder.
    pub(in crate::manager) fn session(&self) -> (SessionId, bool) {
        let current = self.current.load(Ordering::Acquire);
        (SessionId::new(current & !LOST), current & LOST != 0)
    }

    /// The era of a lease that is handed out now.
    pub(in crate::manager) fn era(&self) -> Era {
        Era(self.era.load(Ordering::Acquire))
    }

    /// The sessions before this one.
    pub(in crate::manager) fn former(&self) -> Vec<SessionId> {
        self.value().former.clone()
    }

    /// How long this process may still call itself a holder.
    pub(in crate::manager) fn remaining(&self) -> Duration {
        self.view().remaining
    }

    /// All of it at one moment. A session whose time has passed loses its leases with this look.
    pub(in crate::manager) fn view(&self) -> View {
        let mut value = self.value();
        let remaining = self.remaining_of(&value);
        let passed = value.standing == Standing::Kept && remaining.is_zero();
        if passed && !value.lapsed {
            value.lapsed = true;
            self.next_era(&mut value);
        }
        View {
            session: value.session,
            standing: value.standing,
            era: value.era,
            lapsed: value.lapsed,
            remaining,
        }
    }

    /// Why a lease of this session and era is not held any more; `None` while it is.
    pub(in crate::manager) fn loss(&self, session: SessionId, era: Era) -> Option<LeaseLoss> {
        let view = self.view();
        match view.standing {
            Standing::Closed => Some(LeaseLoss::Closed),
            _ if view.session != session => Some(LeaseLoss::SessionLost),
            Standing::Lost => Some(LeaseLoss::SessionLost),
            Standing::Kept if view.era != era || view.remaining.is_zero() => {
                Some(LeaseLoss::NotRenewed)
            }
            Standing::Kept => None,
        }
    }

    /// Waits until a lease of this session and era is lost. Needs a runtime. Cancel-safe.
    pub(in crate::manager) async fn lost(&self, session: SessionId, era: Era) -> LeaseLoss {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(loss) = self.loss(session, era) {
                return loss;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(self.remaining()) => {}
            }
        }
    }

    /// Waits until it is known whether `session` is still this manager's, and may be acted on:
    /// then the era of its leases. Cancel-safe, and needs no runtime.
    pub(in crate::manager) async fn confirmed(&self, session: SessionId) -> Option<Era> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let view = self.view();
            if view.session != session || view.standing != Standing::Kept {
                return None;
            }
            if !view.remaining.is_zero() {
                return Some(view.era);
            }
            // The sender is part of `self`.
            let _ = changes.changed().await;
        }
    }

    /// Follows the changes of the fence; a lapse is seen by looking alone.
    pub(in crate::manager) fn follow(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A keep-alive of `session`, sent at this moment, was acknowledged.
    pub(super) fn renewed(&self, session: SessionId, sent: Moment) {
        let mut value = self.value();
        if value.session != session || value.standing != Standing::Kept {
            return;
        }
        let passed = value.lapsed || self.remaining_of(&value).is_zero();
        if passed {
            // Perhaps nobody has looked meanwhile. And a lease that was handed out after its time
            // had passed was lost from the start: it stays so.
            self.next_era(&mut value);
        }
        value.lapsed = false;
        value.acknowledged = sent;
        let recovered = value.trouble.take().is_some();
        drop(value);
        if passed || recovered {
            self.changed();
        }
    }

    /// A keep-alive of `session` failed. True for the first after one that was acknowledged.
    pub(super) fn not_renewed(&self, session: SessionId, why: &Error) -> bool {
        let mut value = self.value();
        if value.session != session || value.standing != Standing::Kept {
            return false;
        }
        let first = value.trouble.replace(why.to_string()).is_none();
        drop(value);
        if first {
            self.changed();
        }
        first
    }

    /// Why the last keep-alive failed, if it did.
    pub(in crate::manager) fn trouble(&self) -> Option<String> {
        self.value().trouble.clone()
    }

    /// The store says that `session` is over. True for the first to hear it.
    pub(in crate::manager) fn lose(&self, session: SessionId) -> bool {
        self.end(Some(session), Standing::Lost)
    }

    /// The manager ends: nothing is held any more. True for the first to say so.
    pub(in crate::manager) fn close(&self) -> bool {
        self.end(None, Standing::Closed)
    }

    fn end(&self, session: Option<SessionId>, standing: Standing) -> bool {
        let mut value = self.value();
        let other = session.is_some_and(|session| value.session != session);
        let done = value.standing == Standing::Closed || value.standing == standing;
        if other || done {
            return false;
        }
        value.standing = standing;
        self.current
            .store(value.session.get() | LOST, Ordering::Release);
        drop(value);
        self.changed();
        true
    }

    /// Another session was opened, by a request sent at this moment. False when the manager has
    /// ended meanwhile.
    pub(super) fn reopened(&self, session: SessionId, sent: Moment) -> bool {
        let mut value = self.value();
        if value.standing == Standing::Closed {
            return false;
        }
        let before = std::mem::replace(&mut value.session, session);
        value.former.push(before);
        if value.former.len() > FORMER {
            value.former.remove(0);
        }
        value.standing = Standing::Kept;
        value.lapsed = false;
        value.acknowledged = sent;
        value.trouble = None;
        self.next_era(&mut value);
        self.current.store(session.get(), Ordering::Release);
        drop(value);
        self.changed();
        true
    }

    fn next_era(&self, value: &mut Value) {
        value.era = Era(value.era.0 + 1);
        self.era.store(value.era.0, Ordering::Release);
    }

    /// The TTL less a margin, counted from when the last acknowledged keep-alive was *sent*. The
    /// margin covers clocks that run at different speeds, and the time between asking and acting.
    fn remaining_of(&self, value: &Value) -> Duration {
        if value.standing != Standing::Kept {
            return Duration::ZERO;
        }
        let margin = self.ttl.session / 10;
        let usable = self.ttl.session.saturating_sub(margin);
        usable.saturating_sub(value.acknowledged.elapsed())
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn value(&self) -> MutexGuard<'_, Value> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call is told whose lease went with its session.
pub(in crate::manager) fn session_lost(session: SessionId) -> Error {
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
        assert!(since_boot() > Duration::ZERO || !cfg!(unix));
    }
}
