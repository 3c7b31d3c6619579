//! Hints for managers: merged while nobody reads, so never more than one a repository.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pac_core::driver::{Watch, WatchEvent};
use pac_core::{Error, RepositoryKey, Revision, SessionId};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Pending {
    /// In the order in which they changed first since they were last told.
    order: VecDeque<RepositoryKey>,
    changed: HashMap<RepositoryKey, Revision>,
    session_died: bool,
}

impl Pending {
    fn add(&mut self, repository: &RepositoryKey, revision: Revision) {
        match self.changed.entry(repository.clone()) {
            Entry::Occupied(mut known) => {
                let latest = revision.max(*known.get());
                known.insert(latest);
            }
            Entry::Vacant(new) => {
                new.insert(revision);
                self.order.push_back(repository.clone());
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Subscriber {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A half-made hint is still a hint.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where hints go. Read with every commit and seldom changed: readers share nothing that they
/// would have to write.
#[derive(Debug, Default)]
pub(crate) struct Watches(ArcSwap<Subscribers>);

/// Who listens at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscribers(Vec<(SessionId, Weak<Subscriber>)>);

impl Watches {
    pub(crate) fn read(&self) -> impl Deref<Target = Arc<Subscribers>> + use<> {
        self.0.load()
    }

    pub(crate) fn subscribe(&self, session: SessionId) -> Box<dyn Watch> {
        let subscriber = Arc::new(Subscriber {
            pending: Mutex::default(),
            wake: Notify::new(),
        });
        self.0.rcu(|known| {
            let mut subscribers = Subscribers::clone(known);
            subscribers.0.retain(|(_, known)| known.strong_count() > 0);
            subscribers.0.push((session, Arc::downgrade(&subscriber)));
            subscribers
        });
        Box::new(MemoryWatch(subscriber))
    }
}

impl Subscribers {
    /// Whether anybody but `session` listens.
    pub(crate) fn others_than(&self, session: SessionId) -> bool {
        self.0.iter().any(|(of, _)| *of != session)
    }

    /// Tells everybody but the session that made the change.
    pub(crate) fn changed(&self, by: SessionId, repository: &RepositoryKey, revision: Revision) {
        for (of, subscriber) in &self.0 {
            if *of != by
                && let Some(subscriber) = subscriber.upgrade()
            {
                let mut pending = subscriber.pending();
                pending.add(repository, revision);
                drop(pending);
                subscriber.wake.notify_one();
            }
        }
    }

    pub(crate) fn session_died(&self) {
        for subscriber in self.0.iter().filter_map(|(_, known)| known.upgrade()) {
            subscriber.pending().session_died = true;
            subscriber.wake.notify_one();
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
        let repository = pending.order.pop_front()?;
        let revision = pending.changed.remove(&repository)?;
        Some(WatchEvent::Changed {
            repository,
            revision,
            snapshot: None,
        })
    }
}
