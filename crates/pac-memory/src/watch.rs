//! Hints for managers: the subscribers, and what they are told.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use pac_core::driver::Watch;
use pac_core::hints::{Hints, Reached};
use pac_core::{RepositoryKey, SessionId};

/// The subscribers. Every commit reads them and they seldom change; so reading writes to no memory
/// that threads share.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    known: ArcSwap<Subscribers>,
    /// [`NOBODY`], the one session that has ever subscribed, or [`SEVERAL`].
    subscribed: AtomicU64,
}

/// No session has this id.
const NOBODY: u64 = 0;
/// No session gets as far as this id.
const SEVERAL: u64 = u64::MAX;

/// The subscribers at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscribers(Vec<(SessionId, Weak<Hints>)>);

impl Watches {
    pub(crate) fn read(&self) -> impl Deref<Target = Arc<Subscribers>> + use<> {
        self.known.load()
    }

    /// Whether no other session than `session` has ever subscribed. A plain read, unlike
    /// [`read`](Self::read).
    pub(crate) fn is_alone(&self, session: SessionId) -> bool {
        let subscribed = self.subscribed.load(Ordering::SeqCst);
        subscribed == NOBODY || subscribed == session.get()
    }

    pub(crate) fn subscribe(&self, session: SessionId) -> Box<dyn Watch> {
        let subscriber = Arc::<Hints>::default();
        self.known.rcu(|known| {
            let mut subscribers = Subscribers::clone(known);
            subscribers.0.retain(|(_, known)| known.strong_count() > 0);
            subscribers.0.push((session, Arc::downgrade(&subscriber)));
            subscribers
        });
        // After the subscriber is there: a commit that sees this finds it.
        let with = |known| match known {
            NOBODY => Some(session.get()),
            known if known == session.get() => None,
            _ => Some(SEVERAL),
        };
        let order = Ordering::SeqCst;
        let _ = self.subscribed.fetch_update(order, order, with);
        subscriber.watch()
    }
}

impl Subscribers {
    /// Whether any session but `session` listens.
    pub(crate) fn others_than(&self, session: SessionId) -> bool {
        self.0.iter().any(|(of, _)| *of != session)
    }

    /// Tells every subscriber but the session that made the change.
    pub(crate) fn changed(&self, by: SessionId, repository: &RepositoryKey, reached: Reached) {
        for (of, subscriber) in &self.0 {
            if *of != by
                && let Some(subscriber) = subscriber.upgrade()
            {
                subscriber.changed(repository, reached);
            }
        }
    }

    pub(crate) fn session_died(&self) {
        for subscriber in self.0.iter().filter_map(|(_, known)| known.upgrade()) {
            subscriber.session_died();
        }
    }
}
