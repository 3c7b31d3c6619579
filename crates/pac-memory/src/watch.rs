//! Hints for managers: the subscribers, and what they are told.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use pac_core::driver::Watch;
use pac_core::hints::{Hints, Reached};
use pac_core::{RepositoryKey, SessionId};

/// The subscribers. Every commit reads them and they seldom change; so reading writes to no memory
/// that threads share.
#[derive(Debug, Default)]
pub(crate) struct Watches(ArcSwap<Subscribers>);

/// The subscribers at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscribers(Vec<(SessionId, Weak<Hints>)>);

impl Watches {
    pub(crate) fn read(&self) -> impl Deref<Target = Arc<Subscribers>> + use<> {
        self.0.load()
    }

    pub(crate) fn subscribe(&self, session: SessionId) -> Box<dyn Watch> {
        let subscriber = Arc::<Hints>::default();
        self.0.rcu(|known| {
            let mut subscribers = Subscribers::clone(known);
            subscribers.0.retain(|(_, known)| known.strong_count() > 0);
            subscribers.0.push((session, Arc::downgrade(&subscriber)));
            subscribers
        });
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
