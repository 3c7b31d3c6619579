//! Hints that drivers send to watchers, merged until the watcher reads them, and the list of those
//! that they are sent to.

mod subscribers;

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
pub use subscribers::Subscribers;
use tokio::sync::Notify;

use crate::driver::{ListFilter, Watch, WatchEvent};
use crate::error::Error;
use crate::name::RepositoryKey;
use crate::state::{Entry, Head, Snapshot};
use crate::value::Revision;

/// The most repositories with an unread hint; beyond that, all become one
/// [`WatchEvent::Missed`].
const MOST_REPOSITORIES: usize = 10_000;

/// The most changed entries kept in one repository's unread hint; beyond that, the hint keeps
/// only the revision.
const MOST_ENTRIES: usize = 1_000;

/// The state that a hint says a repository has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// It is at this revision, or a later one.
    pub revision: Revision,
    /// Runs wait there although the limit admits one more ([`ListFilter::Startable`]).
    pub startable: bool,
}

impl Reached {
    /// The state with this head.
    #[must_use]
    pub fn head(head: &Head) -> Self {
        Self {
            revision: head.revision,
            startable: ListFilter::Startable.passes(head),
        }
    }

    /// A revision alone: whether runs could start is not known, and left to polling.
    #[must_use]
    pub fn revision(revision: Revision) -> Self {
        Self {
            revision,
            startable: false,
        }
    }

    /// The later of two.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if other.revision > self.revision {
            other
        } else {
            self
        }
    }
}

/// The unread hints of one watch: at most one for each repository.
#[derive(Debug, Default)]
pub struct Hints {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// The repositories with an unread hint, in the order of the first unread change.
    order: VecDeque<RepositoryKey>,
    changed: HashMap<RepositoryKey, (Reached, Option<Snapshot>)>,
    session_died: bool,
    missed: bool,
    broken: Option<Error>,
}

impl Hints {
    /// Records that a repository has reached this state or a later one.
    pub fn changed(&self, repository: &RepositoryKey, reached: Reached) {
        self.add(repository, reached, None);
    }

    /// Records that a repository has changed to `snapshot`, which holds the changed entries.
    pub fn changed_to(&self, repository: &RepositoryKey, snapshot: Snapshot) {
        let reached = Reached::head(&snapshot.head);
        self.add(repository, reached, Some(snapshot));
    }

    fn add(&self, repository: &RepositoryKey, reached: Reached, snapshot: Option<Snapshot>) {
        let mut pending = self.pending();
        let known = &mut *pending;
        match known.changed.entry(repository.clone()) {
            Slot::Occupied(mut known) => {
                let (latest, told) = known.get_mut();
                *latest = latest.later(reached);
                let both = told.take().zip(snapshot);
                *told = both.and_then(|(earlier, later)| merged(earlier, later));
            }
            Slot::Vacant(new) => {
                new.insert((reached, snapshot));
                known.order.push_back(repository.clone());
                if known.order.len() > MOST_REPOSITORIES {
                    known.miss();
                }
            }
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// Records that a session has died.
    pub fn session_died(&self) {
        self.pending().session_died = true;
        self.wake.notify_one();
    }

    /// Records that hints were lost. The unread ones are dropped: the watcher has to compare
    /// everything anyway.
    pub fn missed(&self) {
        self.pending().miss();
        self.wake.notify_one();
    }

    /// Records that no more hints will come. Once the watcher has read the rest, it gets the
    /// error `why` and has to open a new watch.
    pub fn broken(&self, why: Error) {
        self.pending().broken.get_or_insert(why);
        self.wake.notify_one();
    }

    /// The reading end of these hints. There must be only one reader: each hint is read once.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Box<dyn Watch> {
        Box::new(Reader(Arc::clone(self)))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // The lock is poisoned by a panic while a hint was recorded: at worst that hint is
        // incomplete.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Result<WatchEvent, Error>> {
        self.pending().take()
    }
}

impl Pending {
    fn miss(&mut self) {
        *self = Self {
            missed: true,
            broken: self.broken.take(),
            ..Self::default()
        };
    }

    fn take(&mut self) -> Option<Result<WatchEvent, Error>> {
        if mem::take(&mut self.missed) {
            return Some(Ok(WatchEvent::Missed));
        }
        if mem::take(&mut self.session_died) {
            return Some(Ok(WatchEvent::SessionDied));
        }
        let Some(repository) = self.order.pop_front() else {
            return self.broken.as_ref().map(|why| Err(why.replicate()));
        };
        let (reached, snapshot) = self.changed.remove(&repository)?;
        Some(Ok(WatchEvent::Changed {
            repository,
            revision: reached.revision,
            startable: reached.startable,
            snapshot,
        }))
    }
}

/// Merges two successive deltas into one. `None` if `later` does not continue from `earlier`, or
/// if together they have too many entries.
#[must_use]
pub fn merged(earlier: Snapshot, later: Snapshot) -> Option<Snapshot> {
    let reached = earlier.head.version();
    let follows = later
        .since
        .is_some_and(|since| !reached.is_rewound_from(since));
    let in_order = earlier.head.revision <= later.head.revision;
    if !follows || !in_order || earlier.entries.len() + later.entries.len() > MOST_ENTRIES {
        return None;
    }
    let mut entries = earlier.entries;
    let replaced = |entry: &Arc<Entry>| later.entries.iter().any(|later| later.run == entry.run);
    entries.retain(|entry| !replaced(entry));
    entries.extend(later.entries);
    Some(Snapshot {
        since: earlier.since,
        entries,
        ..later
    })
}

struct Reader(Arc<Hints>);

#[async_trait]
impl Watch for Reader {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.0.take() {
                return event;
            }
            self.0.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::state::Head;
    use crate::state::testing::queued;
    use crate::value::{Stamp, Version};

    #[tokio::test]
    async fn what_nobody_reads_is_merged_and_what_was_lost_is_said_first() {
        let hints = Arc::new(Hints::default());
        let [a, b] = ["ns/a", "ns/b"].map(|key| key.parse::<RepositoryKey>().unwrap());
        let mut watch = hints.watch();
        for (key, revision) in [(&a, 1), (&b, 7), (&a, 3), (&a, 2)] {
            hints.changed(key, Reached::revision(Revision::new(revision)));
        }
        for (key, revision) in [(&a, 3), (&b, 7)] {
            let expected = WatchEvent::Changed {
                repository: key.clone(),
                revision: Revision::new(revision),
                startable: false,
                snapshot: None,
            };
            assert_eq!(watch.next().await.unwrap(), expected);
        }
        hints.changed(&a, Reached::revision(Revision::new(9)));
        hints.missed();
        hints.session_died();
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Missed);
        assert_eq!(watch.next().await.unwrap(), WatchEvent::SessionDied);
        assert!(hints.take().is_none());
    }

    fn delta(since: u64, to: u64) -> Snapshot {
        let head = Head {
            revision: Revision::new(to),
            ..Head::absent(0)
        };
        Snapshot {
            since: Some(Version::new(Revision::new(since), Stamp::default())),
            exists: true,
            entries: vec![Arc::new(Entry {
                revision: head.revision,
                ..queued(1, 0)
            })],
            head,
        }
    }

    #[tokio::test]
    async fn what_changed_is_merged_as_far_as_it_follows() {
        let hints = Arc::new(Hints::default());
        let key: RepositoryKey = "ns/a".parse().unwrap();
        let mut watch = hints.watch();
        for (deltas, revision, snapshot) in [
            (
                [(1, 4), (4, 7)],
                7,
                Some(Snapshot {
                    since: Some(Version::new(Revision::new(1), Stamp::default())),
                    ..delta(4, 7)
                }),
            ),
            ([(7, 9), (12, 15)], 15, None),
            ([(16, 18), (15, 16)], 18, None),
        ] {
            for (since, to) in deltas {
                hints.changed_to(&key, delta(since, to));
            }
            let expected = WatchEvent::Changed {
                repository: key.clone(),
                revision: Revision::new(revision),
                startable: false,
                snapshot,
            };
            assert_eq!(watch.next().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_told_to_and_hears_of_the_end() {
        let hints = Arc::new(Hints::default());
        let mut watch = hints.watch();
        for n in 0..=MOST_REPOSITORIES {
            let key = format!("ns/repository-{n}").parse().unwrap();
            hints.changed(&key, Reached::revision(Revision::new(1)));
        }
        hints.broken(Error::new(ErrorKind::Unavailable, "watch", "gone"));
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Missed);
        for _ in 0..2 {
            let end = watch.next().await.unwrap_err();
            assert_eq!(end.kind(), ErrorKind::Unavailable);
        }
    }
}
