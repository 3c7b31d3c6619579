//! What all clones of a manager share; its end is the manager's.

use std::sync::{Arc, Weak};

use super::ManagerOptions;
use super::commit::queue::CommitQueue;
use super::engine::Engine;
use super::executor::Executor;
use super::health::Vitals;
use super::lifecycle::{End, Lifecycle};
use super::log;
use super::notify::events::EventBus;
use super::notify::grant_queue::GrantQueue;
use super::registry::Registry;
use super::session::fence::Fence;
use super::session::keep_alive::{KeepAlive, Kept};
use super::store::Store;
use super::tasks;
use crate::driver::{Driver, Placement};
use crate::error::{Error, ErrorKind};
use crate::identity::SessionIdentity;

/// See the module.
#[derive(Debug)]
pub(super) struct ManagerHandle {
    pub(super) engine: Arc<Engine>,
    keep_alive: KeepAlive,
}

impl ManagerHandle {
    /// Opens a session and starts all that a manager does of its own accord.
    pub(super) async fn open(
        driver: Arc<dyn Driver>,
        options: ManagerOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let descriptor = driver.descriptor();
        let ttl = options.ttl(descriptor.lease_ttl);
        let store = Store::new(Arc::clone(&driver), options.request_timeout);
        let identity = options.identity;
        let identity = identity.unwrap_or_else(SessionIdentity::of_this_process);
        let opening = Fence::open(&*driver, ttl, identity);
        let fence = store.within_deadline(opening, ErrorKind::Indeterminate, "open session");
        let fence = Arc::new(fence.await?);
        log::session_opened("opened a session", &fence);
        let watching = driver.watch(fence.session().0);
        let watch = store.read(watching, "watch").await?;
        let workers = match descriptor.placement {
            // Nothing gathers, and no worker ever starts.
            Placement::InProcess => 1,
            Placement::Remote { batches_in_flight } => batches_in_flight,
        };
        let engine = Arc::new_cyclic(|engine: &Weak<Engine>| Engine {
            store,
            options,
            registry: Registry::new(Weak::<Engine>::clone(engine), Arc::clone(&fence)),
            fence: Arc::clone(&fence),
            queue: CommitQueue::new(workers),
            grants: GrantQueue::default(),
            events: EventBus::default(),
            lifecycle: Lifecycle::default(),
            vitals: Vitals::default(),
            session_died: tokio::sync::Notify::new(),
            timed: tasks::time_limits::Timed::new(options.sweep_interval),
            executor: Executor::here(),
            opened_at: tokio::time::Instant::now(),
        });
        let alarm = tasks::supervise::Alarm::new(&engine, "keep-alive of the session");
        let contact = Arc::clone(&engine.store.contact);
        let kept = Kept {
            driver,
            fence,
            contact,
        };
        let keep_alive = KeepAlive::start(kept, options.keep_alive_on, alarm).await?;
        tasks::start(&engine, watch);
        engine.session_died.notify_one();
        Ok(Self { engine, keep_alive })
    }
}

impl Drop for ManagerHandle {
    fn drop(&mut self) {
        self.engine.end(End::LastHandle);
        self.keep_alive.stop();
    }
}
