//! Hints for managers: the subscribers, and what they are told.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use pac_core::SessionId;
use pac_core::driver::Watch;
use pac_core::hints::{Hints, Subscribers};

/// The subscribers. Every commit reads them and they seldom change; so reading writes to no memory
/// that threads share.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    known: ArcSwap<Subscribers>,
    /// [`NOBODY`], the one session that has ever subscribed, or [`SEVERAL`].
    subscribed: AtomicU64,
}

/// No session has this id. Readers subscribe with it.
const NOBODY: u64 = 0;
/// No session gets as far as this id.
const SEVERAL: u64 = u64::MAX;

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
            subscribers.add(session, &subscriber);
            subscribers
        });
        // After the subscriber is there: a commit that sees this finds it.
        let with = |known| match known {
            // A reader, which is told of the changes by every session.
            _ if session == SessionId::default() => Some(SEVERAL),
            NOBODY => Some(session.get()),
            known if known == session.get() => None,
            _ => Some(SEVERAL),
        };
        let order = Ordering::SeqCst;
        let _ = self.subscribed.fetch_update(order, order, with);
        subscriber.watch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_session_is_alone_beside_a_reader_or_another_session() {
        let [reader, a, b] = [0, 1, 2].map(SessionId::new);
        let watches = Watches::default();
        let _own = watches.subscribe(a);
        assert!(watches.is_alone(a) && !watches.is_alone(b));
        for first in [reader, b] {
            let watches = Watches::default();
            let _first = watches.subscribe(first);
            let _own = watches.subscribe(a);
            assert!(!watches.is_alone(a), "{first} is not told");
            assert!(watches.read().others_than(a));
        }
    }
}
