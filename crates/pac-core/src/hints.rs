//! What drivers pass on to those who watch: hints, merged while nobody reads.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::driver::{Watch, WatchEvent};
use crate::error::Error;
use crate::name::RepositoryKey;
use crate::value::Revision;

/// The hints of one watch that have not been read: at most one for each repository.
#[derive(Debug, Default)]
pub struct Hints {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// In the order in which they changed first since they were last told.
    order: VecDeque<RepositoryKey>,
    changed: HashMap<RepositoryKey, Revision>,
    session_died: bool,
    missed: bool,
}

impl Hints {
    /// A repository is at this revision, or a later one.
    pub fn changed(&self, repository: &RepositoryKey, revision: Revision) {
        let mut pending = self.pending();
        let merged = &mut *pending;
        match merged.changed.entry(repository.clone()) {
            Entry::Occupied(mut known) => {
                let latest = revision.max(*known.get());
                known.insert(latest);
            }
            Entry::Vacant(new) => {
                new.insert(revision);
                merged.order.push_back(repository.clone());
            }
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// A session has died.
    pub fn session_died(&self) {
        self.pending().session_died = true;
        self.wake.notify_one();
    }

    /// Some were lost; those that wait to be read are part of that.
    pub fn missed(&self) {
        *self.pending() = Pending {
            missed: true,
            ..Pending::default()
        };
        self.wake.notify_one();
    }

    /// The one who reads them.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Box<dyn Watch> {
        Box::new(Reader(Arc::clone(self)))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A half-made hint is still a hint.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<WatchEvent> {
        let mut pending = self.pending();
        if mem::take(&mut pending.missed) {
            return Some(WatchEvent::Missed);
        }
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

struct Reader(Arc<Hints>);

#[async_trait]
impl Watch for Reader {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.0.take() {
                return Ok(event);
            }
            self.0.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_reads_is_merged_and_what_was_lost_is_said_first() {
        let hints = Arc::new(Hints::default());
        let [a, b] = ["ns/a", "ns/b"].map(|key| key.parse::<RepositoryKey>().unwrap());
        let mut watch = hints.watch();
        for (key, revision) in [(&a, 1), (&b, 7), (&a, 3), (&a, 2)] {
            hints.changed(key, Revision::new(revision));
        }
        for (key, revision) in [(&a, 3), (&b, 7)] {
            let expected = WatchEvent::Changed {
                repository: key.clone(),
                revision: Revision::new(revision),
                snapshot: None,
            };
            assert_eq!(watch.next().await.unwrap(), expected);
        }
        hints.changed(&a, Revision::new(9));
        hints.missed();
        hints.session_died();
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Missed);
        assert_eq!(watch.next().await.unwrap(), WatchEvent::SessionDied);
        assert!(hints.take().is_none());
    }
}
