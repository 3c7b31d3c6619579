//! The beginning and the end of a manager.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::session::{KeepAlive, Session};
use super::shared::Shared;
use super::{ConcurrencyManager, ManagerOptions, background};
use crate::driver::Driver;
use crate::error::{Error, ErrorKind};
use crate::protocol::Death;

/// What all clones of a manager share; its end is the manager's.
#[derive(Debug)]
pub(super) struct ManagerHandle {
    pub(super) shared: Arc<Shared>,
    keep_alive: KeepAlive,
    /// Aborted when this is dropped.
    background: Mutex<JoinSet<()>>,
}

impl ManagerHandle {
    fn stop(&self) {
        self.keep_alive.stop();
        let mut background = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        background.abort_all();
    }
}

impl Drop for ManagerHandle {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
        self.stop();
        self.shared.end("last handle");
    }
}

impl ConcurrencyManager {
    /// Opens a session at the store and starts to keep it, to listen and to sweep, on the
    /// tokio runtime that this is called from.
    ///
    /// # Errors
    /// `Config` when options contradict each other; else why the store could not be reached.
    pub async fn open(driver: Arc<dyn Driver>, options: ManagerOptions) -> Result<Self, Error> {
        options.check()?;
        let session = Session::open(&*driver, options.ttl(driver.descriptor().lease_ttl)).await?;
        let watch = driver.watch(session.id()).await?;
        let shared = Arc::new(Shared::new(driver, options, session));
        let mut background = JoinSet::new();
        for (part, work) in [
            (
                "watch",
                background::boxed(background::listen(Arc::clone(&shared), watch)),
            ),
            (
                "search for runs without an owner",
                background::boxed(background::adopt(Arc::clone(&shared))),
            ),
            (
                "back-stop poll",
                background::boxed(background::poll(Arc::clone(&shared))),
            ),
            (
                "sweep for dead sessions",
                background::boxed(background::sweep(Arc::clone(&shared))),
            ),
        ] {
            background.spawn(background::vital(Arc::clone(&shared), part, work));
        }
        let keep_alive = KeepAlive::start(&shared, &mut background)?;
        shared.death.notify_one();
        Ok(Self {
            handle: Arc::new(ManagerHandle {
                shared,
                keep_alive,
                background: Mutex::new(background),
            }),
        })
    }

    /// Ends the session: ephemeral runs end, waiting durable runs keep their places without an
    /// owner, and running ones can be adopted within the lease TTL. Every later call fails.
    ///
    /// # Errors
    /// When the store could not be told: the session then expires by itself.
    pub async fn close(&self) -> Result<(), Error> {
        let shared = self.shared();
        shared.pulse.check("close")?;
        shared.gone.store(true, Ordering::Release);
        let session = shared.session.id();
        let disowned = background::bury(shared, session, Death::Session, "close").await;
        let over = Error::new(ErrorKind::Closed, "close", "the manager was closed");
        self.handle.stop();
        shared.lost(session, &over);
        shared.end("session (closed)");
        let closed = shared.driver.close_session(session);
        let unknown = ErrorKind::Indeterminate;
        let closed = shared.within_deadline(closed, unknown, "close").await;
        disowned.and(closed)
    }
}
