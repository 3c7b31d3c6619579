//! What all parts of a manager share: fields only.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::commit::queue::CommitQueue;
use super::executor::Executor;
use super::health::Vitals;
use super::lifecycle::Lifecycle;
use super::notify::events::EventBus;
use super::notify::grant_queue::GrantQueue;
use super::options::ManagerOptions;
use super::registry::Registry;
use super::session::fence::Fence;
use super::store::Store;
use super::tasks::time_limits::Timed;

pub(super) struct Engine {
    pub(super) store: Store,
    pub(super) options: ManagerOptions,
    pub(super) fence: Arc<Fence>,
    pub(super) registry: Registry,
    pub(super) queue: CommitQueue,
    pub(super) grants: GrantQueue,
    pub(super) events: EventBus,
    pub(super) lifecycle: Lifecycle,
    pub(super) vitals: Vitals,
    /// A session may have died.
    pub(super) session_died: Notify,
    /// Repositories with runs that may wait, or hold their slots, only for some time.
    pub(super) timed: Timed,
    pub(super) executor: Executor,
    /// Some moment before all inputs.
    pub(super) opened_at: Instant,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyManager")
            .field("driver", &self.store.descriptor.name)
            .field("session", &self.fence.session().0)
            .field("repositories", &self.registry.len())
            .finish_non_exhaustive()
    }
}
