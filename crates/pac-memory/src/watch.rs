//! Hints for managers: merged while nobody reads, so never more than one a repository.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use pac_core::driver::{Watch, WatchEvent};
use pac_core::{Error, RepositoryKey, Revision, SessionId};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Pending {
    changed: HashMap<RepositoryKey, Revision>,
    session_died: bool,
}

#[derive(Debug)]
struct Subscriber {
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Subscriber {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A half-made hint is still a hint.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where hints go.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    subscribers: RwLock<Vec<(SessionId, Weak<Subscriber>)>>,
}

impl Watches {
    pub(crate) fn subscribe(&self, session: SessionId) -> Box<dyn Watch> {
        let subscriber = Arc::new(Subscriber {
            pending: Mutex::default(),
            wake: Notify::new(),
        });
        let mut subscribers = self
            .subscribers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|(_, known)| known.strong_count() > 0);
        subscribers.push((session, Arc::downgrade(&subscriber)));
        Box::new(MemoryWatch(subscriber))
    }

    /// Tells everybody but the session that made the change.
    pub(crate) fn changed(&self, by: SessionId, repository: &RepositoryKey, revision: Revision) {
        self.for_each_but(Some(by), |subscriber| {
            let mut pending = subscriber.pending();
            pending.changed.insert(repository.clone(), revision);
            drop(pending);
            subscriber.wake.notify_one();
        });
    }

    pub(crate) fn session_died(&self) {
        self.for_each_but(None, |subscriber| {
            subscriber.pending().session_died = true;
            subscriber.wake.notify_one();
        });
    }

    fn for_each_but(&self, session: Option<SessionId>, tell: impl Fn(&Subscriber)) {
        let subscribers = self
            .subscribers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for (_, known) in subscribers.iter().filter(|(of, _)| Some(*of) != session) {
            if let Some(subscriber) = known.upgrade() {
                tell(&subscriber);
            }
        }
    }
}

struct MemoryWatch(Arc<Subscriber>);

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.take() {
                return Ok(event);
            }
            self.0.wake.notified().await;
        }
    }
}

impl MemoryWatch {
    fn take(&self) -> Option<WatchEvent> {
        let mut pending = self.0.pending();
        if mem::take(&mut pending.session_died) {
            return Some(WatchEvent::SessionDied);
        }
        let repository = pending.changed.keys().next()?.clone();
        let revision = pending.changed.remove(&repository)?;
        Some(WatchEvent::Changed {
            repository,
            revision,
            snapshot: None,
        })
    }
}
