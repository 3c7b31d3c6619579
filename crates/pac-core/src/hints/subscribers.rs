//! The watches of a driver's subscribers, and the telling of hints to them.

use std::sync::{Arc, Weak};

use super::Hints;
use crate::driver::Watch;
use crate::error::Error;
use crate::value::SessionId;

/// Those that a driver tells of changes, each with the session that it listens for.
///
/// A plain list, to be kept behind whatever lock suits the driver. A subscriber is there for as
/// long as the reading end of its hints is; one that has gone is dropped when the next one comes.
#[derive(Debug, Clone, Default)]
pub struct Subscribers(Vec<(SessionId, Weak<Hints>)>);

impl Subscribers {
    /// Adds the watch of a session, or of a reader, which listens for the default session.
    pub fn subscribe(&mut self, session: SessionId) -> Box<dyn Watch> {
        let hints = Arc::<Hints>::default();
        self.add(session, &hints);
        hints.watch()
    }

    /// Adds hints whose reading end the caller hands out.
    pub fn add(&mut self, session: SessionId, hints: &Arc<Hints>) {
        self.0.retain(|(_, known)| known.strong_count() > 0);
        self.0.push((session, Arc::downgrade(hints)));
    }

    /// Whether somebody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.iter().any(|(_, hints)| hints.strong_count() > 0)
    }

    /// Whether somebody listens that is to be told of a change by this session.
    #[must_use]
    pub fn others_than(&self, by: SessionId) -> bool {
        self.of_others(by)
            .any(|(_, hints)| hints.strong_count() > 0)
    }

    /// Tells all.
    pub fn tell(&self, hint: impl FnMut(&Hints)) {
        self.tell_others(SessionId::default(), hint);
    }

    /// Tells all but those that listen for the session which made the change itself: its manager
    /// knows. No session has the default id: a change by that one is told to all, readers
    /// included.
    pub fn tell_others(&self, by: SessionId, mut hint: impl FnMut(&Hints)) {
        for (_, hints) in self.of_others(by) {
            if let Some(hints) = hints.upgrade() {
                hint(&hints);
            }
        }
    }

    /// Tells all that no more hints will come ([`Hints::broken`]), and drops them: they have to
    /// subscribe anew.
    pub fn break_off(&mut self, why: &Error) {
        self.tell(|hints| hints.broken(why.replicate()));
        self.0.clear();
    }

    fn of_others(&self, by: SessionId) -> impl Iterator<Item = &(SessionId, Weak<Hints>)> {
        let all = by == SessionId::default();
        self.0.iter().filter(move |(of, _)| all || *of != by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::driver::WatchEvent;

    #[tokio::test]
    async fn all_are_told_but_the_session_that_made_the_change() {
        let [reader, a, b] = [0, 1, 2].map(SessionId::new);
        let mut subscribers = Subscribers::default();
        let mut watches = [reader, a, b].map(|session| subscribers.subscribe(session));
        let mut told = 0;
        subscribers.tell_others(a, |_| told += 1);
        subscribers.tell(|_| told += 10);
        subscribers.tell_others(SessionId::default(), |_| told += 100);
        assert_eq!(told, 332);

        subscribers.tell_others(a, Hints::missed);
        subscribers.break_off(&Error::new(ErrorKind::Unavailable, "watch", "gone"));
        assert!(!subscribers.is_heard());
        for (watch, hears) in watches.iter_mut().zip([true, false, true]) {
            if hears {
                assert_eq!(watch.next().await.unwrap(), WatchEvent::Missed);
            }
            let end = watch.next().await.unwrap_err();
            assert_eq!(end.kind(), ErrorKind::Unavailable);
        }
    }

    #[test]
    fn those_that_have_gone_are_dropped() {
        let [a, b] = [1, 2].map(SessionId::new);
        let mut subscribers = Subscribers::default();
        let first = subscribers.subscribe(a);
        assert!(subscribers.is_heard() && subscribers.others_than(b));
        assert!(!subscribers.others_than(a));
        drop(first);
        assert!(!subscribers.is_heard() && !subscribers.others_than(b));
        let _second = subscribers.subscribe(b);
        assert_eq!(subscribers.0.len(), 1);
    }
}
